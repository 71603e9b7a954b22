"""The content of codes: the centroids of a quantizer, or the means of the embeddings of the items with a code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hedgerow.catalog.constructors import ITEM_ID
from hedgerow.errors import ArgumentError
from hedgerow.hf.history import codes_of_items
from hedgerow.semantic.quantizer import Quantizer
from hedgerow.semantic.vectors import as_embeddings
from hedgerow.trie_index import TrieIndex

EMBEDDING = "embedding"
Content = list[np.ndarray | None]


def no_content(index: TrieIndex) -> Content:
    """No content for any level."""
    return [None] * index.num_levels


def content_of_quantizer(index: TrieIndex, quantizer: Quantizer) -> Content:
    """The centroids of each level, float32 [C, D]; None for a deduplication level. Codes without a centroid are zero.

    Raises:
        ArgumentError: the quantizer has other codebooks than the index.
    """
    sizes = (*quantizer.codebook_sizes, *([quantizer.deduplication_codes] if quantizer.deduplication_codes else []))
    given = tuple(index.codebook_sizes)
    if index.ragged or len(given) != len(sizes) or any(size < own for size, own in zip(given, sizes, strict=True)):
        raise ArgumentError(
            f"the quantizer has codebooks of {list(sizes)} codes, but the index has {list(given)}. Pass the quantizer "
            "that made the SIDs of this index, or none."
        )
    content: Content = no_content(index)
    for level, book in enumerate(quantizer.codebooks):
        content[level] = np.pad(book, ((0, given[level] - len(book)), (0, 0)))
    return content


def content_of_embeddings(index: TrieIndex, embeddings: np.ndarray) -> Content:
    """For each level the mean of what the levels before it leave of the embeddings of the items with each code.

    Args:
        index: the index.
        embeddings: float32 [N, D], in the order of `index.item_ids`.
    """
    codes = codes_of_items(index, np.arange(index.num_items))
    rest = embeddings - embeddings.mean(axis=0)
    content: Content = []
    for level, size in enumerate(index.codebook_sizes):
        counts = np.bincount(codes[:, level], minlength=size)
        sums = np.zeros((size, rest.shape[1]), np.float64)
        np.add.at(sums, codes[:, level], rest)
        means = (sums / counts.clip(1)[:, None]).astype(np.float32)
        rest = rest - means[codes[:, level]]
        content.append(means)
    return content


def read_quantizer(quantizer: Any) -> Quantizer:
    """A quantizer, or that of a file.

    Raises:
        QuantizerFileError: the file cannot be read.
    """
    return quantizer if isinstance(quantizer, Quantizer) else Quantizer.load(quantizer)


def read_embeddings(index: TrieIndex, embeddings: Any) -> np.ndarray:
    """Embeddings of all items in the order of the index, float32 [N, D].

    Args:
        index: the index.
        embeddings: an array in that order; or a Parquet file, or a table, with the columns item_id and embedding.

    Raises:
        ArgumentError: there is no embedding for each item.
        CatalogError: the file cannot be read.
    """
    import pyarrow as pa

    from hedgerow.catalog.parts import concatenated
    from hedgerow.catalog.readers import read_parquet

    if isinstance(embeddings, (str, Path)):
        embeddings = concatenated(read_parquet(embeddings))
    if not isinstance(embeddings, pa.Table):
        vectors = as_embeddings(embeddings)
        if len(vectors) != index.num_items:
            raise ArgumentError(
                f"there are {len(vectors):,} embeddings for {index.num_items:,} items. Pass one for each of "
                "index.item_ids, in that order, or a table with the columns item_id and embedding."
            )
        return vectors
    for name in (ITEM_ID, EMBEDDING):
        if name not in embeddings.column_names:
            raise ArgumentError(
                f"the embeddings have no column {name!r}; the columns are {', '.join(embeddings.column_names)}."
            )
    rows = index.rows(embeddings.column(ITEM_ID), missing="ignore")
    found = np.full(index.num_items, -1, np.int64)
    found[rows[rows >= 0]] = np.flatnonzero(rows >= 0)
    if (found < 0).any():
        missing = index.item_ids[int(np.argmax(found < 0))].as_py()
        raise ArgumentError(
            f"{int((found < 0).sum()):,} items of the index have no embedding, the first is {missing!r}. Pass the "
            "embeddings of all items, or none."
        )
    return as_embeddings(embeddings.column(EMBEDDING))[found]
