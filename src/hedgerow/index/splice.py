"""Splice sorted arrays in one pass that copies kept entries, skips removed ones and inserts new ones."""

# pyright: reportCallIssue=false

from __future__ import annotations

import numpy as np
from numba import njit

from hedgerow._compiled import cached_njit

# Bits of the filter per value. One of 64 other values passes.
FILTER_BITS = 64
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


@njit(inline="always")
def _copy(target, source):
    # Both are slices that start at 0, so that the compiler makes this a block copy.
    for position in range(len(source)):
        target[position] = source[position]


@cached_njit(nogil=True)
def _splice(old, inserted, new, removed, out):
    read, write, r = 0, 0, 0
    for i in range(len(inserted) + 1):
        stop = inserted[i] if i < len(inserted) else len(old)
        while True:
            skips = r < len(removed) and removed[r] < stop
            end = removed[r] if skips else stop
            _copy(out[write : write + end - read], old[read:end])
            write += end - read
            read = end
            if not skips:
                break
            read += 1
            r += 1
        if i < len(inserted):
            out[write] = new[i]
            write += 1


@cached_njit(nogil=True)
def _splice_start(start, inserted, counts, removed, changed, deltas, out):
    total, largest, write, i, r, c = 0, 0, 0, 0, 0, 0
    for parent in range(len(start)):
        while i < len(inserted) and inserted[i] == parent:
            out[write] = total
            total += counts[i]
            largest = max(largest, counts[i])
            write += 1
            i += 1
        if parent == len(start) - 1:
            break
        if r < len(removed) and removed[r] == parent:
            r += 1
            continue
        out[write] = total
        count = np.int64(start[parent + 1] - start[parent])
        write += 1
        if c < len(changed) and changed[c] == parent:
            count += deltas[c]
            c += 1
        total += count
        largest = max(largest, count)
    out[write] = total
    return largest


@cached_njit(nogil=True)
def _lower_bounds(codes, start, stop, wanted, out):
    for row in range(len(wanted)):
        low, high = np.int64(start[row]), np.int64(stop[row])
        while low < high:
            middle = (low + high) // 2
            if codes[middle] < wanted[row]:
                low = middle + 1
            else:
                high = middle
        out[row] = low


@cached_njit(nogil=True)
def _passing_rows(values, bits, shift, out):
    passed = 0
    for row in range(len(values)):
        place = (np.uint64(values[row]) * MULTIPLIER) >> shift
        out[passed] = row
        passed += (bits[place >> np.uint64(5)] >> (place & np.uint64(31))) & np.uint32(1)
    return passed


def splice(old: np.ndarray, inserted: np.ndarray, new: np.ndarray, removed: np.ndarray) -> np.ndarray:
    """Insert entries into an array and remove entries from it.

    Args:
        old: [E].
        inserted: [new entries] int64, ascending, may repeat: the old entry before which each new entry goes, 0 to E.
        new: [new entries], of the dtype of `old`.
        removed: [removed entries] int64, ascending: the old entries to remove.

    Returns:
        [E + new entries - removed entries].
    """
    out = np.empty(len(old) + len(inserted) - len(removed), old.dtype)
    _splice(old, inserted, new, removed, out)
    return out


def splice_start(
    start: np.ndarray,
    inserted: np.ndarray,
    counts: np.ndarray,
    removed: np.ndarray,
    changed: np.ndarray,
    deltas: np.ndarray,
) -> tuple[np.ndarray, int]:
    """Update row pointers after parents were inserted and removed, and the numbers of their children changed.

    Args:
        start: [P + 1] int32.
        inserted: [new parents] int64, as for `splice`.
        counts: [new parents] int64, the number of children of each new parent.
        removed: [removed parents] int64, ascending: the parents that are removed with all of their children.
        changed: [changed parents] int64, ascending: the kept parents whose number of children changes.
        deltas: [changed parents] int64, the change of that number.

    Returns:
        The row pointers, int32, of P + new parents - removed parents + 1 entries; and the largest number of children
        of one parent.
    """
    out = np.empty(len(start) + len(inserted) - len(removed), np.int32)
    return out, int(_splice_start(start, inserted, counts, removed, changed, deltas, out))


def lower_bounds(codes: np.ndarray, start: np.ndarray, stop: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Find the first node in each span whose code is at least the wanted code.

    Args:
        codes: [E], ascending within each span.
        start: [R] the first node of each span.
        stop: [R] the node after each span.
        wanted: [R] the codes to find.

    Returns:
        [R] int64; `stop` if all codes of the span are smaller.
    """
    out = np.empty(len(wanted), np.int64)
    _lower_bounds(codes, start, stop, wanted, out)
    return out


def find_integers(values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Find integers in an array. Each array has distinct values.

    One pass over `values` looks up one bit per value in a filter that stays in the cache. Only values that pass the
    filter are compared.

    Args:
        values: [N] integers.
        wanted: [R] integers.

    Returns:
        The row in `values` of each of `wanted`, [R] int64; -1 if there is none.
    """
    power = max(5, (FILTER_BITS * len(wanted)).bit_length())
    shift = np.uint64(64 - power)
    places = (wanted.astype(np.uint64) * MULTIPLIER) >> shift
    bits = np.zeros(1 << (power - 5), np.uint32)
    np.bitwise_or.at(bits, places >> np.uint64(5), np.uint32(1) << (places & np.uint64(31)).astype(np.uint32))
    # Only the pages that hold passing rows are written, so the rest of this array takes no memory.
    candidates = np.empty(len(values), np.int64)
    candidates = candidates[: _passing_rows(values, bits, shift, candidates)]
    order = np.argsort(wanted)
    ordered = wanted[order]
    nearest = np.minimum(np.searchsorted(ordered, values[candidates]), len(ordered) - 1)
    equal = ordered[nearest] == values[candidates] if len(ordered) else np.zeros(0, bool)
    rows = np.full(len(wanted), -1, np.int64)
    rows[order[nearest[equal]]] = candidates[equal]
    return rows
