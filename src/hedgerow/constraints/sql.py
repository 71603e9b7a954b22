"""Constraint sets from SQL expressions, which DuckDB evaluates within limits."""

from __future__ import annotations

import atexit
import re
import time
from contextlib import suppress
from functools import cache
from math import isfinite
from threading import TIMEOUT_MAX, Condition, Event, Thread
from typing import Any

import numpy as np

from hedgerow.constraints.cache import cache_of
from hedgerow.constraints.sets import ConstraintSet, key_of
from hedgerow.constraints.sql_checks import misread_date, text_and_number
from hedgerow.constraints.sql_functions import GUARDED_FUNCTIONS, GUARDS, TIME_FUNCTIONS
from hedgerow.errors import ConstraintError, MissingDependencyError
from hedgerow.index.bits import packed
from hedgerow.index.trie import Trie

MEMORY_LIMIT = "2GB"
# The expression can read the items only: no files, network, extensions or Python variables.
CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
    "python_enable_replacements": "false",
    "temp_directory": "",
    "memory_limit": MEMORY_LIMIT,
    "threads": "4",
}
# How often a query is interrupted until it ends, with how many seconds between; and the seconds to wait for all queries
# when the interpreter exits. A query that begins just then does not notice an interrupt.
INTERRUPTS, BETWEEN = 20, 0.05
EXIT_SECONDS = 10.0


def where(index: Trie, expression: str, name: str | None, timezone: str, timeout: float) -> ConstraintSet:
    """Make the set of the items for which an SQL expression is true: see `TrieIndex.where`."""
    if not isinstance(expression, str) or not expression.strip() or not _is_encodable(expression):
        raise ConstraintError(
            f'expected an SQL expression over the attributes, for example "year >= 2000"; got {expression!r}.'
        )
    if not isinstance(timezone, str):
        raise ConstraintError(f"timezone must be the name of a time zone, for example 'UTC'; got {timezone!r}.")
    is_number = isinstance(timeout, int | float | np.number) and not isinstance(timeout, bool)
    if not is_number or not (isfinite(timeout) and timeout > 0):
        raise ConstraintError(f"timeout must be a number of seconds above 0; got {timeout!r}.")

    def compute() -> tuple[np.ndarray, bytes]:
        words = packed(_Query(index, expression, timezone, float(timeout)).answer())
        return words, key_of(words)

    GATE.enter()
    try:
        words, key = cache_of(index).rule(
            ("where", timezone, expression), compute, keep=lambda: _is_constant(expression)
        )
    finally:
        GATE.leave()
    items = ConstraintSet(index, words, name or expression)
    # Not computed for each request: it reads all words.
    items.__dict__["_key"] = key
    return items


def _is_encodable(expression: str) -> bool:
    try:
        expression.encode()
    except UnicodeEncodeError:
        return False
    return True


class _Gate:
    """Counts the threads that are inside DuckDB. When the interpreter exits, it waits for them, and lets no other in.

    A thread inside DuckDB that needs the interpreter after its end would end the process with an error.
    """

    def __init__(self) -> None:
        self.changed, self.inside, self.closed = Condition(), 0, False
        # The queries that run, and their connections.
        self.running: dict[_Query, Any] = {}
        atexit.register(self.close)

    def enter(self) -> None:
        with self.changed:
            # For threads that go on while the interpreter exits. They end with the process.
            while self.closed:
                self.changed.wait()
            self.inside += 1

    def join(self) -> None:
        """Count one more thread, which works for a caller that has entered."""
        with self.changed:
            self.inside += 1

    def leave(self) -> None:
        with self.changed:
            self.inside -= 1
            self.changed.notify_all()

    def close(self) -> None:
        """Interrupt all queries until they have ended."""
        end = time.monotonic() + EXIT_SECONDS
        with self.changed:
            self.closed = True
            while self.inside and time.monotonic() < end:
                for query in list(self.running):
                    query.interrupt()
                self.changed.wait(BETWEEN)


GATE = _Gate()


