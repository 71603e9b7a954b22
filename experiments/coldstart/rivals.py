"""What ranks the items of a set without a model that was trained: scores [Q, candidates], higher is better."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from coldstart.content import Content
from coldstart.split import Questions, Split
from coldstart.tables import Shop

Rank = Callable[[np.ndarray], np.ndarray]  # the items of one history -> scores of the candidates


def scores(questions: Questions, rank: Rank) -> np.ndarray:
    """Returns the scores of every candidate for every question."""
    return np.stack([rank(history) for history in questions.histories])


def shared_prefixes(content: Content, candidates: np.ndarray) -> Rank:
    """By how many codes, from the first on, a candidate shares with the items of the history, summed."""
    sids, own = content.sids, content.sids[candidates]
    return lambda history: np.cumprod(own[:, None] == sids[history], axis=2).sum(axis=(1, 2)).astype(float)


def nearest_content(content: Content, candidates: np.ndarray, pool: Callable[..., np.ndarray]) -> Rank:
    """By the cosine of the texts' embeddings, pooled over the history: np.mean, or np.max for its nearest item."""
    vectors, own = content.embeddings, content.embeddings[candidates]
    return lambda history: pool(vectors[history] @ own.T, axis=0)


def popular_category(shop: Shop, split: Split, candidates: np.ndarray) -> Rank:
    """By how often a candidate's category was taken in training, whoever asks."""
    taken = np.bincount(shop.categories[np.concatenate(split.training)], minlength=shop.categories.max() + 1)
    counts = taken[shop.categories[candidates]].astype(float)
    return lambda _: counts


def own_category(shop: Shop, candidates: np.ndarray) -> Rank:
    """By how many items of the history have a candidate's category."""
    categories = shop.categories
    return lambda history: (categories[candidates][:, None] == categories[history]).sum(axis=1).astype(float)
