"""Evaluation: the results of rankers on the questions of a test, with intervals, for all, warm and cold targets."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hedgerow import metrics
from hedgerow._arguments import check_choice, whole_number
from hedgerow.errors import ArgumentError
from hedgerow.metrics import Estimate, with_exact_ends
from hedgerow.semantic.files import write_whole
from hedgerow.training.baselines import item_counts
from hedgerow.training.rankers import NO_ITEM, Done, Ranked, Ranker
from hedgerow.training.splits import Questions

if TYPE_CHECKING:
    import pyarrow as pa

KS = (1, 5, 10, 20)
# The length of the lists of coverage and novelty, and the cutoff of NDCG.
SHOWN = 10
NOVELTY = f"novelty@{SHOWN}"
TARGETS = ("all", "warm", "cold")
AMONG = ("all", "cold")
RESAMPLES = 2000
DRAWS = 1 << 22
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class EvaluationRow:
    """The results of one method for one kind of targets.

    Attributes:
        method: the name of the method.
        targets: "all", "warm" (items with an interaction in the training part) or "cold" (the other items).
        questions: the number of questions with such a target.
        metrics: the estimates by name: "Recall@k" for each k, "NDCG@10", "MRR@k" with the largest k, "coverage@10" and
            "novelty@10".

    Examples:
        ```python
        from hedgerow.metrics import Estimate
        from hedgerow.training import EvaluationRow

        row = EvaluationRow("model", "cold", 500, {"Recall@10": Estimate(0.12, 0.09, 0.15)})
        assert row.metrics["Recall@10"].low == 0.09
        ```
    """

    method: str
    targets: str
    questions: int
    metrics: Mapping[str, Estimate]


@dataclass(frozen=True, repr=False)
class Evaluation:
    """The results of several methods on the same questions.

    Attributes:
        rows: one row per method and kind of targets.
        settings: all settings, as JSON values: they are in every line of the CSV.
        ranked: for each method the items that it returned.

    Examples:
        ```python
        import numpy as np
        from hedgerow.training import Questions, evaluate_rankers, popularity

        training = [np.array([0, 1]), np.array([1])]
        questions = Questions([np.array([0])], np.array([1]), np.array([0]))
        evaluation = evaluate_rankers({"popular": popularity(training, 3)}, questions, training, 3)
        assert evaluation.rows[0].method == "popular"
        assert evaluation.ranked["popular"].items[0, 0] == 1
        ```
    """

    rows: tuple[EvaluationRow, ...]
    settings: Mapping[str, Any]
    ranked: Mapping[str, Ranked]

    def row(self, method: str, targets: str = "all") -> EvaluationRow:
        """The row of a method and a kind of targets.

        Raises:
            ArgumentError: there is none.

        Examples: see `evaluate_rankers`.
        """
        for row in self.rows:
            if (row.method, row.targets) == (method, targets):
                return row
        known = ", ".join(f"{row.method!r} ({row.targets})" for row in self.rows)
        raise ArgumentError(f"there is no row {method!r} ({targets}); the rows are {known}.")

    def table(self) -> pa.Table:
        """A table with one line per figure: method, targets, questions, metric, mean, low and high.

        Examples: see `evaluate_rankers`.
        """
        import pyarrow as pa

        return pa.Table.from_pylist(self._lines())

    def save_csv(self, path: str | Path) -> None:
        """Write the table with the settings in every line, completely or not at all. An existing file is replaced.

        Args:
            path: the file.

        Raises:
            ArgumentError: it cannot be written.

        Examples: see `evaluate_rankers`.
        """
        settings = {name: _cell(value) for name, value in self.settings.items()}
        lines = [{name: _cell(value) for name, value in line.items()} | settings for line in self._lines()]
        text = io.StringIO()
        writer = csv.DictWriter(text, list(lines[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
        path = Path(path).expanduser()
        try:
            write_whole({path: lambda file: file.write(text.getvalue().encode())})
        except OSError as error:
            raise ArgumentError(f"{path} cannot be written: {error}") from None

    def _lines(self) -> list[dict[str, Any]]:
        return [
            {"method": row.method, "targets": row.targets, "questions": row.questions, "metric": name}
            | {"mean": estimate.mean, "low": estimate.low, "high": estimate.high}
            for row in self.rows
            for name, estimate in row.metrics.items()
        ]

    def __repr__(self) -> str:
        methods = list(dict.fromkeys(row.method for row in self.rows))
        return f"Evaluation({len(methods)} methods: {', '.join(methods)})"


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str | int) else json.dumps(value, default=str)


def evaluate_rankers(
    rankers: Mapping[str, Ranker],
    questions: Questions,
    training: Sequence[np.ndarray],
    num_items: int,
    *,
    among: str = "all",
    shown: np.ndarray | None = None,
    ks: Sequence[int] = KS,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Evaluate rankers on questions.

    The candidates are all items that are not in the history of a question. Intervals are 95 % intervals by bootstrap
    over the questions, with the same samples for all methods and metrics (`hedgerow.metrics.bootstrap_ci`), and
    include the exact intervals of no hit and of hits only, as in `hedgerow.metrics.summary`. Coverage has none.

    Args:
        rankers: the methods by name.
        questions: the questions of the test.
        training: the items of each user that train. An item without an interaction in it is cold.
        num_items: N, the number of items of the index.
        among: the candidates: "all" items, or only the "cold" items.
        shown: bool [N], the items that can be candidates. Default: all.
        ks: the cutoffs of Recall.
        seed: the seed of the intervals.
        settings: further settings to record.
        progress: called as ``progress(method, done, total)``.

    Raises:
        ArgumentError: there are no rankers or questions, an argument is out of range, or a ranker returns items of the
            history, items twice, or items that are no candidates.

    Examples:
        ```python
        import numpy as np
        from hedgerow.training import Questions, evaluate_rankers, popularity

        training = [np.array([0, 1]), np.array([1])]
        questions = Questions([np.array([0]), np.array([1])], np.array([1, 2]), np.array([0, 1]))
        evaluation = evaluate_rankers({"popular": popularity(training, 3)}, questions, training, 3)
        assert evaluation.row("popular").metrics["Recall@1"].mean == 0.5
        assert evaluation.row("popular", "cold").metrics["Recall@1"].mean == 0
        evaluation.save_csv("evaluation.csv")
        assert evaluation.table().column_names[:4] == ["method", "targets", "questions", "metric"]
        ```
    """
    ks = sorted({whole_number(k, "k") for k in ks})
    if not rankers or not len(questions) or not ks:
        raise ArgumentError(
            f"expected rankers, questions and cutoffs; got {len(rankers)} rankers, {len(questions)} questions and "
            f"{len(ks)} cutoffs."
        )
    counts = item_counts(training, num_items)
    candidates = candidates_among(among, counts, shown)
    ranked: dict[str, Ranked] = {}
    for name, ranker in rankers.items():
        found = ranker.rank(questions, max(*ks, SHOWN), among=candidates, done=_done(progress, name))
        _check(name, found, questions, candidates)
        ranked[name] = found
    groups = _groups(counts[questions.targets] == 0)
    values = _values_of(ranked, questions, ks, training, num_items)
    num_candidates = num_items if candidates is None else int(candidates.sum())
    rows = _rows(ranked, values, groups, num_candidates, seed)
    facts = {"among": among, "seed": seed, "num_items": num_items, "interval": "95 %", "resamples": RESAMPLES}
    return Evaluation(rows, dict(settings or {}) | facts, ranked)