class _Query:
    """An expression that DuckDB evaluates in a thread, so that the caller can stop waiting: for time, or Ctrl-C.

    The caller does not call DuckDB: it loses the exception of a Ctrl-C that comes while it imports a module.

    Args:
        index: the index of the items.
        expression: the SQL expression.
        timezone: the time zone of the session.
        timeout: the seconds to wait.
    """

    def __init__(self, index: Trie, expression: str, timezone: str, timeout: float) -> None:
        try:
            import duckdb
        except ModuleNotFoundError as error:
            raise MissingDependencyError.of("index.where", "duckdb", "sql") from error
        self.duckdb, self.index, self.expression = duckdb, index, expression
        self.timezone, self.timeout = timezone, timeout
        self.done, self.stopped, self.table, self.error = Event(), False, None, None
        self.row_column = _unused_column(index.items_table.column_names)

    def answer(self) -> np.ndarray:
        """Bool [N]: whether the expression is true for each item."""
        import pyarrow as pa

        if match := GUARDED_FUNCTIONS.search(self.expression):
            raise self._error(f"{match.group()}...) names a schema; call the function without it")
        if (problem := misread_date(self.expression, self.index.items_table)) is not None:
            raise self._error(problem)
        table = self._run()
        if table.num_columns != 2 or not pa.types.is_boolean(table.column(0).type):
            kind = table.column(0).type if table.num_columns == 2 else f"{table.num_columns - 1} columns"
            raise self._error(f"it must be true or false for each item, but gives {kind}")
        if table.num_rows != self.index.num_items:
            raise self._error(f"it gives {table.num_rows:,} rows for {self.index.num_items:,} items")
        mask = np.zeros(self.index.num_items, bool)
        # As in SQL, null is not true.
        mask[table.column(1).to_numpy()] = table.column(0).fill_null(False).to_numpy()
        return mask

    def _run(self) -> Any:
        GATE.join()
        Thread(target=self._run_thread, name="hedgerow-where", daemon=True).start()
        try:
            is_done = self.done.wait(min(self.timeout, TIMEOUT_MAX))
        except BaseException:
            self.stop()
            raise
        if not is_done:
            self.stop()
            raise self._error(
                f"it did not finish within {self.timeout:g} seconds. Use a simpler expression, or pass a larger timeout"
            )
        if self.error is not None:
            if isinstance(self.error, self.duckdb.OutOfMemoryException):
                raise self._error(f"it needs more than {MEMORY_LIMIT} of memory")
            if not isinstance(self.error, self.duckdb.Error):
                raise self.error
            problem = text_and_number(str(self.error), self.expression, self.index.items_table)
            raise self._error(problem or str(self.error) + _hint(str(self.error))) from None
        return self.table

    def stop(self) -> None:
        """Interrupt the evaluation, and wait until it has ended."""
        self.stopped = True
        for _ in range(INTERRUPTS):
            self.interrupt()
            if self.done.wait(BETWEEN):
                return

    def interrupt(self) -> None:
        """Interrupt the evaluation, if it has begun and not ended."""
        connection = GATE.running.get(self)
        if connection is not None:
            # It may have ended just now, and closed its connection.
            with suppress(self.duckdb.Error):
                connection.interrupt()

    def _connection(self) -> Any:
        import pyarrow as pa

        items = self.index.items_table
        connection = self.duckdb.connect(":memory:", config=CONFIG)
        try:
            connection.execute("SET TimeZone = '" + self.timezone.replace("'", "''") + "'")
        except self.duckdb.Error as error:
            raise ConstraintError(
                f"timezone must be the name of a time zone, for example 'UTC' or 'Europe/Berlin'; got "
                f"{self.timezone!r}: {' '.join(str(error).split())}"
            ) from None
        connection.execute(GUARDS)
        connection.execute("SET lock_configuration = true")
        connection.register("items", items.append_column(self.row_column, pa.array(np.arange(self.index.num_items))))
        return connection

    def _run_thread(self) -> None:
        try:
            self._evaluate()
        finally:
            # Outside of the function whose variables belong to DuckDB.
            GATE.running.pop(self, None)
            self.done.set()
            GATE.leave()

    def _evaluate(self) -> None:
        connection = None
        try:
            GATE.running[self] = connection = self._connection()
            if self.stopped:
                return
            chosen = self.duckdb.SQLExpression(self.expression).alias("chosen")
            relation = connection.table("items").select(chosen, self.duckdb.ColumnExpression(self.row_column))
            self.table = relation.to_arrow_table()
        except BaseException as error:
            self.error = error
        finally:
            if connection is not None:
                connection.close()

    def _error(self, reason: str) -> ConstraintError:
        columns = ", ".join(f"{field.name} ({field.type})" for field in self.index.items_table.schema)
        return ConstraintError(
            f"the SQL expression {self.expression!r} cannot be used: {' '.join(reason.split())}. The columns are "
            f"{columns}."
        )


def _hint(error: str) -> str:
    """What to do about an error of DuckDB, if that is known."""
    if "_NS" in error:
        return ". Timestamps of nanoseconds need a cast, for example released::TIMESTAMPTZ"
    if "Referenced column" in error:
        return """. Double quotes are for names of columns; text is in single quotes: brand = 'Ace'"""
    return ""


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


def _is_constant(expression: str) -> bool:
    """Whether an expression gives the same answer at any time: it has no word that names the clock or chance."""
    words = set(re.findall(r"\w+", expression.casefold()))
    return not words & _changing_functions() and not any(re.match(TIME_FUNCTIONS, word) for word in words)


@cache
def _changing_functions() -> frozenset[str]:
    """Names of DuckDB's functions whose result can change from call to call.

    Functions that are consistent within a query depend on the clock if they have no parameters. The others depend on
    the time zone of the session, which is part of the key of the cache.
    """
    import duckdb

    with duckdb.connect(":memory:", config=CONFIG) as connection:
        rows = connection.execute(
            "SELECT lower(function_name) FROM duckdb_functions() GROUP BY ALL "
            "HAVING bool_or(stability NOT IN ('CONSISTENT', 'CONSISTENT_WITHIN_QUERY')) "
            "OR bool_or(stability = 'CONSISTENT_WITHIN_QUERY' AND len(parameters) = 0) "
            "OR bool_or(stability IS NULL) AND NOT bool_or(coalesce(stability = 'CONSISTENT', false))"
        ).fetchall()
    return frozenset(name for (name,) in rows)
