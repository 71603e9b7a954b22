"""Quantizer: trained codebooks that assign Semantic IDs. SemanticIds: the Semantic IDs of items."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from hedgerow.errors import ArgumentError
from hedgerow.semantic import files
from hedgerow.semantic.check import check_embeddings
from hedgerow.semantic.codebooks import Codebooks
from hedgerow.semantic.collisions import check_size, free_last_codes
from hedgerow.semantic.report import SidReport, report_of
from hedgerow.semantic.vectors import as_array, as_embeddings


class Quantizer(Codebooks):
    """Maps an embedding of D numbers to a Semantic ID of L codes, with NumPy only.

    `hedgerow.semantic_ids` trains a quantizer. It encodes new items without further training.

    Attributes:
        method: "residual": level l encodes the residual of the levels before it, so that a prefix is a coarse SID.
            "product": level l encodes the l-th slice of the dimensions. "opq": the same after a rotation.
        codebooks: one read-only float32 array per level, [codes, D] for "residual", otherwise [codes, D / L].
        codebook_sizes: the codebook size per level. A codebook has fewer codes if there were too few items to train
            them.
        rotation: float32 [D, D], orthonormal, for "opq"; otherwise None.
        deduplication_codes: the codebook size of an additional last level, which distinguishes items with the same L
            codes; None if there is no such level.
        training: the number of items, lengths and errors of the training; None if they are unknown. `assign` warns if
            new embeddings differ.

    Raises:
        ArgumentError: an argument is invalid, or the arguments do not fit each other.

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
        return cls(**{field.name: getattr(codebooks, field.name) for field in fields(codebooks)})

    def assign(self, embeddings: Any, *, taken: Any = None) -> SemanticIds:
        """Assigns SIDs to new items without training.

        With deduplication, new items get the smallest free deduplication codes.

        Args:
            embeddings: [R, D] numbers.
            taken: the SIDs of existing items, from which those of the new items must differ: [items, L + 1] integers,
                or an index, a catalog or `SemanticIds`. Default: none; the new SIDs are distinct among themselves.
                Only with deduplication.

        Raises:
            ArgumentError: as for `encode`; or `taken` does not fit; or no free code is left for an item.

        Warns:
            UserWarning: the embeddings differ from those of the training, in length or because the codebooks do not
                fit them: they come from another model, or are normalized in another way.

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
        check_embeddings(self, vectors)
        codes = self.encode(vectors)
        last = None if self.deduplication_codes is None else free_last_codes(codes, others)
        return assigned(self, vectors, codes, last)

    def deduplicating(self, codes: int | None) -> Quantizer:
        """Returns a copy with another number of deduplication codes.

        Args:
            codes: the codebook size of the deduplication level, or None for no such level.

        Raises:
            ArgumentError: `codes` is out of range, or there are 255 levels already.

        Examples:
            ```python
            import numpy as np
            import hedgerow as hr

            quantizer = hr.Quantizer("residual", (np.zeros((1, 2)),), (1,)).deduplicating(16)
            assert quantizer.assign(np.zeros((3, 2))).sids.tolist() == [[0, 0], [0, 1], [0, 2]]
            ```
        """
        return replace(self, deduplication_codes=codes)

    def save(self, path: str | Path) -> None:
        """Writes the quantizer to one safetensors file, completely or not at all. An existing quantizer is replaced.

        Args:
            path: the file.

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

        Args:
            path: the file.

        Raises:
            QuantizerFileError: the file does not exist, or is not a quantizer, damaged, or of a newer format.

        Examples:
            ```python
            import numpy as np
            import hedgerow as hr

            hr.Quantizer("residual", (np.zeros((1, 2)),), (1,)).save("items.safetensors")
            assert hr.Quantizer.load("items.safetensors").dim == 2
            ```
        """
        return cls._of(files.load_quantizer(path))


@dataclass(frozen=True, eq=False, repr=False)
class SemanticIds:
    """The Semantic IDs of N items: `hr.Catalog(found.sids, codebook_sizes=found.codebook_sizes)`.

    Attributes:
        sids: int32 [N, L], or [N, L + 1] with deduplication; read-only.
        codebook_sizes: the codebook size of each level of `sids`.
        quantizer: the quantizer that assigned the SIDs.
        embeddings: float32 [N, D], the embeddings of the items; not a copy if they were passed as float32.

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
        """Measures the use of codes, collisions, the reconstruction error, and the purity of prefixes.

        Args:
            categories: N values or nulls, the category of each item, for purity.

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


def assigned(quantizer: Quantizer, vectors: np.ndarray, codes: np.ndarray, last: np.ndarray | None) -> SemanticIds:
    """The Semantic IDs of codes [N, L] and, with deduplication, of the last codes [N].

    Raises:
        ArgumentError: a last code is not one of the quantizer's deduplication codes.
    """
    sids, sizes = codes, quantizer.codebook_sizes
    if last is not None and quantizer.deduplication_codes is not None:
        check_size(codes, last, quantizer.deduplication_codes)
        sids, sizes = np.column_stack([codes, last.astype(np.int32)]), (*sizes, quantizer.deduplication_codes)
    sids.setflags(write=False)
    return SemanticIds(sids, sizes, quantizer, vectors)


def _taken_sids(quantizer: Quantizer, taken: Any) -> np.ndarray:
    """The SIDs of an index, a catalog, `SemanticIds` or an array, as int64 [items, L + 1]."""
    if quantizer.deduplication_codes is None:
        raise ArgumentError(
            "taken= needs a quantizer with deduplication codes, and this one has none. Omit taken=, or use "
            "quantizer.deduplicating(codes)."
        )
    sizes = (*quantizer.codebook_sizes, quantizer.deduplication_codes)
    taken_sizes = tuple(getattr(taken, "codebook_sizes", sizes))
    sids = getattr(taken, "sids", taken)
    matrix = as_array(sids() if callable(sids) else sids, "taken")
    if matrix.ndim != 2 or matrix.shape[1] != len(sizes) or matrix.dtype.kind not in "iu":
        raise ArgumentError(
            f"taken must be SIDs of {len(sizes)} codes, including the deduplication code: integers [items, "
            f"{len(sizes)}]; got {matrix.dtype} of shape {matrix.shape}."
        )
    if taken_sizes != sizes:
        raise ArgumentError(
            f"taken has codebook_sizes {list(taken_sizes)}, but SIDs of this quantizer have {list(sizes)}. Pass SIDs "
            "that this quantizer assigned; if taken is a catalog or an index, build it with these codebook_sizes."
        )
    wide = matrix.astype(np.int64)
    outside = (wide < 0) | (wide >= np.asarray(sizes))
    if outside.any():
        row, level = np.argwhere(outside)[0].tolist()
        raise ArgumentError(
            f"taken, row {row}, level {level}: code {wide[row, level]} is not one of the quantizer's {sizes[level]:,}. "
            "Pass SIDs that this quantizer assigned."
        )
    return wide
