"""The step as a Numba kernel, for NumPy arrays and PyTorch tensors on a CPU.

It makes two passes. The first, over rows (a row is one beam of one request), computes the largest logit and the
normalizer of each row, vectorized. The second, over requests, collects the M best candidates in a heap. Rows are sorted
by score, so the heap soon holds good candidates; a row, or on a dense level a word of 32 codes, is skipped if its
largest logit cannot enter the heap. Loops run over each row's own children, so a node with many children slows down
only its own rows. Constraint sets and exclusions are tested only for children that would enter the heap.
"""

# pyright: reportCallIssue=false

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange

from hedgerow._compiled import cached_njit
from hedgerow.decode.beams import DEAD, Beams
from hedgerow.decode.kernels.array import LARGEST as LARGEST_LOGIT
from hedgerow.decode.kernels.array import StepInput, bounded
from hedgerow.decode.kernels.host import FORKED, SPARSE, host_level, limits_of, read_only
from hedgerow.decode.kernels.instructions import count_bits, exp2_of_int, larger, lowest_bit
from hedgerow.decode.kernels.threads import kernel_threads
from hedgerow.index.level import WORD_BITS

LARGEST = np.float32(LARGEST_LOGIT)
NEGATIVE_INF = np.float32(-np.inf)
LOG2_E = np.float32(1.4426950408889634)
LN2_HIGH = np.float32(0.693359375)
LN2_LOW = np.float32(-2.12194440e-4)
# exp() of smaller numbers is less than the last bit of a sum that contains exp(0).
SMALLEST = np.float32(-87.0)
CODES, ALLOWED, GIVEN = 0, 1, 2
NORMALIZERS = {"codes": CODES, "allowed": ALLOWED, None: GIVEN}
# LLVM vectorizes reductions only if it may reorder additions. NaN is replaced before they run.
REDUCE = {"nnan", "nsz", "reassoc", "contract"}


@njit(inline="always")
def _bounded(logit):
    """A logit as `array.bounded` returns it: NaN as -inf, finite values and +inf clipped to +-LARGEST."""
    if logit > NEGATIVE_INF:
        return min(max(logit, -LARGEST), LARGEST)
    return NEGATIVE_INF


@njit(inline="always")
def _exp(x):
    """exp(x) of x <= 0 in float32, exact to the last two bits, in operations that LLVM vectorizes."""
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
    return p * exp2_of_int(n)


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
def _rank(ascending, value):
    """Number of entries of an ascending list below a value."""
    low, high = 0, len(ascending)
    while low < high:
        middle = (low + high) // 2
        if ascending[middle] < value:
            low = middle + 1
        else:
            high = middle
    return np.int32(low)


@njit(inline="always")
def children_of(kind, pointers, state):
    """The first child of a state, and the node after its last child."""
    if kind == SPARSE:
        return pointers[state], pointers[state + 1]
    if kind == FORKED:
        return state + _rank(pointers, state), state + 1 + _rank(pointers, state + 1)
    return state, state + 1


@njit(inline="always")
def _words_of(sets, request):
    """Words of the request's set; empty if it has no set."""
    rows, free, alive = sets
    if len(rows) == 0 or free[request] != 0:
        return alive[0, :0]
    return alive[rows[request]]


@njit(inline="always")
def _in_set(words, dense_words, state, node, code):
    """Whether a child is in the set of these words, over the codes of a dense level or the nodes of another."""
    if len(words) == 0:
        return True
    position = np.int64(node)
    if dense_words > 0:
        position = (np.int64(state) * dense_words) * WORD_BITS + code
    return (words[position >> 5] >> np.uint32(position & 31)) & np.uint32(1) != 0


@njit(inline="always")
def _dead_children(parents, request, state):
    """Start and stop of the dead children of a state in the list of its request."""
    if parents.shape[1] == 0:
        return np.int32(0), np.int32(0)
    return _rank(parents[request], state), _rank(parents[request], state + 1)


@njit(inline="always")
def _excluded(slots, request, dead, slot):
    start, stop = dead
    if start == stop:
        return False
    position = start + _rank(slots[request, start:stop], slot)
    return position < stop and slots[request, position] == slot


