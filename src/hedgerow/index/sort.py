"""Sort SIDs: rows in lexicographic order, with a few linear passes and sorts of 64-bit keys."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hedgerow.catalog.catalog import Catalog
from hedgerow.index.radix import KEY_BITS, sorted_keys

# Rows gathered at a time, so that a block stays in the cache while it is transposed.
BLOCK = 2**15


def sorted_rows(catalog: Catalog) -> np.ndarray:
    """The rows [N] of a catalog in the lexicographic order of their SIDs. The order of equal SIDs is undefined.

    A key holds as many leading bits of the SID as fit above the row number. Sorting such keys gives the order, and is
    several times faster than sorting by index. Only rows with equal keys are sorted further, by their group and the
    following bits. Random SIDs are distinct after one pass, whatever their length.
    """
    widths = _widths(catalog.codebook_sizes)
    order = np.arange(catalog.num_items)
    # All rows are one group at first.
    places, groups, done = None, None, 0
    while done < sum(widths) and (places is None or len(places)):
        length = len(order) if places is None else len(places)
        row_bits = max(length - 1, 0).bit_length()
        group_bits = 0 if groups is None else int(groups[-1]).bit_length()
        stop = min(sum(widths), done + KEY_BITS - group_bits - row_bits)
        rows = None if places is None else order[places]
        keys = _bits(catalog.sids, widths, rows, done, stop)
        if groups is not None:
            keys |= groups << np.uint64(stop - done)
        keys <<= np.uint64(row_bits)
        keys |= np.arange(length, dtype=np.uint64)
        keys = sorted_keys(keys, row_bits, row_bits + stop - done + group_bits)
        local = keys & np.uint64((1 << row_bits) - 1)
        # The same bits, because no row number reaches the sign.
        local = local.view(np.int64)
        if rows is None:
            order = local
        else:
            order[places] = rows[local]
        keys >>= np.uint64(row_bits)
        ties = keys[1:] == keys[:-1]
        if not ties.any():
            break
        tied = np.flatnonzero(tied_rows(ties, length))
        # Numbered from 0, so that few groups take few bits.
        groups = np.cumsum(np.diff(keys[tied], prepend=keys[tied[:1]]) > 0, dtype=np.uint64)
        places, done = tied if places is None else places[tied], stop
    return order


def leading_bits(sids: np.ndarray, codebook_sizes: Sequence[int]) -> np.ndarray:
    """The leading bits of each SID [N], 64 or all of them, as uint64. Their order is the order of the SIDs."""
    widths = _widths(codebook_sizes)
    return _bits(sids, widths, None, 0, min(KEY_BITS, sum(widths)))


def sorted_columns(catalog: Catalog, order: np.ndarray) -> list[np.ndarray]:
    """The codes of each level in the order `order`: L new arrays [N], in the smallest type that holds the level."""
    columns = [np.empty(len(order), np.min_scalar_type(size - 1)) for size in catalog.codebook_sizes]
    for begin in range(0, len(order), BLOCK):
        block = catalog.sids.take(order[begin : begin + BLOCK], axis=0)
        for column, codes in zip(columns, block.T, strict=True):
            column[begin : begin + BLOCK] = codes
    return columns


def tied_rows(ties: np.ndarray, rows: int) -> np.ndarray:
    """Whether each row ties with a neighbour: bool [rows]. `ties[i]` is whether rows i and i + 1 tie."""
    tied = np.zeros(rows, bool)
    tied[1:] = ties
    tied[:-1] |= ties
    return tied


def _widths(codebook_sizes: Sequence[int]) -> list[int]:
    """The number of bits of a code, per level."""
    return [(size - 1).bit_length() for size in codebook_sizes]


def _bits(sids: np.ndarray, widths: list[int], rows: np.ndarray | None, begin: int, end: int) -> np.ndarray:
    """Bits `begin` to `end` of each SID, read as one bit string, as uint64.

    Args:
        sids: [N, L].
        widths: the number of bits of a code, per level.
        rows: the rows to read. Default: all.
        begin: the first bit.
        end: the bit after the last one.
    """
    value = np.zeros(len(sids) if rows is None else len(rows), np.uint64)
    start = 0
    for level, width in enumerate(widths):
        stop = start + width
        low, high = max(start, begin), min(stop, end)
        if low < high:
            codes = (sids[:, level] if rows is None else sids[rows, level]) >> (stop - high)
            codes &= (1 << (high - low)) - 1
            value <<= np.uint64(high - low)
            value |= codes
        start = stop
    return value
