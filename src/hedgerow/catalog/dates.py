"""Dates in text: 31/12/2020, 12/31/2020, 2020.12.31. Text like that does not have the order of time."""

# pyarrow.compute creates its functions at import time, so pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import datetime as dt
import re

import pyarrow as pa
import pyarrow.compute as pc

from hedgerow.catalog.sources import DATE_ORDERS, DateOrder
from hedgerow.catalog.types import is_text

TIME = r"([ T][0-9]{1,2}:[0-9]{2}.*)?$"
DAY_LAST = rf"^([0-9]{{4}})[/.-]([0-9]{{1,2}})[/.-]([0-9]{{1,2}}){TIME}"
YEAR_LAST = rf"^([0-9]{{1,2}})[/.-]([0-9]{{1,2}})[/.-]([0-9]{{4}}){TIME}"
# Without leading zeros, numbers with hyphens are more often SIDs and codes.
SHORT_YEAR = (
    rf"^(?:(?:0?[1-9]|[12][0-9]|3[01])[/.](?:0?[1-9]|[12][0-9]|3[01])[/.][0-9]{{2}}"
    rf"|(?:0[1-9]|[12][0-9]|3[01])-(?:0[1-9]|[12][0-9]|3[01])-[0-9]{{2}}){TIME}"
)
# The pattern of an order, and the same date as ISO 8601 writes it, but without leading zeros.
ORDERS = {"dmy": (YEAR_LAST, r"\3-\2-\1\4"), "mdy": (YEAR_LAST, r"\3-\1-\2\4"), "ymd": (DAY_LAST, r"\1-\2-\3\4")}
LEADING_ZEROS = (
    (r"^([0-9]{4})-([0-9])-", r"\1-0\2-"),
    (r"-([0-9])($|[ T])", r"-0\1\2"),
    (r"([ T])([0-9]):", r"\10\2:"),
)
ISO = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}($|[ T])"
TYPES = (pa.date32(), pa.timestamp("us"), pa.timestamp("us", "UTC"))
# Microseconds since 1970 of the first moment of the year 1, and of that after the year 9999: the dates of Python.
FIRST, AFTER_LAST = ((day - dt.date(1970, 1, 1)).days * 86_400_000_000 for day in (dt.date.min, dt.date.max))
AFTER_LAST += 86_400_000_000
# How DuckDB reads the orders.
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
    if column.null_count == len(column):
        return None
    written = iso_dates(column, order)
    converted = (_cast(written, type_) for type_ in TYPES)
    return next((found for found in converted if found is not None), None)


def first_failing(column: pa.ChunkedArray, order: DateOrder) -> int | None:
    """The first row of a column of text whose value is no date in an order; None if all are dates."""
    written = iso_dates(column, order)
    rows = [row for type_ in TYPES if (row := _first_failing(written, type_)) is not None]
    # The type that most rows have fails last.
    return max(rows) if len(rows) == len(TYPES) else None


def _first_failing(written: pa.ChunkedArray, type_: pa.DataType) -> int | None:
    """The first row that has no value of a type; None if all have."""
    # In parts that grow: Arrow takes long over parts of which many rows fail.
    start, size = 0, 1
    while start < len(written) and _cast(written[start : start + size], type_) is not None:
        start, size = start + size, 2 * size
    if start >= len(written):
        return None
    stop = min(start + size, len(written))
    while stop - start > 1:
        middle = (start + stop) // 2
        if _cast(written[start:middle], type_) is None:
            stop = middle
        else:
            start = middle
    return start


def _cast(written: pa.ChunkedArray, type_: pa.DataType) -> pa.ChunkedArray | None:
    """Texts as dates or timestamps; None if a text is none, or out of the calendar."""
    try:
        found = written.cast(type_)
    except pa.ArrowException:
        return None
    return found if in_calendar(found) else None


def in_calendar(column: pa.ChunkedArray) -> bool:
    """Whether all dates or timestamps of a column are in the years 1 to 9999."""
    try:
        moments = pc.min_max(column.cast(pa.timestamp("us")).cast(pa.int64())).as_py()
    except pa.ArrowException:
        return False
    return moments["min"] is None or FIRST <= moments["min"] <= moments["max"] < AFTER_LAST


def has_short_year(text: str) -> bool:
    """Whether a text is a date whose year has two digits."""
    return re.match(SHORT_YEAR, text) is not None


def way_out(date: str) -> str:
    """How a column with a date as text becomes a column of dates."""
    if has_short_year(date):
        return "Years of two digits do not say the century: write them with four digits in the file, as 2020-12-31"
    return "Read the file again with dates='dmy', 'mdy' or 'ymd' (--dates)"


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
    return pc.match_substring_regex(values, "|".join((DAY_LAST, YEAR_LAST, SHORT_YEAR)))


def format_of(date: str) -> str:
    """The format with which SQL reads a date of `text_date`: the day first, unless the date says otherwise."""
    order = next((order for order in DATE_ORDERS if as_dates(pa.chunked_array([[date]]), order) is not None), "dmy")
    mark = next(mark for mark in "/.-" if mark in date)
    return FORMATS[order].replace("/", mark).replace("%Y", "%y" if has_short_year(date) else "%Y")
