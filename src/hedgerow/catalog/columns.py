"""Conversion of item ids, attributes and SID columns to Arrow, with validation."""

# pyarrow.compute creates its functions at import time, so pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import bisect
import json
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hedgerow.catalog.codes import codes_of_rows, num_codes
from hedgerow.catalog.dates import sampled_dates
from hedgerow.catalog.distinct import are_distinct
from hedgerow.catalog.exact import exact_array, exact_cast
from hedgerow.catalog.ragged import ENDED, as_int64
from hedgerow.catalog.sids import RAGGED_HINT
from hedgerow.catalog.types import is_list, is_text, one_array, plain
from hedgerow.errors import CatalogError

# The key of the metadata of a SID column: the codebook size of each level, as JSON.
CODEBOOK_SIZES = b"hedgerow.codebook_sizes"
# The row labels of a pandas frame that was cut, sorted or given other labels.
ROW_LABELS = re.compile(r"__index_level_\d+__")


def as_column(values: Any, what: str, *, copy: bool = False) -> pa.Array:
    """Convert a column to one Arrow array of a type that an index can hold: see `plain`.

    Args:
        values: an Arrow, NumPy, pandas or Polars column, or a sequence.
        what: the name of the column in the message.
        copy: whether the array must not share memory with `values`.

    Raises:
        CatalogError: Arrow has no type that holds the values, or an index cannot hold that type.
    """
    try:
        column = one_array(values if isinstance(values, (pa.Array, pa.ChunkedArray)) else _to_arrow(values))
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        row = f"row {_failing_row(values)}: " if isinstance(values, list) else ""
        raise CatalogError(
            f"{row}{what} cannot be converted to one Arrow column: {error}. Pass one value per item, all of one type."
        ) from None
    # Arrow's arrays can share the memory of NumPy, pandas or Polars; a concatenation has its own.
    return plain(pa.concat_arrays([column]) if copy else column, what)


def _failing_row(values: list[Any]) -> int:
    """The first row whose value Arrow cannot add to the column of the values before it."""

    def fails(stop: int) -> bool:
        try:
            pa.array(values[:stop])
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            return True
        return False

    return bisect.bisect_left(range(len(values) + 1), True, key=fails) - 1


def _to_arrow(values: Any) -> pa.Array:
    """Convert a column of another library to Arrow. The array can share the memory of `values`."""
    if hasattr(values, "__arrow_c_stream__"):
        _check_dtype(values)
        return one_array(pa.chunked_array(values))
    if isinstance(values, (set, frozenset, Mapping)):
        raise TypeError(f"a {type(values).__name__} has no order of rows")
    if isinstance(values, np.ndarray) and values.dtype.kind in "SU":
        # Arrow would cut NumPy's strings at a NUL.
        values = values.tolist()
    if isinstance(values, np.ndarray) and not values.dtype.isnative:
        values = values.astype(values.dtype.newbyteorder("="))
    return one_array(pa.array(values if hasattr(values, "dtype") else list(values)))


def _check_dtype(series: Any) -> None:
    """Check that a Polars series does not hold Python objects, which it passes to Arrow as memory addresses."""
    if str(getattr(series, "dtype", "")) == "Object":
        raise TypeError("its dtype is Object; Arrow has no type for Python objects")


def as_table(columns: Any, num_items: int, *, reserved: Sequence[str], copy: bool) -> pa.Table:
    """Convert attributes to an Arrow table.

    Args:
        columns: a mapping of names to columns, an Arrow table, or a data frame.
        num_items: the expected number of rows.
        reserved: the names that no attribute may have.
        copy: whether the table must not share memory with `columns`.

    Raises:
        CatalogError: a column has another length, a name is reserved or appears twice, or Arrow cannot hold the values.
    """
    is_mapping = isinstance(columns, Mapping)
    table = _table_of_mapping(columns, num_items, copy=copy) if is_mapping else _table_of_frame(columns, copy=copy)
    if table.num_rows != num_items:
        raise CatalogError(f"the attributes have {table.num_rows} rows, but the catalog has {num_items} items.")
    for name in [name for name in reserved if name in table.column_names]:
        raise CatalogError(
            f"an attribute cannot be named {name!r}: the results of a search have {', '.join(reserved)} of their own. "
            "Rename the column, or choose the attributes without it: attributes=[...], or --attributes."
        )
    if len(set(table.column_names)) < table.num_columns:
        raise CatalogError(f"two attributes have the same name: {sorted(table.column_names)}. Rename one.")
    return table


