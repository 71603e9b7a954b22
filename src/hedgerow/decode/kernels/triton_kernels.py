"""The kernels of the step on a GPU. Which are run, and how large their blocks are, is `decode/triton.py`'s to say.

A candidate is a child of a live beam. It is one int64 key: its score above, in an integer of the same order, and below
it its number, inverted; so keys are distinct, and the larger key is the better candidate. A step is two kernels where
a request has few candidates (`list_children`, `place`), three where it has many (`measure_rows`, `shortlist`, `place`).
No kernel sorts: a candidate's place among the new beams is the number of candidates that beat it.
"""

# Triton's language is typed at compile time, by values no checker of Python can follow.
# pyright: basic, reportArgumentType=false, reportAttributeAccessIssue=false, reportGeneralTypeIssues=false
# ruff: noqa: N803

from __future__ import annotations

import triton
import triton.language as tl

from hedgerow.decode.kernels.array import INF as INFINITY
from hedgerow.decode.kernels.array import LARGEST as LARGEST_LOGIT
from hedgerow.decode.kernels.triton_limits import dead_children, ranks, set_of, shown

INF = tl.constexpr(INFINITY)
LARGEST = tl.constexpr(LARGEST_LOGIT)
LARGEST_INT = tl.constexpr(2**31 - 1)
LOW_BITS = tl.constexpr(2**32 - 1)
LEAST_KEY = tl.constexpr(-(2**63))


@triton.jit
def _bounded(logits):
    """As the definition has it: NaN is -inf, +inf and what is beyond +-LARGEST is +-LARGEST, -inf stays."""
    wide = logits.to(tl.float32)
    return tl.where(wide > -INF, tl.minimum(tl.maximum(wide, -LARGEST), LARGEST), -INF)


@triton.jit
def _ordered(score):
    """A float32 as an int32 of the same order."""
    bits = score.to(tl.int32, bitcast=True)
    return bits ^ ((bits >> 31) & LARGEST_INT)


@triton.jit
def _key(score, number):
    return (_ordered(score).to(tl.int64) << 32) | (number.to(tl.int64) ^ LOW_BITS)


@triton.jit
def _score_of(key):
    bits = (key >> 32).to(tl.int32)
    return (bits ^ ((bits >> 31) & LARGEST_INT)).to(tl.float32, bitcast=True)


@triton.jit
def _number_of(key):
    return ((key & LOW_BITS) ^ LOW_BITS).to(tl.int32)


