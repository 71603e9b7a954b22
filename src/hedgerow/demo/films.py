"""The films, and the model that was trained to name them (examples/films says how)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import hedgerow as hr

if TYPE_CHECKING:
    from hedgerow.hf import Retriever

DATA = Path(__file__).parent / "data"


def load_catalog() -> hr.Catalog:
    """Returns the 17,472 films: SIDs of 4 levels x 256 codes, titles, years, genres, directors and more."""
    return hr.Catalog.from_parquet(DATA / "films.parquet", sid="sid", item_id="item_id", codebook_sizes=256)


def load_retriever(index: hr.TrieIndex, **options: Any) -> Retriever:
    """Returns a retriever of films: a Qwen3-architecture model of a few million parameters, with OneRec's token layout.

    Raises:
        MissingDependencyError: the packages of the demo extra are not installed.
    """
    from hedgerow.hf.loading import load_retriever

    # For a few small searches, loading a kernel takes longer than it saves.
    return load_retriever(DATA, index, kernel="array", **options)