def _table_of_mapping(columns: Mapping[Any, Any], num_items: int, *, copy: bool) -> pa.Table:
    if len({str(name) for name in columns}) < len(columns):
        raise CatalogError(f"two attributes have the same name as text: {list(columns)}. Rename one.")
    arrays = {str(name): as_column(values, f"attribute {name!r}", copy=copy) for name, values in columns.items()}
    for name, array in arrays.items():
        if len(array) != num_items:
            raise CatalogError(f"attribute {name!r} has {len(array)} values, but the catalog has {num_items} items.")
    return pa.table(arrays) if arrays else no_columns(num_items)


def _table_of_frame(frame: Any, *, copy: bool) -> pa.Table:
    table = from_frame(frame)
    table = table.drop_columns([name for name in table.column_names if ROW_LABELS.fullmatch(name)])
    names = table.column_names
    columns = zip(names, table.columns, strict=True)
    arrays = [as_column(column, f"attribute {name!r}", copy=copy) for name, column in columns]
    return pa.Table.from_arrays(arrays, names) if arrays else table


def no_columns(num_rows: int) -> pa.Table:
    """A table of `num_rows` rows without columns. Arrow makes one only by dropping the last column."""
    return pa.table({"": np.zeros(num_rows, np.int8)}).drop_columns([""])


