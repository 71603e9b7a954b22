"""Conversion of values to an Arrow type without a change of value. Arrow truncates some of them silently."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from hedgerow.catalog.types import is_text


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
    """Cast an array to a type.

    Raises:
        ArrowException: a value cannot be cast, or the cast would change it.
    """
    if column.type == type_:
        return column
    if pa.types.is_integer(type_) and not (_is_number(column.type) or is_text(column.type)) and len(column):
        raise pa.ArrowTypeError(f"{column.type} is not a type of integers")
    converted = column.cast(type_)
    if pa.types.is_timestamp(column.type) and pa.types.is_date(type_):
        moments = pa.timestamp(column.type.unit)
        is_same = converted.cast(moments).equals(column.cast(moments))
    else:
        is_rounded = pa.types.is_floating(column.type) and pa.types.is_decimal(type_)
        is_same = not is_rounded or converted.cast(column.type).equals(column)
    if not is_same:
        raise pa.ArrowInvalid(f"casting from {column.type} to {type_} would lose data")
    return converted


def _is_number(type_: pa.DataType) -> bool:
    return any(check(type_) for check in (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal))
