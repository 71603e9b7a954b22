"""Metrics: against values computed by hand and against naive loops."""

import datetime as dt
import re
from decimal import Decimal
from math import inf, isnan, log2, nan
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import hedgerow as hr
from hedgerow import metrics

RANKS = st.lists(st.one_of(st.integers(1, 40).map(float), st.just(inf), st.just(1.5)), min_size=1, max_size=30)
# Few distinct values, so that ties are common.
SCORES = st.sampled_from([-inf, -1.0, 0.0, 0.5, 2.0, inf, nan])


def results(*requests):
    """Results with these item ids; the other attributes are empty."""
    empty = np.zeros(0)
    return [hr.Results(list(item_ids), empty, empty, empty, None) for item_ids in requests]  # type: ignore[arg-type]


def test_ranks():
    found = metrics.ranks(results("abc", "ca", "", "b"), ["a", "a", "a", "x"])
    assert found.dtype == np.float64
    assert found.tolist() == [1, 2, inf, inf]
    assert metrics.ranks([], []).shape == (0,)


def test_ranks_of_a_search():
    index = hr.build_index(hr.Catalog([[0, 1], [1, 0], [1, 1]], item_ids=["a", "b", "c"]))
    beams = hr.beam_search(index, lambda beams: np.zeros((*beams.states.shape, 2)), batch_size=2, beam_width=3)
    found = index.results(beams)
    order = found[0].item_ids
    assert metrics.ranks(found, [order[2], "unknown"]).tolist() == [3, inf]


def test_targets_can_be_lists_arrays_and_arrow_columns():
    import pyarrow as pa

    found = results([3, 1], [2, 7])
    for targets in ([1, 2], np.array([1, 2]), pa.array([1, 2]), pa.chunked_array([[1], [2]])):
        assert metrics.ranks(found, targets).tolist() == [2, 1]


def test_ranks_of_scores_by_hand():
    scores = [[0.1, 0.9, 0.5, 0.2], [3.0, 1.0, 3.0, 3.0], [1.0, 1.0, 1.0, 1.0], [-inf, 0.0, -inf, -inf]]
    assert metrics.ranks_of_scores(scores, [2, 1, 0, 0]).tolist() == [2, 4, 2.5, 3]
    assert metrics.ranks_of_scores(scores, [1, 0, 3, 1]).tolist() == [1, 2, 2.5, 1]


def test_nan_is_the_worst_score():
    scores = [[nan, 1.0, -5.0], [nan, -inf, -5.0], [nan, nan, nan]]
    assert metrics.ranks_of_scores(scores, [0, 0, 0]).tolist() == [3, 3, 2]
    assert metrics.ranks_of_scores(scores, [2, 2, 2]).tolist() == [2, 1, 2]


def test_integers_beyond_float64_are_not_ties():
    """Integer scores, for example counts, are compared without conversion."""
    assert metrics.ranks_of_scores(np.array([[2**53, 2**53 + 1]]), [0]).tolist() == [2]


@given(st.lists(SCORES, min_size=1, max_size=12), st.data())
def test_ties_share_the_mean_of_their_ranks(row, data):
    """The rank is the mean of the ranks with the target first and last among its ties."""
    target = data.draw(st.integers(0, len(row) - 1))
    keys = [(not isnan(score), 0.0 if isnan(score) else score) for score in row]
    best = sorted(range(len(row)), key=lambda item: (keys[item], item == target), reverse=True).index(target) + 1
    worst = sorted(range(len(row)), key=lambda item: (keys[item], item != target), reverse=True).index(target) + 1
    assert metrics.ranks_of_scores([row], [target]).tolist() == [(best + worst) / 2]


def test_ranks_of_scores_of_no_requests():
    assert metrics.ranks_of_scores(np.zeros((0, 5)), np.zeros(0, int)).shape == (0,)
    assert metrics.ranks_of_scores(np.zeros((0, 5)), []).shape == (0,)
    assert metrics.ranks_of_scores([[1.0]], [0]).tolist() == [1]


