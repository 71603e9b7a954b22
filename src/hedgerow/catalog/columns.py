"""Columns as they come in: item ids, attributes and SID columns, as Arrow."""

# pyarrow.compute makes its functions when it is imported, where pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hedgerow.catalog.ragged import ENDED, as_int64
from hedgerow.catalog.sids import MAX_CODEBOOK_SIZE, RAGGED_HINT
from hedgerow.errors import CatalogError

ELEMENT = "element"


def as_column(values: Any, what: str) -> pa.Array:
    """Returns `values` (an Arrow, NumPy, pandas or Polars column, or a sequence) as one Arrow array.

    Raises:
        CatalogError: naming `what`, where Arrow has no type that holds the values.
    """
    try:
        return _plain(one_array(values if isinstance(values, (pa.Array, pa.ChunkedArray)) else _converted(values)))
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise CatalogError(f"{what} cannot be held as one Arrow column: {error}. Give values of one type.") from None


def _converted(values: Any) -> pa.Array | pa.ChunkedArray:
    """Returns values that are not Arrow's as Arrow, with memory of their own: the caller may change his."""
    if hasattr(values, "__arrow_c_stream__"):
        return one_array(pa.chunked_array(values)).copy_to(pa.default_cpu_memory_manager())
    if isinstance(values, (set, frozenset, Mapping)):
        raise TypeError(f"a {type(values).__name__} has no order of rows")
    if isinstance(values, np.ndarray) and values.dtype.kind in "SU":
        # Arrow would cut NumPy's strings at a NUL.
        values = values.tolist()
    if isinstance(values, np.ndarray) and not values.dtype.isnative:
        values = values.astype(values.dtype.newbyteorder("="))
    return pa.array(values if hasattr(values, "dtype") else list(values)).copy_to(pa.default_cpu_memory_manager())


def one_array(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """A column as one Arrow array."""
    if isinstance(column, pa.Array):
        return column
    if column.num_chunks == 1:
        return column.chunk(0)
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def _plain(column: pa.Array) -> pa.Array:
    """Returns `column` without dictionary and string views, of which Arrow cannot take rows or the order.

    The values of lists are called "element", as Parquet calls them, so that what was saved and loaded is the same.
    """
    if isinstance(column, pa.DictionaryArray):
        return _plain(column.dictionary).take(column.indices)
    plain = _plain_type(column.type)
    return column if plain.equals(column.type, check_metadata=True) else column.cast(plain)


def _plain_type(type_: pa.DataType) -> pa.DataType:
    if pa.types.is_string_view(type_):
        return pa.large_string()
    if pa.types.is_binary_view(type_):
        return pa.large_binary()
    if pa.types.is_struct(type_):
        return pa.struct([_plain_field(type_.field(at)) for at in range(type_.num_fields)])
    if pa.types.is_fixed_size_list(type_):
        return pa.list_(_plain_field(type_.value_field).with_name(ELEMENT), type_.list_size)
    if pa.types.is_list(type_):
        return pa.list_(_plain_field(type_.value_field).with_name(ELEMENT))
    if pa.types.is_large_list(type_):
        return pa.large_list(_plain_field(type_.value_field).with_name(ELEMENT))
    return type_


def _plain_field(field: pa.Field) -> pa.Field:
    return field.with_type(_plain_type(field.type))


def as_table(columns: Any, items: int, *, reserved: str) -> pa.Table:
    """Returns attributes (a mapping of columns, an Arrow table, a frame) as an Arrow table of `items` rows.

    Raises:
        CatalogError: a column of another length, a name that is reserved, or values Arrow cannot hold.
    """
    if isinstance(columns, Mapping):
        if len({str(name) for name in columns}) < len(columns):
            raise CatalogError(f"two attributes have one name as text: {list(columns)}. Rename one.")
        arrays = {str(name): as_column(values, f"attribute {name!r}") for name, values in columns.items()}
        for name, array in arrays.items():
            if len(array) != items:
                raise CatalogError(f"attribute {name!r} has {len(array)} values, but the catalog has {items} items.")
        table = pa.table(arrays) if arrays else no_columns(items)
    else:
        given = from_frame(columns)
        arrays = [
            as_column(c, f"attribute {name!r}") for name, c in zip(given.column_names, given.columns, strict=True)
        ]
        table = pa.Table.from_arrays(arrays, given.column_names) if arrays else given
    if table.num_rows != items:
        raise CatalogError(f"the attributes have {table.num_rows} rows, but the catalog has {items} items.")
    if reserved in table.column_names:
        raise CatalogError(
            f"an attribute may not be called {reserved!r}: the ids have that name. Rename it, or pass it as item_id."
        )
    if len(set(table.column_names)) < table.num_columns:
        raise CatalogError(f"two attributes have one name: {sorted(table.column_names)}. Rename one.")
    return table


def no_columns(rows: int) -> pa.Table:
    """Returns a table of `rows` rows and no columns, which Arrow makes only by dropping one."""
    return pa.table({"": np.zeros(rows, np.int8)}).drop_columns([""])


def from_frame(frame: Any) -> pa.Table:
    """Returns an Arrow table, a pandas or Polars frame, or anything with Arrow's C stream interface, as a table.

    Raises:
        CatalogError: `frame` is none of these.
    """
    if isinstance(frame, pa.Table):
        return frame
    if isinstance(frame, pa.RecordBatch):
        return pa.Table.from_batches([frame])
    if not hasattr(frame, "__arrow_c_stream__"):
        raise CatalogError(
            "expected an Arrow table, a pandas or Polars frame, or another object with Arrow's C stream interface; "
            f"got {type(frame).__name__}."
        )
    try:
        table = pa.table(frame)
        # Memory of its own, as in `as_column`; and without the row labels of a pandas frame that was cut or sorted.
        labels = [name for name in table.column_names if re.fullmatch(r"__index_level_\d+__", name)]
        batches = [batch.copy_to(pa.default_cpu_memory_manager()) for batch in table.to_batches()]
        return pa.Table.from_batches(batches, table.schema).drop_columns(labels)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise CatalogError(f"{type(frame).__name__} cannot be read as an Arrow table: {error}") from None


def column_of(table: pa.Table, name: str, what: str) -> pa.Array:
    """Returns the column `name` of `table`, or says which columns there are."""
    if name not in table.column_names:
        lists = [field.name for field in table.schema if is_list(field.type)]
        hint = f" Columns of lists, which may hold SIDs: {', '.join(lists)}." if what == "SID" and lists else ""
        raise CatalogError(
            f"there is no {what} column {name!r}; the columns are {', '.join(table.column_names)}.{hint}"
        )
    if table.column_names.count(name) > 1:
        raise CatalogError(f"there are {table.column_names.count(name)} columns {name!r}. Rename all but one.")
    return as_column(table.column(name), f"column {name!r}")


def is_list(type_: pa.DataType) -> bool:
    """Whether an Arrow type is any of the list types."""
    return pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_)


