"""Histories: the items of each user, oldest first, read from a file of interactions."""

# pyarrow.compute creates its functions at import time, so pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from hedgerow._arguments import check_choice
from hedgerow.catalog.constructors import ITEM_ID
from hedgerow.errors import ArgumentError
from hedgerow.hf.searched import Searched, trie_of
from hedgerow.index.lookup import hint_on_row_numbers, rows_of_ids
from hedgerow.trie_index import TrieIndex

if TYPE_CHECKING:
    import pyarrow as pa

    from hedgerow.catalog.sources import DateOrder, Source

CHOICES = ("error", "skip")
OnProblem = Literal["error", "skip"]


@dataclass(frozen=True, eq=False, repr=False)
class Histories:
    """The histories of U users: E interactions, user by user, oldest first.

    `len(histories)` is the number of users, and `histories[u]` the items of user u.

    Attributes:
        users: U user ids, an Arrow array in ascending order.
        items: int64 [E], the items as rows of the index: positions in `index.item_ids`.
        starts: int64 [U + 1]: the interactions of user u are starts[u] to starts[u + 1] - 1.
        times: an Arrow array of E times, in the type of the file; None if the file has none.
        unknown: the number of skipped interactions with items that are not in the index.
        duplicates: the number of skipped interactions that the file has twice.

    Examples:
        ```python
        import hedgerow as hr
        import pyarrow as pa
        from hedgerow.training import Histories

        index = hr.build_index(hr.Catalog([[0, 1], [2, 0]], item_ids=["a", "b"]))
        table = pa.table({"user": [7, 3, 7], "item_id": ["b", "a", "a"], "timestamp": [20, 15, 10]})
        histories = Histories.from_arrow(table, index)
        assert histories.users.to_pylist() == [3, 7]
        assert [items.tolist() for items in histories] == [[0], [0, 1]]
        ```
    """

    users: pa.Array
    items: np.ndarray
    starts: np.ndarray
    times: pa.Array | None = None
    unknown: int = 0
    duplicates: int = 0

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, user: int) -> np.ndarray:
        if not -len(self) <= user < len(self):
            raise IndexError(f"there are {len(self)} users; got user {user}.")
        user %= len(self)
        return self.items[self.starts[user] : self.starts[user + 1]]

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[user] for user in range(len(self)))

    @cached_property
    def lengths(self) -> np.ndarray:
        """int64 [U], the number of interactions of each user."""
        return np.diff(self.starts)

    @classmethod
    def from_arrow(
        cls,
        table: pa.Table,
        index: Searched,
        *,
        user: str = "user",
        item: str = ITEM_ID,
        timestamp: str | None = "timestamp",
        unknown: OnProblem = "error",
        duplicates: OnProblem = "error",
    ) -> Histories:
        """Read the histories of an Arrow table, with one interaction per row.

        Args:
            table: the rows, in any order. Interactions of one user at the same time keep their order.
            index: the index of the items: a `TrieIndex`, or a live index or a version of it.
            user: the column of user ids.
            item: the column of item ids, of the type of the ids of the index.
            timestamp: the column of times: numbers, dates or timestamps. None: the rows of a user are in order.
            unknown: what to do with items that are not in the index: "error", or "skip" and count them.
            duplicates: what to do with rows that repeat user, item and time: "error", or "skip" and count them.
                Without times, equal rows are repeated interactions, and no duplicates.

        Raises:
            ArgumentError: a column does not exist, has nulls, or has another type; or as `unknown` and `duplicates`
                say. The message names the first row.

        Examples:
            ```python
            import hedgerow as hr
            import pyarrow as pa
            from hedgerow.training import Histories

            index = hr.build_index(hr.Catalog([[0, 1], [2, 0]], item_ids=["a", "b"]))
            table = pa.table({"who": [7, 7], "what": ["z", "b"]})
            histories = Histories.from_arrow(
                table, index, user="who", item="what", timestamp=None, unknown="skip"
            )
            assert (histories.unknown, histories[0].tolist()) == (1, [1])
            ```
        """
        check_choice(unknown, "unknown", CHOICES)
        check_choice(duplicates, "duplicates", CHOICES)
        trie, _ = trie_of(index)
        columns = _columns(table, user, item, timestamp)
        kept, skipped = _known(columns, trie, item, unknown)
        interactions, repeated = _distinct(_sorted(*kept), duplicates)
        if not len(interactions.items):
            raise ArgumentError(f"there are no interactions with items of the index; the file has {len(table):,} rows.")
        codes = interactions.users
        starts = np.append(np.flatnonzero(np.diff(codes, prepend=-1)), len(codes)).astype(np.int64)
        users = columns.users.dictionary.take(codes[starts[:-1]])
        return cls(users, interactions.items, starts, interactions.times, skipped, repeated)

    def __repr__(self) -> str:
        skipped = f", unknown={self.unknown:,}" * bool(self.unknown) + f", duplicates={self.duplicates:,}" * bool(
            self.duplicates
        )
        return f"Histories(users={len(self):,}, interactions={len(self.items):,}{skipped})"


