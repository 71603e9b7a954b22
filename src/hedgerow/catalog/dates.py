"""Dates in text: 31/12/2020, 12/31/2020, 2020.12.31. Text like that does not have the order of time."""

# pyarrow.compute creates its functions at import time, so pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import warnings
from collections.abc import Collection

import pyarrow as pa
import pyarrow.compute as pc

from hedgerow.catalog.sources import DATE_ORDERS, DateOrder
from hedgerow.catalog.types import is_text

TIME = r"([ T][0-9]{1,2}:[0-9]{2}.*)?$"
DAY_LAST = rf"^([0-9]{{4}})[/.-]([0-9]{{1,2}})[/.-]([0-9]{{1,2}}){TIME}"
YEAR_LAST = rf"^([0-9]{{1,2}})[/.-]([0-9]{{1,2}})[/.-]([0-9]{{4}}){TIME}"
# The pattern of an order, and the same date as ISO 8601 writes it, but without leading zeros.
ORDERS = {"dmy": (YEAR_LAST, r"\3-\2-\1\4"), "mdy": (YEAR_LAST, r"\3-\1-\2\4"), "ymd": (DAY_LAST, r"\1-\2-\3\4")}
LEADING_ZEROS = (
    (r"^([0-9]{4})-([0-9])-", r"\1-0\2-"),
    (r"-([0-9])($|[ T])", r"-0\1\2"),
    (r"([ T])([0-9]):", r"\10\2:"),
)
ISO = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}($|[ T])"
# How DuckDB reads them.
FORMATS = {"dmy": "%d/%m/%Y", "mdy": "%m/%d/%Y", "ymd": "%Y/%m/%d"}
# The share of the values of a column of dates that are dates: others may be "unknown".
MOST = 0.9
# The rows that are looked at for each request.
SAMPLE = 1000


def iso_dates(column: pa.ChunkedArray, order: DateOrder) -> pa.ChunkedArray:
    """The texts of a column, of which those that are dates in an order are written as 2020-12-31; others unchanged."""
    pattern, written = ORDERS[order]
    changed = pc.replace_substring_regex(column, pattern, written)
    for zero_missing, zero in LEADING_ZEROS:
        changed = pc.replace_substring_regex(changed, zero_missing, zero)
    return pc.if_else(pc.match_substring_regex(column, pattern), changed, column)


def as_dates(column: pa.ChunkedArray, order: DateOrder) -> pa.ChunkedArray | None:
    """A column of text as dates or timestamps; None if a value is no date in this order, or there are no values."""
    written, has_values = iso_dates(column, order), column.null_count < len(column)
    for type_ in (pa.date32(), pa.timestamp("us"), pa.timestamp("us", "UTC")) if has_values else ():
        try:
            return written.cast(type_)
        except pa.ArrowException:
            continue
    return None


def text_date(column: pa.ChunkedArray) -> str | None:
    """A value of a column of text that holds dates whose order is not that of time; None of other columns.

    Dates that are all written as 2020-12-31 have that order.
    """
    if not is_text(column.type) or column.null_count == len(column):
        return None
    values = column.drop_null()
    is_date = _is_date(values)
    if pc.mean(is_date).as_py() < MOST or pc.all(pc.match_substring_regex(values, ISO)).as_py():
        return None
    return values.filter(is_date)[0].as_py()


def sampled_text_date(column: pa.ChunkedArray) -> str | None:
    """The same as `text_date`, of the first rows."""
    return text_date(column[:SAMPLE])


def sampled_dates(column: pa.ChunkedArray) -> str | None:
    """The first value of a column of text that holds dates, also as 2020-12-31; None of other columns."""
    values = column[:SAMPLE].drop_null()
    if not is_text(column.type) or not len(values):
        return None
    return values.filter(_is_date(values))[0].as_py() if pc.mean(_is_date(values)).as_py() >= MOST else None


def _is_date(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Bool per text: whether it is written as a date."""
    return pc.or_(*(pc.match_substring_regex(values, pattern) for pattern in (DAY_LAST, YEAR_LAST)))


def format_of(date: str) -> str:
    """The format with which SQL reads a date of `text_date`: the day first, unless the date says otherwise."""
    order = next((order for order in DATE_ORDERS if as_dates(pa.chunked_array([[date]]), order) is not None), "dmy")
    mark = next(mark for mark in "/.-" if mark in date)
    return FORMATS[order].replace("/", mark)


def warn_of_text_dates(table: pa.Table, known: Collection[str] = ()) -> None:
    """Warn of the columns of text that hold dates.

    Args:
        table: the rows of files.
        known: the columns that are text on purpose.

    Warns:
        UserWarning: for each such column: what to do.
    """
    for name, column in zip(table.column_names, table.columns, strict=True):
        if name in known or (date := text_date(column)) is None:
            continue
        warnings.warn(
            f"column {name!r} looks like dates, for example {date!r}, but stays text, which is not in the order of "
            f"time. {_advice(column)}",
            UserWarning,
            stacklevel=3,
        )


def _advice(column: pa.ChunkedArray) -> str:
    """How to read a column of text as dates."""
    orders = [order for order in DATE_ORDERS if as_dates(column, order) is not None]
    if orders:
        choices = {"dmy": "the day is first", "mdy": "the month is first", "ymd": "the year is first"}
        each = " or ".join(f"dates={order!r} (--dates {order}) if {choices[order]}" for order in orders)
        return f"Pass {each}."
    values = column.to_pylist()
    row = pc.index(_is_date(column), False).as_py()
    if row < 0:
        return "Its values have no common order of day, month and year: write them as 2020-12-31."
    return f"Row {row} has {values[row]!r}: leave such values empty; pass dates= (--dates) if the year is not first."