def checked_item_ids(item_ids: Any, items: int) -> pa.Array:
    """Returns item ids as an Arrow array: `items` of them, none null, no two equal.

    Raises:
        CatalogError: naming the rows at fault.
    """
    ids = as_column(item_ids, "item_ids")
    if len(ids) != items:
        raise CatalogError(f"item_ids has {len(ids)} entries, but sids has {items} rows.")
    if items == 0 and pa.types.is_null(ids.type):
        ids = ids.cast(pa.int64())
    unknown = pc.is_null(ids, nan_is_null=True)
    if pc.any(unknown).as_py():
        row = pc.index(unknown, True).as_py()
        raise CatalogError(f"row {row} has no item id (null or NaN); every item needs one.")
    try:
        repeated = repeated_rows(ids)
        pc.sort_indices(sortable(ids[:1]))
    except pa.ArrowException:
        raise CatalogError(
            f"item ids of type {ids.type} cannot be ordered; give integers, strings, bytes, dates or UUIDs."
        ) from None
    if repeated is not None:
        raise CatalogError(
            f"item id {ids[repeated[0]].as_py()!r} stands in rows {repeated[0]} and {repeated[1]}; item ids must be "
            "distinct. (Two items may share a SID; one id may not name two items.)"
        )
    return ids


def sortable(ids: pa.Array) -> pa.Array:
    """Returns ids of an extension type (a UUID) as the storage beneath, which Arrow can compare."""
    return ids.storage if isinstance(ids, pa.ExtensionArray) else ids


def ranks(ids: pa.Array) -> np.ndarray:
    """Returns the place [N] of each id in their order."""
    places = np.empty(len(ids), np.int64)
    places[pc.sort_indices(sortable(ids)).to_numpy()] = np.arange(len(ids))
    return places


def repeated_rows(ids: pa.Array) -> tuple[int, int] | None:
    """Returns two rows with one id, the first of them first, or None where all ids are distinct."""
    if pa.types.is_integer(ids.type):
        # Sorting integers takes a tenth of the time, and of the memory, of a table of distinct ones.
        values = np.sort(ids.to_numpy(zero_copy_only=False))
        distinct = not (values[1:] == values[:-1]).any()
    else:
        distinct = pc.count_distinct(sortable(ids)).as_py() == len(ids)
    if distinct:
        return None
    order = pc.sort_indices(sortable(ids))
    ordered = sortable(ids).take(order)
    at = pc.index(pc.equal(ordered[1:], ordered[:-1]), True).as_py()
    first, second = sorted((order[at].as_py(), order[at + 1].as_py()))
    return first, second