def test_metrics_by_hand():
    ranks = [1, 2, 10, 11, inf]
    assert metrics.recall(ranks, 1).tolist() == [1, 0, 0, 0, 0]
    assert metrics.recall(ranks, 10).tolist() == [1, 1, 1, 0, 0]
    assert metrics.ndcg(ranks, 10) == pytest.approx([1, 1 / log2(3), 1 / log2(11), 0, 0])
    assert metrics.ndcg([3], 3) == pytest.approx([0.5])
    assert metrics.reciprocal_rank(ranks) == pytest.approx([1, 0.5, 0.1, 1 / 11, 0])
    assert all(part.dtype == np.float64 for part in (metrics.recall(ranks, 1), metrics.ndcg(ranks, 1)))


@given(RANKS, st.integers(1, 45))
def test_metrics_against_a_loop(ranks, k):
    assert metrics.recall(ranks, k).tolist() == [float(rank <= k) for rank in ranks]
    naive = [1 / log2(1 + rank) if rank <= k else 0.0 for rank in ranks]
    assert metrics.ndcg(ranks, k) == pytest.approx(naive)
    assert metrics.reciprocal_rank(ranks) == pytest.approx([0.0 if rank == inf else 1 / rank for rank in ranks])
    found = metrics.summary(ranks, ks=[k], ndcg_at=k)
    assert list(found) == [f"Recall@{k}", f"NDCG@{k}", "MRR"]
    assert found[f"Recall@{k}"].mean == pytest.approx(sum(rank <= k for rank in ranks) / len(ranks))
    assert found[f"NDCG@{k}"].mean == pytest.approx(sum(naive) / len(ranks))
    for value in found.values():
        # The order of a sum changes its last digits.
        assert value.low - 1e-12 <= value.mean <= value.high + 1e-12
        assert value.low >= 0
        assert value.high <= 1 + 1e-12


def test_summary_names():
    assert list(metrics.summary([1, 2, inf])) == ["Recall@1", "Recall@5", "Recall@10", "Recall@20", "NDCG@10", "MRR"]
    assert list(metrics.random_baseline(5)) == list(metrics.summary([1.0]))


def test_runs_are_averaged_per_request():
    """Two equal runs have the interval of one run."""
    run = np.random.default_rng(0).integers(1, 30, 200).astype(float)
    assert metrics.summary(run) == metrics.summary(np.stack([run, run]))
    estimates = metrics.summary([[1, inf, 4], [2, inf, inf]], ks=[1])
    assert estimates["Recall@1"].mean == pytest.approx((0.5 + 0 + 0) / 3)
    assert estimates["MRR"].mean == pytest.approx((0.75 + 0 + 0.125) / 3)


def test_random_baseline_by_hand():
    found = metrics.random_baseline(4, ks=[1, 3, 10], ndcg_at=2)
    assert found["Recall@1"] == 0.25
    assert found["Recall@3"] == 0.75
    assert found["Recall@10"] == 1
    assert found["NDCG@2"] == pytest.approx((1 + 1 / log2(3)) / 4)
    assert found["MRR"] == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 4) / 4)


@pytest.mark.parametrize("candidates", [1, 7, 100, 1000])
@pytest.mark.parametrize("k", [1, 5, 20])
def test_random_recall_is_k_of_n(candidates, k):
    assert metrics.random_baseline(candidates, ks=[k])[f"Recall@{k}"] == pytest.approx(min(1, k / candidates))


def test_random_baseline_equals_random_orders():
    rng = np.random.default_rng(1)
    ranks = metrics.ranks_of_scores(rng.random((10_000, 30)), rng.integers(0, 30, 10_000))
    measured = {name: value.mean for name, value in metrics.summary(ranks, ks=[1, 10]).items()}
    assert measured == pytest.approx(metrics.random_baseline(30, ks=[1, 10]), abs=0.015)


