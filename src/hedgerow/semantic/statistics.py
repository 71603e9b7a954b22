"""Statistics of the embeddings that a quantizer was trained on."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from hedgerow.errors import ArgumentError


@dataclass(frozen=True)
class TrainingStatistics:
    """Statistics of the embeddings that a quantizer was trained on.

    The error of an item is the square of the length of the difference between its embedding and the decoded SID,
    relative to the square of the length of the embedding.

    Attributes:
        items: the number of items.
        min_length: the length of the shortest embedding.
        max_length: the length of the longest embedding.
        median_error: the median of the errors.
        high_error: the error that 1% of the items exceed.
        max_error: the largest error.
    """

    items: int
    min_length: float
    max_length: float
    median_error: float
    high_error: float
    max_error: float

    def __post_init__(self) -> None:
        numbers = np.array(list(asdict(self).values()), np.float64)
        if not (np.isfinite(numbers) & (numbers >= 0)).all():
            raise ArgumentError(f"the statistics of the training must be finite numbers from 0; got {self}.")


def as_facts(training: TrainingStatistics | None) -> dict[str, Any]:
    """The entry of a quantizer's file; none without statistics."""
    return {} if training is None else {"training": asdict(training)}
