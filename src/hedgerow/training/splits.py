"""Splits of histories: the interactions that train, and the items to predict for validation and test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from hedgerow._arguments import check_choice
from hedgerow.errors import ArgumentError
from hedgerow.training.histories import Histories

if TYPE_CHECKING:
    import pyarrow as pa

PARTS = ("validation", "test")
Part = Literal["validation", "test"]
NO_QUESTION = -1


@dataclass(frozen=True, eq=False)
class Questions:
    """Q questions: the history of a user, and the next item.

    `len(questions)` is Q. Items are rows of the index.

    Attributes:
        histories: for each question int64 [n], n >= 1, oldest first.
        targets: int64 [Q], the next items.
        users: int64 [Q], ascending: positions in `Histories.users`.

    Examples:
        ```python
        import numpy as np
        from hedgerow.training import Questions

        questions = Questions([np.array([3, 1])], np.array([2]), np.array([0]))
        assert len(questions) == 1
        ```
    """

    histories: list[np.ndarray]
    targets: np.ndarray
    users: np.ndarray

    def __len__(self) -> int:
        return len(self.targets)

    def sample(self, size: int, seed: int = 0) -> Questions:
        """A random part of the questions, in their order; all if there are not more than `size`.

        Examples:
            ```python
            import numpy as np
            from hedgerow.training import Questions

            questions = Questions([np.array([3]), np.array([1])], np.array([2, 2]), np.array([0, 1]))
            assert len(questions.sample(1)) == 1
            ```
        """
        if size >= len(self):
            return self
        rows = np.sort(np.random.default_rng(seed).choice(len(self), size, replace=False))
        return Questions([self.histories[row] for row in rows], self.targets[rows], self.users[rows])


@dataclass(frozen=True, eq=False, repr=False)
class Split:
    """A split of the histories of U users.

    The question of a user is an interaction; the interactions before it are its history.

    Attributes:
        histories: the histories.
        train: int64 [U], the number of interactions of each user that train: the earliest.
        validation: int64 [U], the position in the history of each user of the item to predict; -1 for no question.
        test: the same for the test.
        method: how the split was made, as JSON values.

    Examples:
        ```python
        import hedgerow as hr
        import pyarrow as pa
        from hedgerow.training import Histories, leave_one_out

        index = hr.build_index(hr.Catalog([[0], [1], [2]], item_ids=["a", "b", "c"]))
        table = pa.table({"user": [7] * 3, "item_id": ["b", "a", "c"], "timestamp": [1, 2, 3]})
        split = leave_one_out(Histories.from_arrow(table, index))
        assert split.train.tolist() == [1]
        assert split.questions("test").histories[0].tolist() == [1, 0]
        assert split.questions("test").targets.tolist() == [2]
        ```
    """

    histories: Histories
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    method: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def training(self) -> list[np.ndarray]:
        """The items that train, for each user int64 [n], oldest first; n may be 0."""
        return [items[:count] for items, count in zip(self.histories, self.train.tolist(), strict=True)]

    def questions(self, part: Part) -> Questions:
        """The questions of a part.

        Args:
            part: "validation" or "test".

        Examples: see `Split`.
        """
        check_choice(part, "part", PARTS)
        positions = self.validation if part == "validation" else self.test
        users = np.flatnonzero(positions != NO_QUESTION)
        starts, stops = self.histories.starts[users], self.histories.starts[users] + positions[users]
        items = self.histories.items
        histories = [items[start:stop] for start, stop in zip(starts.tolist(), stops.tolist(), strict=True)]
        return Questions(histories, items[stops], users)

    def to_arrow(self) -> pa.Table:
        """A table with the columns user, interactions, train, validation and test, one row per user.

        Positions count from 0 in the history of the user; null where there is no question.
        """
        import pyarrow as pa

        columns = {"interactions": self.histories.lengths, "train": self.train}
        questions = {
            name: pa.array(positions, mask=positions == NO_QUESTION)
            for name, positions in (("validation", self.validation), ("test", self.test))
        }
        return pa.table({"user": self.histories.users, **columns, **questions})

    def __repr__(self) -> str:
        questions = (f"{part}={int((getattr(self, part) != NO_QUESTION).sum()):,}" for part in PARTS)
        return f"Split(users={len(self.histories):,}, train={int(self.train.sum()):,}, {', '.join(questions)})"


def leave_one_out(histories: Histories) -> Split:
    """Split so that the last item of each user is the test, and the one before is the validation.

    A user with two items has a test and no validation; a user with one item only trains.

    Args:
        histories: the histories.

    Raises:
        ArgumentError: no user has two items.

    Examples:
        ```python
        import pyarrow as pa
        import hedgerow as hr
        from hedgerow.training import Histories, leave_one_out

        index = hr.build_index(hr.Catalog([[0], [1], [2]], item_ids=["a", "b", "c"]))
        columns = {"user": [1, 1, 1, 2], "item_id": ["a", "b", "c", "a"], "timestamp": [1, 2, 3, 1]}
        split = leave_one_out(Histories.from_arrow(pa.table(columns), index))
        assert len(split.questions("test")) == 1  # c, after a and b
        ```
    """
    lengths = histories.lengths
    _check_some(histories, lengths >= 2)
    test = np.where(lengths >= 2, lengths - 1, NO_QUESTION)
    validation = np.where(lengths >= 3, lengths - 2, NO_QUESTION)
    train = np.where(lengths >= 3, lengths - 2, 1)
    return Split(histories, train, validation, test, {"method": "leave-one-out"})


def split_by_time(histories: Histories, *, validation: Any, test: Any) -> Split:
    """Split at two times: what happened before `validation` trains; nothing that happened later does.

    The validation question of a user is the first interaction from `validation` on and before `test`; the test question
    is the first from `test` on. A user without an earlier interaction has no question.

    Args:
        histories: the histories, with times.
        validation: a time of the type of the times: a number, a date, a datetime, or text such as "2024-05-31".
        test: a later time.

    Raises:
        ArgumentError: there are no times, a time has another type, `test` is not later than `validation`, or there are
            no interactions before `validation`, or no questions of the test.

    Examples:
        ```python
        import hedgerow as hr
        import pyarrow as pa
        from hedgerow.training import Histories, split_by_time

        index = hr.build_index(hr.Catalog([[0], [1], [2]], item_ids=["a", "b", "c"]))
        table = pa.table({"user": [7] * 3, "item_id": ["b", "a", "c"], "timestamp": [1, 2, 3]})
        split = split_by_time(Histories.from_arrow(table, index), validation=2, test=3)
        assert split.questions("validation").targets.tolist() == [0]
        ```
    """
    before_validation, before_test = (_count_before(histories, time) for time in (validation, test))
    if (before_test < before_validation).any():
        raise ArgumentError(f"test must be later than validation; got validation={validation!r}, test={test!r}.")
    lengths = histories.lengths
    asked = (before_validation >= 1) & (before_validation < before_test)
    tested = (before_test >= 1) & (before_test < lengths)
    _check_some(histories, tested)
    if not before_validation.any():
        raise ArgumentError(f"there are no interactions before {validation!r}, so nothing to train on.")
    return Split(
        histories,
        before_validation,
        np.where(asked, before_validation, NO_QUESTION),
        np.where(tested, before_test, NO_QUESTION),
        {"method": "time", "validation": str(validation), "test": str(test)},
    )


def later_questions(histories: Histories, later: Histories) -> Questions:
    """The questions of later interactions: the first one of each user, after all of the user's history.

    Users of `later` without a history have no question.

    Args:
        histories: the histories.
        later: what the users did afterwards, with the items of the same index.

    Raises:
        ArgumentError: the users or the times of both have other types, an interaction of `later` is earlier than the
            last one of its user in `histories`, or no user has a history.
    """
    import pyarrow.compute as pc

    if histories.users.type != later.users.type:
        raise ArgumentError(
            f"the users of the later interactions are {later.users.type}, and those of the histories "
            f"{histories.users.type}: no user would be found. Write both in the same way."
        )
    found = pc.index_in(later.users, histories.users).to_numpy(zero_copy_only=False)  # pyright: ignore[reportAttributeAccessIssue]
    asked = np.flatnonzero(~np.isnan(found.astype(float)))
    if not len(asked):
        raise ArgumentError(
            f"none of the {len(later):,} users of the later interactions has a history, the first is "
            f"{later.users[0].as_py()!r}. Pass a later file of the same users."
        )
    users, first = found[asked].astype(np.int64), later.starts[asked]
    _check_later(histories, later, users, first)
    # Users are in ascending order in both.
    return Questions([histories[user] for user in users.tolist()], later.items[first], users)


def _check_later(histories: Histories, later: Histories, users: np.ndarray, first: np.ndarray) -> None:
    """Check that the first later interaction of each user is not before the last one of the history.

    Raises:
        ArgumentError: one is, or the times cannot be compared.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if histories.times is None or later.times is None:
        return
    last = histories.times.take(pa.array(histories.starts[users + 1] - 1))
    times = later.times.take(pa.array(first))
    try:
        early = pc.less(times, last).to_numpy(zero_copy_only=False)  # pyright: ignore[reportAttributeAccessIssue]
    except pa.ArrowException:
        raise ArgumentError(
            f"the times of the later interactions are {times.type}, and those of the histories {last.type}, which "
            "cannot be compared. Write both in the same way."
        ) from None
    if early.any():
        at = int(np.argmax(early))
        raise ArgumentError(
            f"{int(early.sum()):,} users have later interactions that are earlier than the last one of their history: "
            f"{histories.users[int(users[at])].as_py()!r} at {times[at].as_py()}, and the history ends at "
            f"{last[at].as_py()}. Split one file by time with --split, or pass histories that end before."
        )