def candidates_among(among: str, counts: np.ndarray, shown: np.ndarray | None) -> np.ndarray | None:
    """The candidates, bool [N]; None for all items.

    Args:
        among: as for `evaluate_rankers`.
        counts: [N], the number of interactions of each item in the training part: `item_counts`.
        shown: as for `evaluate_rankers`.

    Raises:
        ArgumentError: `among` is not "all" or "cold", or there are none.
    """
    check_choice(among, "among", AMONG)
    candidates = shown
    if among == "cold":
        candidates = counts == 0 if shown is None else (counts == 0) & shown
    if candidates is not None and not candidates.any():
        raise ArgumentError(
            "there are no candidates. Each item has an interaction in the training part, so that none is cold, or was "
            "removed from the live index."
        )
    return candidates


def _done(progress: Progress | None, name: str) -> Done:
    return lambda done, total: progress(name, done, total) if progress is not None else None


def _check(name: str, found: Ranked, questions: Questions, candidates: np.ndarray | None) -> None:
    """Check that a ranker returns candidates, each once, and none of the history."""
    if len(found) != len(questions):
        raise ArgumentError(f"{name} must return one list per question, {len(questions)}; got {len(found)}.")
    exists = found.items != NO_ITEM
    ordered = np.sort(found.items, axis=1)
    if ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] != NO_ITEM)).any():
        raise ArgumentError(f"{name} returns an item twice for one question.")
    if candidates is not None and not candidates[found.items[exists]].all():
        raise ArgumentError(f"{name} returns items that are not among the candidates.")
    if any(np.isin(history, items).any() for history, items in zip(questions.histories, found.items, strict=True)):
        raise ArgumentError(f"{name} returns items of the history of a question.")


