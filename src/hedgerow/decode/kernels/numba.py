"""The step as a Numba kernel, for NumPy arrays and PyTorch tensors of a CPU.

Two passes. Over rows (a row is one beam of one request): the row's largest logit and normaliser, vectorised. Over
requests: the children of each row compete for a heap of the M best. Rows come best first, so the heap fills with
good candidates at once; a row, or on a dense level a word of 32 codes, is then skipped whole where even its largest
logit would not enter. Loops run over each row's own children, so a fat node costs its own rows alone. Whether a child
is in the request's set, and not excluded, is asked of those alone that would enter.
"""

# pyright: reportCallIssue=false

from __future__ import annotations

import math
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from numba import njit, prange

from hedgerow.decode.beams import DEAD, Beams
from hedgerow.decode.device import DeviceLevel
from hedgerow.decode.kernels.array import LARGEST as LARGEST_LOGIT
from hedgerow.decode.kernels.array import StepInput, bounded
from hedgerow.decode.kernels.instructions import count_bits, larger, lowest_bit, power_of_two
from hedgerow.decode.kernels.threads import at_work
from hedgerow.decode.ops import to_numpy
from hedgerow.decode.prepared import LevelConstraints
from hedgerow.index.level import WORD_BITS

LARGEST = np.float32(LARGEST_LOGIT)
NEGATIVE_INF = np.float32(-np.inf)
LOG2_E = np.float32(1.4426950408889634)
LN2_HIGH = np.float32(0.693359375)
LN2_LOW = np.float32(-2.12194440e-4)
# Below this, exp() is less than the last bit of a sum that holds exp(0).
SMALLEST = np.float32(-87.0)
CODES, ALLOWED, GIVEN = 0, 1, 2
NORMALIZERS = {"codes": CODES, "allowed": ALLOWED, None: GIVEN}
UNARY, SPARSE, FORKED = 0, 1, 2
NOTHING, NO_WORDS, NO_LIST = np.zeros(1, np.int32), np.zeros((1, 0), np.uint32), np.zeros((1, 0), np.int32)
# Reductions are vectorised only where the order of additions is free; NaN is gone before they run.
REDUCE = {"nnan", "nsz", "reassoc", "contract"}


@njit(inline="always")
def _bounded(logit):
    """As the definition has it: NaN is -inf, +inf and what is beyond +-LARGEST is +-LARGEST, -inf stays."""
    if logit > NEGATIVE_INF:
        return min(max(logit, -LARGEST), LARGEST)
    return NEGATIVE_INF


@njit(inline="always")
def _exp(x):
    """exp of x <= 0 in float32, to the last bit or two, in operations that vectorise."""
    x = larger(x, SMALLEST)
    n = np.int32(x * LOG2_E - np.float32(0.5))
    scale = np.float32(n)
    f = x - scale * LN2_HIGH - scale * LN2_LOW
    p = np.float32(1.9875691500e-4)
    p = p * f + np.float32(1.3981999507e-3)
    p = p * f + np.float32(8.3334519073e-3)
    p = p * f + np.float32(4.1665795894e-2)
    p = p * f + np.float32(1.6666665459e-1)
    p = p * f + np.float32(5.0000001201e-1)
    p = p * f * f + f + np.float32(1.0)
    return p * power_of_two(n)


@njit
def _bound_row(logits, out):
    for code in range(len(logits)):
        out[code] = _bounded(logits[code])


@njit(fastmath=REDUCE)
def _largest(row):
    top = NEGATIVE_INF
    for code in range(len(row)):
        top = larger(top, row[code])
    return top


@njit(fastmath=REDUCE)
def _sum_exp(row, top):
    total = np.float32(0.0)
    for code in range(len(row)):
        total += _exp(row[code] - top)
    return total


@njit
def _rank(forks, parent):
    """How many forks lie before a parent."""
    low, high = 0, len(forks)
    while low < high:
        middle = (low + high) // 2
        if forks[middle] < parent:
            low = middle + 1
        else:
            high = middle
    return np.int32(low)