@triton.jit
def _row(logits, row, width, batch_stride, beam_stride):
    """Where the logits of a row begin; `row` is 64 bits wide."""
    return logits + (row // width) * batch_stride + (row % width) * beam_stride


@triton.jit
def _observe(top, total, logits):
    """Takes more logits into the largest so far, and into the sum of exponentials above it."""
    largest = tl.maximum(top, tl.max(logits))
    shift = tl.where(largest > -INF, largest, 0.0)
    return largest, total * tl.exp(top - shift) + tl.sum(tl.exp(logits - shift))


@triton.jit
def _normalizer(top, total):
    """What the definition takes from a logit, as its two terms: the largest logit, and the log of the sum."""
    return tl.where(top > -INF, top, 0.0), tl.log(tl.where(total > 0, total, 1.0))


@triton.jit
def _row_block(logits, start, SIZE: tl.constexpr, BLOCK: tl.constexpr):
    code = start + tl.arange(0, BLOCK)
    return tl.load(logits + code, mask=code < SIZE, other=-INF)


@triton.jit
def _observe_row(logits, first_block, top, total, SIZE: tl.constexpr, BLOCK: tl.constexpr):
    top, total = _observe(top, total, _bounded(first_block))
    for start in range(BLOCK, SIZE, BLOCK):
        top, total = _observe(top, total, _bounded(_row_block(logits, start, SIZE, BLOCK)))
    return top, total


@triton.jit
def _children(
    pointers, num_pointers, state, max_branch, SPARSE: tl.constexpr, FORK_STEPS: tl.constexpr, PIVOTS: tl.constexpr
):
    """The first child of a state, and how many it has; a dead one has none."""
    live = state >= 0
    parent = tl.maximum(state, 0).to(tl.int64)
    if SPARSE:
        first = tl.load(pointers + parent, mask=live, other=0)
        end = tl.load(pointers + parent + 1, mask=live, other=0)
    elif FORK_STEPS > 0:
        before, through = ranks(pointers, num_pointers, parent, FORK_STEPS, PIVOTS)
        first = (parent + before).to(tl.int32)
        end = (parent + through).to(tl.int32) + 1
    else:
        first = parent.to(tl.int32)
        end = first + 1
    return first, tl.where(live, tl.minimum(end - first, max_branch), 0)


@triton.jit
def _codes(codes, nodes, mask, SIZE: tl.constexpr):
    """The codes of nodes; PyTorch holds 16-bit codes as signed numbers."""
    found = tl.load(codes + nodes.to(tl.int64), mask=mask, other=0).to(tl.int32)
    if SIZE <= 65536:
        found = found & 65535
    return found


@triton.jit
def _candidates(
    at, logits, codes, allowed, state, first, count, SCAN: tl.constexpr, SIZE: tl.constexpr, WORDS: tl.constexpr
):
    """The logits of the candidates `at` of a row, their codes, and which are its children; for rows, [rows, 1] each.

    Candidates are all codes, under the bitmap, where SCAN; else they are the row's own children.
    """
    if SCAN:
        found = tl.load(logits + at, mask=at < SIZE, other=-INF)
        words = allowed + tl.maximum(state, 0).to(tl.int64) * WORDS
        word = tl.load(words + (at >> 5), mask=at < tl.where(state >= 0, SIZE, 0), other=0)
        valid = ((word >> (at & 31)) & 1) != 0
        code = at
    else:
        valid = at < count
        code = _codes(codes, first + at, valid, SIZE)
        found = tl.load(logits + code, mask=valid, other=-INF)
    return _bounded(found), code, valid


@triton.jit(do_not_specialize=["num_pointers", "width", "max_branch", "set_words", "room"])
def list_children(
    logits, batch_stride, beam_stride, states, scores, codes, pointers, num_pointers, firsts, keys, width, max_branch,
    alive, set_rows, free, set_words, dead_parents, dead_slots, room,
    SETS: tl.constexpr, BITMAP_WORDS: tl.constexpr, DEAD_STEPS: tl.constexpr,
    NORMALIZE: tl.constexpr, SPARSE: tl.constexpr, FORK_STEPS: tl.constexpr, PIVOTS: tl.constexpr,
    SIZE: tl.constexpr, ROW_BLOCK: tl.constexpr, CHILD_BLOCK: tl.constexpr,
):  # fmt: skip
    """One program a row: fills `firsts` [B, m], and `keys` [B, m * K] with all children of the row."""
    row = tl.program_id(0).to(tl.int64)
    logits = _row(logits, row, width, batch_stride, beam_stride)
    if NORMALIZE == "codes":
        # On its way while the chain of loads that leads to the children is followed.
        first_block = _row_block(logits, 0, SIZE, ROW_BLOCK)
    state = tl.load(states + row)
    score = tl.load(scores + row)
    first, count = _children(pointers, num_pointers, state, max_branch, SPARSE, FORK_STEPS, PIVOTS)
    child = tl.arange(0, CHILD_BLOCK)
    found, code, valid = _candidates(child, logits, codes, codes, state, first, count, False, SIZE, 0)
    request = row // width
    alive, every = set_of(alive, set_rows, free, request, set_words, SETS)
    before, through = dead_children(dead_parents, room, request, state, DEAD_STEPS)
    valid = shown(
        valid, state, first, child, code, alive, every, dead_slots + request * room, before, through,
        SETS, BITMAP_WORDS, DEAD_STEPS,
    )  # fmt: skip
    top = tl.full([], -INF, tl.float32)
    total = tl.full([], 0.0, tl.float32)
    if NORMALIZE == "codes":
        top, total = _observe_row(logits, first_block, top, total, SIZE, ROW_BLOCK)
    elif NORMALIZE == "allowed":
        top, total = _observe(top, total, tl.where(valid, found, -INF))
    shift, log_sum = _normalizer(top, total)
    found = tl.where(valid, score + (found - shift - log_sum), -INF)
    number = (row % width) * max_branch + child
    tl.store(keys + row * max_branch + child, _key(found, number), mask=child < max_branch)
    tl.store(firsts + row, first)


@triton.jit(do_not_specialize=["num_pointers", "width", "max_branch", "set_words", "room"])
def measure_rows(
    logits, batch_stride, beam_stride, states, scores, codes, pointers, num_pointers, allowed,
    firsts, counts, shifts, log_sums, peaks, sizes, width, max_branch,
    alive, set_rows, free, set_words, dead_parents, dead_slots, room, dead_firsts, dead_ends,
    SETS: tl.constexpr, BITMAP_WORDS: tl.constexpr, DEAD_STEPS: tl.constexpr,
    NORMALIZE: tl.constexpr, SPARSE: tl.constexpr, FORK_STEPS: tl.constexpr, PIVOTS: tl.constexpr,
    SCAN: tl.constexpr, SIZE: tl.constexpr, WORDS: tl.constexpr,
    ROW_BLOCK: tl.constexpr, BLOCK: tl.constexpr, GROUPS: tl.constexpr,
):  # fmt: skip
    """One program a row: its children, its normaliser, and `peaks` [B, m, GROUPS].

    A row's candidates are dealt out to GROUPS groups in turn; a peak is the best score of a group, ordered. The best M
    candidates of a request lie in the M groups whose peaks are best.
    """
    row = tl.program_id(0).to(tl.int64)
    logits = _row(logits, row, width, batch_stride, beam_stride)
    if NORMALIZE == "codes" and not SCAN:
        first_block = _row_block(logits, 0, SIZE, ROW_BLOCK)
    state = tl.load(states + row)
    score = tl.load(scores + row)
    first, count = _children(pointers, num_pointers, state, max_branch, SPARSE, FORK_STEPS, PIVOTS)
    request = row // width
    alive, every = set_of(alive, set_rows, free, request, set_words, SETS)
    before, through = dead_children(dead_parents, room, request, state, DEAD_STEPS)
    if DEAD_STEPS > 0:
        tl.store(dead_firsts + row + tl.arange(0, 1), before)
        tl.store(dead_ends + row + tl.arange(0, 1), through)
    end = SIZE if SCAN else count
    top = tl.full([], -INF, tl.float32)
    total = tl.full([], 0.0, tl.float32)
    best = tl.full([BLOCK], -INF, tl.float32)
    for start in range(0, end, BLOCK):
        at = start + tl.arange(0, BLOCK)
        found, code, valid = _candidates(at, logits, codes, allowed, state, first, count, SCAN, SIZE, WORDS)
        valid = shown(
            valid, state, first, at, code, alive, every, dead_slots + request * room, before, through,
            SETS, BITMAP_WORDS, DEAD_STEPS,
        )  # fmt: skip
        masked = tl.where(valid, found, -INF)
        best = tl.maximum(best, masked)
        if NORMALIZE == "allowed":
            top, total = _observe(top, total, masked)
        elif NORMALIZE == "codes" and SCAN:
            top, total = _observe(top, total, found)
    if NORMALIZE == "codes" and not SCAN:
        top, total = _observe_row(logits, first_block, top, total, SIZE, ROW_BLOCK)
    shift, log_sum = _normalizer(top, total)
    # Rounding keeps order, so the best logit of a group has its best score, to the last bit.
    best = tl.max(tl.reshape(best, (BLOCK // GROUPS, GROUPS)), axis=0)
    tl.store(peaks + row * GROUPS + tl.arange(0, GROUPS), _ordered(score + (best - shift - log_sum)))
    tl.store(firsts + row, first)
    tl.store(counts + row, count)
    tl.store(shifts + row, shift)
    tl.store(log_sums + row, log_sum)
    tl.store(sizes + row // width, 0, mask=row % width == 0)


@triton.jit
def _threshold(peaks, wanted):
    """A t that `wanted` of the peaks reach, or more only where they tie; one that all live peaks reach if fewer do.

    Bisection, which stops at any t that just as many as wanted reach.
    """
    dead = _ordered(tl.full([], -INF, tl.float32))
    low = tl.min(tl.where(peaks > dead, peaks, LARGEST_INT)).to(tl.int64)
    high = tl.max(peaks).to(tl.int64)
    reached = tl.sum((peaks > dead).to(tl.int32))
    # With a group to spare, all candidates are wanted, not only those as good as the peaks.
    low = tl.where(reached < wanted, dead.to(tl.int64) + 1, low)
    while (low < high) & (reached > wanted):
        middle = (low + high + 1) >> 1
        count = tl.sum((peaks >= middle).to(tl.int32))
        enough = count >= wanted
        low = tl.where(enough, middle, low)
        reached = tl.where(enough, count, reached)
        high = tl.where(enough, high, middle - 1)
    return low.to(tl.int32)


@triton.jit
def _chosen(own, peaks, group, earlier_groups, least, ties_wanted, ROWS: tl.constexpr, GROUPS: tl.constexpr):
    """Which groups of some rows are among the best: all above the least peak, and as many of the ties as are wanted."""
    # Read once more, rather than held in registers all the while.
    earlier = tl.load(peaks + group, mask=group < earlier_groups, other=-LARGEST_INT)
    tied = tl.reshape((own == least).to(tl.int32), (ROWS * GROUPS,))
    tie = tl.reshape(tl.sum((earlier == least).to(tl.int32)) + tl.cumsum(tied, 0), (ROWS, GROUPS))
    return (own > least) | ((own == least) & (tie <= ties_wanted))


@triton.jit(do_not_specialize=["width", "span", "beam_width", "capacity", "set_words", "room"])
def shortlist(
    logits, batch_stride, beam_stride, states, scores, codes, allowed, firsts, counts, shifts, log_sums, peaks, sizes,
    keys, width, span, beam_width, capacity,
    alive, set_rows, free, set_words, dead_slots, room, dead_firsts, dead_ends,
    SETS: tl.constexpr, BITMAP_WORDS: tl.constexpr, DEAD_STEPS: tl.constexpr,
    SCAN: tl.constexpr, SIZE: tl.constexpr, WORDS: tl.constexpr,
    ROWS: tl.constexpr, BLOCK: tl.constexpr, GROUPS: tl.constexpr, PEAKS: tl.constexpr,
):  # fmt: skip
    """A few programs a request, each for some rows, ROWS at a time: appends to `keys` [B, capacity] what may win.

    Winners lie in the `beam_width` groups with the best peaks (of equal peaks the first), and reach the least of these.
    """
    request = tl.program_id(0).to(tl.int64)
    peaks += request * width * GROUPS
    group = tl.arange(0, PEAKS)
    every = tl.load(peaks + group, mask=group < width * GROUPS, other=-LARGEST_INT)
    least = _threshold(every, beam_width)
    ties_wanted = beam_width - tl.sum((every > least).to(tl.int32))
    alive, unbound = set_of(alive, set_rows, free, request, set_words, SETS)
    for start_beam in range(tl.program_id(1) * ROWS, width, tl.num_programs(1) * ROWS):
        beam = start_beam + tl.arange(0, ROWS)[:, None]
        inside = beam < width
        own = tl.load(peaks + beam * GROUPS + tl.arange(0, GROUPS)[None, :], mask=inside, other=-LARGEST_INT)
        if tl.max(own) >= least:
            chosen = _chosen(own, peaks, group, start_beam * GROUPS, least, ties_wanted, ROWS, GROUPS)
            chosen = tl.broadcast_to(chosen.to(tl.int32)[:, None, :], (ROWS, BLOCK // GROUPS, GROUPS))
            chosen = tl.reshape(chosen, (ROWS, BLOCK)) > 0
            row = request * width + beam
            state = tl.load(states + row, mask=inside, other=-1)
            score = tl.load(scores + row, mask=inside, other=-INF)
            first = tl.load(firsts + row, mask=inside, other=0)
            count = tl.load(counts + row, mask=inside, other=0)
            shift = tl.load(shifts + row, mask=inside, other=0.0)
            log_sum = tl.load(log_sums + row, mask=inside, other=0.0)
            own_logits = _row(logits, tl.where(inside, row, 0), width, batch_stride, beam_stride)
            before = 0
            through = 0
            if DEAD_STEPS > 0:
                before = tl.load(dead_firsts + row, mask=inside, other=0)
                through = tl.load(dead_ends + row, mask=inside, other=0)
            end = SIZE if SCAN else tl.max(count)
            for start in range(0, end, BLOCK):
                at = start + tl.arange(0, BLOCK)[None, :]
                found, code, valid = _candidates(at, own_logits, codes, allowed, state, first, count, SCAN, SIZE, WORDS)
                valid = shown(
                    valid, state, first, at, code, alive, unbound, dead_slots + request * room, before, through,
                    SETS, BITMAP_WORDS, DEAD_STEPS,
                )  # fmt: skip
                found = score + (found - shift - log_sum)
                kept = valid & chosen & (found > -INF) & (_ordered(found) >= least)
                place = tl.reshape(tl.cumsum(tl.reshape(kept.to(tl.int32), (ROWS * BLOCK,)), 0), (ROWS, BLOCK))
                base = tl.atomic_add(sizes + request, tl.max(place))
                key = _key(found, beam * span + at)
                tl.store(keys + request * capacity + base + place - 1, key, mask=kept)


@triton.jit
def _bits_set(words):
    """Counts bits in halves, quarters and bytes: the language has no such operation."""
    words = words - ((words >> 1) & 0x55555555)
    words = (words & 0x33333333) + ((words >> 2) & 0x33333333)
    words = (words + (words >> 4)) & 0x0F0F0F0F
    return (words * 0x01010101) >> 24


@triton.jit
def _codes_below(allowed, state, code, mask, WORDS: tl.constexpr, BLOCK: tl.constexpr):
    """How many codes that each state allows lie below a code."""
    rank = tl.zeros_like(code)
    for start in range(0, WORDS, BLOCK):
        word = start + tl.arange(0, BLOCK)
        at = allowed + state.to(tl.int64)[:, None] * WORDS + word[None, :]
        words = tl.load(at, mask=mask[:, None] & (word < WORDS)[None, :], other=0)
        below = tl.minimum(tl.maximum(code[:, None] - word[None, :] * 32, 0), 32)
        # A shift by 32 is not defined, so the whole word is a case of its own.
        low = tl.where(below == 32, -1, (1 << (below & 31)) - 1)
        rank += tl.sum(_bits_set(words & low), axis=1)
    return rank


@triton.jit
def _rank(keys, size, mine, beam_width, TILE: tl.constexpr):
    """How many keys are larger than each of `mine`; no further than all of these are known to lose."""
    beaten = tl.zeros([mine.shape[0], TILE], tl.int32)
    rank = tl.zeros([mine.shape[0]], tl.int32)
    least = tl.min(rank)
    start = tl.full([], 0, tl.int32)
    while (start < size) & (least < beam_width):
        at = start + tl.arange(0, TILE)
        theirs = tl.load(keys + at, mask=at < size, other=LEAST_KEY)
        beaten += (theirs[None, :] > mine[:, None]).to(tl.int32)
        rank = tl.sum(beaten, axis=1)
        least = tl.min(rank)
        start += TILE
    return rank


@triton.jit(do_not_specialize=["capacity", "width", "span", "beam_width", "depth"])
def place(
    keys, sizes, capacity, firsts, states, codes, allowed, history,
    new_codes, new_scores, new_states, new_parents, width, span, beam_width, depth,
    COUNTED: tl.constexpr, SCAN: tl.constexpr, SIZE: tl.constexpr, WORDS: tl.constexpr, WORD_BLOCK: tl.constexpr,
    DEPTH_BLOCK: tl.constexpr, OWN: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Each program ranks OWN candidates of a request among all of it; the best M write themselves to their places."""
    request = tl.program_id(0).to(tl.int64)
    keys += request * capacity
    size = capacity
    if COUNTED:
        size = tl.load(sizes + request)
    for start in range(tl.program_id(1) * OWN, tl.maximum(size, beam_width), tl.num_programs(1) * OWN):
        at = start + tl.arange(0, OWN)
        listed = at < size
        mine = tl.load(keys + at, mask=listed, other=LEAST_KEY)
        score = tl.where(listed, _score_of(mine), -INF)
        live = score > -INF
        number = _number_of(mine)
        parent = tl.where(live, number // span, 0)
        child = number - parent * span
        # All that a winner needs is asked for before it is known who wins, so that no load is waited for after that.
        before = request * width + parent
        node = tl.load(firsts + before, mask=live, other=0)
        if SCAN:
            code = child
            state = tl.load(states + before, mask=live, other=0)
            node += _codes_below(allowed, state, code, live, WORDS, WORD_BLOCK)
        else:
            node += child
            code = _codes(codes, node, live, SIZE)
        if DEPTH_BLOCK > 0:
            level = tl.arange(0, DEPTH_BLOCK)[None, :]
            taken = tl.load(history + before[:, None] * depth + level, mask=live[:, None] & (level < depth), other=-1)
        # Places that no candidate takes are those from `size` on.
        rank = tl.where(listed, _rank(keys, size, mine, beam_width, TILE), at)
        kept = rank < beam_width
        after = request * beam_width + rank
        tl.store(new_scores + after, score, mask=kept)
        tl.store(new_states + after, tl.where(live, node, -1), mask=kept)
        tl.store(new_parents + after, parent, mask=kept)
        tl.store(new_codes + after * (depth + 1) + depth, tl.where(live, code, -1), mask=kept)
        if DEPTH_BLOCK > 0:
            tl.store(new_codes + after[:, None] * (depth + 1) + level, taken, mask=kept[:, None] & (level < depth))