@njit
def _measure_children(row, start, stop, state, request, codes, dense_words, sets, dead_lists):
    """The largest logit of the allowed children, and their sum of exponentials relative to it."""
    parents, slots = dead_lists
    words, dead = _words_of(sets, request), _dead_children(parents, request, state)
    best, total = NEGATIVE_INF, np.float32(0.0)
    for summing in range(2):
        for node in range(start, stop):
            code = codes[node]
            slot = np.int64(code) if dense_words > 0 else np.int64(node - start)
            if not _in_set(words, dense_words, state, node, code) or _excluded(slots, request, dead, slot):
                continue
            if summing:
                total += _exp(row[code] - best)
            else:
                best = larger(best, row[code])
    return best, total


@cached_njit(parallel=True)
def _measure_rows(logits, scores, states, width, normalize, kind, pointers, codes, sets, dead_lists, word_tops):
    """Measure each row: the logit and the log of the sum of exponentials to subtract, and the bound of its scores.

    Args:
        logits: [B * m, C] float32.
        scores: [B * m] float32.
        states: [B * m] int32.
        width: m.
        normalize: CODES, ALLOWED or GIVEN.
        kind: UNARY, SPARSE or FORKED.
        pointers: as in `HostLevel`.
        codes: as in `HostLevel`.
        sets: `rows`, `free` and `alive` [sets, words] of the batch.
        dead_lists: `dead_parents` and `dead_slots` [B, X] of the batch.
        word_tops: [B * m, W], filled with the largest logit of each word of 32 codes. W is 0 if the level is not dense.

    Returns:
        Three arrays [B * m]: the largest logit that counts, the log of the sum of exponentials relative to it, and the
        best score that a child can have.
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
            start, stop = children_of(kind, pointers, state)
            best, total = _measure_children(bounded, start, stop, state, request, codes, words, sets, dead_lists)
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
def _precedes(key, node, other_key, other_node):
    """Whether one candidate is better than another. Equal scores come in the order of SIDs, which is that of nodes."""
    return key > other_key or (key == other_key and node < other_node)


@njit(inline="always")
def _sift_down(keys, nodes, rows, size):
    """Restore the heap, whose root is the worst candidate, after the root has changed."""
    parent = 0
    while True:
        child = 2 * parent + 1
        if child >= size:
            return
        if child + 1 < size and _precedes(keys[child], nodes[child], keys[child + 1], nodes[child + 1]):
            child += 1
        if _precedes(keys[child], nodes[child], keys[parent], nodes[parent]):
            return
        keys[parent], keys[child] = keys[child], keys[parent]
        nodes[parent], nodes[child] = nodes[child], nodes[parent]
        rows[parent], rows[child] = rows[child], rows[parent]
        parent = child


@njit(inline="always")
def _replace_worst(keys, nodes, rows, key, node, row):
    keys[0], nodes[0], rows[0] = key, node, row
    _sift_down(keys, nodes, rows, len(keys))


@cached_njit(parallel=True)
def _select(
    logits, scores, states, measures, kind, pointers, codes, allowed, sets, dead_lists, word_tops, best, nodes, parents
):
    """Fill `best`, `nodes` and `parents` [B, M] with the best candidates of each request, best first.

    `best` is filled with -inf before the call and keeps it for dead beams. Other arguments as for `_measure_rows`;
    `measures` are its results.
    """
    batch, width = states.shape
    top, log_sum, bound = measures
    dead_parents, slots = dead_lists
    dense_words = word_tops.shape[1]
    for request in prange(batch):
        keys, heap_nodes, heap_beams = best[request], nodes[request], parents[request]
        words = _words_of(sets, request)
        for beam in range(width):
            row, state = request * width + beam, states[request, beam]
            # A row, or a word, whose best score equals the worst of the heap can still win by its nodes.
            if bound[row] < keys[0] or bound[row] == NEGATIVE_INF:
                continue
            score, shift, log_total = scores[request, beam], top[row], log_sum[row]
            start, stop = children_of(kind, pointers, state)
            dead = _dead_children(dead_parents, request, state)
            node = np.int64(start)
            for word in range(dense_words):
                all_bits = allowed[state, word]
                bits = all_bits
                if len(words) > 0:
                    bits = words[np.int64(state) * dense_words + word]
                best_of_word = score + (word_tops[row, word] - shift - log_total)
                if bits == 0 or best_of_word < keys[0] or best_of_word == NEGATIVE_INF:
                    node += np.int64(count_bits(all_bits))
                    continue
                while bits != 0:
                    code = word * WORD_BITS + np.int64(lowest_bit(bits))
                    key = score + (_bounded(logits[row, code]) - shift - log_total)
                    if key >= keys[0]:
                        below = all_bits & ((bits & (~bits + np.uint32(1))) - np.uint32(1))
                        child = node + np.int64(count_bits(below))
                        wins = _precedes(key, child, keys[0], heap_nodes[0])
                        if wins and not _excluded(slots, request, dead, code):
                            _replace_worst(keys, heap_nodes, heap_beams, key, child, beam)
                    bits &= bits - np.uint32(1)
                node += np.int64(count_bits(all_bits))
            if dense_words == 0:
                for node in range(start, stop):
                    key = score + (_bounded(logits[row, codes[node]]) - shift - log_total)
                    if (
                        _precedes(key, node, keys[0], heap_nodes[0])
                        and _in_set(words, 0, state, node, 0)
                        and not _excluded(slots, request, dead, np.int64(node - start))
                    ):
                        _replace_worst(keys, heap_nodes, heap_beams, key, node, beam)
        for size in range(len(keys) - 1, 0, -1):
            keys[0], keys[size] = keys[size], keys[0]
            heap_nodes[0], heap_nodes[size] = heap_nodes[size], heap_nodes[0]
            heap_beams[0], heap_beams[size] = heap_beams[size], heap_beams[0]
            _sift_down(keys, heap_nodes, heap_beams, size)


@cached_njit()
def _continue_codes(history, best, nodes, parents, codes, after):
    """Fill `after` [B, M, l + 1] with the codes of the new beams, and mark the dead ones in all arrays."""
    batch, width, depth = after.shape
    for request in range(batch):
        for beam in range(width):
            if best[request, beam] == NEGATIVE_INF:
                nodes[request, beam], parents[request, beam] = DEAD, 0
                after[request, beam] = DEAD
                continue
            after[request, beam, : depth - 1] = history[request, parents[request, beam]]
            after[request, beam, depth - 1] = codes[nodes[request, beam]]


def numba_step(inputs: StepInput) -> Beams:
    """Compute a step on NumPy arrays, or on PyTorch tensors on a CPU, whose memory it reads in place."""
    ops, level, beams, logits = inputs.ops, inputs.level, inputs.beams, inputs.logits
    batch, width, size = logits.shape
    if logits.dtype == ops.xp.float64:
        logits = bounded(ops, logits)
    logits = ops.xp.astype(logits, ops.xp.float32, copy=False)
    arrays = logits, beams.scores, beams.states, beams.codes
    # Not to_numpy, which takes twice as long: these tensors are on the host and require no gradient.
    rows, scores, states, history = (read_only(x.numpy() if ops.name == "torch" else x) for x in arrays)
    rows = rows.reshape(batch * width, size)
    if level.max_branch == 0:
        states = read_only(np.full((batch, width), DEAD, np.int32))
    *trie_arrays, allowed = host_level(level)
    limits = limits_of(inputs.constraints)
    word_tops = np.empty((batch * width, allowed.shape[1]), np.float32)
    best = np.full((batch, inputs.beam_width), NEGATIVE_INF)
    nodes, parents = np.zeros(best.shape, np.int32), np.zeros(best.shape, np.int32)
    with kernel_threads(rows.size):
        beam_arrays = (scores.ravel(), states.ravel(), width, NORMALIZERS[inputs.normalize])
        measures = _measure_rows(rows, *beam_arrays, *trie_arrays, *limits, word_tops)
        _select(rows, scores, states, measures, *trie_arrays, allowed, *limits, word_tops, best, nodes, parents)
    codes = np.empty((batch, inputs.beam_width, beams.level + 1), np.int32)
    _continue_codes(history, best, nodes, parents, trie_arrays[-1], codes)
    arrays = (codes, best, nodes, parents)
    return Beams(*(ops.xp.from_numpy(array) if ops.name == "torch" else array for array in arrays))
