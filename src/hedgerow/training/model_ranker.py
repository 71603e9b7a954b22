"""ModelRanker: a trained model, or several of other seeds, as a ranker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hedgerow.errors import ArgumentError
from hedgerow.training.rankers import NO_ITEM, Done, Ranked, ignore_done
from hedgerow.training.splits import Questions

if TYPE_CHECKING:
    from hedgerow.hf import Retriever

# The number of questions that are searched by one call.
PART = 256


class ModelRanker:
    """Rank items by the probability that a model gives to their SIDs. Several models give the mean of probabilities.

    With several models, each drafts `beam_width` items, and all models score all drafts.

    Args:
        retrievers: one retriever, or several over the same index.
        beam_width: M, the number of SIDs to follow.

    Attributes:
        retrievers: the retrievers.
        beam_width: M.

    Raises:
        ArgumentError: there is no retriever, or they have different indexes.

    Examples:
        ```python
        import hedgerow as hr
        import numpy as np
        from hedgerow.demo.films import load_catalog, load_retriever
        from hedgerow.training import ModelRanker, Questions

        retriever = load_retriever(hr.build_index(load_catalog()))
        questions = Questions([np.array([5, 7])], np.array([9]), np.array([0]))
        ranked = ModelRanker(retriever, beam_width=5).rank(questions, 3)
        assert ranked.items.shape == (1, 3)
        assert not np.isin(ranked.items, [5, 7]).any()
        ```
    """

    def __init__(self, retrievers: Retriever | Sequence[Retriever], *, beam_width: int = 50) -> None:
        self.retrievers = list(retrievers) if isinstance(retrievers, Sequence) else [retrievers]
        self.beam_width = beam_width
        if not self.retrievers:
            raise ArgumentError("expected at least one retriever; got none.")
        first = self.retrievers[0].index
        if any(not retriever.index.item_ids.equals(first.item_ids) for retriever in self.retrievers):
            raise ArgumentError("the retrievers must have the same index; their items differ.")

    def rank(
        self, questions: Questions, k: int, *, among: np.ndarray | None = None, done: Done = ignore_done
    ) -> Ranked:
        """As `Ranker.rank`. At most `beam_width` SIDs are found."""
        drafts, total = [], len(questions) * len(self.retrievers)
        for number, retriever in enumerate(self.retrievers):
            start = number * len(questions)
            constraints = None if among is None else retriever.index.constraint(among, order="index")
            drafts.append(
                self._search(
                    retriever, questions, lambda n, _, start=start: done(start + n, total), constraints=constraints
                )
            )
        if len(drafts) == 1:
            return ordered(drafts[0].items, drafts[0].scores, k)
        items = distinct_items([draft.items for draft in drafts])
        return ordered(items, self.scores(questions, items), k)

    def scores(self, questions: Questions, items: np.ndarray, *, done: Done = ignore_done) -> np.ndarray:
        """As `Ranker.scores`: logarithms of probabilities. Those of `normalize="allowed"` compare the given items."""
        parts, total = [], len(questions) * len(self.retrievers)
        for number, retriever in enumerate(self.retrievers):
            start = number * len(questions)
            parts.append(self._scores(retriever, questions, items, lambda n, _, start=start: done(start + n, total)))
        if len(parts) == 1:
            return parts[0]
        return np.logaddexp.reduce(parts, axis=0) - np.log(len(parts))

    def _scores(self, retriever: Retriever, questions: Questions, items: np.ndarray, done: Done) -> np.ndarray:
        ids = retriever.index.item_ids
        candidates = [ids.take(row[row != NO_ITEM]).to_pylist() for row in items]
        # As many beams as candidates find all of them.
        found = self._search(retriever, questions, done, candidates=candidates, width=items.shape[1])
        scores = np.full(items.shape, -np.inf)
        for row in range(len(items)):
            order = np.argsort(found.items[row], kind="stable")
            places = np.searchsorted(found.items[row], items[row], sorter=order).clip(max=found.items.shape[1] - 1)
            matches = (found.items[row][order[places]] == items[row]) & (items[row] != NO_ITEM)
            scores[row, matches] = found.scores[row][order[places[matches]]]
        return scores

    def _search(
        self,
        retriever: Retriever,
        questions: Questions,
        done: Done,
        *,
        constraints: Any = None,
        candidates: list[list[Any]] | None = None,
        width: int | None = None,
    ) -> Ranked:
        """All items of the beams, for each question."""
        ids, beam_width = retriever.index.item_ids, width or self.beam_width
        items = np.full((len(questions), beam_width), NO_ITEM)
        scores = np.full(items.shape, -np.inf)
        for start in range(0, len(questions), PART):
            rows = range(start, min(start + PART, len(questions)))
            seen = [ids.take(questions.histories[row]).to_pylist() for row in rows]
            results = retriever.retrieve(
                [retriever.history_prompt(items) for items in seen],
                beam_width=beam_width,
                k=beam_width,
                constraints=constraints,
                exclude=seen if candidates is None else None,
                candidates=None if candidates is None else [candidates[row] for row in rows],
            )
            for row, result in zip(rows, results, strict=True):
                items[row, : len(result)], scores[row, : len(result)] = result.rows, result.scores
            done(rows.stop, len(questions))
        return Ranked(items, scores)


def distinct_items(drafts: Sequence[np.ndarray]) -> np.ndarray:
    """The distinct items of several drafts [Q, k] for each question, int64 [Q, n], ascending; then -1."""
    items = np.sort(np.concatenate(drafts, axis=1), axis=1)
    repeated = np.zeros(items.shape, bool)
    repeated[:, 1:] = items[:, 1:] == items[:, :-1]
    items[repeated | (items == NO_ITEM)] = np.iinfo(np.int64).max
    items.sort(axis=1)
    width = max(1, int((items != np.iinfo(np.int64).max).sum(axis=1).max(initial=0)))
    return np.where(items == np.iinfo(np.int64).max, NO_ITEM, items)[:, :width]


def ordered(items: np.ndarray, scores: np.ndarray, k: int) -> Ranked:
    """The best k of given items [Q, n], by their scores; of equal scores the first ones. -inf is no item."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    scores = np.take_along_axis(scores, order, axis=1)
    items = np.where(scores > -np.inf, np.take_along_axis(items, order, axis=1), NO_ITEM)
    padding = ((0, 0), (0, k - order.shape[1]))
    return Ranked(np.pad(items, padding, constant_values=NO_ITEM), np.pad(scores, padding, constant_values=-np.inf))
