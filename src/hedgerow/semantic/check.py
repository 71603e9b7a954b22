"""Checks: of the settings of a quantizer, and of new embeddings against those that it was trained on."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import numpy as np

from hedgerow.semantic.codebooks import Codebooks
from hedgerow.semantic.statistics import TrainingStatistics

SAMPLE = 1 << 16
# Fewer items, in all or per code, are too few to judge others by.
MIN_ITEMS = 50
MIN_ITEMS_PER_CODE = 16
# Statistics of fewer new items are uncertain, so their limits are wider.
FEW_ITEMS = 8
# The rounding of lengths, relative to them: more than that of float16.
ROUNDING = 0.005
# The share of new items with other lengths that are too many.
MAX_SHARE = 0.25

# More items than this with the same codes, on average, are too many for a model to tell apart.
MAX_ITEMS_PER_SID = 200


def check_settings(sizes: Sequence[int], codes: np.ndarray) -> None:
    """Warn if codebooks of these sizes cannot group the items, or cannot tell them apart.

    Args:
        sizes: the codebook sizes that group items.
        codes: [N, L] the codes of the items that the codebooks were trained on.

    Warns:
        UserWarning: a codebook has more than one code for two items; or the items have few sequences of codes.
    """
    items = len(codes)
    fitting = 1 << max(1, round(math.log2(2 * items) / 2))
    if items > 1 and max(sizes, default=0) > items / 2:
        warnings.warn(
            f"a codebook of {max(sizes):,} codes for {items:,} items: most items get a code of their own, so similar "
            "items share none, and a model cannot learn from one item about another. Use codebooks that are small "
            f"beside the number of items: levels=2, codebook_sizes={fitting}, deduplicate=True (--levels 2 "
            f"--codebook-sizes {fitting} --deduplicate).",
            UserWarning,
            stacklevel=3,
        )
        return
    items = min(items, SAMPLE)
    sids = len(np.unique(codes[:SAMPLE], axis=0))
    if items > 1 and (sids == 1 or items / sids > MAX_ITEMS_PER_SID):
        warnings.warn(
            f"{items:,} items have only {sids:,} {'sequence' if sids == 1 else 'sequences'} of codes, so a model "
            "cannot tell most of them apart. Use larger codebooks or more levels; if that changes nothing, the "
            "embeddings are equal: embed other texts.",
            UserWarning,
            stacklevel=3,
        )


def statistics_of(quantizer: Codebooks, vectors: np.ndarray) -> TrainingStatistics:
    """The statistics of training embeddings [N, D], from up to 65,536 of them."""
    lengths, errors = _lengths_and_errors(quantizer, vectors[:: -(-len(vectors) // SAMPLE)])
    errors = errors if len(errors) else np.zeros(1)
    median, high, largest = np.quantile(errors, [0.5, 0.99, 1]).tolist()
    return TrainingStatistics(len(vectors), float(lengths.min()), float(lengths.max()), median, high, largest)


def _lengths_and_errors(quantizer: Codebooks, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The length of each vector, and the error of each vector that is not 0."""
    residuals = vectors.astype(np.float64) - quantizer.decode(quantizer.encode(vectors))
    squares = np.square(vectors, dtype=np.float64).sum(1)
    return np.sqrt(squares), np.square(residuals).sum(1)[squares > 0] / squares[squares > 0]


def check_embeddings(quantizer: Codebooks, vectors: np.ndarray) -> None:
    """Warn if embeddings [R, D] differ from those that the quantizer was trained on.

    Warns:
        UserWarning: their lengths differ, or the codebooks do not fit them.
    """
    training = quantizer.training
    if training is None or not len(vectors) or training.items < MIN_ITEMS:
        return
    lengths, errors = _lengths_and_errors(quantizer, vectors[:: -(-len(vectors) // SAMPLE)])
    problem = _problem_of_lengths(training, lengths)
    if problem is None and training.items >= MIN_ITEMS_PER_CODE * max(map(len, quantizer.codebooks)):
        problem = _problem_of_errors(training, errors)
    if problem is not None:
        warnings.warn(
            f"these embeddings differ from those that the quantizer was trained on: {problem}. Their SIDs do "
            "not match those of similar items. Embed new items with the same model and normalization; or train a "
            "new quantizer.",
            UserWarning,
            stacklevel=3,
        )


def _problem_of_lengths(training: TrainingStatistics, lengths: np.ndarray) -> str | None:
    margin = (training.max_length - training.min_length) / 2 if len(lengths) < FEW_ITEMS else 0
    low = (training.min_length - margin) * (1 - ROUNDING)
    high = (training.max_length + margin) * (1 + ROUNDING)
    share = float(((lengths < low) | (lengths > high)).mean())
    if share <= MAX_SHARE:
        return None
    return (
        f"{share:.0%} of them have other lengths, from {lengths.min():.4g} to {lengths.max():.4g}; in the training, "
        f"lengths were from {training.min_length:.4g} to {training.max_length:.4g}"
    )


def _problem_of_errors(training: TrainingStatistics, errors: np.ndarray) -> str | None:
    error = float(np.median(errors)) if len(errors) else 0.0
    limit = max(training.high_error, training.median_error + 0.75 * (1 - training.median_error))
    if len(errors) < FEW_ITEMS:
        limit = max(limit, training.max_error, 1)
    if error <= limit:
        return None
    return f"the median error of their SIDs is {error:.2g}, and {training.median_error:.2g} in the training"
