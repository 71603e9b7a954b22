"""Constraint sets from rules on attributes: an SQL expression, or a window of time."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from hedgerow.constraints.cache import cache_of
from hedgerow.constraints.sets import ConstraintSet
from hedgerow.errors import ConstraintError, MissingDependencyError
from hedgerow.index.bits import packed
from hedgerow.index.lookup import attribute_column
from hedgerow.index.trie import Trie

if TYPE_CHECKING:
    import pyarrow as pa

Nulls = Literal["in", "out"] | None
MICROSECONDS_PER_DAY = 86_400 * 10**6
# Microseconds of the units of Arrow's timestamps. Nanoseconds are divided instead.
UNITS = {"s": 10**6, "ms": 10**3}
# `now` is less far from 1970 than this, so that `now` minus the duration does not overflow.
MAX_MOMENT = 2**62 - 2 * MICROSECONDS_PER_DAY
# The expression can read the items only: no files, network, extensions or Python variables.
CLOSED: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
    "python_enable_replacements": "false",
    "temp_directory": "",
    "lock_configuration": "true",
}


def where(index: Trie, expression: str, name: str | None) -> ConstraintSet:
    """Make the set of the items for which an SQL expression is true: see `TrieIndex.where`."""
    if not isinstance(expression, str) or not expression.strip() or not _is_encodable(expression):
        raise ConstraintError(
            f'expected an SQL expression over the attributes, for example "year >= 2000"; got {expression!r}.'
        )
    items = cache_of(index).rule(
        ("where", expression), lambda: ConstraintSet(index, packed(_evaluate(index, expression)), expression)
    )
    return items.named(name) if name else items


def _is_encodable(expression: str) -> bool:
    try:
        expression.encode()
    except UnicodeEncodeError:
        return False
    return True


def _evaluate(index: Trie, expression: str) -> np.ndarray:
    """Bool [N]: whether the expression is true for each item."""
    try:
        import duckdb
    except ModuleNotFoundError as error:
        raise MissingDependencyError.of("index.where", "duckdb", "sql") from error
    import pyarrow as pa

    items = index.items_table
    row_column = _unused_column(items.column_names)
    with duckdb.connect(":memory:", config=CLOSED) as connection:
        connection.register("items", items.append_column(row_column, pa.array(np.arange(index.num_items))))
        try:
            chosen = duckdb.SQLExpression(expression).alias("chosen")
            answer = connection.table("items").select(chosen, duckdb.ColumnExpression(row_column)).to_arrow_table()
        except duckdb.Error as error:
            raise _sql_error(index, expression, str(error)) from None
    if answer.num_columns != 2 or not pa.types.is_boolean(answer.column(0).type):
        kind = answer.column(0).type if answer.num_columns == 2 else f"{answer.num_columns - 1} columns"
        raise _sql_error(index, expression, f"it must be true or false for each item, but gives {kind}")
    if answer.num_rows != index.num_items:
        raise _sql_error(index, expression, f"it gives {answer.num_rows:,} rows for {index.num_items:,} items")
    mask = np.zeros(index.num_items, bool)
    # As in SQL, null is not true.
    mask[answer.column(1).to_numpy()] = answer.column(0).fill_null(False).to_numpy()
    return mask


def _unused_column(names: list[str]) -> str:
    """A column name for the rows that no attribute has. SQL ignores the case of names.

    Raises:
        ConstraintError: two attributes have the same name in SQL.
    """
    folded = [name.casefold() for name in names]
    same = [name for name in names if folded.count(name.casefold()) > 1]
    if same:
        raise ConstraintError(
            f"SQL does not distinguish the attributes {same[0]!r} and {same[1]!r}. Rename one of them, or use a "
            "function: index.constraint(lambda attributes: ...)."
        )
    return f"row of {max(folded, key=len)}"


def _sql_error(index: Trie, expression: str, reason: str) -> ConstraintError:
    columns = ", ".join(f"{field.name} ({field.type})" for field in index.items_table.schema)
    return ConstraintError(
        f"the SQL expression {expression!r} cannot be used: {' '.join(reason.split())}. The columns are {columns}."
    )


def newest(index: Trie, attribute: str, days: float, now: Any, nulls: Nulls, name: str | None) -> ConstraintSet:
    """Make the set of the items of the latest days: see `TrieIndex.newest`."""
    column = attribute_column(index, attribute, "newest")
    if not _is_number(days) or not days >= 0:
        raise ConstraintError(f"days must be a number, 0 or more; got {days!r}.")
    days = _as_python(days)
    if nulls not in ("in", "out", None):
        raise ConstraintError(f"nulls must be 'in', 'out' or None; got {nulls!r}.")
    values, is_null = _comparable(column, attribute)
    if is_null.any() and nulls is None:
        raise ConstraintError(
            f"{int(is_null.sum()):,} of {len(values):,} items have no {attribute!r}. Choose whether they are in the "
            "set: nulls='in' or nulls='out'."
        )
    last: Any = _moment(now, attribute) if values.dtype.kind == "M" else _number(now, attribute, column.type)
    since = last - (_duration(days) if values.dtype.kind == "M" else days)
    in_window = (values >= since) & (values <= last)
    mask = np.where(is_null, nulls == "in", in_window)
    window = f"{attribute} {_as_text(since)} to {_as_text(last)}"
    if not mask.any() and not is_null.all():
        present = values[~is_null]
        window += f" (no item; values range from {_as_text(present.min())} to {_as_text(present.max())})"
    return ConstraintSet(index, packed(mask), name or window)


def _is_number(value: Any) -> bool:
    """Whether a value is a number that a float can hold, approximately."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        return False
    return not isinstance(value, int) or abs(value) < 2**1023


