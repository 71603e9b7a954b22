"""The order of item ids: rows in ascending order of their ids, which makes a lookup a binary search of the ids."""

# pyarrow.compute creates its functions at import time, so pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hedgerow._compiled import native
from hedgerow.errors import CatalogError, IndexFileError
from hedgerow.index.arrow import as_bools, take_values
from hedgerow.index.radix import order_of_integers

if TYPE_CHECKING:
    import pyarrow as pa

SAMPLE_STEP = 32
# The types of text that the compiled search reads, and those of their offsets.
_OFFSET_TYPES = {"string": np.int32, "binary": np.int32, "large_string": np.int64, "large_binary": np.int64}


def sorted_order(ids: pa.ChunkedArray) -> np.ndarray:
    """The rows of ids in ascending order of the ids: int32 [N]."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from hedgerow.catalog.columns import sortable
    from hedgerow.catalog.types import one_array

    column = sortable(one_array(ids))
    if pa.types.is_integer(column.type) and not column.null_count:
        return order_of_integers(column.to_numpy())
    return pc.sort_indices(column).to_numpy().astype(np.int32)


def repeated_id(ids: pa.ChunkedArray, order: np.ndarray) -> tuple[int, int] | None:
    """Two rows with the same id; None if all ids are distinct. `order` is that of `sorted_order`."""
    import pyarrow.compute as pc

    ordered = values_at(ids, order)
    position = pc.index(pc.equal(ordered[1:], ordered[:-1]), True).as_py()
    return None if position < 0 else (int(order[position]), int(order[position + 1]))


def distinct_order(ids: pa.ChunkedArray) -> np.ndarray:
    """As `sorted_order`, for ids that may not be distinct.

    Raises:
        CatalogError: an id appears twice. The message names it, but not the rows.
    """
    order = sorted_order(ids)
    if (repeated := repeated_id(ids, order)) is not None:
        raise CatalogError(f"item id {ids[repeated[0]].as_py()!r} appears twice; item ids must be distinct.")
    return order


def lower_bounds(
    ids: pa.ChunkedArray, order: np.ndarray, wanted: pa.Array, samples: pa.Array | None = None
) -> np.ndarray:
    """For each wanted id the number of smaller ids: int64 [R]. Works for every type that Arrow can compare.

    Args:
        ids: [N] the ids.
        order: [N] their rows in ascending order of the ids.
        wanted: [R] ids of the same type, without extension types.
        samples: the result of `id_samples`, which makes the search of many ids faster.
    """
    import pyarrow.compute as pc

    if (found := _compiled_search(ids, order, wanted, samples, exact=False)) is not None:
        return found
    low, high = np.zeros(len(wanted), np.int64), np.full(len(wanted), len(order), np.int64)
    for _ in range(len(order).bit_length()):
        middle = np.minimum((low + high) // 2, len(order) - 1)
        below = as_bools(pc.less(values_at(ids, order[middle]), wanted))
        right = below & (low < high)
        low, high = np.where(right, middle + 1, low), np.where(right, high, middle)
    return low


def id_samples(ids: pa.ChunkedArray, order: np.ndarray) -> pa.Array:
    """Every 32nd id in ascending order: [N / 32]."""
    return values_at(ids, order[::SAMPLE_STEP])


def rows_of(ids: pa.ChunkedArray, order: np.ndarray, wanted: pa.Array, samples: pa.Array | None = None) -> np.ndarray:
    """Row [R] int64 of each wanted id, or -1 if no item has it. The arguments are those of `lower_bounds`."""
    import pyarrow.compute as pc

    if not len(order) or not len(wanted):
        return np.full(len(wanted), -1, np.int64)
    if (found := _compiled_search(ids, order, wanted, samples, exact=True)) is not None:
        return found
    rows = order[np.minimum(lower_bounds(ids, order, wanted), len(order) - 1)].astype(np.int64)
    return np.where(as_bools(pc.equal(values_at(ids, rows), wanted)), rows, -1)


def _compiled_search(
    ids: pa.ChunkedArray, order: np.ndarray, wanted: pa.Array, samples: pa.Array | None, *, exact: bool
) -> np.ndarray | None:
    """The result of `rows_of` if `exact`, or of `lower_bounds`; None for ids that the compiled search does not read."""
    if native is None or ids.num_chunks != 1 or ids.type != wanted.type or len(ids) != len(order):
        return None
    of_ids, of_wanted = _memory_of(ids.chunk(0)), _memory_of(wanted)
    of_samples = _memory_of(wanted[:0] if samples is None else samples)
    if of_ids is None or of_wanted is None or of_samples is None:
        return None
    out = np.empty(len(wanted), np.int64)
    try:
        native.search_ids(*of_ids, order.astype(np.int32, copy=False), *of_samples, SAMPLE_STEP, *of_wanted, exact, out)
    except IndexError as error:
        raise IndexFileError(
            f"{error}: the index is damaged. Load it with verify='full', which names the file."
        ) from None
    return out


def _memory_of(ids: pa.Array) -> tuple[Any, Any, bool] | None:
    """The values, the offsets of texts, and whether integers are signed; None for other types."""
    import pyarrow as pa

    if pa.types.is_integer(ids.type):
        values = ids.to_numpy()
        return values, None, values.dtype.kind == "i"
    offset_type = _OFFSET_TYPES.get(str(ids.type))
    if offset_type is None:
        return None
    _, offsets, data = ids.buffers()
    # An empty column may have no offsets.
    entries = np.frombuffer(offsets, offset_type)[ids.offset :] if len(ids) else np.zeros(1, offset_type)
    return (b"" if data is None else data), entries[: len(ids) + 1], False


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
