"""Retrieval metrics, for evaluation with one relevant item per request, with bootstrap intervals over requests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from numbers import Real
from typing import Any

import numpy as np

from hedgerow._arguments import is_whole, whole_number
from hedgerow.errors import ArgumentError
from hedgerow.metric_inputs import array_of, checked_ranks, kind_of, numbers_of, plain_ids
from hedgerow.results import Results

__all__ = [
    "Estimate",
    "bootstrap_ci",
    "ndcg",
    "novelty",
    "random_baseline",
    "ranks",
    "ranks_of_scores",
    "recall",
    "reciprocal_rank",
    "summary",
]

KS = (1, 5, 10, 20)
RESAMPLES = 2000
# The number of values that a bootstrap draws at once: a few megabytes.
DRAWS = 1 << 18


@dataclass(frozen=True)
class Estimate:
    """A mean over requests and its bootstrap interval.

    A format specification applies to the three numbers: `f"{estimate:.2%}"`.

    Attributes:
        mean: the mean.
        low: the lower end of the interval; by default, a 95% interval.
        high: the upper end of the interval.

    Examples:
        ```python
        from hedgerow.metrics import Estimate

        assert f"{Estimate(0.5, 0.25, 0.75):.0%}" == "50% [25%, 75%]"
        ```
    """

    mean: float
    low: float
    high: float

    def __format__(self, spec: str) -> str:
        spec = spec or ".4f"
        return f"{self.mean:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"

    def __str__(self) -> str:
        return format(self)


def ranks(results: Sequence[Results], targets: Any) -> np.ndarray:
    """Find the rank of each request's relevant item, from 1; inf if the item was not returned.

    Args:
        results: the `Results` of B requests.
        targets: the id of the relevant item of each request: a list, an array or an Arrow column.

    Returns:
        float64 [B].

    Raises:
        ArgumentError: `results` is not a list of Results, the numbers of results and targets differ, or the targets are
            not of the type of the item ids.

    Examples:
        ```python
        import numpy as np
        import hedgerow as hr

        index = hr.build_index(hr.Catalog([[0], [1], [2]], item_ids=["a", "b", "c"]))
        beams = hr.beam_search(index, lambda beams: np.array([[[0.0, 9.0, 5.0]]]), batch_size=1, beam_width=2)
        assert hr.metrics.ranks(index.results(beams), ["c"]).tolist() == [2]
        assert hr.metrics.ranks(index.results(beams), ["a"]).tolist() == [np.inf]
        ```
    """
    wanted = plain_ids(targets)
    if isinstance(results, Results):
        raise ArgumentError("results must be a list of Results, one per request; got one Results. Pass [results].")
    if not isinstance(results, Sequence) or not all(isinstance(result, Results) for result in results):
        raise ArgumentError(
            "results must be a list of Results, one per request, as index.results(beams) returns it; got "
            f"{results!r:.60}."
        )
    if len(results) != len(wanted):
        raise ArgumentError(f"expected one target per request, {len(results)} targets; got {len(wanted)}.")
    id_kinds = {kind_of(result.item_ids[0]) for result in results if len(result.item_ids)}
    target_kinds = {kind_of(target) for target in wanted if target is not None}
    if id_kinds and target_kinds and not id_kinds & target_kinds:
        raise ArgumentError(
            f"targets must have the type of the item ids, {', '.join(sorted(id_kinds))}; got "
            f"{', '.join(sorted(target_kinds))}. Convert the targets."
        )
    found = np.full(len(results), np.inf)
    for request, (result, target) in enumerate(zip(results, wanted, strict=True)):
        if target in result.item_ids:
            found[request] = 1 + result.item_ids.index(target)
    return found


def ranks_of_scores(scores: Any, targets: Any) -> np.ndarray:
    """Find the rank of each request's relevant item if every item has a score.

    Items of equal score share the mean of their ranks, as in random order. NaN is the worst score, below minus
    infinity.

    Args:
        scores: [B, N], higher is better.
        targets: integers [B], the column of the relevant item of each request.

    Returns:
        float64 [B], from 1.

    Raises:
        ArgumentError: the shapes do not fit, or a target is not a column of `scores`.

    Examples:
        ```python
        from hedgerow.metrics import ranks_of_scores

        assert ranks_of_scores([[0.1, 0.9, 0.5], [2.0, 2.0, 1.0]], [2, 0]).tolist() == [2, 1.5]
        ```
    """
    matrix, columns = array_of(scores), array_of(targets)
    # Integers are not converted: in float64, large ones would compare equal.
    matrix = matrix if matrix.dtype.kind in "iu" else numbers_of(matrix)
    columns = columns if columns.size else columns.astype(np.int64)
    if matrix.ndim != 2 or columns.shape != matrix.shape[:1] or columns.dtype.kind not in "iu":
        raise ArgumentError(
            f"expected scores [B, N] and integer targets [B]; got scores of shape {matrix.shape}, and targets of "
            f"{columns.dtype} and shape {columns.shape}."
        )
    if len(columns) and not (columns.min() >= 0 and columns.max() < matrix.shape[1]):
        raise ArgumentError(
            f"targets must be columns of the scores, from 0 to {matrix.shape[1] - 1}; got {columns.min()} to "
            f"{columns.max()}."
        )
    target = matrix[np.arange(len(columns)), columns][:, None]
    # Only NaN is not equal to itself.
    nan, target_nan = matrix != matrix, target != target
    better, equal = (matrix > target) | (target_nan & ~nan), (matrix == target) | (target_nan & nan)
    return 1 + better.sum(axis=1) + (equal.sum(axis=1) - 1) / 2


def recall(ranks: Any, k: int) -> np.ndarray:
    """Compute Recall@k of each request: 1 if the relevant item is among the first k, otherwise 0.

    Args:
        ranks: the ranks of the relevant items, from 1; inf if an item was not returned.
        k: the cutoff, at least 1.

    Returns:
        float64, the shape of `ranks`.

    Raises:
        ArgumentError: a rank is below 1 or NaN, or k is not a positive integer.

    Examples:
        ```python
        from hedgerow.metrics import recall

        assert recall([1, 3, float("inf")], k=2).tolist() == [1, 0, 0]
        ```
    """
    return (checked_ranks(ranks) <= _cutoff(k)).astype(np.float64)


def ndcg(ranks: Any, k: int) -> np.ndarray:
    """Compute NDCG@k of each request: 1 / log2(1 + rank) if the rank is at most k, otherwise 0.

    Args:
        ranks: the ranks of the relevant items, from 1; inf if an item was not returned.
        k: the cutoff, at least 1.

    Returns:
        float64, the shape of `ranks`.

    Raises:
        ArgumentError: a rank is below 1 or NaN, or k is not a positive integer.

    Examples:
        ```python
        from hedgerow.metrics import ndcg

        assert ndcg([1, 3, 11], k=10).tolist() == [1, 0.5, 0]
        ```
    """
    checked = checked_ranks(ranks)
    return np.where(checked <= _cutoff(k), 1 / np.log2(1 + checked), 0.0)


def reciprocal_rank(ranks: Any) -> np.ndarray:
    """Compute 1 / rank of each request; 0 if the relevant item was not returned. The mean is the MRR.

    Args:
        ranks: the ranks of the relevant items, from 1; inf if an item was not returned.

    Returns:
        float64, the shape of `ranks`.

    Raises:
        ArgumentError: a rank is below 1 or NaN.

    Examples:
        ```python
        from hedgerow.metrics import reciprocal_rank

        assert reciprocal_rank([1, 4, float("inf")]).tolist() == [1, 0.25, 0]
        ```
    """
    return 1 / checked_ranks(ranks)


def novelty(items: Any, counts: Any, users: int) -> np.ndarray:
    """Compute the novelty of each request's items: the mean of -log2 of the share of users that know an item.

    Items that many users know have a low novelty, and items that no user has taken the highest one. One user is added
    to each count, so that it is finite (self-information; Castells et al. 2011).

    Args:
        items: integers [B, k], rows of the catalog; -1 where there are fewer than k items.
        counts: numbers [N], the number of users that took each item.
        users: the number of users.

    Returns:
        float64 [B], in bits; 0 for a request without items.

    Raises:
        ArgumentError: the shapes do not fit, an item is not a row, or a count is negative or larger than `users`.

    Examples:
        ```python
        from hedgerow.metrics import novelty

        assert novelty([[0, 1], [1, -1]], counts=[7, 0], users=7).tolist() == [1.5, 3.0]
        ```
    """
    rows, known = array_of(items), numbers_of(counts)
    whole_number(users, "users")
    if rows.ndim != 2 or rows.dtype.kind not in "iu" or known.ndim != 1 or not len(known):
        raise ArgumentError(
            f"expected integer items [B, k] and counts [N]; got items of {rows.dtype} and shape {rows.shape}, and "
            f"counts of shape {known.shape}."
        )
    if not ((known >= 0) & (known <= users)).all():
        raise ArgumentError(f"counts must be from 0 to the number of users, {users:,}; got others.")
    if rows.size and not (rows.min() >= -1 and rows.max() < len(known)):
        raise ArgumentError(f"items must be rows from 0 to {len(known) - 1}, or -1; got {rows.min()} to {rows.max()}.")
    bits = np.append(-np.log2((known + 1) / (users + 1)), 0.0)
    return bits[rows].sum(axis=1) / (rows >= 0).sum(axis=1).clip(min=1)


def summary(ranks: Any, ks: int | Sequence[int] = KS, *, ndcg_at: int = 10, seed: int = 0) -> dict[str, Estimate]:
    """Compute mean Recall@k, NDCG and MRR with 95% bootstrap intervals.

    A bootstrap of 0 hits among 50 requests gives [0, 0]. The intervals therefore include the exact binomial interval
    (Clopper-Pearson 1934) of no hit, up to 1 - 0.025^(1/B), and of hits only, down to 0.025^(1/B).

    Args:
        ranks: [B] for one run, or [runs, B] for several runs over the same requests. Runs are averaged per request, so
            that the interval is over requests.
        ks: the cutoffs of Recall, or one cutoff.
        ndcg_at: the cutoff of NDCG.
        seed: the seed of the bootstrap.

    Returns:
        metric name -> `Estimate`. The names are "Recall@k" for each k, "NDCG@10" and "MRR".

    Raises:
        ArgumentError: `ranks` has another shape, a rank is below 1 or NaN, or a cutoff is not a positive integer.

    Examples:
        ```python
        from hedgerow.metrics import summary

        estimates = summary([1, 2, 4, float("inf")], ks=[1, 5])
        assert list(estimates) == ["Recall@1", "Recall@5", "NDCG@10", "MRR"]
        assert estimates["Recall@5"].mean == 0.75
        assert f"{summary([float('inf')] * 50)['Recall@1']:.3f}" == "0.000 [0.000, 0.071]"
        ```
    """
    checked = checked_ranks(ranks)
    if checked.ndim not in (1, 2) or (checked.ndim == 2 and not len(checked)):
        raise ArgumentError(f"ranks must be [B], or [runs, B] with at least one run; got shape {checked.shape}.")
    metrics = _metrics(np.atleast_2d(checked), ks, ndcg_at)
    return {
        name: with_exact_ends(bootstrap_ci(values.mean(axis=0), seed=seed), values.shape[1])
        for name, values in metrics.items()
    }


def bootstrap_ci(values: Any, *, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0) -> Estimate:
    """Compute the mean of values and its percentile bootstrap interval (Efron 1979).

    Equal values give an interval without width: a bootstrap says nothing about other values. Pass hits and misses as
    bools, and the interval is at least the exact one of 0 or B hits, as in `summary`.

    Args:
        values: [B] finite numbers, or bools, one per request.
        level: the confidence level, between 0 and 1.
        resamples: the number of bootstrap samples.
        seed: the seed of the samples.

    Returns:
        The estimate; its numbers are NaN if there are no values.

    Raises:
        ArgumentError: `values` is not a vector of finite numbers, or another argument is out of range.

    Examples:
        ```python
        from hedgerow.metrics import bootstrap_ci

        estimate = bootstrap_ci([0, 1, 1, 0, 1, 1, 0, 1])
        assert estimate.low <= estimate.mean == 0.625 <= estimate.high
        ```
    """
    vector = numbers_of(values)
    if vector.ndim != 1 or not np.isfinite(vector).all():
        raise ArgumentError(f"values must be a vector of finite numbers, one per request; got shape {vector.shape}.")
    if not isinstance(level, Real | Decimal) or not 0 < float(level) < 1 or not is_whole(resamples):
        raise ArgumentError(f"level must be between 0 and 1, and resamples at least 1; got {level!r}, {resamples!r}.")
    seed = whole_number(seed, "seed", least=0)
    if not len(vector):
        return Estimate(*[float("nan")] * 3)
    random, tail = np.random.default_rng(seed), (1 - float(level)) / 2
    # Sums of very large numbers overflow float64. Scaling by a power of 2 is exact, and undone below.
    exponent = max(0, int(np.frexp(np.abs(vector).max())[1]) + len(vector).bit_length() - 1000)
    vector = np.ldexp(vector, -exponent)
    chunk = max(1, DRAWS // len(vector))
    counts = [min(chunk, resamples - start) for start in range(0, resamples, chunk)]
    means = [vector[random.integers(0, len(vector), (count, len(vector)))].mean(axis=1) for count in counts]
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail])
    estimate = Estimate(*[float(np.ldexp(value, exponent)) for value in (vector.mean(), low, high)])
    is_share = array_of(values).dtype.kind == "b"
    return with_exact_ends(estimate, len(vector), level=float(level)) if is_share else estimate


def with_exact_ends(estimate: Estimate, count: int, *, level: float = 0.95) -> Estimate:
    """Widen the interval of a metric from 0 to 1 to include the exact binomial intervals of 0 and of `count` hits.

    A request without a hit has the value 0, and one with a hit at most 1, so the mean is at most the share of hits.
    """
    if not count:
        return estimate
    end = ((1 - level) / 2) ** (1 / count)
    return replace(estimate, low=min(estimate.low, end), high=max(estimate.high, 1 - end))


def random_baseline(candidates: int, ks: int | Sequence[int] = KS, *, ndcg_at: int = 10) -> dict[str, float]:
    """Compute the exact expected metrics of a random order of the candidates.

    Args:
        candidates: the number of items, one of which is relevant.
        ks: the cutoffs of Recall, or one cutoff.
        ndcg_at: the cutoff of NDCG.

    Returns:
        metric name -> value, with the names of `summary`.

    Raises:
        ArgumentError: `candidates` or a cutoff is not a positive integer.

    Examples:
        ```python
        from hedgerow.metrics import random_baseline

        assert random_baseline(100, ks=[5])["Recall@5"] == 0.05
        ```
    """
    whole_number(candidates, "candidates")
    metrics = _metrics(np.arange(1, candidates + 1), ks, ndcg_at)
    return {name: float(values.mean()) for name, values in metrics.items()}


def _metrics(ranks: np.ndarray, ks: int | Sequence[int], ndcg_at: int) -> dict[str, np.ndarray]:
    """Every metric of a summary per request, by name."""
    cutoffs: Any = ks if isinstance(ks, Iterable) and not isinstance(ks, str) else [ks]
    recalls = {f"Recall@{k}": recall(ranks, k) for k in cutoffs}
    return recalls | {f"NDCG@{ndcg_at}": ndcg(ranks, ndcg_at), "MRR": reciprocal_rank(ranks)}


def _cutoff(k: int) -> int:
    return whole_number(k, "k")
