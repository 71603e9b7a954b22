"""Arrow types that an index holds, and the conversion of other Arrow types to them."""

# pyarrow.compute creates its functions at import time, so pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from functools import cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hedgerow.errors import CatalogError

# The name of the values of a list, as in Parquet, so that a saved and loaded column has the same type.
ELEMENT = "element"
MAX_DECIMAL_DIGITS = 38


class UnsupportedTypeError(TypeError):
    """An index cannot hold a type."""


def plain(column: pa.Array, what: str) -> pa.Array:
    """Convert a column to a type that can be sorted, saved as Parquet, and read by DuckDB.

    Dictionaries and run-end encoded columns are decoded, and views are copied.

    Args:
        column: the column.
        what: the name of the column in the message.

    Raises:
        CatalogError: there is no such type for the values, or text is not UTF-8.
    """
    try:
        column = _converted(column)
    except (UnsupportedTypeError, pa.ArrowException) as error:
        raise CatalogError(
            f"{what} has the type {column.type}, which an index cannot hold: {error}. Convert the column, or drop it."
        ) from None
    if _holds_text(column.type):
        _check_text(column, what)
    return column


def one_array(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Combine the chunks of a column into one Arrow array. Text of more than 2 GiB becomes large_string."""
    if isinstance(column, pa.Array):
        return column
    if column.num_chunks == 1:
        return column.chunk(0)
    if not column.num_chunks:
        return pa.array([], column.type)
    try:
        return pa.concat_arrays(column.chunks)
    except pa.ArrowInvalid:
        if (large := large_type(column.type)) == column.type:
            raise
        return pa.concat_arrays([chunk.cast(large) for chunk in column.chunks])


def _converted(column: pa.Array) -> pa.Array:
    column = _decoded(column)
    type_ = plain_type(column.type)
    return column if type_.equals(column.type, check_metadata=True) else column.cast(type_)


def _decoded(column: pa.Array) -> pa.Array:
    """Decode the column itself; `plain_type` converts nested types."""
    if isinstance(column, pa.RunEndEncodedArray):
        return _decoded(pc.run_end_decode(column))
    if pa.types.is_list_view(column.type) or pa.types.is_large_list_view(column.type):
        # Arrow's cast of a list view gives wrong lists.
        lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
        offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int64())
        return pa.LargeListArray.from_arrays(offsets, column.flatten(), mask=column.is_null())
    if not isinstance(column, pa.DictionaryArray):
        return column
    values = _converted(column.dictionary)
    try:
        return values.take(column.indices)
    except pa.ArrowInvalid:
        return values.cast(large_type(values.type)).take(column.indices)


def plain_type(type_: pa.DataType) -> pa.DataType:
    """The type that holds the values of a type.

    Raises:
        UnsupportedTypeError: there is none.
    """
    if isinstance(type_, pa.BaseExtensionType):
        plain_type(type_.storage_type)
        return type_
    if pa.types.is_dictionary(type_):
        return plain_type(type_.value_type)
    if pa.types.is_string_view(type_):
        return pa.large_string()
    if pa.types.is_binary_view(type_):
        return pa.large_binary()
    if pa.types.is_float16(type_):
        return pa.float32()
    if pa.types.is_decimal(type_):
        return _decimal128(type_)
    if pa.types.is_timestamp(type_) and type_.tz is not None:
        _check_zone(type_.tz)
    if pa.types.is_run_end_encoded(type_):
        raise UnsupportedTypeError("it holds nested run-end encoded values; decode them")
    if pa.types.is_nested(type_):
        return _plain_nested(type_)
    if pa.types.is_interval(type_):
        raise UnsupportedTypeError("Parquet has no type for intervals; use a duration")
    return type_


def _decimal128(type_: pa.DataType) -> pa.DataType:
    """Decimals of 128 bits. Arrow does not compare those of 32 and 64 bits, and those with a negative scale."""
    scale, is_longer = max(0, type_.scale), pa.types.is_decimal256(type_)
    digits = MAX_DECIMAL_DIGITS if is_longer else type_.precision + scale - type_.scale
    if max(digits, scale) > MAX_DECIMAL_DIGITS:
        raise UnsupportedTypeError(f"decimals have at most {MAX_DECIMAL_DIGITS} digits")
    return pa.decimal128(digits, scale)


@cache
def _check_zone(zone: str) -> None:
    """Check that there is a time zone: without it, the values of a column cannot be read."""
    try:
        pa.scalar(0, pa.timestamp("s", zone)).as_py()
    except (pa.ArrowException, ValueError, KeyError):
        raise UnsupportedTypeError(
            f"there is no time zone {zone!r} here. Zones are names such as Europe/Berlin, or offsets such as +02:00"
        ) from None


def _plain_nested(type_: pa.DataType) -> pa.DataType:
    if pa.types.is_struct(type_):
        fields = [_plain_field(type_.field(position)) for position in range(type_.num_fields)]
        if len({field.name for field in fields}) < max(1, len(fields)):
            raise UnsupportedTypeError("a struct needs fields with distinct names")
        return pa.struct(fields)
    if pa.types.is_map(type_):
        return pa.map_(plain_type(type_.key_type), _plain_field(type_.item_field), type_.keys_sorted)
    if pa.types.is_fixed_size_list(type_):
        if type_.list_size == 0:
            raise UnsupportedTypeError("Parquet has no type for fixed-size lists without values")
        return pa.list_(_plain_field(type_.value_field).with_name(ELEMENT), type_.list_size)
    if pa.types.is_list(type_):
        return pa.list_(_plain_field(type_.value_field).with_name(ELEMENT))
    if pa.types.is_large_list(type_):
        return pa.large_list(_plain_field(type_.value_field).with_name(ELEMENT))
    kind = "unions" if pa.types.is_union(type_) else "nested list views"
    raise UnsupportedTypeError(f"Parquet has no type for {kind}")


def _plain_field(field: pa.Field) -> pa.Field:
    # Nullable, because items that are added later may have nulls.
    return field.with_type(plain_type(field.type)).with_nullable(True)


def large_type(type_: pa.DataType) -> pa.DataType:
    """The type with 64-bit offsets, for values of more than 2 GiB."""
    if pa.types.is_string(type_):
        return pa.large_string()
    if pa.types.is_binary(type_):
        return pa.large_binary()
    if pa.types.is_list(type_):
        return pa.large_list(type_.value_field.with_type(large_type(type_.value_type)))
    if pa.types.is_dictionary(type_):
        return pa.dictionary(type_.index_type, large_type(type_.value_type), type_.ordered)
    return type_


def is_list(type_: pa.DataType) -> bool:
    """Whether an Arrow type is one of the list types."""
    return pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_)


def is_text(type_: pa.DataType) -> bool:
    """Whether an Arrow type is one of the string types."""
    return pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_)


def holds_time(type_: pa.DataType) -> bool:
    """Whether an Arrow type is a date, time, timestamp or duration, or nests one."""
    return pa.types.is_temporal(type_) or any(holds_time(type_.field(n).type) for n in range(type_.num_fields))


def _holds_text(type_: pa.DataType) -> bool:
    if isinstance(type_, pa.BaseExtensionType):
        return _holds_text(type_.storage_type)
    return is_text(type_) or any(_holds_text(type_.field(position).type) for position in range(type_.num_fields))


def _check_text(column: pa.Array, what: str) -> None:
    """Check that text is UTF-8. Arrow does not check the text of Parquet files."""
    storage = column.storage if isinstance(column, pa.ExtensionArray) else column
    try:
        storage.validate(full=True)
    except pa.ArrowInvalid as error:
        raise CatalogError(
            f"{what} holds text that is not UTF-8: {error}. Convert it to UTF-8, or pass it as bytes."
        ) from None
