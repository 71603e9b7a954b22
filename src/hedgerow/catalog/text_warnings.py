"""Warnings of columns of text that hold dates or numbers, which are not in the order of time or of numbers."""

# pyarrow.compute creates its functions at import time, so pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import warnings
from collections.abc import Collection

import pyarrow as pa

from hedgerow.catalog.dates import as_dates, first_failing, has_short_year, text_date
from hedgerow.catalog.sources import DATE_ORDERS, DateOrder
from hedgerow.catalog.text_numbers import has_decimal_comma, not_plain, sampled_text_number, text_number

CHOICES = {"dmy": "the day is first", "mdy": "the month is first", "ymd": "the year is first"}


def warn_of_text(table: pa.Table, known: Collection[str] = (), dates: DateOrder | None = None) -> None:
    """Warn of the columns of text that hold dates or numbers.

    Args:
        table: the rows of files.
        known: the columns that are text on purpose.
        dates: the order of dates with which the files were read.

    Warns:
        UserWarning: for each such column: what to do.
    """
    for name, column in zip(table.column_names, table.columns, strict=True):
        if name in known:
            continue
        if (date := text_date(column)) is not None:
            problem = (
                f"looks like dates, for example {date!r}, but stays text, which is not in the order of time. "
                f"{advice_on_dates(column, dates)}"
            )
        elif sampled_text_number(column) and text_number(column) and (found := not_plain(column)) is not None:
            problem = f"looks like numbers, but {found[1]!r} keeps it text: {_advice_on_number(*found)}"
        else:
            continue
        warnings.warn(f"column {name!r} {problem}", UserWarning, stacklevel=3)


def advice_on_dates(column: pa.ChunkedArray, dates: DateOrder | None) -> str:
    """How to read a column of text as dates: what is wrong in which row, or which order reads it.

    Args:
        column: the column.
        dates: the order with which it was read, and stayed text.
    """
    rows = {order: first_failing(column, order) for order in DATE_ORDERS}
    failing = {order: row for order, row in rows.items() if row is not None}
    orders = [order for order in DATE_ORDERS if order not in failing]
    choices = " or ".join(f"dates={order!r} (--dates {order}) if {CHOICES[order]}" for order in orders)
    if dates in failing:
        row = failing[dates]
        return f"{_failure(column, row, dates)}. " + (f"Pass {choices}." if orders else _remedy(column, row))
    if orders:
        return f"Pass {choices}."
    # The order that reads most rows fails last.
    best = max(failing, key=lambda order: failing[order])
    for row in (failing[best], *failing.values()):
        if all(as_dates(column[row : row + 1], order) is None for order in DATE_ORDERS):
            return (
                f"Row {row} has {column[row].as_py()!r}, which is not a date. {_remedy(column, row)} Pass dates= "
                "(--dates) if the year is not first."
            )
    each = ", ".join(_failure(column, row, order) for order, row in failing.items())
    return f"Its values have no common order of day, month and year. {each}. Write them as 2020-12-31."


def _failure(column: pa.ChunkedArray, row: int, order: str) -> str:
    return f"Row {row}: {column[row].as_py()!r} is not a date in the order {order}"


def _remedy(column: pa.ChunkedArray, row: int) -> str:
    """What to do about a value that is no date."""
    if has_short_year(column[row].as_py()):
        return "Years of two digits do not say the century: write them with four digits."
    return "Correct such values, or leave them empty."


def _advice_on_number(row: int, value: str) -> str:
    if has_decimal_comma(value) and value.strip("-+").replace(",", "").isdigit():
        return f"use a decimal point (row {row})."
    if text_number(pa.chunked_array([[value]])) is not None:
        return f"write numbers as 1234.50, without other signs (row {row})."
    return f"correct it, or leave it empty (row {row})."
