"""Rankers: the best items for each question, and the scores of given items."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from hedgerow._arguments import whole_number
from hedgerow.errors import ArgumentError
from hedgerow.training.splits import Questions

NO_ITEM = -1
# The number of scores that are computed at once: 16 MB as float32.
BLOCK = 1 << 22
Done = Callable[[int, int], None]


def ignore_done(done: int, total: int) -> None:
    """Show no progress."""


@dataclass(frozen=True, eq=False)
class Ranked:
    """The best items for Q questions, best first.

    Attributes:
        items: int64 [Q, k], rows of the index; -1 where there are fewer than k items.
        scores: float64 [Q, k], higher is better; -inf where there is no item.

    Examples:
        ```python
        import numpy as np
        from hedgerow.training import Ranked

        ranked = Ranked(np.array([[4, 2], [7, -1]]), np.array([[0.9, 0.1], [0.5, -np.inf]]))
        assert ranked.ranks([2, 3]).tolist() == [2, np.inf]
        ```
    """

    items: np.ndarray
    scores: np.ndarray

    def __len__(self) -> int:
        return len(self.items)

    def ranks(self, targets: np.ndarray | list[int]) -> np.ndarray:
        """The rank of each target, from 1; inf if it is not among the k items.

        Args:
            targets: int64 [Q], rows of the index.

        Returns:
            float64 [Q].

        Examples: see `Ranked`.
        """
        found = self.items == np.asarray(targets)[:, None]
        return np.where(found.any(axis=1), 1.0 + found.argmax(axis=1), np.inf)


@runtime_checkable
class Ranker(Protocol):
    """Anything that ranks items: a model, a baseline, a blend, or your own class with these two methods.

    Items are rows of the index. The items of a question's history are never returned by `rank`.

    Examples:
        ```python
        import numpy as np
        from hedgerow.training import Questions, Ranker, popularity

        ranker = popularity([np.array([0, 1]), np.array([1])], num_items=3)
        assert isinstance(ranker, Ranker)
        questions = Questions([np.array([0])], np.array([1]), np.array([0]))
        assert ranker.rank(questions, 2).items.tolist() == [[1, -1]]
        ```
    """

    def rank(
        self, questions: Questions, k: int, *, among: np.ndarray | None = None, done: Done = ignore_done
    ) -> Ranked:
        """The best k items for each question.

        Args:
            questions: the questions. Their targets are not read.
            k: the number of items.
            among: bool [N], the items that may be returned. Default: all.
            done: called with the number of finished questions and the number of all.
        """
        ...

    def scores(self, questions: Questions, items: np.ndarray, *, done: Done = ignore_done) -> np.ndarray:
        """The scores float64 [Q, n] of n given items for each question; -inf for the row -1.

        Args:
            questions: the questions.
            items: int64 [Q, n], rows of the index, or -1.
            done: as for `rank`.
        """
        ...


@dataclass(frozen=True, eq=False)
class ScoreRanker:
    """A ranker with a function that scores all N items. Items with a score of 0 or less are not returned.

    Attributes:
        num_items: N.
        score: maps q histories, each int64 [n], to scores float32 [q, N].

    Examples:
        ```python
        import numpy as np
        from hedgerow.training import Questions, ScoreRanker

        ranker = ScoreRanker(3, lambda histories: np.array([[3.0, 1.0, 2.0]] * len(histories)))
        questions = Questions([np.array([0])], np.array([1]), np.array([0]))
        assert ranker.rank(questions, 2).items.tolist() == [[2, 1]]
        ```
    """

    num_items: int
    score: Callable[[list[np.ndarray]], np.ndarray]

    def rank(
        self, questions: Questions, k: int, *, among: np.ndarray | None = None, done: Done = ignore_done
    ) -> Ranked:
        """As `Ranker.rank`."""
        whole_number(k, "k")
        parts = []
        for rows, scores in self._blocks(questions, done):
            for row, question in enumerate(rows):
                scores[row, questions.histories[question]] = -np.inf
            if among is not None:
                scores[:, ~among] = -np.inf
            parts.append(best(scores, k))
        if not parts:
            return Ranked(np.zeros((0, k), np.int64), np.zeros((0, k)))
        return Ranked(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("items", "scores")))

    def scores(self, questions: Questions, items: np.ndarray, *, done: Done = ignore_done) -> np.ndarray:
        """As `Ranker.scores`."""
        found = np.full(items.shape, -np.inf)
        for rows, scores in self._blocks(questions, done):
            part = items[rows.start : rows.stop]
            taken = np.take_along_axis(scores, np.maximum(part, 0), axis=1)
            found[rows.start : rows.stop] = np.where(part == NO_ITEM, -np.inf, taken)
        return found

    def _blocks(self, questions: Questions, done: Done) -> Iterator[tuple[range, np.ndarray]]:
        size = max(1, BLOCK // max(1, self.num_items))
        for start in range(0, len(questions), size):
            rows = range(start, min(start + size, len(questions)))
            scores = np.array(self.score([questions.histories[row] for row in rows]), np.float32)
            if scores.shape != (len(rows), self.num_items):
                raise ArgumentError(
                    f"score must return an array of shape {(len(rows), self.num_items)}; got {scores.shape}."
                )
            yield rows, scores
            done(rows.stop, len(questions))


def best(scores: np.ndarray, k: int) -> Ranked:
    """The best k items of scores [q, N] above 0; of equal scores the first ones."""
    count = min(k, scores.shape[1])
    chosen = np.argpartition(-scores, count - 1, axis=1)[:, :count]
    lowest = np.take_along_axis(scores, chosen, axis=1).min(axis=1)
    # Where equal scores are on both sides of the edge, the partition takes any of them.
    for row in np.flatnonzero((scores >= lowest[:, None]).sum(axis=1) > count):
        chosen[row] = np.argsort(-scores[row], kind="stable")[:count]
    chosen.sort(axis=1)
    taken = np.take_along_axis(scores, chosen, axis=1)
    order = np.argsort(-taken, axis=1, kind="stable")
    items, taken = (np.take_along_axis(array, order, axis=1) for array in (chosen, taken))
    exists = taken > 0
    items, taken = np.where(exists, items, NO_ITEM), np.where(exists, taken, -np.inf)
    padding = ((0, 0), (0, k - count))
    return Ranked(
        np.pad(items, padding, constant_values=NO_ITEM).astype(np.int64),
        np.pad(taken, padding, constant_values=-np.inf).astype(np.float64),
    )
