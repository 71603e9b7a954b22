"""Lookup of item ids: conversion to the type of the ids, rows of many ids at once, and errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hedgerow.errors import CatalogError, ConstraintError, HedgerowError
from hedgerow.index.fanout import parents_of
from hedgerow.index.trie import Trie

if TYPE_CHECKING:
    import pyarrow as pa


class IdLookup:
    """The item ids of an index in sorted order. A lookup is one binary search for all wanted ids at once.

    It works for every type that Arrow can compare, and stores the ids and one row number per id.

    Args:
        item_ids: the ids, in index order.
    """

    def __init__(self, item_ids: pa.ChunkedArray) -> None:
        import pyarrow.compute as pc

        from hedgerow.catalog.columns import sortable
        from hedgerow.catalog.types import one_array

        column = sortable(one_array(item_ids))
        order = pc.sort_indices(column)  # pyright: ignore[reportAttributeAccessIssue]
        self.ids, self.rows = column.take(order), order.to_numpy(zero_copy_only=False).astype(np.int64)

    def rows_of(self, wanted: pa.Array) -> np.ndarray:
        """Row [R] int64 of each id of `wanted` [R], or -1 if no item has it."""
        import pyarrow as pa
        import pyarrow.compute as pc

        if not len(self.ids) or not len(wanted):
            return np.full(len(wanted), -1, np.int64)
        if pa.types.is_integer(wanted.type):
            ids, values = self.ids.to_numpy(), wanted.to_numpy()
            nearest = np.empty(len(values), np.int64)
            # In ascending order, neighboring searches read the same memory.
            order = np.argsort(values)
            nearest[order] = np.minimum(np.searchsorted(ids, values[order]), len(ids) - 1)
            return np.where(ids[nearest] == values, self.rows[nearest], -1)
        low, high = np.zeros(len(wanted), np.int64), np.full(len(wanted), len(self.ids), np.int64)
        for _ in range(len(self.ids).bit_length()):
            middle = np.minimum((low + high) // 2, len(self.ids) - 1)
            below = pc.less(self.ids.take(middle), wanted)  # pyright: ignore[reportAttributeAccessIssue]
            right = below.to_numpy(zero_copy_only=False) & (low < high)
            low, high = np.where(right, middle + 1, low), np.where(right, high, middle)
        nearest = np.minimum(low, len(self.ids) - 1)
        equal = pc.equal(self.ids.take(nearest), wanted)  # pyright: ignore[reportAttributeAccessIssue]
        return np.where(equal.to_numpy(zero_copy_only=False), self.rows[nearest], -1)


def lookup_of(index: Trie) -> IdLookup:
    """The lookup of an index, built on first use and cached. Building sorts the ids."""
    if "_lookup" not in index.__dict__:
        index.__dict__["_lookup"] = IdLookup(index.item_ids)
    return index.__dict__["_lookup"]


def as_ids(
    index: Trie, ids: Any, what: str, *, error: type[HedgerowError] = ConstraintError, skip_too_large: bool = False
) -> pa.Array:
    """Convert item ids to the type of the ids of an index, and extension types to their storage.

    The conversion never changes a value: a fraction, or a time of day among dates, is an error.

    Args:
        index: the index.
        ids: a sequence, a set, an iterable, a NumPy array, or an Arrow, pandas or Polars column.
        what: the name of the argument in the message.
        error: the exception to raise.
        skip_too_large: leave out integers that the type cannot hold, which no item has. By default, they are an error.

    Raises:
        error: `ids` cannot be converted to that type.
    """
    import pyarrow as pa

    from hedgerow.catalog.columns import as_column, sortable
    from hedgerow.catalog.exact import exact_array, exact_cast, is_textual

    check_is_list(ids, what, error)
    type_ = index.item_ids.type
    column = None
    try:
        if hasattr(ids, "dtype") or isinstance(ids, pa.Array | pa.ChunkedArray):
            column = as_column(ids, what)
            # An id that is text is another one than a number of the same digits, in a column as in a list.
            if len(column) and is_textual(column.type) != is_textual(type_):
                raise pa.ArrowTypeError("text and other values are different ids")
            converted = sortable(exact_cast(_fitting_column(column, type_) if skip_too_large else column, type_))
        else:
            values = list(ids)
            converted = sortable(exact_array(_fitting(values, type_) if skip_too_large else values, type_))
    except (CatalogError, pa.ArrowException, TypeError, ValueError, OverflowError) as cause:
        given = f"{ids!r:.100}" if column is None else f"a column of type {column.type}"
        raise error(f"{what} must be item ids of this index, of type {type_}; got {given}: {cause}") from None
    if converted.null_count:
        raise error(f"{what}: null is not an item id. Remove it.")
    return converted


def _fitting(values: list[Any], type_: pa.DataType) -> list[Any]:
    """The values without the integers that an integer type cannot hold."""
    import pyarrow as pa

    if not pa.types.is_integer(type_):
        return values
    limits = np.iinfo(type_.to_pandas_dtype())
    lowest, highest = int(limits.min), int(limits.max)
    return [value for value in values if not isinstance(value, int | np.integer) or lowest <= value <= highest]


def _fitting_column(column: pa.Array, type_: pa.DataType) -> pa.Array:
    """The column without the integers that an integer type cannot hold."""
    import pyarrow as pa

    if column.type == type_ or column.null_count or not all(map(pa.types.is_integer, (column.type, type_))):
        return column
    limits = np.iinfo(type_.to_pandas_dtype())
    values = column.to_numpy(zero_copy_only=False)
    return column.filter(pa.array((values >= int(limits.min)) & (values <= int(limits.max))))


def check_is_list(ids: Any, what: str, error: type[HedgerowError]) -> None:
    """Check that item ids are a collection and not a single id.

    Raises:
        error: `ids` is text, bytes, a mapping, a data frame, or not iterable.
    """
    if isinstance(ids, Mapping) or hasattr(type(ids), "columns"):
        raise error(
            f"{what} must be a list of item ids; got a {type(ids).__name__}, which iterates over its keys or columns. "
            "Pass one of its columns, or list(...) of the ids."
        )
    if isinstance(ids, str | bytes | bytearray | memoryview) or not hasattr(ids, "__iter__"):
        raise error(f"{what} must be a list of item ids; got {ids!r}. For one item, pass [{ids!r}].")


def rows_of_lists(
    index: Trie, lists: Sequence[Any], what: Callable[[int], str], *, error: type[HedgerowError] = ConstraintError
) -> list[np.ndarray]:
    """Rows of several lists of item ids, found by one lookup: for each list [R] int64, without ids that no item has.

    Args:
        index: the index.
        lists: for each request a list of ids as for `as_ids`, or None.
        what: the name of a list in messages, by its position.
        error: the exception to raise.

    Raises:
        error: as for `as_ids`.
    """
    import pyarrow as pa

    wanted = [
        as_ids(index, [] if ids is None else ids, what(request), error=error, skip_too_large=True)
        for request, ids in enumerate(lists)
    ]
    if not any(map(len, wanted)):
        return [np.zeros(0, np.int64)] * len(wanted)
    rows = lookup_of(index).rows_of(pa.concat_arrays(wanted))
    stops = np.cumsum(list(map(len, wanted)))[:-1]
    return [part[part >= 0] for part in np.split(rows, stops)]


def known_rows(index: Trie, ids: Any, what: str, *, error: type[HedgerowError] = ConstraintError) -> np.ndarray:
    """Row [R] int64 of each item id.

    Raises:
        error: an id is not in the index, or as for `as_ids`.
    """
    wanted = as_ids(index, ids, what, error=error)
    rows = lookup_of(index).rows_of(wanted)
    check_known(rows, wanted, what, error)
    return rows


def check_known(rows: np.ndarray, wanted: pa.Array, what: str, error: type[HedgerowError], hint: str = "") -> None:
    """Check that every id was found.

    Args:
        rows: [R] the row of each id, or -1 if it was not found.
        wanted: [R] the ids.
        what: the name of the argument in the message.
        error: the exception to raise.
        hint: a sentence to append to the message.

    Raises:
        error: an id was not found. The message names the first one.
    """
    unknown = rows < 0
    if unknown.any():
        missing = wanted[int(np.argmax(unknown))].as_py()
        raise error(
            f"{int(unknown.sum()):,} of {len(rows):,} {what} are not in the index, the first is {missing!r}.{hint}"
        )


def scan_rows(index: Trie, wanted: pa.Array) -> np.ndarray:
    """Row [R] int64 of each of the distinct ids `wanted` [R], or -1, in one pass over the ids of the index.

    Bulk changes use it, because `lookup_of` would sort all ids first.

    Args:
        index: the index.
        wanted: the result of `as_ids`.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    from hedgerow.catalog.columns import sortable
    from hedgerow.catalog.types import one_array

    if not index.num_items or not len(wanted):
        return np.full(len(wanted), -1, np.int64)
    column = sortable(one_array(index.item_ids))
    if pa.types.is_integer(column.type):
        from hedgerow.index.splice import find_integers

        return find_integers(*(array.to_numpy(zero_copy_only=False) for array in (column, wanted)))
    positions = pc.index_in(column, value_set=wanted)  # pyright: ignore[reportAttributeAccessIssue]
    rows = np.full(len(wanted), -1, np.int64)
    rows[positions.drop_null().to_numpy()] = np.flatnonzero(positions.is_valid().to_numpy(zero_copy_only=False))
    return rows


def row_of_id(index: Trie, item_id: Any) -> int | None:
    """The row of one item, or None if no item has the id. Text is converted to the type of the ids."""
    from hedgerow.catalog.columns import rows_equal

    rows = rows_equal(index.item_ids, item_id)
    return rows[0] if rows else None


def leaves_of(index: Trie, rows: np.ndarray) -> np.ndarray:
    """Leaf [R] of each of `rows` [R] of an index."""
    return parents_of(index.leaf_start, index.leaf_forks, rows)


def attribute_column(index: Trie, name: str, what: str) -> pa.ChunkedArray:
    """The column of an attribute.

    Args:
        index: the index.
        name: the attribute.
        what: the argument that names it, for the message.

    Raises:
        ConstraintError: there is no such attribute. The message lists the attributes.
    """
    names = index.attributes.column_names
    if name not in names:
        hint = f" A direction goes with an attribute: ({(names or ['price'])[0]!r}, 'ascending')."
        raise ConstraintError(
            f"{what}: there is no attribute {name!r}; the attributes are {', '.join(names) or 'none'}."
            + hint * (name in ("asc", "desc", "ascending", "descending"))
        )
    return index.attributes.column(name)
