"""What items are to the model: embeddings of their text, and Semantic IDs made of these by warm items alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

import hedgerow as hr
from coldstart.split import Split
from coldstart.tables import Shop


@dataclass(frozen=True)
class Content:
    """N items.

    Attributes:
        embeddings: float32 [N, D], of length 1; the mean of the warm items' is taken out.
        sids: int32 [N, L].
        quantizer: trained on the warm items; cold ones are encoded by it as they come.
    """

    embeddings: np.ndarray
    sids: np.ndarray
    quantizer: hr.Quantizer

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """C of every level."""
        return self.quantizer.codebook_sizes


def text_embeddings(shop: Shop, cache: Path) -> np.ndarray:
    """Returns an embedding float32 [N, D] a text, from the cache where it has them."""
    if cache.exists():
        found = np.load(cache)
        if len(found) == len(shop.texts):
            return found
    found = hr.embed_texts(shop.texts)
    cache.parent.mkdir(parents=True, exist_ok=True)
    np.save(cache, found)
    return found


def trained(embeddings: np.ndarray, split: Split, codebooks: tuple[int, ...], seed: int) -> Content:
    """Returns the content of all items, nothing of it learnt from those that are cold."""
    warm = split.known & ~split.cold
    quantizer = hr.semantic_ids(_centred(embeddings, split)[warm], codebook_sizes=codebooks, seed=seed).quantizer
    return encoded(embeddings, split, quantizer)


def encoded(embeddings: np.ndarray, split: Split, quantizer: hr.Quantizer) -> Content:
    """Returns the content of all items, with a quantiser that was trained before."""
    centred = _centred(embeddings, split)
    return Content(centred, quantizer.encode(centred), quantizer)


def _centred(embeddings: np.ndarray, split: Split) -> np.ndarray:
    centred = embeddings - embeddings[split.known & ~split.cold].mean(axis=0)
    return centred / np.linalg.norm(centred, axis=1, keepdims=True).clip(1e-6)