def _check_some(histories: Histories, asked: np.ndarray) -> None:
    if not asked.any():
        raise ArgumentError(
            f"no user has an item to predict: a question needs an item and an earlier one. There are "
            f"{len(histories):,} users, with {int(histories.lengths.max())} interactions at most."
        )


def _count_before(histories: Histories, time: Any) -> np.ndarray:
    """The number of interactions of each user before a time, int64 [U]."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if histories.times is None:
        raise ArgumentError("a split by time needs histories with times; these were read with timestamp=None.")
    from hedgerow.catalog.columns import scalar_of

    try:
        zoned = _is_zoned(histories.times.type)
        if zoned is not None and _is_zoned(time) not in (None, zoned):
            raise TypeError("the times have a time zone" if zoned else "the times have no time zone")
        scalar = scalar_of(histories.times.type, time)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise ArgumentError(
            f"a time of the split must have the type of the times, {histories.times.type}; got {time!r}: {error}"
        ) from None
    before = pc.less(histories.times, scalar).to_numpy(zero_copy_only=False)  # pyright: ignore[reportAttributeAccessIssue]
    return np.add.reduceat(before.astype(np.int64), histories.starts[:-1])


def _is_zoned(time: Any) -> bool | None:
    """Whether a datetime, or an Arrow type of timestamps, has a time zone; None for other values and types."""
    if isinstance(time, datetime):
        return time.tzinfo is not None
    return getattr(time, "tz", None) is not None if hasattr(time, "tz") else None