@njit(inline="always")
def children_of(kind, pointers, state):
    """The first child of a state, and the node after its last."""
    if kind == SPARSE:
        return pointers[state], pointers[state + 1]
    if kind == FORKED:
        return state + _rank(pointers, state), state + 1 + _rank(pointers, state + 1)
    return state, state + 1


@njit(inline="always")
def _words_of(sets, request):
    """The words of the request's set; none where nothing binds it."""
    rows, free, alive = sets
    if len(rows) == 0 or free[request] != 0:
        return alive[0, :0]
    return alive[rows[request]]


@njit(inline="always")
def _in_set(words, dense_words, state, node, code):
    """Whether a child is in the set of these words: over codes where the level is dense, else over nodes."""
    if len(words) == 0:
        return True
    place = np.int64(node)
    if dense_words > 0:
        place = (np.int64(state) * dense_words) * WORD_BITS + code
    return (words[place >> 5] >> np.uint32(place & 31)) & np.uint32(1) != 0


@njit(inline="always")
def _dead_children(parents, request, state):
    """Where the dead children of a state begin and end in its request's list."""
    if parents.shape[1] == 0:
        return np.int32(0), np.int32(0)
    return _rank(parents[request], state), _rank(parents[request], state + 1)


@njit(inline="always")
def _excluded(slots, request, dead, slot):
    first, end = dead
    if first == end:
        return False
    at = first + _rank(slots[request, first:end], slot)
    return at < end and slots[request, at] == slot


@njit
def _measure_children(row, first, end, state, request, codes, dense_words, sets, dead_lists):
    """The largest logit of the children that may follow, and the sum of exponentials above it."""
    parents, slots = dead_lists
    words, dead = _words_of(sets, request), _dead_children(parents, request, state)
    best, total = NEGATIVE_INF, np.float32(0.0)
    for summing in range(2):
        for node in range(first, end):
            code = codes[node]
            slot = np.int64(code) if dense_words > 0 else np.int64(node - first)
            if not _in_set(words, dense_words, state, node, code) or _excluded(slots, request, dead, slot):
                continue
            if summing:
                total += _exp(row[code] - best)
            else:
                best = larger(best, row[code])
    return best, total


@njit(parallel=True, cache=True)
def _measure_rows(logits, scores, states, width, normalize, kind, pointers, codes, sets, dead_lists, word_tops):
    """Returns per row the largest logit that counts, the log of the sum of exponentials above it, and the best score
    that a child of the row can have. Fills `word_tops` [rows, W], the largest logit of every 32 codes; W may be 0.
    """
    rows, size = logits.shape
    top, log_sum = np.zeros(rows, np.float32), np.zeros(rows, np.float32)
    bound = np.full(rows, NEGATIVE_INF)
    words = word_tops.shape[1]
    for row in prange(rows):
        if states[row] < 0:
            continue
        bounded = np.empty(size, np.float32)
        _bound_row(logits[row], bounded)
        if normalize == ALLOWED:
            state, request = states[row], row // width
            first, end = children_of(kind, pointers, state)
            best, total = _measure_children(bounded, first, end, state, request, codes, words, sets, dead_lists)
        else:
            best = _largest(bounded)
            total = np.float32(1.0)
            if normalize == CODES and best > NEGATIVE_INF:
                total = _sum_exp(bounded, best)
        if best > NEGATIVE_INF:
            bound[row] = scores[row] - np.float32(math.log(total)) + (best if normalize == GIVEN else np.float32(0.0))
            if normalize != GIVEN:
                top[row], log_sum[row] = best, np.float32(math.log(total))
        for word in range(words):
            word_tops[row, word] = _largest(bounded[word * WORD_BITS : (word + 1) * WORD_BITS])
    return top, log_sum, bound


