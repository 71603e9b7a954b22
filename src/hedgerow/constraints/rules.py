"""Rules on attributes → constraint sets: an SQL expression, and the newest items."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from hedgerow.constraints.sets import ConstraintSet, memory_of
from hedgerow.errors import ConstraintError, MissingDependencyError
from hedgerow.index.bits import packed
from hedgerow.index.lookup import attribute_column
from hedgerow.index.trie import Trie

if TYPE_CHECKING:
    import pyarrow as pa

Nulls = Literal["in", "out"] | None
# The expression sees the items and nothing else: no file, no network, no extension, no variable of Python's.
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
    """Returns the items of which an SQL expression is true: `Trie.where`."""
    if not isinstance(expression, str) or not expression.strip() or not _is_text(expression):
        raise ConstraintError(
            f'expected an SQL expression over the attributes, such as "year >= 2000"; got {expression!r}.'
        )
    found = memory_of(index).rule(
        ("where", expression), lambda: ConstraintSet(index, packed(_asked(index, expression)), expression)
    )
    return found.named(name) if name else found


def _is_text(expression: str) -> bool:
    try:
        expression.encode()
    except UnicodeEncodeError:
        return False
    return True


def _asked(index: Trie, expression: str) -> np.ndarray:
    try:
        import duckdb
    except ModuleNotFoundError as error:
        raise MissingDependencyError.of("index.where", "duckdb", "sql") from error
    import pyarrow as pa

    items = index.items_table
    row = _column_beside(items.column_names)
    with duckdb.connect(":memory:", config=CLOSED) as connection:
        connection.register("items", items.append_column(row, pa.array(np.arange(index.num_items))))
        try:
            chosen = duckdb.SQLExpression(expression).alias("chosen")
            answer = connection.table("items").select(chosen, duckdb.ColumnExpression(row)).to_arrow_table()
        except duckdb.Error as error:
            raise _refused(index, expression, str(error)) from None
    if answer.num_columns != 2 or not pa.types.is_boolean(answer.column(0).type):
        kind = answer.column(0).type if answer.num_columns == 2 else f"{answer.num_columns - 1} columns"
        raise _refused(index, expression, f"it must say true or false of each item, but gives {kind}")
    if answer.num_rows != index.num_items:
        raise _refused(index, expression, f"it gives {answer.num_rows:,} rows for {index.num_items:,} items")
    mask = np.zeros(index.num_items, bool)
    # As in SQL, what is null is not true.
    mask[answer.column(1).to_numpy()] = answer.column(0).fill_null(False).to_numpy()
    return mask


def _column_beside(names: list[str]) -> str:
    """Returns a name for the rows that no attribute has; SQL does not tell names apart by case.

    Raises:
        ConstraintError: two attributes are one to SQL.
    """
    folded = [name.casefold() for name in names]
    twice = [name for name in names if folded.count(name.casefold()) > 1]
    if twice:
        raise ConstraintError(
            f"SQL does not tell {twice[0]!r} from {twice[1]!r}; rename one, or use a function: index.constraint(...)."
        )
    return f"row of {max(folded, key=len)}"


def _refused(index: Trie, expression: str, reason: str) -> ConstraintError:
    columns = ", ".join(f"{field.name} ({field.type})" for field in index.items_table.schema)
    return ConstraintError(
        f"the SQL expression {expression!r} cannot be used: {' '.join(reason.split())}. The columns are {columns}."
    )


def newest(index: Trie, attribute: str, days: float, now: Any, nulls: Nulls, name: str | None) -> ConstraintSet:
    """Returns the items of the latest days: `Trie.newest`."""
    column = attribute_column(index, attribute, "newest")
    if isinstance(days, bool) or not isinstance(days, int | float | np.integer | np.floating) or not days >= 0:
        raise ConstraintError(f"days must be a number from 0 on; got {days!r}.")
    if nulls not in ("in", "out", None):
        raise ConstraintError(f"nulls must be 'in' or 'out'; got {nulls!r}.")
    values, unknown = _ordered(column, attribute)
    if unknown.any() and nulls is None:
        raise ConstraintError(
            f"{int(unknown.sum()):,} of {len(values):,} items have no {attribute!r}; say whether they are in the set: "
            "nulls='in' or nulls='out'."
        )
    last: Any = _moment(now, attribute) if values.dtype.kind == "M" else _number(now, attribute, column.type)
    try:
        since = last - (np.timedelta64(timedelta(days=float(days)), "us") if values.dtype.kind == "M" else days)
    except OverflowError:
        raise ConstraintError(f"days is too large for a date: {days!r}.") from None
    inside = (values >= since) & (values <= last)
    mask = np.where(unknown, nulls == "in", inside)
    window = f"{attribute} {_said(since)} to {_said(last)}"
    if not mask.any() and not unknown.all():
        known = values[~unknown]
        window += f" (none: they are of {_said(known.min())} to {_said(known.max())})"
    return ConstraintSet(index, packed(mask), name or window)


def _said(value: Any) -> str:
    """Returns a number or a moment as text, without a fraction or a midnight that says nothing."""
    return str(value).removesuffix(".000000").removesuffix("T00:00:00")


def _ordered(column: pa.ChunkedArray, attribute: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the values as numbers or moments (UTC, microseconds), and which of them are null or NaN."""
    import pyarrow as pa

    kind = column.type
    unknown = np.asarray(column.is_null(nan_is_null=True))
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        filled = column.cast(pa.timestamp("us", tz=getattr(kind, "tz", None)), safe=False).fill_null(0)
        return filled.to_numpy().astype("datetime64[us]"), unknown
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return column.fill_null(0).to_numpy(), unknown
    raise ConstraintError(
        f"newest: attribute {attribute!r} holds {kind}, not dates, timestamps or numbers; for others: index.where(SQL)."
    )


def _moment(now: Any, attribute: str) -> np.datetime64:
    """Returns a date (its midnight) or a datetime as a moment, UTC."""
    if now is None:
        now = datetime.now(UTC)
    if isinstance(now, datetime) and now.tzinfo is not None:
        now = now.astimezone(UTC).replace(tzinfo=None)
    try:
        if not isinstance(now, date | np.datetime64 | str):
            raise ValueError
        return np.datetime64(now, "us")  # pyright: ignore[reportCallIssue, reportArgumentType]
    except ValueError:
        raise ConstraintError(
            f"newest: {attribute!r} holds moments, so now must be a date or a datetime; got {now!r}."
        ) from None


def _number(now: Any, attribute: str, kind: pa.DataType) -> Any:
    if isinstance(now, bool) or not isinstance(now, int | float | np.integer | np.floating):
        raise ConstraintError(
            f"newest: {attribute!r} holds {kind}, so now must be a number, and days counts in its units; got {now!r}."
        )
    return now
