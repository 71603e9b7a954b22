"""The order of item ids: rows in ascending order of their ids, which makes a lookup a binary search of the ids."""

# pyarrow.compute creates its functions at import time, so pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hedgerow.index.arrow import as_bools, take_values

if TYPE_CHECKING:
    import pyarrow as pa

KEY_BITS = 64
SAMPLE_STEP = 32


def sorted_order(ids: pa.ChunkedArray) -> np.ndarray:
    """The rows of ids in ascending order of the ids: int32 [N]."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from hedgerow.catalog.columns import sortable
    from hedgerow.catalog.types import one_array

    column = sortable(one_array(ids))
    if pa.types.is_integer(column.type) and not column.null_count:
        return _integer_order(column.to_numpy())
    return pc.sort_indices(column).to_numpy().astype(np.int32)


def _integer_order(values: np.ndarray) -> np.ndarray:
    """The argsort of integers. Sorting keys of a value and its row is faster, if they fit into 64 bits."""
    if not len(values):
        return np.zeros(0, np.int32)
    lowest, row_bits = int(values.min()), (len(values) - 1).bit_length()
    if (int(values.max()) - lowest).bit_length() + row_bits > KEY_BITS:
        return np.argsort(values, kind="stable").astype(np.int32)
    # The subtraction wraps around, and so gives the distance for every type.
    keys = values.astype(np.uint64) - np.uint64(lowest % 2**KEY_BITS)
    keys <<= np.uint64(row_bits)
    keys |= np.arange(len(values), dtype=np.uint64)
    keys.sort()
    keys &= np.uint64((1 << row_bits) - 1)
    return keys.astype(np.int32)


def lower_bounds(
    ids: pa.ChunkedArray, order: np.ndarray, wanted: pa.Array, samples: np.ndarray | None = None
) -> np.ndarray:
    """For each wanted id the number of smaller ids: int64 [R]. Works for every type that Arrow can compare.

    Args:
        ids: [N] the ids.
        order: [N] their rows in ascending order of the ids.
        wanted: [R] ids of the same type, without extension types.
        samples: the result of `id_samples`, which makes the search of many ids faster.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_integer(wanted.type) and ids.num_chunks == 1 and ids.type == wanted.type and len(order):
        values = wanted.to_numpy()
        if samples is None:
            return _lower_bounds(ids.chunk(0).to_numpy(), order, values)
        # Neighbours of ascending ids read the same cache lines.
        ascending = np.argsort(values)
        values, low = values[ascending], np.empty(len(values), np.int64)
        block = np.maximum(np.searchsorted(samples, values) - 1, 0)
        low[ascending] = _lower_bounds(ids.chunk(0).to_numpy(), order, values, block * SAMPLE_STEP, SAMPLE_STEP)
        return low
    low, high = np.zeros(len(wanted), np.int64), np.full(len(wanted), len(order), np.int64)
    for _ in range(len(order).bit_length()):
        middle = np.minimum((low + high) // 2, len(order) - 1)
        below = as_bools(pc.less(values_at(ids, order[middle]), wanted))
        right = below & (low < high)
        low, high = np.where(right, middle + 1, low), np.where(right, high, middle)
    return low


def id_samples(ids: pa.ChunkedArray, order: np.ndarray) -> np.ndarray | None:
    """Every 32nd id in ascending order: [N / 32]; None for ids that are not integers in one chunk."""
    import pyarrow as pa

    if not pa.types.is_integer(ids.type) or ids.num_chunks != 1:
        return None
    return ids.chunk(0).to_numpy()[order[::SAMPLE_STEP]]


def _lower_bounds(
    ids: np.ndarray, order: np.ndarray, wanted: np.ndarray, low: np.ndarray | None = None, length: int | None = None
) -> np.ndarray:
    """As `lower_bounds`, for integers. `np.searchsorted` would copy the whole order for each call.

    Args:
        ids: [N] the ids.
        order: [N] their rows in ascending order of the ids.
        wanted: [R] integers of the type of the ids.
        low: [R] a position before each result, which is at most `length` later. Default: 0 and N.
        length: see `low`.
    """
    low, last = np.zeros(len(wanted), np.int64) if low is None else low, len(order) - 1
    step = 1 << (len(order) if length is None else length).bit_length()
    while step := step >> 1:
        # Of the ids below this one, all are smaller than the wanted id, or it is one of them.
        tried = low + (step - 1)
        smaller = (tried <= last) & (ids[order[np.minimum(tried, last)]] < wanted)
        low += smaller * step
    return low


def rows_of(ids: pa.ChunkedArray, order: np.ndarray, wanted: pa.Array, samples: np.ndarray | None = None) -> np.ndarray:
    """Row [R] int64 of each wanted id, or -1 if no item has it. The arguments are those of `lower_bounds`."""
    import pyarrow.compute as pc

    if not len(order) or not len(wanted):
        return np.full(len(wanted), -1, np.int64)
    rows = order[np.minimum(lower_bounds(ids, order, wanted, samples), len(order) - 1)].astype(np.int64)
    return np.where(as_bools(pc.equal(values_at(ids, rows), wanted)), rows, -1)


def values_at(ids: pa.ChunkedArray, rows: np.ndarray) -> pa.Array:
    """The ids of rows, in a type that Arrow can compare."""
    from hedgerow.catalog.columns import sortable

    return sortable(take_values(ids, rows))


def spliced_order(
    ids: pa.ChunkedArray,
    order: np.ndarray,
    inserted: np.ndarray,
    removed: np.ndarray,
    new_ids: pa.ChunkedArray,
) -> np.ndarray:
    """The order of ids after items were removed and inserted, without sorting the ids that are kept: int32.

    Args:
        ids: [N] the old ids.
        order: [N] their order.
        inserted: [new items] int64, ascending, may repeat: the old row before which each new item is inserted.
        removed: [removed items] int64, ascending: the rows of the items that are removed.
        new_ids: [new items] their ids, of the type of `ids`.
    """
    if len(removed):
        is_kept = np.ones(len(order), bool)
        is_kept[removed] = False
        order = order[is_kept[order]]
    growth = np.zeros(len(ids) + 1, np.int32)
    np.add.at(growth, inserted, 1)
    growth[removed] -= 1
    np.cumsum(growth, out=growth)
    moved = order + growth[order]
    if not len(inserted):
        return moved
    new_order = sorted_order(new_ids)
    places = lower_bounds(ids, order, values_at(new_ids, new_order))
    placed = (inserted + np.arange(len(inserted)) - np.searchsorted(removed, inserted)).astype(np.int32)
    return np.insert(moved, places, placed[new_order])