@njit(inline="always")
def _sift_down(keys, nodes, rows, size):
    """Restores the heap, least first, after its root has changed."""
    at = 0
    while True:
        child = 2 * at + 1
        if child >= size:
            return
        if child + 1 < size and keys[child + 1] < keys[child]:
            child += 1
        if keys[at] <= keys[child]:
            return
        keys[at], keys[child] = keys[child], keys[at]
        nodes[at], nodes[child] = nodes[child], nodes[at]
        rows[at], rows[child] = rows[child], rows[at]
        at = child


@njit(inline="always")
def _replace_least(keys, nodes, rows, key, node, row):
    keys[0], nodes[0], rows[0] = key, node, row
    _sift_down(keys, nodes, rows, len(keys))


@njit(parallel=True, cache=True)
def _select(
    logits, scores, states, measures, kind, pointers, codes, allowed, sets, dead_lists, word_tops, best, nodes, parents
):
    """Fills `best`, `nodes` and `parents` [B, M] with the winners of each request, best first; -inf where none is."""
    batch, width = states.shape
    top, log_sum, bound = measures
    dead_parents, slots = dead_lists
    dense_words = word_tops.shape[1]
    for request in prange(batch):
        keys, chosen, chosen_rows = best[request], nodes[request], parents[request]
        words = _words_of(sets, request)
        for at in range(width):
            row, state = request * width + at, states[request, at]
            if bound[row] <= keys[0]:
                continue
            score, shift, log_total = scores[request, at], top[row], log_sum[row]
            first, end = children_of(kind, pointers, state)
            dead = _dead_children(dead_parents, request, state)
            node = np.int64(first)
            for word in range(dense_words):
                every = allowed[state, word]
                bits = every
                if len(words) > 0:
                    bits = words[np.int64(state) * dense_words + word]
                if bits == 0 or score + (word_tops[row, word] - shift - log_total) <= keys[0]:
                    node += np.int64(count_bits(every))
                    continue
                while bits != 0:
                    code = word * WORD_BITS + np.int64(lowest_bit(bits))
                    key = score + (_bounded(logits[row, code]) - shift - log_total)
                    if key > keys[0] and not _excluded(slots, request, dead, code):
                        below = every & ((bits & (~bits + np.uint32(1))) - np.uint32(1))
                        _replace_least(keys, chosen, chosen_rows, key, node + np.int64(count_bits(below)), at)
                    bits &= bits - np.uint32(1)
                node += np.int64(count_bits(every))
            if dense_words == 0:
                for node in range(first, end):
                    key = score + (_bounded(logits[row, codes[node]]) - shift - log_total)
                    if (
                        key > keys[0]
                        and _in_set(words, 0, state, node, 0)
                        and not _excluded(slots, request, dead, np.int64(node - first))
                    ):
                        _replace_least(keys, chosen, chosen_rows, key, node, at)
        for size in range(len(keys) - 1, 0, -1):
            keys[0], keys[size] = keys[size], keys[0]
            chosen[0], chosen[size] = chosen[size], chosen[0]
            chosen_rows[0], chosen_rows[size] = chosen_rows[size], chosen_rows[0]
            _sift_down(keys, chosen, chosen_rows, size)


@njit(cache=True)
def _continue_codes(before, best, nodes, parents, codes, after):
    """Fills the states (in `nodes`), the parents and the codes [B, M, l + 1] of the winners, and marks the dead."""
    batch, width, depth = after.shape
    for request in range(batch):
        for at in range(width):
            if best[request, at] == NEGATIVE_INF:
                nodes[request, at], parents[request, at] = DEAD, 0
                after[request, at] = DEAD
                continue
            after[request, at, : depth - 1] = before[request, parents[request, at]]
            after[request, at, depth - 1] = codes[nodes[request, at]]


class HostLevel(NamedTuple):
    """A level's arrays as the kernels take them: NumPy's, which share its memory.

    Attributes:
        kind: UNARY, SPARSE or FORKED.
        pointers: [P + 1] or [X] int32, its row pointers or its forks.
        codes: [E] uint8, uint16 or uint32.
        allowed: [P, W] uint32; [1, 0] where the level is not dense.
    """

    kind: int
    pointers: np.ndarray
    codes: np.ndarray
    allowed: np.ndarray