def as_type(column: pa.Array | pa.ChunkedArray, field: pa.Field) -> pa.Array:
    """Returns a column as the type of `field`.

    Raises:
        CatalogError: a value of it is not of that type.
    """
    try:
        return one_array(column if column.type == field.type else column.cast(field.type))
    except pa.ArrowException as error:
        raise CatalogError(f"{field.name} has the type {field.type} in the index; got {column.type}: {error}") from None


def sids_of_columns(table: pa.Table, names: Sequence[str], *, ragged: bool = False) -> np.ndarray:
    """Returns SIDs [N, L] from L integer columns, one a level; -1 where null, if they may be ragged."""
    levels = []
    for level, name in enumerate(names):
        column = column_of(table, name, "SID")
        if not pa.types.is_integer(column.type):
            raise CatalogError(f"level {level}: column {name!r} must hold integer codes; it holds {column.type}.")
        if column.null_count and not ragged:
            row = pc.index(pc.is_null(column), True).as_py()
            raise CatalogError(
                f"row {row}, level {level}: column {name!r} is null; drop the rows without a SID. If null says "
                f"that the SID has ended: {RAGGED_HINT}."
            )
        codes = _codes_of(pc.fill_null(column, 0), level, name)
        levels.append(np.where(column.is_null(), ENDED, codes) if column.null_count else codes)
    if not levels:
        raise CatalogError("no SID column was named; give one list column, or one column a level.")
    return np.column_stack(levels)


def _codes_of(column: pa.Array, level: int, name: str) -> np.ndarray:
    """Returns a column of codes, never uint64: NumPy would make floats of it beside a signed column."""
    codes = column.to_numpy(zero_copy_only=False)
    if codes.dtype != np.uint64:
        return codes
    if (codes > MAX_CODEBOOK_SIZE).any():
        row = int(np.argmax(codes > MAX_CODEBOOK_SIZE))
        raise CatalogError(
            f"row {row}, level {level}: code {codes[row]} of column {name!r} is out of range; "
            f"a codebook has codes 0 to at most {MAX_CODEBOOK_SIZE - 1}."
        )
    return codes.astype(np.int64)


def sids_of_lists(column: pa.Array, name: str, *, ragged: bool = False) -> np.ndarray:
    """Returns SIDs [N, L] from one column of lists, all of one length; if they may be ragged, -1 after the end.

    Raises:
        CatalogError: naming the row that is null, holds a null, or has another length.
    """
    if not is_list(column.type):
        raise CatalogError(
            f"column {name!r} must hold lists of codes; it holds {column.type}. "
            "For one column a level, name them all: sid=['sid_0', 'sid_1'], or --sid sid_0,sid_1."
        )
    if not pa.types.is_integer(column.type.value_type):
        raise CatalogError(f"column {name!r} must hold lists of integers; it holds {column.type}.")
    if column.null_count:
        row = pc.index(pc.is_null(column), True).as_py()
        raise CatalogError(f"row {row}: column {name!r} is null; drop the rows without a SID.")
    lengths = pc.list_value_length(column).to_numpy(zero_copy_only=False)
    if len(column) == 0:
        width = column.type.list_size if pa.types.is_fixed_size_list(column.type) else 0
        return np.zeros((0, width), np.int64)
    if (lengths != lengths[0]).any() and not ragged:
        row = int(np.argmax(lengths != lengths[0]))
        raise CatalogError(
            f"row {row} of column {name!r} has {lengths[row]} codes, but row 0 has {lengths[0]}; {RAGGED_HINT}."
        )
    codes = column.flatten()
    if codes.null_count:
        at = pc.index(pc.is_null(codes), True).as_py()
        row = int(np.searchsorted(np.cumsum(lengths), at, side="right"))
        level = at - int(lengths[:row].sum())
        raise CatalogError(f"row {row}, level {level}: a code of column {name!r} is null; drop the rows without a SID.")
    flat = codes.to_numpy(zero_copy_only=False)
    return _padded(flat, lengths) if ragged else flat.reshape(len(column), int(lengths[0]))


def _padded(flat: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Returns the codes of all rows, one after another, as int64 [N, L], -1 after the end of each row."""
    matrix = np.full((len(lengths), max(1, int(lengths.max()))), ENDED, np.int64)
    matrix[np.arange(matrix.shape[1]) < lengths[:, None]] = as_int64(flat)
    return matrix


def rows_equal(column: pa.ChunkedArray, value: Any) -> list[int]:
    """Returns the rows of a column that hold a value; none where the column's type cannot hold it."""
    if pa.types.is_nested(column.type):
        return []
    try:
        wanted = pa.scalar(value, column.type) if not isinstance(value, str) else pa.scalar(value).cast(column.type)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return []
    return pc.indices_nonzero(pc.equal(column, wanted)).to_pylist()
