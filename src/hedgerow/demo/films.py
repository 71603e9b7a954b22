"""The films, and the model that was trained on them (see examples/films)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import hedgerow as hr

if TYPE_CHECKING:
    from hedgerow.hf import Retriever

DATA = Path(__file__).parent / "data"


def load_catalog() -> hr.Catalog:
    """Load the 17,472 films: SIDs of 4 levels with 256 codes each, titles, years, genres, directors and more."""
    return hr.Catalog.from_parquet(DATA / "films.parquet", sid="sid", item_id="item_id", codebook_sizes=256)


def load_retriever(index: hr.TrieIndex, **options: Any) -> Retriever:
    """Load the model, a Qwen3 architecture with 3.9 M parameters and the token layout of OneRec.

    Args:
        index: an index of films.
        options: as for `hedgerow.hf.Retriever`.

    Raises:
        MissingDependencyError: the packages of the extra `demo` are not installed.
    """
    from hedgerow.hf.loading import load_retriever

    return load_retriever(DATA, index, **options)