def _groups(is_cold: np.ndarray) -> dict[str, np.ndarray]:
    """The questions bool [Q] of each kind of targets; without kinds that would be empty, or the same as another."""
    groups = {"all": np.ones(len(is_cold), bool), "warm": ~is_cold, "cold": is_cold}
    return {name: group for name, group in groups.items() if group.any() and (name != "all" or 0 < is_cold.mean() < 1)}


def _values_of(
    ranked: Mapping[str, Ranked],
    questions: Questions,
    ks: Sequence[int],
    training: Sequence[np.ndarray],
    num_items: int,
) -> dict[str, dict[str, np.ndarray]]:
    """For each method the value of each metric for each question, [Q]."""
    known = item_counts([np.unique(items) for items in training], num_items)
    users, last = max(1, sum(len(items) > 0 for items in training)), max(ks)
    values = {}
    for name, found in ranked.items():
        ranks = found.ranks(questions.targets)
        values[name] = {
            **{f"Recall@{k}": metrics.recall(ranks, k) for k in ks},
            f"NDCG@{SHOWN}": metrics.ndcg(ranks, SHOWN),
            f"MRR@{last}": metrics.reciprocal_rank(np.where(ranks <= last, ranks, np.inf)),
            NOVELTY: metrics.novelty(found.items[:, :SHOWN], known, users),
        }
    return values


def _rows(
    ranked: Mapping[str, Ranked],
    values: Mapping[str, Mapping[str, np.ndarray]],
    groups: Mapping[str, np.ndarray],
    num_candidates: int,
    seed: int,
) -> tuple[EvaluationRow, ...]:
    rows, names = [], [(method, metric) for method, columns in values.items() for metric in columns]
    for targets, group in groups.items():
        estimates = intervals(np.stack([values[method][metric][group] for method, metric in names], axis=1), seed)
        by_name = dict(zip(names, estimates, strict=True))
        for method, found in ranked.items():
            shown = found.items[group][:, :SHOWN]
            share = len(np.unique(shown[shown != NO_ITEM])) / num_candidates
            figures = {metric: by_name[method, metric] for metric in values[method]}
            for metric in figures.keys() - {NOVELTY}:
                figures[metric] = with_exact_ends(figures[metric], int(group.sum()))
            figures[f"coverage@{SHOWN}"] = Estimate(share, share, share)
            rows.append(EvaluationRow(method, targets, int(group.sum()), figures))
    return tuple(rows)


def intervals(values: np.ndarray, seed: int) -> list[Estimate]:
    """The means of columns [Q, C], with 95 % bootstrap intervals over the rows, the same samples for all columns."""
    random, (rows, columns) = np.random.default_rng(seed), values.shape
    means = np.empty((RESAMPLES, columns))
    size = max(1, DRAWS // rows)
    for start in range(0, RESAMPLES, size):
        count = min(size, RESAMPLES - start)
        drawn = random.integers(0, rows, (count, rows)) + np.arange(count)[:, None] * rows
        times = np.bincount(drawn.ravel(), minlength=count * rows).reshape(count, rows)
        means[start : start + count] = times @ values / rows
    low, high = np.quantile(means, [0.025, 0.975], axis=0)
    return [Estimate(*map(float, three)) for three in zip(values.mean(axis=0), low, high, strict=True)]
