"""Baselines without a trained model: scores [Q, candidates] of the items of a set, higher is better."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from coldstart.content import Content
from coldstart.split import Questions, Split
from coldstart.tables import Shop

Rank = Callable[[np.ndarray], np.ndarray]  # maps the items of a history to the scores of the candidates


def scores(questions: Questions, rank: Rank) -> np.ndarray:
    """The scores [Q, candidates] of every candidate for every question."""
    return np.stack([rank(history) for history in questions.histories])


def shared_prefixes(content: Content, candidates: np.ndarray) -> Rank:
    """Score a candidate by the length of the prefix that it shares with each item of the history, summed."""
    sids, candidate_sids = content.sids, content.sids[candidates]
    return lambda history: np.cumprod(candidate_sids[:, None] == sids[history], axis=2).sum(axis=(1, 2)).astype(float)


def nearest_content(content: Content, candidates: np.ndarray, pool: Callable[..., np.ndarray]) -> Rank:
    """Score a candidate by the cosine of the texts' embeddings with the items of the history.

    Args:
        content: the content of the items.
        candidates: the items to score.
        pool: combines the cosines over the history: np.mean, or np.max for the nearest item.
    """
    vectors, candidate_vectors = content.embeddings, content.embeddings[candidates]
    return lambda history: pool(vectors[history] @ candidate_vectors.T, axis=0)


def popular_category(shop: Shop, split: Split, candidates: np.ndarray) -> Rank:
    """Score a candidate by the frequency of its category in training, the same for all users."""
    taken = np.bincount(shop.categories[np.concatenate(split.training)], minlength=shop.categories.max() + 1)
    counts = taken[shop.categories[candidates]].astype(float)
    return lambda _: counts


def own_category(shop: Shop, candidates: np.ndarray) -> Rank:
    """Score a candidate by the number of items of the history in its category."""
    categories = shop.categories
    return lambda history: (categories[candidates][:, None] == categories[history]).sum(axis=1).astype(float)
