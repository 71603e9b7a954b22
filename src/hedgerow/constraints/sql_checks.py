"""SQL expressions over dates and numbers as text, which DuckDB refuses, or evaluates not as they are meant."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

# Texts, and comments, which can contain anything.
QUOTED = re.compile(r"'(?:[^']|'')*'|\$\$.*?\$\$|--[^\n]*|/\*.*?\*/", re.DOTALL)
# Errors of DuckDB about text beside a number.
NUMERIC = r"(?:\w*INT\w*|DECIMAL\S*|DOUBLE|FLOAT)"
MIXED = re.compile(
    rf"Cannot (?:compare|mix) values of type (?:VARCHAR and (?:type )?{NUMERIC}|{NUMERIC} and (?:type )?VARCHAR)"
    rf"|Could not convert string .* to {NUMERIC} when casting from source column (?P<column>\S+)"
    rf"|No function matches the given name and argument types '(?P<function>[^'(]+)\([^']*VARCHAR",
    re.DOTALL,
)
# Without spaces, as nobody writes differences and quotients.
BARE_DATE = re.compile(
    r"(?<![\w.'])(?:[12][0-9]{3}([-/])(?:0?[1-9]|1[0-2])\1[0-3]?[0-9]|[0-3]?[0-9]([-/])[0-3]?[0-9]\2[12][0-9]{3})(?![\w.])"
)


def misread_date(expression: str, items: pa.Table) -> str | None:
    """What is wrong with the dates, and the numbers as text, of an expression, and the way out; None if nothing is.

    Args:
        expression: the SQL expression.
        items: the columns that it refers to.
    """
    from hedgerow.catalog.dates import format_of, has_short_year, sampled_text_date, way_out
    from hedgerow.catalog.text_numbers import sampled_text_number

    bare = QUOTED.sub("''", expression)
    if match := BARE_DATE.search(bare):
        meant = match.group() if re.fullmatch(r"\d{4}-\d\d-\d\d", match.group()) else "2020-12-31"
        return f"{match.group()} without quotes is arithmetic, not a date. Write dates as DATE '{meant}'"
    for name in items.column_names:
        if not _is_ordered(bare, name):
            continue
        if (date := sampled_text_date(items.column(name))) is not None:
            return (
                f"column {name!r} is text, for example {date!r}, whose order is not that of time. {way_out(date)}, or "
                f"convert the column: try_strptime({_quoted(name)}, '{format_of(date)}') > DATE '2020-12-31'"
                + ". It reads the years 69 to 99 as 1969 to 1999"
                * has_short_year(date)
            )
        if (number := sampled_text_number(items.column(name))) is not None:
            return f"column {name!r} is text, for example {number!r}, whose order is not that of numbers. " + (
                _numbers_out(name, number)
            )
    return None


def text_and_number(error: str, expression: str, items: pa.Table) -> str | None:
    """What is wrong with an expression that compares a column of text with a number, and the way out.

    Args:
        error: the error of DuckDB.
        expression: the SQL expression.
        items: the columns that it refers to.

    Returns:
        None if the error is another one.
    """
    from hedgerow.catalog.text_numbers import sampled_text_number
    from hedgerow.catalog.types import is_text

    if not (mixed := MIXED.search(error)):
        return None
    numbers = {name: sampled_text_number(items.column(name)) for name in columns_in(expression, items.column_names)}
    texts = [name for name in numbers if is_text(items.column(name).type)]
    if mixed["column"] is not None:
        texts = [name for name in texts if name == mixed["column"]]
    elif mixed["function"] is not None:
        # Of other text, functions are refused for other reasons.
        texts = [name for name in texts if numbers[name] is not None]
    elif len(texts) > 1:
        texts = _beside_number(expression, texts)
    if not texts:
        return None
    name = texts[0]
    use = "used as" if mixed["function"] is not None else "compared with"
    if (number := numbers[name]) is not None:
        return f"column {name!r} is text, for example {number!r}, and cannot be {use} a number. " + (
            _numbers_out(name, number)
        )
    values = items.column(name).drop_null()
    held = f"for example {values[0].as_py()!r}" if len(values) else "without values"
    return (
        f"column {name!r} is text, {held}, and cannot be {use} a number. Compare it with text in single quotes: "
        f"{_quoted(name)} = '5'; or convert it: TRY_CAST({_quoted(name)} AS DOUBLE) < 5"
    )


def _numbers_out(name: str, example: str) -> str:
    from hedgerow.catalog.text_numbers import number_in_sql

    return (
        "Write numbers as 1234.50 in the file and read it again, or convert the column: "
        f"{number_in_sql(_quoted(name), example)} < 50"
    )


def _beside_number(expression: str, names: list[str]) -> list[str]:
    """The columns that are compared with a number."""
    bare = QUOTED.sub("''", expression)
    signs = r"\s*(?:[<>=!]+|(?:not\s+)?(?:between|in\s*\()|is\s+(?:not\s+)?distinct\s+from)\s*"
    beside = (rf"{_column(name)}{signs}[-+]?[0-9.]|[0-9.]{signs}{_column(name)}" for name in names)
    found = (re.search(pattern, bare, re.IGNORECASE) for pattern in beside)
    return [name for name, match in zip(names, found, strict=True) if match]


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
