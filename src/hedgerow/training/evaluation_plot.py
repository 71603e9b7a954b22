"""The figure of an evaluation: Recall of each method with its interval."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hedgerow.errors import ArgumentError, MissingDependencyError
from hedgerow.hf.plot import check_figure_path

if TYPE_CHECKING:
    from hedgerow.training.evaluation import Evaluation

MODEL_COLOR, OTHER_COLOR = "#1f6f54", "#c9c9c9"


def plot_evaluation(evaluation: Evaluation, path: str | Path, *, metric: str = "Recall@10") -> None:
    """Draw a metric of each method with its 95 % interval, one panel per kind of targets.

    Args:
        evaluation: the evaluation.
        path: the file: .png, .svg or .pdf.
        metric: the name of the metric.

    Raises:
        ArgumentError: the path cannot be written, or there is no such metric.
        MissingDependencyError: matplotlib is not installed.

    Examples:
        ```python
        import numpy as np
        from hedgerow.training import Questions, evaluate_rankers, plot_evaluation, popularity

        training = [np.array([0, 1]), np.array([1])]
        questions = Questions([np.array([0])], np.array([1]), np.array([0]))
        evaluation = evaluate_rankers({"popular": popularity(training, 3)}, questions, training, 3)
        plot_evaluation(evaluation, "evaluation.png")
        ```
    """
    path = Path(path).expanduser()
    check_figure_path(path)
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise MissingDependencyError.of("plot_evaluation", "matplotlib", "plot") from None
    known = list(evaluation.rows[0].metrics)
    if metric not in known:
        raise ArgumentError(f"there is no metric {metric!r}; the metrics are {', '.join(known)}.")
    groups = list(dict.fromkeys(row.targets for row in evaluation.rows))
    methods = sum(row.targets == groups[0] for row in evaluation.rows)
    figure = Figure(figsize=(5 * len(groups) + 2, 0.4 * methods + 1.6), layout="constrained")
    axes = figure.subplots(1, len(groups), sharey=True, squeeze=False)
    for panel, targets in zip(axes[0], groups, strict=True):
        rows = [row for row in evaluation.rows if row.targets == targets][::-1]
        estimates = [row.metrics[metric] for row in rows]
        means, low, high = (100 * np.array([getattr(e, name) for e in estimates]) for name in ("mean", "low", "high"))
        colors = [MODEL_COLOR if "model" in row.method else OTHER_COLOR for row in rows]
        panel.barh([row.method for row in rows], means, xerr=[means - low, high - means], color=colors)
        panel.set(title=f"{targets} targets, {rows[0].questions:,} questions", xlabel=f"{metric}, %, and 95 % interval")
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise ArgumentError(f"{path} cannot be written: {error}") from None
