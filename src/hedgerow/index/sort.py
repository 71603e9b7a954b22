"""Sorting SIDs: rows into lexicographic order, in a few linear passes and sorts of 64-bit keys."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hedgerow.catalog.catalog import Catalog

KEY_BITS = 64
# Rows gathered at a time: a block of them stays in the cache while it is transposed.
BLOCK = 2**15


def sorted_rows(catalog: Catalog) -> np.ndarray:
    """Returns the rows [N] of the catalog in lexicographic order of their SIDs; equal SIDs in any order.

    A key holds as many leading bits of the SID as fit above the row's number, so that sorting plain values, which is
    several times faster than sorting by index, gives the order. Only rows that tie in those bits are sorted on, by
    their group and the bits that follow. Random SIDs are apart after one pass, however deep they are.
    """
    widths = [(size - 1).bit_length() for size in catalog.codebook_sizes]
    order = np.arange(catalog.num_items)
    places, groups, done = np.arange(catalog.num_items), None, 0
    while len(places) and done < sum(widths):
        below = (len(places) - 1).bit_length()
        above = 0 if groups is None else int(groups[-1]).bit_length()
        end = min(sum(widths), done + KEY_BITS - above - below)
        rows = None if groups is None else order[places]
        keys = _bits(catalog.sids, widths, rows, done, end)
        if groups is not None:
            keys |= groups << np.uint64(end - done)
        keys <<= np.uint64(below)
        keys |= np.arange(len(places), dtype=np.uint64)
        keys.sort()
        local = (keys & np.uint64((1 << below) - 1)).astype(np.int64)
        order[places] = local if rows is None else rows[local]
        keys >>= np.uint64(below)
        ties = keys[1:] == keys[:-1]
        tied = touched(ties, len(places))
        groups = np.cumsum(np.concatenate(([False], ~ties)), dtype=np.uint64)[tied]
        # Numbered anew, so that few groups take few bits.
        groups = np.cumsum(np.diff(groups, prepend=groups[:1]) > 0, dtype=np.uint64)
        places, done = places[tied], end
    return order


def leading_bits(sids: np.ndarray, codebook_sizes: Sequence[int]) -> np.ndarray:
    """Returns the leading bits of each SID [N], 64 or all of them, as uint64: equal or rising where SIDs rise."""
    widths = [(size - 1).bit_length() for size in codebook_sizes]
    return _bits(sids, widths, None, 0, min(KEY_BITS, sum(widths)))


def sorted_columns(catalog: Catalog, order: np.ndarray) -> np.ndarray:
    """Returns the SIDs in the order of `order`, a level a row: [L, N]."""
    columns = np.empty((catalog.num_levels, len(order)), catalog.sids.dtype)
    for first in range(0, len(order), BLOCK):
        columns[:, first : first + BLOCK] = catalog.sids.take(order[first : first + BLOCK], axis=0).T
    return columns


def touched(ties: np.ndarray, rows: int) -> np.ndarray:
    """Returns bool [rows]: whether a row ties with a neighbour, where ties[i] says that rows i and i + 1 do."""
    neighbours = np.zeros(rows, bool)
    neighbours[1:] = ties
    neighbours[:-1] |= ties
    return neighbours


def _bits(sids: np.ndarray, widths: list[int], rows: np.ndarray | None, begin: int, end: int) -> np.ndarray:
    """Returns, as uint64, bits `begin` to `end` of the SIDs of `rows` (None: of all), each read as one bit string."""
    value = np.zeros(len(sids) if rows is None else len(rows), np.uint64)
    first = 0
    for at, width in enumerate(widths):
        last = first + width
        low, high = max(first, begin), min(last, end)
        if low < high:
            codes = (sids[:, at] if rows is None else sids[rows, at]) >> (last - high)
            codes &= (1 << (high - low)) - 1
            value <<= np.uint64(high - low)
            value |= codes
        first = last
    return value