def from_frame(frame: Any) -> pa.Table:
    """Convert an Arrow table, a pandas or Polars frame, or an object with Arrow's C stream interface to a table.

    The table can share the memory of `frame`.

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
        for name, dtype in zip(getattr(frame, "columns", ()), getattr(frame, "dtypes", ()), strict=False):
            if str(dtype) == "Object":
                raise TypeError(f"column {name!r} has the dtype Object; Arrow has no type for Python objects")
        return pa.table(frame)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise CatalogError(f"{type(frame).__name__} cannot be read as an Arrow table: {error}") from None


def codebook_sizes_of(schema: pa.Schema, name: str) -> tuple[int, ...] | None:
    """The codebook sizes that `hedgerow semantic-ids` wrote to the metadata of a SID column; None without them."""
    metadata = schema.field(name).metadata if schema.names.count(name) == 1 else None
    sizes = (metadata or {}).get(CODEBOOK_SIZES)
    return None if sizes is None else tuple(json.loads(sizes))


def chosen_codebook_sizes(schema: pa.Schema, name: str, sizes: Any) -> Any:
    """The codebook sizes to use: those that are given, or those that are stored with the SIDs.

    Raises:
        CatalogError: a given size is smaller than the stored one, so that the index would have fewer codes than the
            quantizer, and later items would not fit.
    """
    stored = codebook_sizes_of(schema, name)
    if stored is None or sizes is None:
        return stored if sizes is None else sizes
    try:
        each = np.broadcast_to(np.asarray(sizes), len(stored))
    except ValueError:
        each = np.zeros(0)
    # Other numbers of sizes, and values that are no integers, are refused where the SIDs are checked.
    if each.dtype.kind in "iu" and (each < np.asarray(stored)).any():
        level = int(np.argmax(each < np.asarray(stored)))
        raise CatalogError(
            f"codebook_sizes: level {level} has {each[level]}, but column {name!r} says that its SIDs have "
            f"{list(stored)} codes, as many as the quantizer. Later items would not fit. Omit codebook_sizes "
            "(--codebook-sizes), or pass sizes that are at least as large."
        )
    return sizes


def sid_field(name: str, type_: pa.DataType, sizes: Sequence[int]) -> pa.Field:
    """The field of a SID column, with its codebook sizes as metadata."""
    return pa.field(name, type_, metadata={CODEBOOK_SIZES: json.dumps(list(sizes))})


def other_columns(table: pa.Table, used: Collection[str | None]) -> list[str]:
    """The names of the columns that are not used, without the row labels of pandas."""
    return [name for name in table.column_names if name not in used and not ROW_LABELS.fullmatch(name)]


def column_of(table: pa.Table, name: str, what: str) -> pa.Array:
    """The column `name` of a table as one Arrow array.

    Args:
        table: the table.
        name: the column.
        what: the role of the column in the message, for example "SID".

    Raises:
        CatalogError: the column does not exist, or exists twice. The message lists the columns.
    """
    if name not in table.column_names:
        sids = [name for name in table.column_names if what == "SID" and _can_hold_sids(table, name)]
        hint = f" Columns that can hold SIDs: {', '.join(sids)}." if sids else ""
        if what == "SID" and not sids:
            hint = " To make SIDs from embeddings or texts, run hedgerow semantic-ids first."
        raise CatalogError(
            f"there is no {what} column {name!r}; the columns are {', '.join(table.column_names)}.{hint}"
        )
    if table.column_names.count(name) > 1:
        raise CatalogError(f"there are {table.column_names.count(name)} columns {name!r}. Rename all but one.")
    return as_column(table.column(name), f"column {name!r}")


def _can_hold_sids(table: pa.Table, name: str) -> bool:
    """Whether a column holds lists, or text that starts with a SID and does not look like dates."""
    position = table.column_names.index(name)
    column = table.column(position)
    if not is_text(column.type) or not len(column):
        return is_list(column.type)
    return num_codes(column[0].as_py()) > 0 and sampled_dates(column) is None


def checked_item_ids(item_ids: Any, num_items: int, *, copy: bool = False) -> pa.Array:
    """Convert item ids to an Arrow array of `num_items` distinct values without nulls.

    Args:
        item_ids: the ids.
        num_items: the expected number of ids.
        copy: whether the array must not share memory with `item_ids`.

    Raises:
        CatalogError: the ids are not of that kind. The message names the rows.
    """
    ids = as_column(item_ids, "item_ids", copy=copy)
    if len(ids) != num_items:
        raise CatalogError(f"item_ids has {len(ids)} entries, but sids has {num_items} rows.")
    if num_items == 0 and pa.types.is_null(ids.type):
        ids = ids.cast(pa.int64())
    missing = pc.is_null(ids, nan_is_null=True)
    if pc.any(missing).as_py():
        row = pc.index(missing, True).as_py()
        raise CatalogError(f"row {row} has no item id (null or NaN); every item needs one.")
    if pa.types.is_floating(ids.type):
        raise CatalogError(
            f"item ids must be exact, but item_ids are floats ({ids.type}). Pass integers or strings, for example "
            "ids.astype('int64')."
        )
    try:
        repeated = repeated_rows(ids)
        pc.sort_indices(sortable(ids[:1]))
    except pa.ArrowException:
        raise CatalogError(
            f"item ids of type {ids.type} cannot be ordered. Use integers, strings, bytes, dates or UUIDs."
        ) from None
    if repeated is not None:
        raise CatalogError(
            f"item id {ids[repeated[0]].as_py()!r} appears in rows {repeated[0]} and {repeated[1]}; item ids must be "
            "distinct. Two items can share a SID, but not an item id."
        )
    return ids


def sortable(ids: pa.Array) -> pa.Array:
    """The storage of an extension type (a UUID), which Arrow can compare; other arrays unchanged."""
    return ids.storage if isinstance(ids, pa.ExtensionArray) else ids


def ranks(ids: pa.Array) -> np.ndarray:
    """Rank [N] int64 of each id in sorted order."""
    positions = np.empty(len(ids), np.int64)
    positions[pc.sort_indices(sortable(ids)).to_numpy()] = np.arange(len(ids))
    return positions


def repeated_rows(ids: pa.Array) -> tuple[int, int] | None:
    """Two rows with the same id, in ascending order; None if all ids are distinct."""
    if pa.types.is_integer(ids.type):
        distinct = are_distinct(ids.to_numpy(zero_copy_only=False))
    else:
        distinct = pc.count_distinct(sortable(ids)).as_py() == len(ids)
    if distinct:
        return None
    order = pc.sort_indices(sortable(ids))
    ordered = sortable(ids).take(order)
    position = pc.index(pc.equal(ordered[1:], ordered[:-1]), True).as_py()
    first, second = sorted((order[position].as_py(), order[position + 1].as_py()))
    return first, second


def as_type(column: pa.Array | pa.ChunkedArray, field: pa.Field) -> pa.Array:
    """Cast a column to the type of a field.

    Raises:
        CatalogError: a value cannot be cast, or the cast would change it. The message names the column and the row.
    """
    try:
        return exact_cast(one_array(column), field.type)
    except pa.ArrowException as error:
        raise CatalogError(
            f"{field.name} has the type {field.type} in the index; got {column.type}, which cannot be converted "
            f"without a change: {error}. Pass a column of type {field.type}."
        ) from None


def sids_of_lists(column: pa.Array, name: str, *, ragged: bool = False) -> np.ndarray:
    """SIDs [N, L] from one column. If `ragged`, SIDs may have different lengths, and -1 follows the end.

    Args:
        column: lists of integers, or SIDs as text: see `TextParser`.
        name: the name of the column in messages.
        ragged: whether SIDs may have different lengths.

    Raises:
        CatalogError: the column does not hold SIDs, or a row is null, holds a null or has another length.
            The message names the row.
    """
    if column.null_count:
        row = pc.index(pc.is_null(column), True).as_py()
        raise CatalogError(f"row {row}: column {name!r} is null. Remove the rows without a SID.")
    is_tokens = is_list(column.type) and is_text(column.type.value_type)
    if is_tokens or (is_text(column.type) and len(column) and num_codes(column[0].as_py(), lone=ragged)):
        rows = codes_of_rows(column.to_pylist(), f"column {name!r}", ragged=ragged)
        column = pa.array(rows, pa.list_(pa.int64()))
    if not is_list(column.type):
        raise CatalogError(
            f"column {name!r} must hold lists of codes; it holds {column.type}. Text such as 2-6-4 or <a_2><b_6> is a "
            "SID, too. For one column per level, name all of them: sid=['sid_0', 'sid_1'], or --sid sid_0,sid_1."
        )
    if not pa.types.is_integer(column.type.value_type):
        raise CatalogError(f"column {name!r} must hold lists of integers; it holds {column.type}.")
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
        position = pc.index(pc.is_null(codes), True).as_py()
        row = int(np.searchsorted(np.cumsum(lengths), position, side="right"))
        level = position - int(lengths[:row].sum())
        raise CatalogError(
            f"row {row}, level {level}: a code of column {name!r} is null. Remove the rows without a SID."
        )
    flat = codes.to_numpy(zero_copy_only=False)
    return _padded(flat, lengths) if ragged else flat.reshape(len(column), int(lengths[0]))


def _padded(flat: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Pad concatenated rows of codes to int64 [N, L], with -1 after the end of each row."""
    matrix = np.full((len(lengths), max(1, int(lengths.max()))), ENDED, np.int64)
    matrix[np.arange(matrix.shape[1]) < lengths[:, None]] = as_int64(flat)
    return matrix


def rows_equal(column: pa.ChunkedArray, value: Any) -> list[int]:
    """The rows of a column that equal a value. Text is converted to the column's type; no rows if it cannot be."""
    if pa.types.is_nested(column.type):
        return []
    try:
        scalar = scalar_of(column.type, value)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return []
    return pc.indices_nonzero(pc.equal(column, scalar)).to_pylist()


def scalar_of(type_: pa.DataType, value: Any) -> pa.Scalar:
    """Convert a value to a type without changing it; text is parsed.

    Raises:
        ArrowException, TypeError, ValueError, OverflowError: the value is of another kind, or the type cannot hold it.
    """
    return pa.scalar(value).cast(type_) if isinstance(value, str) else exact_array([value], type_)[0]
