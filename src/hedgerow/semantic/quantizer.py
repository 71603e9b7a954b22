"""Quantizer: trained codebooks that assign Semantic IDs; SemanticIds: those that it assigned."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hedgerow.errors import ArgumentError
from hedgerow.semantic import files
from hedgerow.semantic.codebooks import Codebooks
from hedgerow.semantic.collisions import check_room, free_last_codes
from hedgerow.semantic.report import SidReport, report_of
from hedgerow.semantic.vectors import as_array, as_embeddings


class Quantizer(Codebooks):
    """Maps an embedding of D numbers to a Semantic ID of L codes, with NumPy alone.

    `hedgerow.semantic_ids` trains a quantizer. It encodes new items without further training.

    Attributes:
        method: "residual": level l encodes what the levels before it leave, so that a prefix is a coarse SID.
            "product": level l encodes the l-th slice of the dimensions. "opq": the same after a rotation.
        codebooks: L arrays float32 [K_l, D] ("residual") or [K_l, D / L]; read-only. K_l is the number of trained codes.
        codebook_sizes: L ints, the codebook size per level: K_l, or more if there were too few items to train them.
        rotation: float32 [D, D], orthonormal, for "opq"; otherwise None.
        deduplication_codes: the codebook size of the last level, which separates items with the same L codes; None if
            there is no such level.

    Raises:
        ArgumentError: these do not fit each other.

    Examples:
        ```python
        import numpy as np
        import hedgerow as hr

        embeddings = np.random.default_rng(0).normal(size=(100, 8))
        quantizer = hr.semantic_ids(embeddings, levels=2, codebook_sizes=4).quantizer
        assert quantizer.encode(embeddings[:5]).shape == (5, 2)
        ```
    """

    @classmethod
    def _of(cls, codebooks: Codebooks) -> Quantizer:
        sizes, rotation = codebooks.codebook_sizes, codebooks.rotation
        return cls(codebooks.method, codebooks.codebooks, sizes, rotation, codebooks.deduplication_codes)

    def assign(self, embeddings: Any, *, taken: Any = None) -> SemanticIds:
        """Assigns SIDs to new items without training.

        Args:
            embeddings: [M, D] numbers.
            taken: the SIDs of other items, if a last code separates items: [T, L + 1] integers, or an index, a catalog
                or `SemanticIds`. New items get the smallest free codes.

        Raises:
            ArgumentError: as for `encode`; or `taken` does not fit; or no free code is left for an item.

        Examples:
            ```python
            import numpy as np
            import hedgerow as hr

            embeddings = np.random.default_rng(0).normal(size=(100, 8))
            first = hr.semantic_ids(embeddings[:90], levels=2, codebook_sizes=4, deduplicate=True)
            new = first.quantizer.assign(embeddings[90:], taken=first)
            assert len(np.unique(np.concatenate([first.sids, new.sids]), axis=0)) == 100
            ```
        """
        vectors = as_embeddings(embeddings, dim=self.dim)
        others = None if taken is None else _taken_sids(self, taken)
        codes = self.encode(vectors)
        last = None if self.deduplication_codes is None else free_last_codes(codes, others)
        return with_last_codes(codes, last, self, vectors)

    def deduplicating(self, codes: int | None) -> Quantizer:
        """A copy whose last level has that many codes to separate items, or has no such level (None)."""
        return replace(self, deduplication_codes=codes)

    def save(self, path: str | Path) -> None:
        """Writes the quantizer to one safetensors file, completely or not at all. An existing quantizer is replaced.

        Raises:
            QuantizerFileError: the file cannot be written, or exists and is not a quantizer.

        Examples:
            ```python
            import numpy as np
            import hedgerow as hr

            embeddings = np.random.default_rng(0).normal(size=(100, 8))
            quantizer = hr.semantic_ids(embeddings, levels=2, codebook_sizes=4).quantizer
            quantizer.save("items.safetensors")
            assert (hr.Quantizer.load("items.safetensors").encode(embeddings) == quantizer.encode(embeddings)).all()
            ```
        """
        files.save_quantizer(self, path)

    @classmethod
    def load(cls, path: str | Path) -> Quantizer:
        """Loads a quantizer that `save` wrote.

        Raises:
            QuantizerFileError: the file does not exist, or is not a quantizer, damaged, or of a newer format.
        """
        return cls._of(files.load_quantizer(path))


@dataclass(frozen=True, eq=False, repr=False)
class SemanticIds:
    """The Semantic IDs of N items: `hr.Catalog(found.sids, codebook_sizes=found.codebook_sizes)`.

    Attributes:
        sids: int32 [N, L], or [N, L + 1] if a last code separates items; read-only.
        codebook_sizes: the codebook size of each level of `sids`.
        quantizer: the quantizer that assigned them.
        embeddings: float32 [N, D], the embeddings that they were assigned to.

    Examples:
        ```python
        import numpy as np
        import hedgerow as hr

        found = hr.semantic_ids(np.random.default_rng(0).normal(size=(100, 8)), levels=2, codebook_sizes=4)
        catalog = hr.Catalog(found.sids, codebook_sizes=found.codebook_sizes)
        assert len(catalog) == len(found) == 100
        ```
    """

    sids: np.ndarray
    codebook_sizes: tuple[int, ...]
    quantizer: Quantizer
    embeddings: np.ndarray

    def report(self, categories: Any = None) -> SidReport:
        """Measures how evenly codes are used, how many items collide, and what the codes keep of the embeddings.

        Args:
            categories: N values or nulls, the category of each item. With them the report has the purity of prefixes.

        Raises:
            ArgumentError: `categories` does not have N values.

        Examples:
            ```python
            import numpy as np
            import hedgerow as hr

            found = hr.semantic_ids(np.random.default_rng(0).normal(size=(100, 8)), levels=2, codebook_sizes=4)
            assert found.report().levels[0].codes_used == 4
            ```
        """
        return report_of(self.quantizer, self.sids, self.codebook_sizes, self.embeddings, categories)

    def __len__(self) -> int:
        return len(self.sids)

    def __repr__(self) -> str:
        return f"SemanticIds(items={len(self):,}, codebook_sizes={list(self.codebook_sizes)}, {self.quantizer!r})"


def with_last_codes(
    codes: np.ndarray, last: np.ndarray | None, quantizer: Quantizer, vectors: np.ndarray
) -> SemanticIds:
    """SemanticIds of codes [N, L] and, if items are separated, their last codes [N]."""
    sids, sizes = codes, quantizer.codebook_sizes
    if last is not None and quantizer.deduplication_codes is not None:
        check_room(codes, last, quantizer.deduplication_codes)
        sids, sizes = np.column_stack([codes, last.astype(np.int32)]), (*sizes, quantizer.deduplication_codes)
    sids.setflags(write=False)
    return SemanticIds(sids, sizes, quantizer, vectors)


def _taken_sids(quantizer: Quantizer, taken: Any) -> np.ndarray:
    """Returns the SIDs that are taken as int64 [T, L + 1], be they in an index, a catalog or an array."""
    if quantizer.deduplication_codes is None:
        raise ArgumentError("taken= goes with a quantizer that separates items; this one does not: leave it out.")
    sizes = (*quantizer.codebook_sizes, quantizer.deduplication_codes)
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
