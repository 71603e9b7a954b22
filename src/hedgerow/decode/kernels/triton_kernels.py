"""The first Triton kernels of a step: they compute the scores of all candidates, and list those that can win.

A candidate is a child of a live beam, and has a key (see `triton_common`). A step with few candidates per request takes
two kernels, `list_children` and `place`; a step with many takes three, `measure_rows`, `shortlist` and `place`.
`triton.py` chooses the kernels and the sizes of their blocks.

Candidates are numbered in the order of the states of their beams. So of equal scores, the smaller SID is better.
"""

# Triton's language is typed at compile time, which type checkers cannot follow.
# pyright: basic, reportArgumentType=false, reportAttributeAccessIssue=false, reportGeneralTypeIssues=false, reportOperatorIssue=false
# ruff: noqa: N803

from __future__ import annotations

import triton
import triton.language as tl

from hedgerow.decode.kernels.triton_common import (
    INF,
    LARGEST_INT,
    after_previous_kernel,
    bounded,
    key_of,
    ordered,
)
from hedgerow.decode.kernels.triton_compact import codes_of, vector_children
from hedgerow.decode.kernels.triton_limits import dead_children, ranks, set_of, unmasked

# Bits of a count of values: a block of Triton has at most 2^20.
FIELD, TWO_FIELDS, FIELD_MASK = tl.constexpr(21), tl.constexpr(42), tl.constexpr(2**21 - 1)


