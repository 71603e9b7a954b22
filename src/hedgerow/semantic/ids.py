"""semantic_ids(): train a quantizer on embeddings and assign Semantic IDs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from hedgerow._arguments import check_choice, whole_number
from hedgerow.catalog.sids import MAX_CODEBOOK_SIZE, MAX_LEVELS
from hedgerow.errors import ArgumentError
from hedgerow.index.build import Progress, ignore_progress
from hedgerow.semantic.check import statistics_of
from hedgerow.semantic.codebooks import METHODS
from hedgerow.semantic.collisions import default_size, free_last_codes
from hedgerow.semantic.quantizer import Quantizer, SemanticIds, assigned
from hedgerow.semantic.training import train_codebooks
from hedgerow.semantic.vectors import as_embeddings


def semantic_ids(
    embeddings: Any,
    *,
    levels: int | None = None,
    codebook_sizes: int | Sequence[int] = 256,
    method: str = "residual",
    deduplicate: bool = False,
    deduplication_codes: int | None = None,
    seed: int = 0,
    iterations: int = 25,
    progress: Progress = ignore_progress,
) -> SemanticIds:
    """Trains a quantizer on the embeddings of items with faiss, and assigns their Semantic IDs.

    Args:
        embeddings: [N, D] numbers, converted to float32: a NumPy array, nested sequences, or an Arrow column of lists.
        levels: L, the number of codes of a SID, 1 to 255. Default: 4, or the number of codebook sizes.
        codebook_sizes: the codebook size of every level, or one size per level. If there are fewer distinct items than
            codes, only that many codes are used.
        method: "residual", "product" or "opq": see `Quantizer`.
        deduplicate: add a last code, so that no two items share a SID. Items with the same L codes get the last codes
            0, 1, ... in the order of the rows.
        deduplication_codes: the codebook size of that last level; implies `deduplicate`. New items need free codes.
            Default: a power of two, at least 16 and at least twice the number of codes in use.
        seed: the seed. The same embeddings and seed give the same SIDs, on any number of threads.
        iterations: the number of k-means iterations.
        progress: called as ``progress(what, done, total)``.

    Raises:
        ArgumentError: the embeddings are not a matrix of finite numbers or have no rows, or another argument is out of
            range or does not fit.
        MissingDependencyError: faiss is not installed.

    Examples:
        ```python
        import numpy as np
        import hedgerow as hr

        embeddings = np.random.default_rng(0).normal(size=(100, 8))
        found = hr.semantic_ids(embeddings, levels=3, codebook_sizes=8, deduplicate=True)
        assert found.codebook_sizes == (8, 8, 8, 16)
        assert len(np.unique(found.sids, axis=0)) == 100
        ```
    """
    sizes = _sizes(levels, codebook_sizes)
    check_choice(method, "method", METHODS)
    seed = whole_number(seed, "seed", 0, 2**63 - 1)
    iterations = whole_number(iterations, "iterations", 1, 10_000)
    if deduplication_codes is not None:
        deduplicate = True
        deduplication_codes = whole_number(deduplication_codes, "deduplication_codes", 1, MAX_CODEBOOK_SIZE)
    if len(sizes) == MAX_LEVELS and deduplicate:
        raise ArgumentError(
            f"a SID has at most {MAX_LEVELS} codes, and deduplicate adds one. Use at most {MAX_LEVELS - 1} levels."
        )
    vectors = as_embeddings(embeddings)
    if not len(vectors):
        raise ArgumentError(
            "there are no embeddings to train on; got 0 rows. To encode without training, load a Quantizer."
        )
    options = {"method": method, "seed": seed, "iterations": iterations, "progress": progress}
    codebooks = train_codebooks(vectors, sizes, **options)
    quantizer = Quantizer._of(replace(codebooks, training=statistics_of(codebooks, vectors)))
    progress("encode", len(sizes), len(sizes))
    codes = quantizer.encode(vectors)
    if not deduplicate:
        return assigned(quantizer, vectors, codes, None)
    last = free_last_codes(codes)
    return assigned(quantizer.deduplicating(deduplication_codes or default_size(last)), vectors, codes, last)


def _sizes(levels: int | None, codebook_sizes: int | Sequence[int]) -> tuple[int, ...]:
    if levels is not None:
        whole_number(levels, "levels", 1, MAX_LEVELS)
    if isinstance(codebook_sizes, (int, np.integer)):
        sizes = (codebook_sizes,) * (4 if levels is None else levels)
    else:
        try:
            sizes = tuple(codebook_sizes)
        except TypeError:
            raise ArgumentError(f"codebook_sizes must be one size, or one per level; got {codebook_sizes!r}.") from None
        if not 1 <= len(sizes) <= MAX_LEVELS or levels not in (None, len(sizes)):
            expected = f"1 to {MAX_LEVELS}" if levels is None else f"{levels}"
            raise ArgumentError(
                f"codebook_sizes must be one size, or one per level, {expected} sizes; got {len(sizes)}."
            )
    return tuple(whole_number(size, "codebook_sizes", 1, MAX_CODEBOOK_SIZE) for size in sizes)