def read_histories(
    source: Source,
    index: Searched,
    *,
    user: str = "user",
    item: str = ITEM_ID,
    timestamp: str | None = "timestamp",
    unknown: OnProblem = "error",
    duplicates: OnProblem = "error",
    dates: DateOrder | None = None,
) -> Histories:
    """Read histories from Parquet, CSV or JSON-lines files, with one interaction per row.

    Args:
        source: a file, a folder, a glob pattern, or a list of these; also as URLs, as for `Catalog.from_parquet`.
        index: as for `Histories.from_arrow`, like all other arguments.
        user: the column of user ids.
        item: the column of item ids.
        timestamp: the column of times, or None.
        unknown: "error" or "skip".
        duplicates: "error" or "skip".
        dates: the order of day, month and year in dates such as 31/12/2020: "dmy", "mdy" or "ymd".

    Raises:
        CatalogError: the file cannot be read.
        ArgumentError: as for `Histories.from_arrow`. The message names the file.

    Examples:
        ```python
        from pathlib import Path

        import hedgerow as hr
        from hedgerow.training import read_histories

        index = hr.build_index(hr.Catalog([[0, 1], [2, 0]], item_ids=["a", "b"]))
        Path("clicks.csv").write_text("user,item_id,timestamp\\nu1,b,2024-05-02\\nu1,a,2024-05-01\\n")
        histories = read_histories("clicks.csv", index)
        assert [items.tolist() for items in histories] == [[0, 1]]
        ```
    """
    trie, _ = trie_of(index)
    columns = {"user": user, "item": item, "timestamp": timestamp}
    if dates is not None:
        check_choice(dates, "dates", ("dmy", "mdy", "ymd"))
    table = _read(source, user, item, trie.item_ids.type, dates)
    try:
        _check_dates(table, timestamp, dates)
        return Histories.from_arrow(table, trie, **columns, unknown=unknown, duplicates=duplicates)
    except ArgumentError as error:
        raise ArgumentError(f"{source}: {error}") from None


class _Columns(NamedTuple):
    """The columns of a file: E users as a dictionary in ascending order, item ids, and times."""

    users: pa.DictionaryArray
    item_ids: pa.Array
    times: pa.Array | None


class _Interactions(NamedTuple):
    """E interactions: users as int64 codes, items as rows of the index, times and their ranks, and rows of the file."""

    users: np.ndarray
    items: np.ndarray
    times: pa.Array | None
    ranks: np.ndarray
    rows: np.ndarray

    def take(self, places: np.ndarray) -> _Interactions:
        """Some of the interactions."""
        times = None if self.times is None else self.times.take(places)
        return _Interactions(self.users[places], self.items[places], times, self.ranks[places], self.rows[places])


def _read(source: Source, user: str, item: str, id_type: pa.DataType, dates: DateOrder | None) -> pa.Table:
    from collections.abc import Mapping

    from hedgerow.catalog import csv_files, readers
    from hedgerow.catalog.parts import concatenated
    from hedgerow.catalog.sources import kind_of
    from hedgerow.catalog.text_columns import has_text_form
    from hedgerow.catalog.types import is_text

    kind = kind_of(source)
    if kind == "csv":
        # Without this, the text id "12" would become a number.
        types = {item: id_type} if has_text_form(id_type) and not is_text(id_type) else {}
        parts = csv_files.read_csv(source, types={item: id_type}, exact=types, dates=dates, ids={user, item})
    elif kind == "npy":
        raise ArgumentError(f"{source}: a .npy file has no columns. Pass a Parquet, CSV or JSON-lines file.")
    else:
        parts = readers.read_parquet(source) if kind == "parquet" else readers.read_json(source, dates, {user, item})
    if isinstance(parts, Mapping):
        raise ArgumentError(f"{source}: expected rows, one JSON object per line; got one object.")
    return concatenated(parts)


def _columns(table: pa.Table, user: str, item: str, timestamp: str | None) -> _Columns:
    import pyarrow as pa
    import pyarrow.compute as pc

    from hedgerow.catalog.types import is_text

    names = {"user": user, "item": item, "timestamp": timestamp}
    found = {what: _column(table, name, what) for what, name in names.items() if name is not None}
    if not len(table):
        raise ArgumentError("there are no interactions: the file has a header, but no rows.")
    times = found.get("timestamp")
    if times is not None and is_text(times.type):
        times = _parsed(times)
    if times is not None and not (pa.types.is_temporal(times.type) or pa.types.is_primitive(times.type)):
        raise ArgumentError(
            f"column {timestamp!r} must hold times: numbers, dates or timestamps; it holds {times.type}, the first is "
            f"{times[0].as_py()!r}. Write times as 2024-05-31 or 2024-05-31T12:00:00, or as numbers; pass "
            "dates= (--dates) for times as 31/05/2024 or 05/31/2024; or timestamp=None (--in-order) if the rows of "
            "each user are in order."
        )
    users = found["user"]
    try:
        distinct = pc.unique(users)
        distinct = distinct.take(pc.sort_indices(distinct))
    except pa.ArrowException as error:
        raise ArgumentError(
            f"column {user!r} must hold ids that can be ordered; it holds {users.type}: {error}"
        ) from None
    return _Columns(pa.DictionaryArray.from_arrays(pc.index_in(users, distinct), distinct), found["item"], times)


