"""Metrics of retrieval where each request has one item that was right, with intervals over requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import date
from numbers import Number
from typing import Any

import numpy as np

from hedgerow._arguments import is_whole, whole_number
from hedgerow.errors import ArgumentError
from hedgerow.results import Results

__all__ = [
    "Estimate",
    "bootstrap_ci",
    "ndcg",
    "random_baseline",
    "ranks",
    "ranks_of_scores",
    "recall",
    "reciprocal_rank",
    "summary",
]

KS = (1, 5, 10, 20)
RESAMPLES = 2000
DRAWS = 1 << 18


@dataclass(frozen=True)
class Estimate:
    """A mean over requests, and the bootstrap interval that holds it: of 95 %, where not asked otherwise."""

    mean: float
    low: float
    high: float

    def __format__(self, spec: str) -> str:
        spec = spec or ".4f"
        return f"{self.mean:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"

    def __str__(self) -> str:
        return format(self)


def ranks(results: Sequence[Results], targets: Any) -> np.ndarray:
    """Returns at which place, from 1 on, each request's target was returned: float64 [B], inf where it was not.

    Args:
        results: of B requests.
        targets: the id of the item that was right, for each: a list, an array, or an Arrow column.

    Raises:
        ArgumentError: not as many targets as results, or targets of another type than the ids.
    """
    wanted = _plain_ids(targets)
    if len(results) != len(wanted):
        raise ArgumentError(f"expected a target for each of {len(results)} results; got {len(wanted)}.")
    ids = {_kind(result.item_ids[0]) for result in results if len(result.item_ids)}
    kinds = {_kind(target) for target in wanted if target is not None}
    if ids and kinds and not ids & kinds:
        raise ArgumentError(
            f"the targets must be of the type of the item ids; got {', '.join(sorted(kinds))} where the ids are "
            f"{', '.join(sorted(ids))}. Convert them, or none would be found."
        )
    found = np.full(len(results), np.inf)
    for row, (result, target) in enumerate(zip(results, wanted, strict=True)):
        if target in result.item_ids:
            found[row] = 1 + result.item_ids.index(target)
    return found


def _plain_ids(targets: Any) -> list[Any]:
    """Returns targets as plain values: scalars of Arrow are equal to no id."""
    if isinstance(targets, (str, bytes, Mapping, Set)) or not hasattr(targets, "__iter__"):
        raise ArgumentError(
            f"targets must be a list, an array or an Arrow column, one id a request; got {type(targets).__name__}."
        )
    if isinstance(targets, np.ndarray):
        if targets.ndim != 1:
            raise ArgumentError(f"targets must be one id a request; got an array of shape {targets.shape}.")
        if targets.dtype.kind not in "mM":
            return targets.tolist()
        from hedgerow.catalog.columns import as_column

        # NumPy would make nanoseconds numbers.
        return as_column(targets, "targets").to_pylist()
    if hasattr(targets, "to_pylist"):
        return targets.to_pylist()
    return [_plain(target) for target in targets]


def _plain(value: Any) -> Any:
    if hasattr(value, "as_py"):
        return value.as_py()
    return value.item() if isinstance(value, np.generic) and value.dtype.kind not in "mM" else value


def _kind(value: Any) -> str:
    """Returns what a value may be equal to: values of different kinds never are."""
    kinds = {"text": str, "numbers": Number, "dates": date, "bytes": bytes}
    return next((name for name, type_ in kinds.items() if isinstance(value, type_)), type(value).__name__)


def ranks_of_scores(scores: Any, targets: Any) -> np.ndarray:
    """Returns the rank of each target where every item has a score: float64 [B].

    Among items of equal score the target stands in the middle, as it would on average in random order. NaN is the
    worst of all scores, worse than minus infinity.

    Args:
        scores: [B, N], higher is better.
        targets: B columns of `scores`.

    Raises:
        ArgumentError: the shapes do not fit, or a target is no column.
    """
    matrix, columns = _as_array(scores), _as_array(targets)
    # Whole numbers stay as they are: float64 takes large ones for equal.
    matrix = matrix if matrix.dtype.kind in "iu" else _numbers(matrix)
    columns = columns if columns.size else columns.astype(np.int64)
    if matrix.ndim != 2 or columns.shape != matrix.shape[:1] or columns.dtype.kind not in "iu":
        raise ArgumentError(
            f"expected scores [B, N] and B whole numbers as targets; got {matrix.shape}, and {columns.dtype} of shape "
            f"{columns.shape}."
        )
    if len(columns) and not (columns.min() >= 0 and columns.max() < matrix.shape[1]):
        raise ArgumentError(
            f"targets must be columns of the {matrix.shape[1]} scores; got {columns.min()} to {columns.max()}."
        )
    own = matrix[np.arange(len(columns)), columns][:, None]
    # Only NaN is not equal to itself.
    none, own_none = matrix != matrix, own != own
    better, equal = (matrix > own) | (own_none & ~none), (matrix == own) | (own_none & none)
    return 1 + better.sum(axis=1) + (equal.sum(axis=1) - 1) / 2


def recall(ranks: Any, k: int) -> np.ndarray:
    """Returns Recall@k of each request, float64 [B]: 1 where its target is among the first k, else 0."""
    return (_checked(ranks) <= _cut(k)).astype(np.float64)


def ndcg(ranks: Any, k: int) -> np.ndarray:
    """Returns NDCG@k of each request, float64 [B]: 1 / log2(1 + rank) where the rank is at most k, else 0."""
    places = _checked(ranks)
    return np.where(places <= _cut(k), 1 / np.log2(1 + places), 0.0)


def reciprocal_rank(ranks: Any) -> np.ndarray:
    """Returns 1 / rank of each request, float64 [B], 0 where the target was not returned. Their mean is the MRR."""
    return 1 / _checked(ranks)


def summary(ranks: Any, ks: Sequence[int] = KS, *, ndcg_at: int = 10, seed: int = 0) -> dict[str, Estimate]:
    """Returns Recall@k for each k, NDCG and MRR, each with its interval, under the names of the table: "Recall@1" ...

    Args:
        ranks: [B] for one run; or [S, B] for S runs over the same requests, which are averaged within a request, so
            that the interval is over requests.
        ks: where Recall is cut.
        ndcg_at: where NDCG is cut.
        seed: of the bootstrap.

    Raises:
        ArgumentError: ranks of another shape, or below 1 or NaN; or a cut that is no positive integer.
    """
    places = _checked(ranks)
    if places.ndim not in (1, 2) or (places.ndim == 2 and not len(places)):
        raise ArgumentError(f"expected ranks [B] or [S, B], of one run or more; got shape {places.shape}.")
    named = _named(np.atleast_2d(places), ks, ndcg_at)
    return {name: bootstrap_ci(values.mean(axis=0), seed=seed) for name, values in named.items()}


def bootstrap_ci(values: Any, *, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0) -> Estimate:
    """Returns the mean of B values, and its percentile bootstrap interval (Efron 1979): NaN where there are none.

    Raises:
        ArgumentError: values that are no finite vector, a level not between 0 and 1, or no resamples.
    """
    vector = _numbers(values)
    if vector.ndim != 1 or not np.isfinite(vector).all():
        raise ArgumentError(f"expected a vector of finite numbers, one a request; got shape {vector.shape}.")
    if not isinstance(level, Number) or isinstance(level, complex) or not 0 < level < 1 or not is_whole(resamples):  # type: ignore[operator]
        raise ArgumentError(f"expected a level between 0 and 1 and resamples from 1 on; got {level!r}, {resamples!r}.")
    seed = whole_number(seed, "seed", least=0)
    if not len(vector):
        return Estimate(*[float("nan")] * 3)
    random, tail = np.random.default_rng(seed), (1 - level) / 2
    # Sums of the largest numbers would leave float64: powers of two cost nothing to take out and put back.
    shift = max(0, int(np.frexp(np.abs(vector).max())[1]) + len(vector).bit_length() - 1000)
    vector = np.ldexp(vector, -shift)
    # As many resamples at once as keep within a few megabytes.
    most = max(1, DRAWS // len(vector))
    counts = [min(most, resamples - begin) for begin in range(0, resamples, most)]
    means = [vector[random.integers(0, len(vector), (count, len(vector)))].mean(axis=1) for count in counts]
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail])
    return Estimate(*[float(np.ldexp(value, shift)) for value in (vector.mean(), low, high)])


def random_baseline(candidates: int, ks: Sequence[int] = KS, *, ndcg_at: int = 10) -> dict[str, float]:
    """Returns what a random order of the candidates has on average, exactly: the target is at each rank as often.

    Raises:
        ArgumentError: no candidates.
    """
    whole_number(candidates, "candidates")
    named = _named(np.arange(1, candidates + 1), ks, ndcg_at)
    return {name: float(values.mean()) for name, values in named.items()}


def _named(places: np.ndarray, ks: Sequence[int], ndcg_at: int) -> dict[str, np.ndarray]:
    """Returns every metric of the table, request by request, by its name."""
    named = {f"Recall@{k}": recall(places, k) for k in ks}
    return named | {f"NDCG@{ndcg_at}": ndcg(places, ndcg_at), "MRR": reciprocal_rank(places)}


def _checked(ranks: Any) -> np.ndarray:
    places = _numbers(ranks)
    if np.isnan(places).any() or (places < 1).any():
        raise ArgumentError("ranks count from 1, and are inf where the target was not returned; got others.")
    return places


def _numbers(values: Any) -> np.ndarray:
    array = _as_array(values)
    if array.dtype.kind not in "fiubO":
        raise ArgumentError(f"expected numbers; got {values!r:.60}.")
    try:
        return array.astype(np.float64)
    except (TypeError, ValueError, OverflowError):
        raise ArgumentError(f"expected numbers; got {values!r:.60}.") from None


def _as_array(values: Any) -> np.ndarray:
    try:
        return np.asarray(values)
    except (TypeError, ValueError):
        raise ArgumentError(f"expected numbers, in rows of one length; got {values!r:.60}.") from None


def _cut(k: int) -> int:
    return whole_number(k, "k")
