"""The content of items: embeddings of their texts, and Semantic IDs from a quantizer trained on warm items."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

import hedgerow as hr
from coldstart.split import Split
from coldstart.tables import Shop


@dataclass(frozen=True)
class Content:
    """The content of N items.

    Attributes:
        embeddings: float32 [N, D], minus the mean of the warm items, then normalized to length 1.
        sids: int32 [N, L].
        quantizer: the quantizer, trained on the warm items. It also encodes the cold items.
    """

    embeddings: np.ndarray
    sids: np.ndarray
    quantizer: hr.Quantizer

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """The codebook size of each level."""
        return self.quantizer.codebook_sizes


def text_embeddings(shop: Shop, cache: Path) -> np.ndarray:
    """Embeddings float32 [N, D] of the texts, read from the file `cache` if it has N rows, otherwise saved there."""
    if cache.exists():
        embeddings = np.load(cache)
        if len(embeddings) == len(shop.texts):
            return embeddings
    embeddings = hr.embed_texts(shop.texts)
    cache.parent.mkdir(parents=True, exist_ok=True)
    np.save(cache, embeddings)
    return embeddings


def trained(embeddings: np.ndarray, split: Split, codebooks: tuple[int, ...], seed: int) -> Content:
    """Train a quantizer on the warm items, and encode all items with it."""
    warm = split.known & ~split.cold
    quantizer = hr.semantic_ids(_centred(embeddings, split)[warm], codebook_sizes=codebooks, seed=seed).quantizer
    return encoded(embeddings, split, quantizer)


def encoded(embeddings: np.ndarray, split: Split, quantizer: hr.Quantizer) -> Content:
    """Encode all items with a trained quantizer."""
    centred = _centred(embeddings, split)
    return Content(centred, quantizer.encode(centred), quantizer)


def _centred(embeddings: np.ndarray, split: Split) -> np.ndarray:
    centred = embeddings - embeddings[split.known & ~split.cold].mean(axis=0)
    return centred / np.linalg.norm(centred, axis=1, keepdims=True).clip(1e-6)
