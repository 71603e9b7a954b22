"""TrainingReport: the result of a training, and how its progress is reported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

Progress = Callable[[str, int, int], None]


def ignore_progress(what: str, done: int, total: int) -> None:
    """Show no progress."""


@dataclass(frozen=True)
class TrainingReport:
    """The result of a training.

    Attributes:
        folder: the folder of the model.
        parameters: the number of parameters of the model.
        best: the metrics of the validation of the model that was kept: "recall@10", "ndcg@10" and "epoch"; and
            "popular recall@10", the Recall@10 of the most popular items. Empty if there were no validation questions.
        validations: the metrics of all validations, with their epochs.
        seconds: the time of the training, without what was done before it was resumed.

    Examples:
        ```python
        from pathlib import Path

        from hedgerow.training import TrainingReport

        report = TrainingReport(Path("model"), 1_000, {"recall@10": 0.2, "popular recall@10": 0.05, "epoch": 3.0})
        assert report.best["recall@10"] > report.best["popular recall@10"]
        ```
    """

    folder: Path
    parameters: int
    best: dict[str, float] = field(default_factory=dict)
    validations: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0
