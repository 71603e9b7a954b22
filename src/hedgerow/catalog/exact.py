"""Conversion of values to an Arrow type without a change of value. Arrow truncates some of them silently."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from hedgerow.catalog.types import is_list, is_text


def exact_array(values: list[Any], type_: pa.DataType) -> pa.Array:
    """Convert Python values to an Arrow array.

    Args:
        values: values of the kind of `type_`, or None.
        type_: the type of the result.

    Raises:
        ArrowException, TypeError, ValueError, OverflowError: a value is of another kind, or the type cannot hold it.
    """
    # It refuses values of another kind, but truncates 1.5 to 1 and a datetime to its date.
    converted = pa.array(values, type_)
    kinds = set(map(type, values)) - {type(None)}
    if pa.types.is_integer(type_) and all(issubclass(kind, int | np.integer) for kind in kinds):
        return converted
    if not (pa.types.is_integer(type_) or pa.types.is_temporal(type_)) or not kinds:
        return converted
    if len(kinds) > 1:
        # The type that Arrow infers for a date and a datetime is that of the first of them.
        return pa.concat_arrays([exact_array([value], type_) for value in values])
    # Arrow infers microseconds for a Timestamp of pandas, which has nanoseconds.
    has_nanoseconds = any(getattr(value, "nanosecond", 0) for value in values)
    inferred = pa.timestamp("ns", tz=getattr(type_, "tz", None)) if has_nanoseconds else None
    return exact_cast(pa.array(values, inferred), type_)


def exact_cast(column: pa.Array, type_: pa.DataType) -> pa.Array:
    """Cast an array to a type of the same kind of values.

    Raises:
        ArrowException: the type is of another kind, a value cannot be cast, or the cast would change it. The message
            names the row.
    """
    if column.type == type_:
        return column
    if column.null_count == len(column):
        return pa.nulls(len(column), type_)
    if not same_values(column.type, type_):
        raise pa.ArrowTypeError(f"{column.type} holds other values than {type_}")
    try:
        converted = column.cast(type_)
    except pa.ArrowInvalid as error:
        raise pa.ArrowInvalid(f"row {_first_row_not_cast(column, type_)}: {error}") from None
    row = _first_changed(column, converted)
    if row is not None:
        raise pa.ArrowInvalid(f"row {row}: {_shown(column[row])} would lose data and become {_shown(converted[row])}")
    return converted


def wider_type(type_: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """The smallest type of the same kind that holds the values of two types; None if there is none.

    It may not hold all of them, for example uint64 and int64: `exact_cast` refuses the others.
    """
    if not _same_kind(type_, other):
        return None
    schemas = [pa.schema([("", each)]) for each in (type_, other)]
    try:
        wide = pa.unify_schemas(schemas, promote_options="permissive").field(0).type
    except pa.ArrowException:
        # Time zones differ.
        return None
    return None if _holds(pa.types.is_decimal256, wide) else wide


def _same_kind(type_: pa.DataType, other: pa.DataType) -> bool:
    """Whether two types differ only in their range, precision or unit, or one of them has no values."""
    if pa.types.is_null(type_) or pa.types.is_null(other):
        return True
    if is_list(type_) and is_list(other):
        return _same_kind(type_.value_type, other.value_type)
    if pa.types.is_struct(type_) and pa.types.is_struct(other):
        fields, others = ({field.name: field.type for field in each} for each in (type_, other))
        return fields.keys() == others.keys() and all(_same_kind(fields[name], others[name]) for name in fields)
    if pa.types.is_map(type_) and pa.types.is_map(other):
        return _same_kind(type_.key_type, other.key_type) and _same_kind(type_.item_type, other.item_type)
    kinds = (
        pa.types.is_integer,
        pa.types.is_floating,
        pa.types.is_decimal,
        pa.types.is_timestamp,
        pa.types.is_date,
        pa.types.is_time,
        pa.types.is_duration,
        is_text,
        _is_bytes,
    )
    return any(check(type_) and check(other) for check in kinds)


def _is_bytes(type_: pa.DataType) -> bool:
    return pa.types.is_binary(type_) or pa.types.is_large_binary(type_) or pa.types.is_fixed_size_binary(type_)


def _kind(type_: pa.DataType) -> str:
    """The kind of the values of a type that is not nested."""
    kinds = {
        "number": (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal),
        "moment": (pa.types.is_date, pa.types.is_timestamp),
        "text": (is_text, _is_bytes),
    }
    for kind, checks in kinds.items():
        if any(check(type_) for check in checks):
            return kind
    # Units of times and durations convert exactly or not at all.
    return str(type_).partition("[")[0].rstrip("0123456789")


def is_textual(type_: pa.DataType) -> bool:
    """Whether a type holds text, also as bytes."""
    return _kind(type_) == "text"


def same_values(type_: pa.DataType, other: pa.DataType) -> bool:
    """Whether values of a type are of the same kind as those of another one, or are text that can stand for them."""
    if pa.types.is_null(type_):
        return True
    if is_list(type_) and is_list(other):
        return same_values(type_.value_type, other.value_type)
    if pa.types.is_struct(type_) and pa.types.is_struct(other):
        fields = [field for field in type_ if other.get_field_index(field.name) >= 0]
        return all(same_values(field.type, other.field(field.name).type) for field in fields)
    if pa.types.is_map(type_) and pa.types.is_map(other):
        return same_values(type_.key_type, other.key_type) and same_values(type_.item_type, other.item_type)
    if pa.types.is_nested(type_) or pa.types.is_nested(other):
        return False
    kinds = _kind(type_), _kind(other)
    return kinds[0] == kinds[1] or "text" in kinds


def _first_row_not_cast(column: pa.Array, type_: pa.DataType) -> int:
    """The first row that cannot be cast, by bisection."""
    low, high = 0, len(column)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            column[low:middle].cast(type_)
            low = middle
        except pa.ArrowException:
            high = middle
    return low


def _first_changed(column: pa.Array, converted: pa.Array) -> int | None:
    """The first row whose value does not come back from a cast."""
    # Arrow refuses decimals that are not whole, and casts no integers back to a short decimal type.
    is_whole = pa.types.is_decimal(column.type) and pa.types.is_integer(converted.type)
    if is_whole or _holds(pa.types.is_null, column.type):
        return None
    if pa.types.is_timestamp(column.type) and pa.types.is_date(converted.type):
        moments = pa.timestamp(column.type.unit)
        column, back = column.cast(moments), converted.cast(moments)
    else:
        back = converted.cast(column.type)
    if column.equals(back):
        return None
    if pa.types.is_floating(column.type):
        before, after = (array.to_numpy(zero_copy_only=False) for array in (column, back))
        changed = (before != after) & ~(np.isnan(before) & np.isnan(after))
        return int(changed.argmax()) if changed.any() else None
    has_nan = _holds(pa.types.is_floating, column.type)
    for row, (value, other) in enumerate(zip(column, back, strict=True)):
        if not value.equals(other) and not (has_nan and _same(value.as_py(), other.as_py())):
            return row
    return None


def _same(value: Any, other: Any) -> bool:
    """Whether two values are equal; NaN equals NaN."""
    if isinstance(value, list | tuple) and isinstance(other, list | tuple):
        return len(value) == len(other) and all(map(_same, value, other))
    if isinstance(value, dict) and isinstance(other, dict):
        return value.keys() == other.keys() and all(_same(value[key], other[key]) for key in value)
    return value == other or (value != value and other != other)


def _holds(check: Callable[[pa.DataType], bool], type_: pa.DataType) -> bool:
    """Whether a check is true for a type, or for one that it nests."""
    return check(type_) or any(_holds(check, type_.field(position).type) for position in range(type_.num_fields))


def _shown(scalar: pa.Scalar) -> str:
    try:
        return str(scalar)
    except ValueError:
        # Nanoseconds without pandas.
        return repr(scalar)
