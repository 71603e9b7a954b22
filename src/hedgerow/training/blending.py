"""Blend: items that several rankers draft, ordered by a weighted sum of their scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real

import numpy as np

from hedgerow import metrics
from hedgerow._arguments import whole_number
from hedgerow.errors import ArgumentError
from hedgerow.training.model_ranker import distinct_items, ordered
from hedgerow.training.rankers import NO_ITEM, Done, Ranked, Ranker, ignore_done
from hedgerow.training.splits import Questions

# The number of items that each ranker drafts for a question.
DEPTH = 100
# Tuning tries all weights that are multiples of 1 / PARTS and add up to 1.
PARTS = 10
TUNED_AT = 10


@dataclass(frozen=True, eq=False)
class Blend:
    """A ranker that combines others: some draft items, and a weighted sum of scores orders the drafts.

    Before the sum, the scores of a ranker for the drafts of a question are scaled to 0 to 1. With content as the only
    draft and the model as the only weight, the content drafts and the model verifies, as in SpecGR (Ding et al. 2024,
    section 4).

    Attributes:
        rankers: the rankers by name.
        weights: the weight of each ranker by name, at least 0; 0 for those without one.
        drafts: the names of the rankers that draft. Default: those with a weight above 0.
        depth: the number of items that each of them drafts for a question.

    Raises:
        ArgumentError: a name is not one of the rankers, a weight is negative or not finite, or all weights are 0.

    Examples:
        ```python
        import numpy as np
        from hedgerow.training import Blend, Questions, content_knn, popularity

        rankers = {
            "popular": popularity([np.array([0, 1]), np.array([1, 2])], num_items=3),
            "content": content_knn(np.array([[1.0, 0.0], [0.0, 1.0], [0.8, 0.6]])),
        }
        questions = Questions([np.array([0])], np.array([2]), np.array([0]))
        blend = Blend(rankers, {"popular": 0.3, "content": 0.7})
        assert blend.rank(questions, 2).items.tolist() == [[2, 1]]
        ```
    """

    rankers: Mapping[str, Ranker]
    weights: Mapping[str, float]
    drafts: Sequence[str] = ()
    depth: int = DEPTH
    _used: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        whole_number(self.depth, "depth")
        for name in (*self.weights, *self.drafts):
            if name not in self.rankers:
                raise ArgumentError(f"there is no ranker {name!r}; the rankers are {', '.join(self.rankers)}.")
        for name, weight in self.weights.items():
            is_number = isinstance(weight, Real) and not isinstance(weight, bool)
            if not is_number or not 0 <= float(weight) < np.inf:
                raise ArgumentError(f"the weight of {name} must be a finite number of at least 0; got {weight!r}.")
        used = tuple(name for name, weight in self.weights.items() if weight > 0)
        if not used:
            raise ArgumentError("at least one ranker must have a weight above 0.")
        object.__setattr__(self, "_used", used)
        object.__setattr__(self, "drafts", tuple(self.drafts) or used)

    @classmethod
    def tuned(
        cls,
        rankers: Mapping[str, Ranker],
        questions: Questions,
        *,
        names: Sequence[str] = (),
        drafts: Sequence[str] = (),
        depth: int = DEPTH,
        among: np.ndarray | None = None,
        done: Done = ignore_done,
    ) -> Blend:
        """A blend with the weights that have the largest NDCG@10 for validation questions.

        All weights that are multiples of 0.1 and add up to 1 are tried. Never pass the questions of the test.

        Args:
            rankers: the rankers by name.
            questions: the questions of the validation, with the correct items as targets.
            names: the rankers to weight. Default: all.
            drafts: as for `Blend`. Default: the rankers to weight.
            depth: as for `Blend`.
            among: bool [N], the items that may be returned. Default: all.
            done: called with the number of finished steps and the number of all.

        Raises:
            ArgumentError: there are no questions or no rankers.

        Examples:
            ```python
            import numpy as np
            from hedgerow.training import Blend, Questions, content_knn, popularity

            rankers = {
                "popular": popularity([np.array([0, 1]), np.array([1, 2])], num_items=3),
                "content": content_knn(np.array([[1.0, 0.0], [0.0, 1.0], [0.8, 0.6]])),
            }
            validation = Questions([np.array([0])], np.array([2]), np.array([0]))
            assert Blend.tuned(rankers, validation).weights["content"] > 0
            ```
        """
        names = tuple(names) or tuple(rankers)
        if not names or not len(questions):
            raise ArgumentError(
                f"weights are tuned with rankers and validation questions; got {len(names)} rankers and "
                f"{len(questions)} questions. Pass fixed weights instead."
            )
        even = cls(rankers, dict.fromkeys(names, 1.0), tuple(drafts) or names, depth)
        items, parts = even._parts(questions, among, done)
        stacked = np.stack(parts)
        tried = [np.array(weights) / PARTS for weights in _compositions(PARTS, len(names))]
        values = [_ndcg(items, np.tensordot(weights, stacked, 1), questions) for weights in tried]
        # Of equally good weights, the most even ones.
        best = [weights for weights, value in zip(tried, values, strict=True) if value == max(values)]
        chosen = min(best, key=lambda weights: float(weights.max()))
        return cls(rankers, dict(zip(names, chosen.tolist(), strict=True)), even.drafts, depth)

    def rank(
        self, questions: Questions, k: int, *, among: np.ndarray | None = None, done: Done = ignore_done
    ) -> Ranked:
        """As `Ranker.rank`."""
        items, parts = self._parts(questions, among, done)
        return ordered(items, np.where(items == NO_ITEM, -np.inf, self._sum(parts)), k)

    def scores(self, questions: Questions, items: np.ndarray, *, done: Done = ignore_done) -> np.ndarray:
        """As `Ranker.scores`. The scores depend on the other items: they are scaled by the best one."""
        parts = self._scored(questions, items, _steps(done, len(self._used)))
        return np.where(items == NO_ITEM, -np.inf, self._sum(parts))

    def _sum(self, parts: Sequence[np.ndarray]) -> np.ndarray:
        return sum((self.weights[name] * part for name, part in zip(self._used, parts, strict=True)), np.zeros(()))

    def _parts(self, questions: Questions, among: np.ndarray | None, done: Done) -> tuple[np.ndarray, list[np.ndarray]]:
        """The drafts int64 [Q, n], and the scaled scores [Q, n] of each ranker with a weight."""
        steps = _steps(done, len(self.drafts) + len(self._used))
        drafted = []
        for name in self.drafts:
            drafted.append(self.rankers[name].rank(questions, self.depth, among=among, done=next(steps)).items)
        items = distinct_items(drafted)
        return items, self._scored(questions, items, steps)

    def _scored(self, questions: Questions, items: np.ndarray, steps: Iterator[Done]) -> list[np.ndarray]:
        return [
            scaled(self.rankers[name].scores(questions, items, done=next(steps)), items != NO_ITEM)
            for name in self._used
        ]


def scaled(scores: np.ndarray, exists: np.ndarray) -> np.ndarray:
    """Scores [Q, n] scaled for each question, so that the best existing item has 1, and the worst finite one 0.

    Items with a score of -inf have 0.
    """
    finite = exists & np.isfinite(scores)
    high = np.where(finite, scores, -np.inf).max(axis=1, keepdims=True, initial=-np.inf)
    low = np.where(finite, scores, np.inf).min(axis=1, keepdims=True, initial=np.inf)
    span = np.where(high > low, high - low, 1)
    return np.where(finite, np.where(high > low, (scores - low) / span, 1), 0.0)


def _ndcg(items: np.ndarray, scores: np.ndarray, questions: Questions) -> float:
    """NDCG@10 of the targets among the items; of equal scores the first item is better, as in `ordered`."""
    is_target = items == questions.targets[:, None]
    place = is_target.argmax(axis=1)
    own = np.take_along_axis(scores, place[:, None], axis=1)
    before = np.arange(items.shape[1]) < place[:, None]
    ahead = ((scores > own) | ((scores == own) & before)) & (items != NO_ITEM)
    ranks = np.where(is_target.any(axis=1), 1.0 + ahead.sum(axis=1), np.inf)
    return float(metrics.ndcg(ranks, TUNED_AT).mean())


def _compositions(total: int, parts: int) -> Iterator[tuple[int, ...]]:
    """All tuples of `parts` integers from 0 that add up to `total`."""
    if parts == 1:
        yield (total,)
        return
    for first in range(total + 1):
        for rest in _compositions(total - first, parts - 1):
            yield first, *rest


def _steps(done: Done, count: int) -> Iterator[Done]:
    """For each of `count` steps a function that reports its progress as a part of all."""
    for step in range(count):
        yield lambda n, total, step=step: done(step * total + n, count * total)
