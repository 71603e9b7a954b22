"""SQL expressions over dates that DuckDB evaluates, but not as they are meant."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

# Texts, and comments, which can contain anything.
QUOTED = re.compile(r"'(?:[^']|'')*'|\$\$.*?\$\$|--[^\n]*|/\*.*?\*/", re.DOTALL)
# Without spaces, as nobody writes differences and quotients.
BARE_DATE = re.compile(
    r"(?<![\w.'])(?:[12][0-9]{3}([-/])(?:0?[1-9]|1[0-2])\1[0-3]?[0-9]|[0-3]?[0-9]([-/])[0-3]?[0-9]\2[12][0-9]{3})(?![\w.])"
)


def misread_date(expression: str, items: pa.Table) -> str | None:
    """What is wrong with the dates of an expression, and the way out; None if nothing is.

    Args:
        expression: the SQL expression.
        items: the columns that it refers to.
    """
    from hedgerow.catalog.dates import format_of, sampled_text_date

    bare = QUOTED.sub("''", expression)
    if match := BARE_DATE.search(bare):
        meant = match.group() if re.fullmatch(r"\d{4}-\d\d-\d\d", match.group()) else "2020-12-31"
        return f"{match.group()} without quotes is arithmetic, not a date. Write dates as DATE '{meant}'"
    for name in items.column_names:
        if not _is_ordered(bare, name) or (date := sampled_text_date(items.column(name))) is None:
            continue
        return (
            f"column {name!r} is text, for example {date!r}, whose order is not that of time. Read the file again with "
            f"dates='dmy', 'mdy' or 'ymd' (--dates), or convert the column: try_strptime({_quoted(name)}, "
            f"'{format_of(date)}') > DATE '2020-12-31'"
        )
    return None


def columns_in(expression: str, names: Iterable[str]) -> list[str]:
    """The columns that an expression refers to, of `names`."""
    bare = QUOTED.sub("''", expression)
    return [name for name in names if re.search(_column(name), bare, re.IGNORECASE)]


def _column(name: str) -> str:
    """The pattern of a column."""
    return rf'(?:(?<![\w"]){re.escape(name)}(?![\w"])|"{re.escape(name)}")'


def _is_ordered(expression: str, name: str) -> bool:
    """Whether an expression depends on the order of a column: <, >, BETWEEN, ORDER BY, min or max."""
    column = _column(name)
    after = r"\s*(?:<(?!>)|>|(?:not\s+)?between\b)"
    before = r"(?:(?:(?<!<)>|<)=?\s*|\border\s+by\s+|\b(?:min|max)\s*\(\s*)"
    # Not of a cast, a function or a type of that name.
    pattern = rf"{column}{after}|{before}{column}(?!\s*(?:\(|::|'))"
    return re.search(pattern, expression, re.IGNORECASE) is not None


def _quoted(name: str) -> str:
    """A name as SQL writes it."""
    return name if re.fullmatch(r"[A-Za-z_]\w*", name) else f'"{name}"'