def _as_python(number: Any) -> Any:
    """The int or float of a number. NumPy scalars overflow: 3 - 7 of a uint16 is 65532."""
    return number.item() if isinstance(number, np.generic) else number


def _duration(days: float) -> np.timedelta64:
    microseconds = float(days) * MICROSECONDS_PER_DAY
    # Far enough from the smallest date that `now` minus the duration does not overflow.
    if not microseconds < 2**62:
        raise ConstraintError(
            f"days is too large for dates; got {days!r}. The maximum is about {2**62 // MICROSECONDS_PER_DAY:,}."
        )
    return np.timedelta64(round(microseconds), "us")


def _as_text(value: Any) -> str:
    """A number or a moment as text, without a zero fraction and without midnight."""
    return str(value).removesuffix(".000000").removesuffix("T00:00:00")


def _comparable(column: pa.ChunkedArray, attribute: str) -> tuple[np.ndarray, np.ndarray]:
    """Values [N] as numbers or moments (UTC, microseconds), and bool [N], which of them are null or NaN."""
    import pyarrow as pa

    kind = column.type
    is_null = np.asarray(column.is_null(nan_is_null=True))
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        return _microseconds(column), is_null
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        values = column.fill_null(0).to_numpy()
        return values.astype(np.float64) if values.dtype.kind == "f" else values, is_null
    raise ConstraintError(
        f"newest: attribute {attribute!r} holds {kind}, but must hold dates, timestamps or numbers. For other types "
        "use index.where(...)."
    )


def _microseconds(column: pa.ChunkedArray) -> np.ndarray:
    """Moments [N] of dates or timestamps. Moments beyond the range of microseconds become its first or last moment."""
    import pyarrow as pa

    days = pa.types.is_date32(column.type)
    unit = MICROSECONDS_PER_DAY if days else UNITS.get(getattr(column.type, "unit", "ms"), 1)
    numbers = (column.cast(pa.int32()) if days else column).cast(pa.int64()).fill_null(0).to_numpy()
    if getattr(column.type, "unit", None) == "ns":
        numbers = numbers // 1000
    limit = (2**63 - 1) // unit
    return (np.clip(numbers, -limit, limit) * unit).astype("datetime64[us]")


def _moment(now: Any, attribute: str) -> np.datetime64:
    """Convert a date (its midnight) or a datetime to a moment in UTC."""
    if now is None:
        now = datetime.now(UTC)
    offset = (now.utcoffset() if isinstance(now, datetime) and now == now else None) or timedelta(0)
    if offset or getattr(now, "tzinfo", None) is not None:
        now = now.replace(tzinfo=None)
    try:
        if not isinstance(now, date | np.datetime64 | str):
            raise ValueError
        # The seconds show whether the microseconds overflowed.
        moment, seconds = (np.datetime64(now, unit) for unit in ("us", "s"))  # pyright: ignore
        if np.isnat(moment) or moment.astype("datetime64[s]") != seconds or abs(moment.astype(int)) > MAX_MOMENT:
            raise ValueError
    except (ValueError, TypeError, OverflowError):
        raise ConstraintError(
            f"newest: {attribute!r} holds dates or timestamps, so now must be a date or a datetime; got {now!r}."
        ) from None
    # Subtracted here, because a datetime in UTC can be beyond datetime.max.
    return moment - np.timedelta64(offset)


def _number(now: Any, attribute: str, kind: pa.DataType) -> Any:
    if not _is_number(now) or not abs(now) < float("inf"):
        raise ConstraintError(
            f"newest: {attribute!r} holds {kind}, so now must be a number, and days counts in the same unit; got "
            f"{now!r}."
        )
    return _as_python(now)