# Made once a level: at every step it would take longer than a small step itself.
HOST_LEVELS: WeakKeyDictionary[DeviceLevel, HostLevel] = WeakKeyDictionary()


def host_level(level: DeviceLevel) -> HostLevel:
    """Returns a level's arrays as the kernels take them."""
    held = HOST_LEVELS.get(level)
    if held is None:
        kind, pointers = UNARY, NOTHING
        if level.child_start is not None:
            kind, pointers = SPARSE, to_numpy(level.child_start)
        elif level.forks is not None:
            kind, pointers = FORKED, to_numpy(level.forks)
        codes = to_numpy(level.codes).view(f"u{level.codes.itemsize}")
        allowed = NO_WORDS if level.allowed is None else to_numpy(level.allowed).view(np.uint32)
        held = HOST_LEVELS[level] = HostLevel(kind, *map(_read_only, (pointers, codes, allowed)))
    return held


def _constraints(bound: LevelConstraints | None) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
    """Returns the sets and the dead lists of a batch as arrays, without an entry where there are none."""
    if bound is None:
        return NO_LIMITS
    rows, free, alive, parents, slots = NO_LIST[0], NO_LIST[0], NO_WORDS, NO_LIST, NO_LIST
    if bound.rows is not None:
        rows, free, alive = map(to_numpy, (bound.rows, bound.free, bound.alive))
        alive = alive.view(np.uint32).reshape(len(alive), -1)
    if bound.dead_parents is not None:
        parents, slots = to_numpy(bound.dead_parents), to_numpy(bound.dead_slots)
    return tuple(map(_read_only, (rows, free, alive))), tuple(map(_read_only, (parents, slots)))


def _read_only(array: np.ndarray) -> np.ndarray:
    """Numba compiles a kernel anew for arrays that may be written to, so none that is only read may be."""
    same = np.ascontiguousarray(array).view()
    same.setflags(write=False)
    return same


NO_LIMITS = tuple(map(_read_only, (NO_LIST[0], NO_LIST[0], NO_WORDS))), (_read_only(NO_LIST), _read_only(NO_LIST))


def numba_step(given: StepInput) -> Beams:
    """Does what `array_step` does, on NumPy arrays or on PyTorch tensors of a CPU, whose memory it shares."""
    ops, level, beams, logits = given.ops, given.level, given.beams, given.logits
    batch, width, size = logits.shape
    if logits.dtype == ops.xp.float64:
        logits = bounded(ops, logits)
    rows = to_numpy(ops.xp.astype(logits, ops.xp.float32, copy=False)).reshape(batch * width, size)
    states = to_numpy(beams.states) if level.max_branch else np.full((batch, width), DEAD, np.int32)
    rows, scores, states, before = map(_read_only, (rows, to_numpy(beams.scores), states, to_numpy(beams.codes)))
    *shape, allowed = host_level(level)
    limits = _constraints(given.constraints)
    word_tops = np.empty((batch * width, allowed.shape[1]), np.float32)
    best = np.full((batch, given.beam_width), NEGATIVE_INF)
    nodes, parents = np.zeros(best.shape, np.int32), np.zeros(best.shape, np.int32)
    with at_work(logits_to_read=rows.size):
        numbers = (scores.ravel(), states.ravel(), width, NORMALIZERS[given.normalize])
        measures = _measure_rows(rows, *numbers, *shape, *limits, word_tops)
        _select(rows, scores, states, measures, *shape, allowed, *limits, word_tops, best, nodes, parents)
    codes = np.empty((batch, given.beam_width, beams.level + 1), np.int32)
    _continue_codes(before, best, nodes, parents, shape[-1], codes)
    arrays = (codes, best, nodes, parents)
    return Beams(*(ops.xp.from_numpy(array) if ops.name == "torch" else array for array in arrays))