def _check_dates(table: pa.Table, timestamp: str | None, dates: DateOrder | None) -> None:
    """Check that the times are dates in the order that was given, if they are text."""
    from hedgerow.catalog.dates import first_failing
    from hedgerow.catalog.text_warnings import advice_on_dates
    from hedgerow.catalog.types import is_text, one_array

    if dates is None or timestamp is None or table.column_names.count(timestamp) != 1:
        return
    column = table.column(timestamp)
    if is_text(column.type) and first_failing(column, dates) is not None and is_text(_parsed(one_array(column)).type):
        raise ArgumentError(f"column {timestamp!r} must hold times. {advice_on_dates(column, dates)}")


def _parsed(times: pa.Array) -> pa.Array:
    """Times as text, as JSON holds them, as timestamps; unchanged if a text is no time."""
    import pyarrow as pa

    for type_ in (pa.timestamp("us"), pa.timestamp("us", "UTC")):
        try:
            return times.cast(type_)
        except pa.ArrowException:
            continue
    return times


def _column(table: pa.Table, name: str, what: str) -> pa.Array:
    """A column without nulls."""
    import pyarrow.compute as pc

    from hedgerow.catalog.columns import as_column, sortable

    if table.column_names.count(name) != 1:
        count = "no column" if name not in table.column_names else "more than one column"
        raise ArgumentError(
            f"there is {count} {name!r}; the columns are {', '.join(table.column_names)}. Name the column of the "
            f"{what} with {what}=, or --{what}."
        )
    column = sortable(as_column(table.column(name), f"column {name!r}"))
    missing = pc.is_null(column, nan_is_null=True)
    if count := pc.sum(missing).as_py():
        row = pc.index(missing, True).as_py()
        raise ArgumentError(
            f"{count:,} of {len(column):,} rows have no value in column {name!r}, the first is row {row}. Remove these "
            "rows, or name another column."
        )
    return column


def _known(
    columns: _Columns, index: TrieIndex, item: str, unknown: OnProblem
) -> tuple[tuple[np.ndarray, np.ndarray, pa.Array | None, np.ndarray], int]:
    """The interactions with items of the index, and the number of the others."""
    users = columns.users.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    try:
        items = rows_of_ids(index, columns.item_ids, "ignore")
    except ArgumentError as error:
        raise ArgumentError(f"column {item!r}: {error}") from None
    missing = items < 0
    count = int(missing.sum())
    if count and unknown == "error":
        row = int(np.argmax(missing))
        distinct = len(columns.item_ids.filter(missing).unique())
        raise ArgumentError(
            f"{count:,} of {len(items):,} rows have items that are not in the index, {distinct:,} items; the first is "
            f"{columns.item_ids[row].as_py()!r} in row {row}. Add these items to the index, or skip the rows with "
            f"unknown='skip', or --unknown skip.{hint_on_row_numbers(index)}"
        )
    rows = np.flatnonzero(~missing)
    times = columns.times if columns.times is None or not count else columns.times.take(rows)
    return (users[rows], items[rows], times, rows), count


def _sorted(users: np.ndarray, items: np.ndarray, times: pa.Array | None, rows: np.ndarray) -> _Interactions:
    """The interactions by user and time. Those of a user at the same time stay in the order of the file."""
    import pyarrow.compute as pc

    ranks = np.zeros(len(users), np.int64) if times is None else pc.rank(times, tiebreaker="dense").to_numpy()
    return _Interactions(users, items, times, ranks, rows).take(np.lexsort((rows, ranks, users)))


def _distinct(interactions: _Interactions, duplicates: OnProblem) -> tuple[_Interactions, int]:
    """The interactions without those that repeat user, item and time, and the number of these."""
    users, items, times, ranks, rows = interactions
    if times is None or not len(users):
        return interactions, 0
    order = np.lexsort((rows, items, ranks, users))
    keys = np.column_stack([users, ranks, items])[order]
    repeated = np.zeros(len(users), bool)
    repeated[order[1:]] = (keys[1:] == keys[:-1]).all(axis=1)
    count = int(repeated.sum())
    if not count:
        return interactions, 0
    if duplicates == "error":
        row = int(rows[repeated].min())
        raise ArgumentError(
            f"{count:,} rows repeat the user, item and time of another row, the first is row {row}. Remove them, or "
            "skip them with duplicates='skip', or --duplicates skip."
        )
    return interactions.take(np.flatnonzero(~repeated)), count