def test_interval_of_a_constant_and_of_one_value():
    assert metrics.bootstrap_ci([0.25] * 9) == metrics.Estimate(0.25, 0.25, 0.25)
    assert metrics.bootstrap_ci([0.7]) == metrics.Estimate(0.7, 0.7, 0.7)


def exact_end(count, level=0.95):
    """The share of misses of which `count` misses in a row still have the probability (1 - level) / 2."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if middle**count < (1 - level) / 2 else (low, middle)
    return low


@pytest.mark.parametrize("count", [1, 3, 50, 2000])
def test_intervals_without_hits_and_without_misses(count):
    for value in metrics.summary([inf] * count).values():
        assert (value.mean, value.low) == (0, 0)
        assert value.high == pytest.approx(1 - exact_end(count))
    for value in metrics.summary([[1.0] * count] * 2).values():
        assert (value.mean, value.high) == (1, 1)
        assert value.low == pytest.approx(exact_end(count))
    assert metrics.bootstrap_ci([False] * count, level=0.9).high == pytest.approx(1 - exact_end(count, 0.9))


def test_one_hit_has_at_least_the_interval_of_none():
    none, one = (metrics.summary([rank] + [inf] * 49)["Recall@10"] for rank in (inf, 1))
    assert one.low == none.low == 0
    assert one.high >= none.high == pytest.approx(0.0711, abs=1e-4)


def test_exact_intervals_contain_the_mean_at_the_confidence_level():
    """At a mean of 0.03, a fifth of the samples of 50 have no hit; a bootstrap alone misses the mean in all of them."""
    rng = np.random.default_rng(4)
    found = [metrics.bootstrap_ci(rng.random(50) < 0.03, resamples=300, seed=trial) for trial in range(300)]
    none = [value for value in found if value.mean == 0]
    assert len(none) > 30
    assert all(value.low <= 0.03 <= value.high for value in none)


def test_no_values_give_nan():
    estimate = metrics.bootstrap_ci([])
    assert all(isnan(value) for value in (estimate.mean, estimate.low, estimate.high))
    assert all(isnan(value.mean) for value in metrics.summary([]).values())
    assert all(isnan(value.mean) for value in metrics.summary(np.zeros((3, 0))).values())


def test_interval_by_its_definition(monkeypatch):
    """The interval does not depend on how many samples are drawn at once."""
    monkeypatch.setattr(metrics, "DRAWS", 1000)
    values = np.random.default_rng(2).random(50)
    random = np.random.default_rng(5)
    means = [values[random.integers(0, 50, 50)].mean() for _ in range(300)]
    found = metrics.bootstrap_ci(values, level=0.8, resamples=300, seed=5)
    assert found.mean == pytest.approx(values.mean())
    assert [found.low, found.high] == pytest.approx(np.quantile(means, [0.1, 0.9]))


def test_seed_and_confidence_level():
    values = np.random.default_rng(3).random(80)
    assert metrics.bootstrap_ci(values) == metrics.bootstrap_ci(values)
    assert metrics.bootstrap_ci(values) != metrics.bootstrap_ci(values, seed=1)
    narrow, wide = metrics.bootstrap_ci(values, level=0.5), metrics.bootstrap_ci(values, level=0.99)
    assert wide.low < narrow.low < narrow.mean < narrow.high < wide.high


def test_interval_contains_the_mean_at_the_confidence_level():
    """About 95% of the intervals of 300 samples of 80 zeros and ones with mean 0.3 contain 0.3."""
    rng = np.random.default_rng(4)
    found = [metrics.bootstrap_ci(rng.random(80) < 0.3, resamples=400, seed=trial) for trial in range(300)]
    share = np.mean([value.low <= 0.3 <= value.high for value in found])
    assert 0.91 <= share <= 0.98
    # The width is that of a normal interval: 2 x 1.96 x sqrt(0.3 x 0.7 / 80) = 0.20.
    assert 0.18 <= np.mean([value.high - value.low for value in found]) <= 0.21


def test_format_of_estimates():
    value = metrics.Estimate(0.5, 0.25, 0.75)
    assert str(value) == "0.5000 [0.2500, 0.7500]"
    assert f"{value:.1%}" == "50.0% [25.0%, 75.0%]"
    assert f"{value}" == str(value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.ranks(results("a", "b"), ["a"]), "one target per request, 2 targets; got 1"),
        (lambda: metrics.ranks_of_scores([1.0, 2.0], [0]), r"scores \[B, N\]"),
        (lambda: metrics.ranks_of_scores([[1.0, 2.0]], [0, 1]), r"integer targets \[B\]"),
        (lambda: metrics.ranks_of_scores([[1.0, 2.0]], [0.0]), "float64"),
        (lambda: metrics.ranks_of_scores([[1.0, 2.0]], [True]), "bool"),
        (lambda: metrics.ranks_of_scores([[1.0, 2.0]], [2]), "columns of the scores, from 0 to 1; got 2 to 2"),
        (lambda: metrics.ranks_of_scores([[1.0, 2.0]], [-1]), "got -1"),
        (lambda: metrics.ranks_of_scores([["a", "b"]], [0]), "numbers"),
        (lambda: metrics.recall([0.5], 1), "ranks must be at least 1"),
        (lambda: metrics.recall([nan], 1), "ranks must be at least 1"),
        (lambda: metrics.recall(["first"], 1), "expected numbers; got"),
        (lambda: metrics.recall([1], 0), "k must be a positive integer; got 0"),
        (lambda: metrics.ndcg([1], 2.5), "got 2.5"),  # type: ignore[arg-type]
        (lambda: metrics.summary([1], ks=[True]), "got True"),
        (lambda: metrics.summary(np.ones((2, 2, 2))), r"\[B\], or \[runs, B\]"),
        (lambda: metrics.summary(1.0), r"\[B\], or \[runs, B\]"),
        (lambda: metrics.summary(np.zeros((0, 3))), r"\[B\], or \[runs, B\]"),
        (lambda: metrics.bootstrap_ci([[1.0]]), r"a vector of finite numbers, one per request; got shape \(1, 1\)"),
        (lambda: metrics.bootstrap_ci([1.0, inf]), "finite"),
        (lambda: metrics.bootstrap_ci([1.0], level=1), "got 1, 2000"),
        (lambda: metrics.bootstrap_ci([1.0], resamples=0), "got 0.95, 0"),
        (lambda: metrics.random_baseline(0), "candidates must be a positive integer; got 0"),
    ],
)
def test_rejects_invalid_arguments(call, message):
    with pytest.raises(hr.ArgumentError, match=message):
        call()


def test_metrics_is_imported_with_hedgerow():
    assert hr.metrics is metrics


def test_rejects_targets_of_another_type():
    import pyarrow as pa

    found = results([3, 1], [2, 7])
    assert metrics.ranks(found, [pa.scalar(3), np.int64(7)]).tolist() == [1, 2]
    assert metrics.ranks(found, [3.0, None]).tolist() == [1, inf]
    assert metrics.ranks(results("ab"), np.array(["b"], object)).tolist() == [2]
    with pytest.raises(hr.ArgumentError, match="type of the item ids, numbers; got text"):
        metrics.ranks(found, ["3", "2"])
    for targets in ({3, 2}, {3: 1, 2: 1}, "32", 3, np.array([[3, 2]])):
        with pytest.raises(hr.ArgumentError, match="targets must be"):
            metrics.ranks(found, targets)
    with pytest.raises(hr.ArgumentError, match="a list of Results, one per request; got one Results"):
        metrics.ranks(found[0], [3, 1])  # pyright: ignore[reportArgumentType]


@pytest.mark.filterwarnings("error")
def test_very_large_values_and_empty_runs():
    assert metrics.bootstrap_ci([1e308] * 2) == metrics.Estimate(1e308, 1e308, 1e308)
    assert -1.7e308 <= metrics.bootstrap_ci([1.7e308, -1.7e308]).low <= 0
    for shape in ((0, 3), (2, 3, 4), ()):
        with pytest.raises(hr.ArgumentError, match=re.escape(str(shape))):
            metrics.summary(np.ones(shape))


@pytest.mark.parametrize(
    "call",
    [
        lambda: metrics.bootstrap_ci([1.0], seed=-1),
        lambda: metrics.bootstrap_ci([1.0], level="all"),  # pyright: ignore[reportArgumentType]
        lambda: metrics.bootstrap_ci(["1"]),
        lambda: metrics.summary([[1, 2], [1]]),
        lambda: metrics.recall("first", 1),
        lambda: metrics.ranks_of_scores([[1, 2], [1]], [0, 0]),
        lambda: metrics.ranks_of_scores([["1", "2"]], [0]),
        lambda: metrics.ranks_of_scores([[1, 2]], [[0], [1, 2]]),
    ],
)
def test_rejects_other_types(call):
    with pytest.raises(hr.ArgumentError, match=r"expected|seed must be|level must be"):
        call()


NOON = dt.datetime(2020, 1, 1, 12)
DAY = dt.date(2020, 1, 1)


@pytest.mark.parametrize(
    ("item_id", "targets"),
    [
        (DAY, [dt.datetime(2020, 1, 1)]),
        (DAY, pd.Series(pd.to_datetime(["2020-01-01"]))),
        (DAY, np.array(["2020-01-01"], "datetime64[ns]")),
        (NOON, [DAY]),
        (NOON, [NOON.replace(tzinfo=dt.UTC)]),
        (NOON.replace(tzinfo=dt.UTC), [NOON]),
    ],
)
def test_ranks_rejects_targets_that_equal_no_id(item_id, targets):
    with pytest.raises(hr.ArgumentError, match="targets must have the type of the item ids, date"):
        metrics.ranks(results([item_id]), targets)
    assert metrics.ranks(results([item_id]), [item_id]).tolist() == [1]


@pytest.mark.parametrize("targets", [pd.DataFrame({"item_id": [1]}), pa.table({"item_id": [1]}), np.array([[1]])])
def test_ranks_rejects_targets_of_two_dimensions(targets):
    with pytest.raises(hr.ArgumentError, match="one id per request; got"):
        metrics.ranks(results([1]), targets)


@pytest.mark.parametrize("wrong", [None, 5, "ab", [[1, 2]], (result for result in results([1]))])
def test_ranks_rejects_other_results(wrong):
    with pytest.raises(hr.ArgumentError, match="results must be a list of Results"):
        metrics.ranks(wrong, [1])


def test_one_cutoff_is_a_list_of_one():
    assert metrics.summary([1, 2], ks=5) == metrics.summary([1, 2], ks=[5])
    assert metrics.random_baseline(10, ks=5) == metrics.random_baseline(10, ks=[5])
    wrong: Any
    for wrong in (None, "5", 1.5):
        with pytest.raises(hr.ArgumentError, match="k must be a positive integer"):
            metrics.summary([1, 2], ks=wrong)


def test_a_decimal_confidence_level():
    half: Any = Decimal("0.5")
    assert metrics.bootstrap_ci([0, 1, 1], level=half) == metrics.bootstrap_ci([0, 1, 1], level=0.5)
    wrong: Any
    for wrong in (Decimal(2), Decimal("NaN"), 0.5j, "0.5"):
        with pytest.raises(hr.ArgumentError, match="level must be between 0 and 1"):
            metrics.bootstrap_ci([0, 1], level=wrong)


def test_tensors_that_require_a_gradient():
    torch = pytest.importorskip("torch")
    assert metrics.recall(torch.tensor([1.0, 3.0], requires_grad=True), k=1).tolist() == [1, 0]
    assert metrics.ranks_of_scores(torch.tensor([[0.1, 0.9]], requires_grad=True), [0]).tolist() == [2]


def test_a_missing_target_has_no_rank():
    assert metrics.ranks(results([NOON], [NOON]), [None, pd.NaT]).tolist() == [inf, inf]
