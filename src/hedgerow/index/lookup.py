"""Lookup of item ids: conversion to the type of the ids, rows of many ids at once, and errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from hedgerow._arguments import check_choice
from hedgerow.errors import ArgumentError, CatalogError, ConstraintError, HedgerowError
from hedgerow.index.arrow import plain_ids
from hedgerow.index.fanout import parents_of
from hedgerow.index.order import rows_of
from hedgerow.index.trie import Trie

if TYPE_CHECKING:
    import pyarrow as pa

# More ids than both, one in SCAN_SHARE of the items, are found faster in one pass over all ids.
MIN_SCAN = 2**16
SCAN_SHARE = 50
# With fewer ids, a search without the samples of the ids is fast, and the samples need not be made.
MIN_SAMPLED = 256
# Ids in a message.
MAX_LISTED = 5
MISSING = ("raise", "ignore")
Missing = Literal["raise", "ignore"]


def find_rows(index: Trie, wanted: pa.Array) -> np.ndarray:
    """Row [R] int64 of each id of `wanted` [R], or -1 if no item has it.

    Args:
        index: the index.
        wanted: the result of `as_ids`.
    """
    if not _are_many(index, wanted):
        samples = index._id_samples if len(wanted) >= MIN_SAMPLED else None
        return rows_of(index.item_ids, index._id_order, wanted, samples)
    distinct = wanted.dictionary_encode()
    return _scanned_rows(index, distinct.dictionary)[distinct.indices.to_numpy()]


def changed_rows(index: Trie, wanted: pa.Array) -> np.ndarray:
    """The same as `find_rows` of distinct ids, for changes: it does not sort the ids of an index without an order."""
    if _are_many(index, wanted) or not index._has_order:
        return _scanned_rows(index, wanted)
    return rows_of(index.item_ids, index._id_order, wanted)


def _are_many(index: Trie, wanted: pa.Array) -> bool:
    return len(wanted) >= max(MIN_SCAN, index.num_items // SCAN_SHARE)


def _scanned_rows(index: Trie, wanted: pa.Array) -> np.ndarray:
    """The same as `find_rows` of distinct ids, in one pass over all ids of the index."""
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


def hint_on_row_numbers(index: Trie) -> str:
    """A sentence for messages about ids that no item has, if the ids of the index are row numbers; otherwise empty."""
    import pyarrow as pa
    import pyarrow.compute as pc

    ids = index.item_ids
    if not len(ids) or ids.type != pa.int64():
        return ""
    # Distinct integers from 0 to N - 1.
    if pc.min_max(ids).as_py() != {"min": 0, "max": len(ids) - 1}:  # pyright: ignore[reportAttributeAccessIssue]
        return ""
    return (
        f" The ids of this index are 0 to {len(ids) - 1:,}, the row numbers of a file without a column item_id: if its "
        "ids are in another column, build the index with item_id=, or --item-id."
    )


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
    return _converted(index, ids, what, error, skip_too_large=skip_too_large)[0]


def _converted(
    index: Trie, ids: Any, what: str, error: type[HedgerowError], *, skip_too_large: bool
) -> tuple[pa.Array, np.ndarray | None]:
    """The result of `as_ids`; and bool [R], which of `ids` it contains, or None if it contains all of them."""
    import pyarrow as pa

    from hedgerow.catalog.columns import as_column, sortable
    from hedgerow.catalog.exact import exact_array, exact_cast, is_textual

    check_is_list(ids, what, error)
    type_ = index.item_ids.type
    column, fits = None, None
    is_column = hasattr(ids, "dtype") or isinstance(ids, pa.Array | pa.ChunkedArray)
    values = ids if is_column else list(ids)
    try:
        if (converted := plain_ids(values, type_)) is not None:
            return converted, None
        if is_column:
            column = as_column(values, what)
            # An id that is text is another one than a number of the same digits, in a column as in a list.
            if len(column) and is_textual(column.type) != is_textual(type_):
                raise pa.ArrowTypeError("text and other values are different ids")
            if skip_too_large and (fits := _fitting_column(column, type_)) is not None:
                column = column.filter(pa.array(fits))
            converted = sortable(exact_cast(column, type_))
        else:
            if skip_too_large and (fits := _fitting(values, type_)) is not None:
                values = [value for value, fit in zip(values, fits.tolist(), strict=True) if fit]
            converted = sortable(exact_array(values, type_))
    except (CatalogError, pa.ArrowException, TypeError, ValueError, OverflowError) as cause:
        given = f"{ids!r:.100}" if column is None else f"a column of type {column.type}"
        hint = hint_on_row_numbers(index)
        hint = f".{hint}" if hint else ""
        raise error(f"{what} must be item ids of this index, of type {type_}; got {given}: {cause}{hint}") from None
    if converted.null_count:
        raise error(f"{what}: null is not an item id. Remove it.")
    return converted, fits


def _fitting(values: list[Any], type_: pa.DataType) -> np.ndarray | None:
    """Whether an integer type can hold each value, which may be no integer: bool [R]; None for other types."""
    import pyarrow as pa

    if not pa.types.is_integer(type_):
        return None
    limits = np.iinfo(type_.to_pandas_dtype())
    lowest, highest = int(limits.min), int(limits.max)
    fits = (not isinstance(value, int | np.integer) or lowest <= value <= highest for value in values)
    return np.fromiter(fits, bool, len(values))


def _fitting_column(column: pa.Array, type_: pa.DataType) -> np.ndarray | None:
    """Whether an integer type can hold each integer of a column: bool [R]; None for other columns and types."""
    import pyarrow as pa

    if column.type == type_ or column.null_count or not all(map(pa.types.is_integer, (column.type, type_))):
        return None
    limits = np.iinfo(type_.to_pandas_dtype())
    values = column.to_numpy(zero_copy_only=False)
    return (values >= int(limits.min)) & (values <= int(limits.max))


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
    rows = find_rows(index, pa.concat_arrays(wanted))
    stops = np.cumsum(list(map(len, wanted)))[:-1]
    return [part[part >= 0] for part in np.split(rows, stops)]


def known_rows(
    index: Trie, ids: Any, what: str, *, error: type[HedgerowError] = ConstraintError, hint: str = ""
) -> np.ndarray:
    """Row [R] int64 of each item id.

    Raises:
        error: an id is not in the index, or as for `as_ids`.
    """
    wanted = as_ids(index, ids, what, error=error)
    rows = find_rows(index, wanted)
    if (rows < 0).any():
        hint += hint_on_row_numbers(index)
    check_known(rows, wanted, what, error, hint)
    return rows


def rows_of_ids(index: Trie, ids: Any, missing: Missing) -> np.ndarray:
    """Row [R] int64 of each item id: see `hedgerow.TrieIndex.rows`."""
    check_choice(missing, "missing", MISSING)
    if missing == "raise":
        return known_rows(index, ids, "ids", error=ArgumentError, hint=" missing='ignore' gives row -1 for such ids.")
    wanted, fits = _converted(index, ids, "ids", ArgumentError, skip_too_large=True)
    found = find_rows(index, wanted)
    if fits is None:
        return found
    rows = np.full(len(fits), -1, np.int64)
    rows[fits] = found
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


def row_of_id(index: Trie, item_id: Any) -> int | None:
    """The row of one item, or None if no item has the id. Text is converted to the type of the ids."""
    from hedgerow.catalog.columns import rows_equal

    rows = rows_equal(index.item_ids, item_id)
    return rows[0] if rows else None


def checked_row_of_id(index: Trie, item_id: Any, what: str) -> int | None:
    """The same as `row_of_id`, but a value that cannot be an id of the index is an error.

    Args:
        index: the index.
        item_id: the id.
        what: the name of the argument in the message.

    Raises:
        ArgumentError: the id is null, or not of the type of the index's ids, and not their text.
    """
    import pyarrow as pa

    from hedgerow.catalog.columns import scalar_of

    type_, cause = index.item_ids.type, "null is not an item id"
    try:
        is_valid = scalar_of(type_, item_id).is_valid
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        # An integer that is too large for the type is one that no item has.
        is_integer = isinstance(item_id, int | np.integer) and not isinstance(item_id, bool)
        is_valid, cause = is_integer and pa.types.is_integer(type_), str(error)
    if not is_valid:
        given = f"{item_id!r:.100} ({type(item_id).__name__})"
        hint = hint_on_row_numbers(index)
        raise ArgumentError(f"{what} must be an item id of this index, of type {type_}; got {given}: {cause}.{hint}")
    return row_of_id(index, item_id)


def row_of_value(index: Trie, name: str, value: Any, what: str) -> int:
    """The row of the only item whose attribute has a value. Text is converted to the type of the attribute.

    Args:
        index: the index.
        name: the attribute.
        value: the value.
        what: the name of the argument in the message.

    Raises:
        ArgumentError: there is no such attribute, or no item or several items have the value.
    """
    from hedgerow.catalog.columns import rows_equal

    names = index.attributes.column_names
    if name not in names:
        raise ArgumentError(f"{what}: there is no attribute {name!r}; the attributes are {', '.join(names) or 'none'}.")
    rows = rows_equal(index.attributes.column(name), value)
    if len(rows) == 1:
        return rows[0]
    listed = ", ".join(repr(index.item_ids[row].as_py()) for row in rows[:MAX_LISTED])
    advice = f": {listed}{' ...' if len(rows) > MAX_LISTED else ''}. Pass one of these ids" if rows else ""
    raise ArgumentError(f"{len(rows)} items have {name} {value!r}{advice}.")


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
