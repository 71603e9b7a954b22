"""Splice sorted arrays in one pass that copies kept entries, skips removed ones and inserts new ones."""

from __future__ import annotations

import numpy as np

from hedgerow._compiled import native

# Bits of the filter per value. One of 64 other values passes.
FILTER_BITS = 64
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


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
    if native is None:
        kept = np.delete(old, removed)
        return np.insert(kept, inserted - np.searchsorted(removed, inserted), new)
    out = np.empty(len(old) + len(inserted) - len(removed), old.dtype)
    native.splice(old, inserted, np.ascontiguousarray(new, old.dtype), removed, out)
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
    if native is None:
        children = np.diff(start).astype(np.int64)
        children[changed] += deltas
        spliced = splice(children, inserted, counts, removed)
        return np.concatenate(([0], np.cumsum(spliced))).astype(np.int32), int(spliced.max(initial=0))
    out = np.empty(len(start) + len(inserted) - len(removed), np.int32)
    return out, native.splice_start(start, inserted, counts, removed, changed, deltas, out)


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
    low, high, wanted = (np.array(array, np.int64) for array in (start, stop, wanted))
    if native is not None:
        out = np.empty(len(wanted), np.int64)
        native.lower_bounds(codes, low, high, wanted, out)
        return out
    while (open_ := low < high).any():
        middle = (low + high) // 2
        below = open_ & (codes[np.minimum(middle, len(codes) - 1)] < wanted)
        low, high = np.where(below, middle + 1, low), np.where(open_ & ~below, middle, high)
    return low


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
    unsigned = values.view(np.uint64) if values.itemsize == 8 else values.astype(np.uint64)
    if native is None:
        place = (unsigned * MULTIPLIER) >> shift
        candidates = np.flatnonzero(bits[place >> np.uint64(5)] >> (place & np.uint64(31)).astype(np.uint32) & 1)
    else:
        # Only the pages that hold passing rows are written, so the rest of this array takes no memory.
        candidates = np.empty(len(values), np.int64)
        unsigned = np.ascontiguousarray(unsigned)
        candidates = candidates[: native.passing_rows(unsigned, bits, int(shift), candidates)]
    order = np.argsort(wanted)
    ordered = wanted[order]
    nearest = np.minimum(np.searchsorted(ordered, values[candidates]), len(ordered) - 1)
    equal = ordered[nearest] == values[candidates] if len(ordered) else np.zeros(0, bool)
    rows = np.full(len(wanted), -1, np.int64)
    rows[order[nearest[equal]]] = candidates[equal]
    return rows
