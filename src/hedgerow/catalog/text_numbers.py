"""Numbers in text: 114,70 or € 1,114.70. Text like that does not have the order of numbers."""

# pyarrow.compute creates its functions at import time, so pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import re

import pyarrow as pa
import pyarrow.compute as pc

from hedgerow.catalog.dates import MOST, SAMPLE
from hedgerow.catalog.types import is_text

CURRENCY = r"(?:[$€£¥₹]|EUR|USD|GBP|CHF|JPY|CNY|INR|SEK|NOK|DKK|PLN|CZK|CAD|AUD|kr|zł)"
PLAIN = r"^[-+]?(0|[1-9][0-9]*)(\.[0-9]+)?$"
# Digits in groups of three, or a decimal point or comma.
GROUPED = r"[1-9][0-9]{0,2}(?:[,.' \x{a0}][0-9]{3})+(?:[.,][0-9]+)?"
DECIMAL = r"(?:0|[1-9][0-9]*)[.,][0-9]+"
MARKED = rf"^[-+]?(?:{GROUPED}|{DECIMAL})$"
NUMBER = rf"(?:{GROUPED}|{DECIMAL}|[0-9]+)"
AMOUNT = rf"^[-+]?{CURRENCY}\s*[-+]?{NUMBER}$|^[-+]?{NUMBER}\s*(?:{CURRENCY}|%)$"


def text_number(column: pa.ChunkedArray) -> str | None:
    """A value of a column of text that holds numbers with a decimal mark or a currency; None of other columns.

    Text of digits alone can be a code: it has no such value.
    """
    values = column.drop_null()
    if not is_text(column.type) or not len(values):
        return None
    marked = pc.match_substring_regex(values, f"{MARKED}|{AMOUNT}")
    numbers = pc.or_(marked, pc.match_substring_regex(values, PLAIN))
    if not pc.any(marked).as_py() or pc.mean(numbers).as_py() < MOST:
        return None
    # The mark of the others shows what a value such as 1,234 means.
    found = values.filter(marked)[:SAMPLE].to_pylist()
    others = (value for value in found if re.match(PLAIN, value) is None)
    return next(filter(has_decimal_comma, found), None) or next(others, found[0])


def sampled_text_number(column: pa.ChunkedArray) -> str | None:
    """The same as `text_number`, of the first rows."""
    return text_number(column[:SAMPLE])


def not_plain(column: pa.ChunkedArray) -> tuple[int, str] | None:
    """The first row of a column of text whose value is no plain number, and the value; None if there is none."""
    row = pc.index(pc.match_substring_regex(column, PLAIN), False).as_py()
    return None if row < 0 else (row, column[row].as_py())


def number_in_sql(name: str, example: str) -> str:
    """The SQL that reads the numbers of a column of text.

    Args:
        name: the column, as SQL writes it.
        example: a value.
    """
    if has_decimal_comma(example):
        return f"TRY_CAST(replace(regexp_replace({name}, '[^0-9,-]', '', 'g'), ',', '.') AS DOUBLE)"
    return f"TRY_CAST(regexp_replace({name}, '[^0-9.-]', '', 'g') AS DOUBLE)"


def has_decimal_comma(example: str) -> bool:
    """Whether a number as text has a decimal comma. A lone comma before three digits separates thousands."""
    return re.search(r",(?![0-9]{3}(?![0-9]))[0-9]+\D*$|[.' ][0-9]{3},[0-9]+\D*$", example) is not None
