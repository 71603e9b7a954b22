"""Types of columns of text, as CSV files hold them. No conversion loses a digit."""

# pyarrow.compute creates its functions at import time, so pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import bisect
from decimal import Decimal

import pyarrow as pa
import pyarrow.compute as pc

from hedgerow.catalog.dates import as_dates, has_short_year, in_calendar, iso_dates, text_date
from hedgerow.catalog.exact import same_values
from hedgerow.catalog.sources import DateOrder
from hedgerow.catalog.types import is_text
from hedgerow.errors import CatalogError

# Numbers whose text is lost by a conversion stay text: leading zeros, and integers above 2**63.
INTEGER = r"^-?(0|[1-9][0-9]*)$"
FLOAT = r"^(-?(0|[1-9][0-9]{0,14})|-?[0-9]+\.[0-9]*([eE][-+]?[0-9]+)?|-?[0-9]+[eE][-+]?[0-9]+|-?(nan|NaN|inf))$"
# A float64 holds 15 digits exactly, and a float32 6.
SHORT = {pa.float64(): r"^-?[0-9.]{1,16}$|^-?(nan|NaN|inf)$", pa.float32(): r"^-?[0-9.]{1,7}$|^-?(nan|NaN|inf)$"}
LEADING_ZERO = r"^-?0[0-9]"
TRUTH = r"^(true|True|TRUE|false|False|FALSE)$"
DATE = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}"
PATTERNS = {
    pa.types.is_integer: INTEGER,
    pa.types.is_floating: FLOAT,
    pa.types.is_decimal: FLOAT,
    pa.types.is_boolean: TRUTH,
    pa.types.is_date: DATE,
    pa.types.is_timestamp: DATE,
}
INFERRED = (pa.int64(), pa.float64(), pa.bool_(), pa.date32(), pa.timestamp("us"), pa.timestamp("us", "UTC"))


def inferred(column: pa.ChunkedArray, dates: DateOrder | None = None, *, is_id: bool = False) -> pa.ChunkedArray:
    """Convert a column of text to the type that all its values have; it stays text if there is none.

    Args:
        column: the column.
        dates: the order of day, month and year in dates that are not written as 2020-12-31.
        is_id: whether the values are SIDs or ids, which are no dates.
    """
    if column.null_count == len(column):
        return column
    types = [type_ for type_ in INFERRED if not (is_id and pa.types.is_temporal(type_))]
    converted = (_converted(column, type_) for type_ in types)
    found = next((found for found in converted if found is not None), None)
    if found is None and dates is not None and not is_id:
        found = as_dates(column, dates)
    return column if found is None else found


def typed(column: pa.ChunkedArray, field: pa.Field, *, widens: bool, dates: DateOrder | None = None) -> pa.ChunkedArray:
    """Convert a column of text to the type of a field. It stays text if that type is text or has no text form.

    Args:
        column: the column.
        field: the name and the type.
        widens: whether the result may have another type of the same kind, which holds all values.
        dates: as for `inferred`.

    Raises:
        CatalogError: a value has no such type, or would lose digits. The message names the row.
    """
    type_ = field.type
    if pa.types.is_null(type_):
        return inferred(column, dates)
    if column.null_count == len(column) or _pattern(type_) is None:
        return column
    given = column
    if dates is not None and _pattern(type_) == DATE:
        column = iso_dates(column, dates)
    if (converted := _converted(column, type_)) is not None:
        return converted
    # A float is not the decimal that the text was.
    if widens and not pa.types.is_decimal(type_):
        wider = inferred(column)
        if not is_text(wider.type) and same_values(wider.type, type_):
            return wider
    stops = range(len(column) + 1)
    row = bisect.bisect_left(stops, True, key=lambda stop: _converted(column[:stop], type_) is None) - 1
    hint = "" if dates is not None or text_date(given) is None else "For dates like that, pass dates= (--dates). "
    if _pattern(type_) == DATE and has_short_year(given[row].as_py()):
        hint = "Years of two digits do not say the century. "
    raise CatalogError(
        f"row {row} of column {field.name!r}: {given[row].as_py()!r} cannot be converted to {type_}, the expected "
        f"type of this column, without a change. {hint}Change the value, or leave out the row."
    )


def has_text_form(type_: pa.DataType) -> bool:
    """Whether values of a type are written as text in CSV files."""
    return is_text(type_) or _pattern(type_) is not None


def _converted(column: pa.ChunkedArray, type_: pa.DataType) -> pa.ChunkedArray | None:
    """The column in a type; None if a value does not have the type, or loses digits."""
    values, pattern = column.drop_null(), _pattern(type_)
    if pattern is None or not _all_match(values, pattern):
        return None
    if pattern == FLOAT and pc.any(pc.match_substring_regex(values, LEADING_ZERO)).as_py():
        return None
    try:
        converted = column.cast(type_)
    except pa.ArrowException:
        return None
    if pattern == DATE and not in_calendar(converted):
        return None
    return converted if not pa.types.is_floating(type_) or _keeps_digits(values, type_) else None


def _pattern(type_: pa.DataType) -> str | None:
    """The pattern of the text of a type; None if values of the type have no text form."""
    return next((pattern for is_kind, pattern in PATTERNS.items() if is_kind(type_)), None)


def _keeps_digits(numbers: pa.ChunkedArray, type_: pa.DataType) -> bool:
    """Whether floats have all the digits of numbers as text."""
    numbers = numbers.filter(pc.invert(pc.match_substring_regex(numbers, SHORT[type_])))
    numbers = numbers.filter(pc.not_equal(numbers.cast(type_).cast(pa.string()), numbers))
    floats = numbers.cast(type_).to_numpy()
    return all(Decimal(text) == Decimal(str(value)) for text, value in zip(numbers.to_pylist(), floats, strict=True))


def _all_match(values: pa.ChunkedArray, pattern: str) -> bool:
    # None if there are no values.
    return pc.all(pc.match_substring_regex(values, pattern)).as_py() is not False
