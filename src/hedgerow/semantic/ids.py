"""semantic_ids(): from embeddings to Semantic IDs, and the quantizer that made them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hedgerow.errors import ArgumentError
from hedgerow.index.build import Progress, ignore_progress
from hedgerow.semantic.collisions import check_room, room_for, separating_codes
from hedgerow.semantic.quantizer import METHODS, Quantizer
from hedgerow.semantic.vectors import as_array, as_embeddings
from hedgerow.sids import MAX_CODEBOOK_SIZE, MAX_LEVELS

if TYPE_CHECKING:
    from hedgerow.semantic.report import SidReport


@dataclass(frozen=True, eq=False, repr=False)
class SemanticIds:
    """The Semantic IDs of N items: `hedgerow.Catalog(found.sids, codebook_sizes=found.codebook_sizes)`.

    Attributes:
        sids: int32 [N, L], or [N, L + 1] where a last code separates items; read-only.
        codebook_sizes: the codes of each of its levels.
        quantizer: what made them, and makes those of new items.
        embeddings: float32 [N, D], what they were made of.
    """

    sids: np.ndarray
    codebook_sizes: tuple[int, ...]
    quantizer: Quantizer
    embeddings: np.ndarray

    def report(self, categories: Any = None) -> SidReport:
        """Returns how well the codebooks are used, how many items collide, and what the codes keep of the embeddings.

        Args:
            categories: N values, or nulls, that say what kind of item each is: then also how pure prefixes are.

        Raises:
            ArgumentError: they are not N.
        """
        from hedgerow.semantic.report import report_of

        return report_of(self, categories)

    def __len__(self) -> int:
        return len(self.sids)

    def __repr__(self) -> str:
        return f"SemanticIds(items={len(self):,}, codebook_sizes={list(self.codebook_sizes)}, {self.quantizer!r})"


def semantic_ids(
    embeddings: Any,
    *,
    levels: int | None = None,
    codebook_size: int | Sequence[int] = 256,
    method: str = "residual",
    separate: bool = False,
    separate_codes: int | None = None,
    seed: int = 0,
    iterations: int = 25,
    progress: Progress = ignore_progress,
) -> SemanticIds:
    """Returns Semantic IDs of items, by a quantizer trained on their embeddings with faiss.

    Args:
        embeddings: [N, D] numbers: a NumPy array, nested sequences, or an Arrow column of lists. Float32 inside.
        levels: L, the codes of a SID, 1 to 255; left out, 4, or as many as codebook_size names.
        codebook_size: the codes of a level, or one number a level. With fewer distinct items than that, fewer are used.
        method: "residual", "product" or "opq": see `Quantizer`.
        separate: adds a last code, so that no two items have one SID: the first of those with the same L codes has 0,
            the next one 1, in the order of the rows. Otherwise such items share a SID.
        separate_codes: how many such codes there are, room for new items included, which implies `separate`. Left
            out, a power of two: at least 16, and twice as many as are in use.
        seed: the same embeddings and seed give the same SIDs, on any number of threads.
        iterations: of k-means.
        progress: is told what is being done.

    Raises:
        ArgumentError: embeddings that are no matrix of finite numbers or have no rows, or options that do not fit.
        BackendError: faiss is not installed.
    """
    sizes = _sizes(levels, codebook_size)
    if method not in METHODS:
        raise ArgumentError(f"method must be {', '.join(METHODS[:-1])} or {METHODS[-1]}; got {method!r}.")
    _check_number(seed, "seed", 0, 2**63 - 1)
    _check_number(iterations, "iterations", 1, 10_000)
    if separate_codes is not None:
        _check_number(separate_codes, "separate_codes", 1, MAX_CODEBOOK_SIZE)
    if len(sizes) == MAX_LEVELS and (separate or separate_codes is not None):
        raise ArgumentError(
            f"a SID has at most {MAX_LEVELS} codes, and separate adds one: take {MAX_LEVELS - 1} levels."
        )
    vectors = as_embeddings(embeddings)
    if not len(vectors):
        raise ArgumentError("there are no embeddings to train on: [0, D]. Encode with a quantizer that was trained.")
    from hedgerow.semantic.training import train_quantizer

    options = {"method": method, "seed": int(seed), "iterations": int(iterations), "progress": progress}
    quantizer = train_quantizer(vectors, sizes, **options)
    progress("encode", len(sizes), len(sizes))
    codes = quantizer.encode(vectors)
    if not separate and separate_codes is None:
        return _made(codes, None, quantizer, vectors)
    last = separating_codes(codes)
    quantizer = quantizer.separating(room_for(last) if separate_codes is None else int(separate_codes))
    return _made(codes, last, quantizer, vectors)


def assigned(quantizer: Quantizer, embeddings: Any, taken: Any) -> SemanticIds:
    """Returns the SIDs of new items: `Quantizer.assign`."""
    vectors = as_embeddings(embeddings, dim=quantizer.dim)
    others = None if taken is None else _taken(quantizer, taken)
    codes = quantizer.encode(vectors)
    last = None if quantizer.separate_codes is None else separating_codes(codes, others)
    return _made(codes, last, quantizer, vectors)


def _made(codes: np.ndarray, last: np.ndarray | None, quantizer: Quantizer, vectors: np.ndarray) -> SemanticIds:
    sids, sizes = codes, quantizer.codebook_sizes
    if last is not None and quantizer.separate_codes is not None:
        check_room(codes, last, quantizer.separate_codes)
        sids, sizes = np.column_stack([codes, last.astype(np.int32)]), (*sizes, quantizer.separate_codes)
    sids.setflags(write=False)
    return SemanticIds(sids, sizes, quantizer, vectors)


def _taken(quantizer: Quantizer, taken: Any) -> np.ndarray:
    """Returns the SIDs that are taken as int64 [T, L + 1], be they in an index, a catalog or an array."""
    if quantizer.separate_codes is None:
        raise ArgumentError("taken= goes with a quantizer that separates items; this one does not: leave it out.")
    sizes = (*quantizer.codebook_sizes, quantizer.separate_codes)
    given = getattr(taken, "codebook_sizes", sizes)
    sids = getattr(taken, "sids", taken)
    matrix = as_array(sids() if callable(sids) else sids, "taken")
    if matrix.ndim != 2 or matrix.shape[1] != len(sizes) or matrix.dtype.kind not in "iu" or len(given) != len(sizes):
        raise ArgumentError(
            f"taken must be SIDs of {len(sizes)} codes, the last one separating: integers [items, {len(sizes)}]; got "
            f"{matrix.dtype} of shape {matrix.shape}."
        )
    if tuple(given) != sizes:
        raise ArgumentError(
            f"taken has codebook_sizes {list(given)}, and SIDs of this quantizer {list(sizes)}. Give the SIDs that "
            "this quantizer made; a catalog of them wants codebook_sizes= as they are here."
        )
    wide = matrix.astype(np.int64)
    if len(wide) and not ((wide >= 0) & (wide < np.asarray(sizes))).all():
        row, level = np.argwhere((wide < 0) | (wide >= np.asarray(sizes)))[0].tolist()
        raise ArgumentError(
            f"taken, row {row}, level {level}: code {wide[row, level]} is not one of the quantizer's {sizes[level]:,}. "
            "Give the SIDs that this quantizer made."
        )
    return wide


def _sizes(levels: int | None, codebook_size: int | Sequence[int]) -> tuple[int, ...]:
    if levels is not None:
        _check_number(levels, "levels", 1, MAX_LEVELS)
    if isinstance(codebook_size, (int, np.integer)):
        sizes = (codebook_size,) * (4 if levels is None else levels)
    else:
        try:
            sizes = tuple(codebook_size)
        except TypeError:
            raise ArgumentError(f"codebook_size must be a number, or one a level; got {codebook_size!r}.") from None
        if not 1 <= len(sizes) <= MAX_LEVELS or levels not in (None, len(sizes)):
            expected = f"1 to {MAX_LEVELS}" if levels is None else f"{levels}"
            raise ArgumentError(f"codebook_size must be one number, or one a level, {expected}; got {len(sizes)}.")
    for size in sizes:
        _check_number(size, "codebook_size", 1, MAX_CODEBOOK_SIZE)
    return tuple(int(size) for size in sizes)


def _check_number(value: Any, name: str, least: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not least <= value <= most:
        raise ArgumentError(f"{name} must be a whole number from {least} to {most}; got {value!r}.")