@triton.jit
def _row(logits, row, width, batch_stride, beam_stride):
    """Address of the logits of a row. `row` is int64."""
    return logits + (row // width) * batch_stride + (row % width) * beam_stride


@triton.jit
def _observe(top, total, logits):
    """Update the largest logit and the sum of exponentials relative to it with more logits."""
    largest = tl.maximum(top, tl.max(logits))
    shift = tl.where(largest > -INF, largest, 0.0)
    return largest, total * tl.exp(top - shift) + tl.sum(tl.exp(logits - shift))


@triton.jit
def _normalizer(top, total):
    """The two terms that normalization subtracts from a logit: the largest logit, and the log of the sum."""
    return tl.where(top > -INF, top, 0.0), tl.log(tl.where(total > 0, total, 1.0))


@triton.jit
def _place_of_state(states, row, width, state, WIDTH_BLOCK: tl.constexpr):
    """The place of a beam among the beams of its request, in the order of their states."""
    own = row % width
    place = tl.full([], 0, tl.int32)
    for start in range(0, width, WIDTH_BLOCK):
        beam = start + tl.arange(0, WIDTH_BLOCK)
        other = tl.load(states + (row - own) + beam, mask=beam < width, other=LARGEST_INT)
        before = (other < state) | ((other == state) & (beam < own))
        place += tl.sum((before & (beam < width)).to(tl.int32))
    return place


@triton.jit
def _row_block(logits, start, SIZE: tl.constexpr, BLOCK: tl.constexpr):
    code = start + tl.arange(0, BLOCK)
    return tl.load(logits + code, mask=code < SIZE, other=-INF)


@triton.jit
def _observe_row(logits, first_block, top, total, SIZE: tl.constexpr, BLOCK: tl.constexpr):
    top, total = _observe(top, total, bounded(first_block))
    for start in range(BLOCK, SIZE, BLOCK):
        top, total = _observe(top, total, bounded(_row_block(logits, start, SIZE, BLOCK)))
    return top, total


@triton.jit
def _children(
    pointers, num_pointers, high, state, max_branch,
    SPARSE: tl.constexpr, VECTOR: tl.constexpr, HIGH_BITS: tl.constexpr, FORK_STEPS: tl.constexpr,
    PIVOTS: tl.constexpr,
):  # fmt: skip
    """First child and number of children of a state. A dead state has no children."""
    live = state >= 0
    parent = tl.maximum(state, 0).to(tl.int64)
    if SPARSE:
        first = tl.load(pointers + parent, mask=live, other=0)
        stop = tl.load(pointers + parent + 1, mask=live, other=0)
    elif VECTOR:
        first, stop = vector_children(high, pointers, num_pointers, parent, HIGH_BITS, FORK_STEPS, PIVOTS)
    elif FORK_STEPS > 0:
        before, through = ranks(pointers, num_pointers, parent, FORK_STEPS, PIVOTS)
        first = (parent + before).to(tl.int32)
        stop = (parent + through).to(tl.int32) + 1
    else:
        first = parent.to(tl.int32)
        stop = first + 1
    return first, tl.where(live, tl.minimum(stop - first, max_branch), 0)


@triton.jit
def _candidates(
    child, logits, codes, high, ones_before, num_blocks, allowed, state, first, count,
    SCAN: tl.constexpr, SIZE: tl.constexpr, WORDS: tl.constexpr, LOW_BITS: tl.constexpr, HIGH_BITS: tl.constexpr,
):  # fmt: skip
    """Logits and codes of the candidates `child` of a row, and which of them are children of its state.

    If SCAN, the candidates are all codes, under the bitmap; otherwise the children of the state. For several rows at
    once, `state`, `first` and `count` are [rows, 1].
    """
    if SCAN:
        row_logits = tl.load(logits + child, mask=child < SIZE, other=-INF)
        words = allowed + tl.maximum(state, 0).to(tl.int64) * WORDS
        word = tl.load(words + (child >> 5), mask=child < tl.where(state >= 0, SIZE, 0), other=0)
        valid = ((word >> (child & 31)) & 1) != 0
        code = child
    else:
        valid = child < count
        node = tl.where(valid, first + child, 0)
        code = codes_of(codes, high, ones_before, num_blocks, node, valid, SIZE, LOW_BITS, HIGH_BITS)
        row_logits = tl.load(logits + code, mask=valid, other=-INF)
    return bounded(row_logits), code, valid


@triton.jit(do_not_specialize=["num_pointers", "num_blocks", "width", "max_branch", "set_words", "room"])
def list_children(
    logits, batch_stride, beam_stride, states, scores, codes, pointers, num_pointers, firsts, keys, order, width,
    max_branch, high, ones_before, num_blocks, alive, set_rows, free, set_words, dead_parents, dead_slots, room,
    SETS: tl.constexpr, BITMAP_WORDS: tl.constexpr, DEAD_STEPS: tl.constexpr,
    NORMALIZE: tl.constexpr, SPARSE: tl.constexpr, FORK_STEPS: tl.constexpr, PIVOTS: tl.constexpr,
    VECTOR: tl.constexpr, LOW_BITS: tl.constexpr, HIGH_BITS: tl.constexpr,
    SIZE: tl.constexpr, ROW_BLOCK: tl.constexpr, CHILD_BLOCK: tl.constexpr, WIDTH_BLOCK: tl.constexpr,
    EARLY: tl.constexpr,
):  # fmt: skip
    """One program per row: fill `firsts` [B, m], and `keys` [B, m * K] with all children of the row.

    Also fills `order` [B, m]: the beams of each request in the order of their states.
    """
    after_previous_kernel(EARLY)
    row = tl.program_id(0).to(tl.int64)
    logits = _row(logits, row, width, batch_stride, beam_stride)
    if NORMALIZE == "codes":
        # Loads in the background of the chain of loads that leads to the children.
        first_block = _row_block(logits, 0, SIZE, ROW_BLOCK)
    state = tl.load(states + row)
    score = tl.load(scores + row)
    first, count = _children(
        pointers, num_pointers, high, state, max_branch, SPARSE, VECTOR, HIGH_BITS, FORK_STEPS, PIVOTS
    )
    child = tl.arange(0, CHILD_BLOCK)
    child_logits, code, valid = _candidates(
        child, logits, codes, high, ones_before, num_blocks, codes, state, first, count,
        False, SIZE, 0, LOW_BITS, HIGH_BITS,
    )  # fmt: skip
    request = row // width
    alive, free_word = set_of(alive, set_rows, free, request, set_words, SETS)
    dead_start, dead_stop = dead_children(dead_parents, room, request, state, DEAD_STEPS)
    valid = unmasked(
        valid, state, first, child, code, alive, free_word, dead_slots + request * room, dead_start, dead_stop,
        SETS, BITMAP_WORDS, DEAD_STEPS,
    )  # fmt: skip
    top = tl.full([], -INF, tl.float32)
    total = tl.full([], 0.0, tl.float32)
    if NORMALIZE == "codes":
        top, total = _observe_row(logits, first_block, top, total, SIZE, ROW_BLOCK)
    elif NORMALIZE == "allowed":
        top, total = _observe(top, total, tl.where(valid, child_logits, -INF))
    shift, log_sum = _normalizer(top, total)
    child_scores = tl.where(valid, score + (child_logits - shift - log_sum), -INF)
    beam_place = _place_of_state(states, row, width, state, WIDTH_BLOCK)
    tl.store(order + row - row % width + beam_place, (row % width).to(tl.int32))
    number = beam_place * max_branch + child
    tl.store(keys + row * max_branch + child, key_of(child_scores, number), mask=child < max_branch)
    tl.store(firsts + row, first)


@triton.jit(do_not_specialize=["num_pointers", "num_blocks", "width", "span", "max_branch", "set_words", "room"])
def measure_rows(
    logits, batch_stride, beam_stride, states, scores, codes, pointers, num_pointers, allowed,
    firsts, counts, shifts, log_sums, peaks, numbers, sizes, order, places, width, span, max_branch, high, ones_before,
    num_blocks, alive, set_rows, free, set_words, dead_parents, dead_slots, room, dead_firsts, dead_ends,
    SETS: tl.constexpr, BITMAP_WORDS: tl.constexpr, DEAD_STEPS: tl.constexpr,
    NORMALIZE: tl.constexpr, SPARSE: tl.constexpr, FORK_STEPS: tl.constexpr, PIVOTS: tl.constexpr,
    VECTOR: tl.constexpr, LOW_BITS: tl.constexpr, HIGH_BITS: tl.constexpr,
    SCAN: tl.constexpr, SIZE: tl.constexpr, WORDS: tl.constexpr,
    ROW_BLOCK: tl.constexpr, BLOCK: tl.constexpr, GROUPS: tl.constexpr, WIDTH_BLOCK: tl.constexpr,
    EARLY: tl.constexpr,
):  # fmt: skip
    """One program per row: its children, its normalizer, and `peaks` and `numbers` [B, m, GROUPS].

    The candidates of a row are divided into GROUPS groups in turn. The peak of a group is its best score, as an ordered
    integer, and its number is that of the first candidate with this score. The best M candidates of a request lie in
    the M groups with the best peaks (of equal peaks, the smallest numbers).
    """
    after_previous_kernel(EARLY)
    row = tl.program_id(0).to(tl.int64)
    logits = _row(logits, row, width, batch_stride, beam_stride)
    if NORMALIZE == "codes" and not SCAN:
        first_block = _row_block(logits, 0, SIZE, ROW_BLOCK)
    state = tl.load(states + row)
    score = tl.load(scores + row)
    first, count = _children(
        pointers, num_pointers, high, state, max_branch, SPARSE, VECTOR, HIGH_BITS, FORK_STEPS, PIVOTS
    )
    request = row // width
    alive, free_word = set_of(alive, set_rows, free, request, set_words, SETS)
    dead_start, dead_stop = dead_children(dead_parents, room, request, state, DEAD_STEPS)
    if DEAD_STEPS > 0:
        tl.store(dead_firsts + row + tl.arange(0, 1), dead_start)
        tl.store(dead_ends + row + tl.arange(0, 1), dead_stop)
    stop = SIZE if SCAN else count
    top = tl.full([], -INF, tl.float32)
    total = tl.full([], 0.0, tl.float32)
    best = tl.full([BLOCK], -INF, tl.float32)
    for start in range(0, stop, BLOCK):
        child = start + tl.arange(0, BLOCK)
        child_logits, code, valid = _candidates(
            child, logits, codes, high, ones_before, num_blocks, allowed, state, first, count,
            SCAN, SIZE, WORDS, LOW_BITS, HIGH_BITS,
        )  # fmt: skip
        valid = unmasked(
            valid, state, first, child, code, alive, free_word, dead_slots + request * room, dead_start, dead_stop,
            SETS, BITMAP_WORDS, DEAD_STEPS,
        )  # fmt: skip
        masked = tl.where(valid, child_logits, -INF)
        best = tl.maximum(best, masked)
        if NORMALIZE == "allowed":
            top, total = _observe(top, total, masked)
        elif NORMALIZE == "codes" and SCAN:
            top, total = _observe(top, total, child_logits)
    if NORMALIZE == "codes" and not SCAN:
        top, total = _observe_row(logits, first_block, top, total, SIZE, ROW_BLOCK)
    shift, log_sum = _normalizer(top, total)
    # Rounding keeps the order, so the best logit of a group gives exactly its best score.
    best = tl.max(tl.reshape(best, (BLOCK // GROUPS, GROUPS)), axis=0)
    peak = score + (best - shift - log_sum)
    lane_peak = tl.reshape(tl.broadcast_to(peak[None, :], (BLOCK // GROUPS, GROUPS)), (BLOCK,))
    earliest = tl.full([BLOCK], LARGEST_INT, tl.int32)
    # Different logits may give equal scores, so the first candidate is found by its score.
    for start in range(0, stop, BLOCK):
        child = start + tl.arange(0, BLOCK)
        child_logits, code, valid = _candidates(
            child, logits, codes, high, ones_before, num_blocks, allowed, state, first, count,
            SCAN, SIZE, WORDS, LOW_BITS, HIGH_BITS,
        )  # fmt: skip
        valid = unmasked(
            valid, state, first, child, code, alive, free_word, dead_slots + request * room, dead_start, dead_stop,
            SETS, BITMAP_WORDS, DEAD_STEPS,
        )  # fmt: skip
        reaches = valid & (score + (child_logits - shift - log_sum) >= lane_peak)
        earliest = tl.minimum(earliest, tl.where(reaches, child, LARGEST_INT))
    earliest = tl.min(tl.reshape(earliest, (BLOCK // GROUPS, GROUPS)), axis=0)
    place = _place_of_state(states, row, width, state, WIDTH_BLOCK)
    group = row * GROUPS + tl.arange(0, GROUPS)
    tl.store(peaks + group, ordered(peak))
    tl.store(numbers + group, tl.where(earliest < LARGEST_INT, place * span + earliest, LARGEST_INT))
    tl.store(order + row - row % width + place, (row % width).to(tl.int32))
    tl.store(places + row, place)
    tl.store(firsts + row, first)
    tl.store(counts + row, count)
    tl.store(shifts + row, shift)
    tl.store(log_sums + row, log_sum)
    tl.store(sizes + row // width, 0, mask=row % width == 0)


@triton.jit
def _unsigned(values):
    """Int32 as uint32 of the same order, in which differences do not overflow."""
    return values.to(tl.uint32, bitcast=True) ^ 0x80000000


@triton.jit
def _narrow(values, low, high, reached, wanted):
    """The largest threshold from `low` to `high` that `wanted` values reach, and how many reach it; all of them uint32.

    Each round counts the values that reach three thresholds, in one sum of three fields, and leaves a quarter of the
    range. It stops at the first threshold that exactly `wanted` values reach. `reached` is the number for `low`.
    """
    while (low < high) & (reached > wanted):
        width = high - low
        part = (width >> 2) + 1
        first = low + tl.minimum(part, width)
        second = low + tl.minimum(part * 2, width)
        third = low + tl.minimum(part * 3, width)
        fields = (values >= first).to(tl.int64) + ((values >= second).to(tl.int64) << FIELD)
        counts = tl.sum(fields + ((values >= third).to(tl.int64) << TWO_FIELDS))
        first_count = (counts & FIELD_MASK).to(tl.int32)
        second_count = ((counts >> FIELD) & FIELD_MASK).to(tl.int32)
        third_count = (counts >> TWO_FIELDS).to(tl.int32)
        high = tl.where(third_count >= wanted, high, third - 1)
        high = tl.where(second_count >= wanted, high, second - 1)
        high = tl.where(first_count >= wanted, high, first - 1)
        reached = tl.where(first_count >= wanted, first_count, reached)
        reached = tl.where(second_count >= wanted, second_count, reached)
        reached = tl.where(third_count >= wanted, third_count, reached)
        low = tl.where(first_count >= wanted, first, low)
        low = tl.where(second_count >= wanted, second, low)
        low = tl.where(third_count >= wanted, third, low)
    return low, reached


@triton.jit
def _threshold(peaks, wanted):
    """A threshold that `wanted` peaks reach, or more if peaks are equal. If fewer peaks are live, all of them reach it.

    Also returns how many reach it.
    """
    dead = ordered(tl.full([], -INF, tl.float32))
    reached = tl.sum((peaks > dead).to(tl.int32))
    low = tl.min(tl.where(peaks > dead, peaks, LARGEST_INT))
    # With fewer live groups than wanted, all candidates are kept, not only those as good as the peaks.
    low = tl.where(reached < wanted, dead + 1, low)
    low, reached = _narrow(_unsigned(peaks), _unsigned(low), _unsigned(tl.max(peaks)), reached, wanted)
    return _unsigned(low).to(tl.int32, bitcast=True), reached


@triton.jit
def _last_number(numbers, wanted):
    """A number that exactly `wanted` of the numbers do not exceed. Numbers below LARGEST_INT are distinct."""
    values = (numbers ^ LARGEST_INT).to(tl.uint32, bitcast=True)
    low = tl.full([], 0, tl.uint32)
    high = low + LARGEST_INT
    low, _ = _narrow(values, low, high, tl.full([], LARGEST_INT, tl.int32), wanted)
    return low.to(tl.int32, bitcast=True) ^ LARGEST_INT


@triton.jit(do_not_specialize=["num_blocks", "width", "span", "beam_width", "capacity", "set_words", "room"])
def shortlist(
    logits, batch_stride, beam_stride, states, scores, codes, allowed, firsts, counts, shifts, log_sums, peaks, numbers,
    sizes, places, keys, width, span, beam_width, capacity,
    high, ones_before, num_blocks, alive, set_rows, free, set_words, dead_slots, room, dead_firsts, dead_ends,
    SETS: tl.constexpr, BITMAP_WORDS: tl.constexpr, DEAD_STEPS: tl.constexpr,
    LOW_BITS: tl.constexpr, HIGH_BITS: tl.constexpr,
    SCAN: tl.constexpr, SIZE: tl.constexpr, WORDS: tl.constexpr,
    ROWS: tl.constexpr, BLOCK: tl.constexpr, GROUPS: tl.constexpr, PEAKS: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """A few programs per request, each for some rows, ROWS at a time: append candidates that can win to `keys`.

    `keys` is [B, capacity]. The new beams lie in the `beam_width` groups with the best peaks (of equal peaks, the
    smallest numbers), and their scores reach the smallest of these peaks.
    """
    after_previous_kernel(EARLY)
    request = tl.program_id(0).to(tl.int64)
    peaks += request * width * GROUPS
    numbers += request * width * GROUPS
    group = tl.arange(0, PEAKS)
    all_peaks = tl.load(peaks + group, mask=group < width * GROUPS, other=-LARGEST_INT)
    least, reached = _threshold(all_peaks, beam_width)
    last_number = tl.full([], 0, tl.int32) + LARGEST_INT
    if reached > beam_width:
        number = tl.load(numbers + group, mask=group < width * GROUPS, other=LARGEST_INT)
        ties_wanted = beam_width - tl.sum((all_peaks > least).to(tl.int32))
        last_number = _last_number(tl.where(all_peaks == least, number, LARGEST_INT), ties_wanted)
    alive, free_word = set_of(alive, set_rows, free, request, set_words, SETS)
    for start_beam in range(tl.program_id(1) * ROWS, width, tl.num_programs(1) * ROWS):
        beam = start_beam + tl.arange(0, ROWS)[:, None]
        inside = beam < width
        own = tl.load(peaks + beam * GROUPS + tl.arange(0, GROUPS)[None, :], mask=inside, other=-LARGEST_INT)
        if tl.max(own) >= least:
            number = tl.load(numbers + beam * GROUPS + tl.arange(0, GROUPS)[None, :], mask=inside, other=LARGEST_INT)
            chosen = (own > least) | ((own == least) & (number <= last_number))
            chosen = tl.broadcast_to(chosen.to(tl.int32)[:, None, :], (ROWS, BLOCK // GROUPS, GROUPS))
            chosen = tl.reshape(chosen, (ROWS, BLOCK)) > 0
            row = request * width + beam
            state = tl.load(states + row, mask=inside, other=-1)
            score = tl.load(scores + row, mask=inside, other=-INF)
            first = tl.load(firsts + row, mask=inside, other=0)
            count = tl.load(counts + row, mask=inside, other=0)
            shift = tl.load(shifts + row, mask=inside, other=0.0)
            log_sum = tl.load(log_sums + row, mask=inside, other=0.0)
            beam_place = tl.load(places + row, mask=inside, other=0)
            own_logits = _row(logits, tl.where(inside, row, 0), width, batch_stride, beam_stride)
            dead_start = 0
            dead_stop = 0
            if DEAD_STEPS > 0:
                dead_start = tl.load(dead_firsts + row, mask=inside, other=0)
                dead_stop = tl.load(dead_ends + row, mask=inside, other=0)
            stop = SIZE if SCAN else tl.max(count)
            for start in range(0, stop, BLOCK):
                child = start + tl.arange(0, BLOCK)[None, :]
                child_logits, code, valid = _candidates(
                    child, own_logits, codes, high, ones_before, num_blocks, allowed, state, first, count,
                    SCAN, SIZE, WORDS, LOW_BITS, HIGH_BITS,
                )  # fmt: skip
                valid = unmasked(
                    valid, state, first, child, code, alive, free_word, dead_slots + request * room,
                    dead_start, dead_stop, SETS, BITMAP_WORDS, DEAD_STEPS,
                )  # fmt: skip
                child_scores = score + (child_logits - shift - log_sum)
                kept = valid & chosen & (child_scores > -INF) & (ordered(child_scores) >= least)
                ordinal = tl.reshape(tl.cumsum(tl.reshape(kept.to(tl.int32), (ROWS * BLOCK,)), 0), (ROWS, BLOCK))
                base = tl.atomic_add(sizes + request, tl.max(ordinal))
                key = key_of(child_scores, beam_place * span + child)
                tl.store(keys + request * capacity + base + ordinal - 1, key, mask=kept)
