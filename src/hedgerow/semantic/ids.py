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
from hedgerow.semantic.assignment import ON_COLLISION, check_items_per_sid, checked_policy, sids_of_codes
from hedgerow.semantic.check import check_settings, statistics_of
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
    on_collision: str | None = None,
    items_per_sid: int = 1,
    seed: int = 0,
    iterations: int = 25,
    progress: Progress = ignore_progress,
) -> SemanticIds:
    """Train a quantizer on the embeddings of items with faiss, and assign their Semantic IDs.

    Args:
        embeddings: [N, D] numbers, converted to float32: a NumPy array, nested sequences, or an Arrow column of lists.
        levels: L, the number of codes of a SID, 1 to 255. Default: 4, or the number of codebook sizes.
        codebook_sizes: the codebook size of every level, or one size per level. If there are fewer distinct items than
            codes, only that many codes are used.
        method: "residual", "product" or "opq": see `Quantizer`.
        deduplicate: add a last code, so that no two items share a SID. Items with the same L codes get the last codes
            0, 1, ... in the order of the rows. The same as on_collision="separate".
        deduplication_codes: the codebook size of that last level; implies `deduplicate`. New items need free codes.
            Default: a power of two, at least 16 and at least twice the number of codes in use.
        on_collision: for items with the same L codes. "separate": as for `deduplicate`. "nearest": the first items of
            a SID keep it; others get the nearest code of the last level with room for an item, so that SIDs have L
            codes. "keep": the items share the SID. Default: "separate" with `deduplicate`, otherwise "keep".
        items_per_sid: the maximum number of items of a SID, for "nearest".
        seed: the seed. The same embeddings and seed give the same SIDs, on any number of threads.
        iterations: the number of k-means iterations.
        progress: called as ``progress(what, done, total)``.

    Raises:
        ArgumentError: the embeddings are not a matrix of finite numbers or have no rows, or another argument is out of
            range or does not fit.
        MissingDependencyError: faiss is not installed.

    Warns:
        UserWarning: the codebooks are too large or too small for the number of items.

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
    check_choice(on_collision, "on_collision", ON_COLLISION)
    if on_collision not in (None, "separate") and (deduplicate or deduplication_codes is not None):
        raise ArgumentError(f"deduplicate is on_collision='separate', and cannot be combined with {on_collision!r}.")
    check_items_per_sid(on_collision, items_per_sid)
    deduplicate = deduplicate or deduplication_codes is not None or on_collision == "separate"
    if deduplication_codes is not None:
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
    # With "nearest", the last level needs a code for each item of a group.
    check_settings(sizes[:-1] if on_collision == "nearest" else sizes, codes)
    if deduplicate:
        quantizer = quantizer.deduplicating(deduplication_codes or default_size(free_last_codes(codes)))
    policy = checked_policy(quantizer, on_collision, items_per_sid)
    return assigned(quantizer, vectors, sids_of_codes(quantizer, vectors, codes, policy, items_per_sid=items_per_sid))


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
