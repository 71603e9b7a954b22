"""Quantizer: trained codebooks that assign Semantic IDs. SemanticIds: the Semantic IDs of items."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from hedgerow.errors import ArgumentError
from hedgerow.semantic import files
from hedgerow.semantic.assignment import checked_policy, checked_sids, kept_sids, sids_of_codes
from hedgerow.semantic.check import check_embeddings
from hedgerow.semantic.codebooks import Codebooks
from hedgerow.semantic.report import SidReport, report_of
from hedgerow.semantic.vectors import as_embeddings


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
        text_columns: the columns whose texts were embedded, of a quantizer of `hedgerow semantic-ids --text`; or None.

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

    def assign(
        self,
        embeddings: Any,
        *,
        taken: Any = None,
        ids: Any = None,
        keep: Any = None,
        on_collision: str | None = None,
        items_per_sid: int = 1,
    ) -> SemanticIds:
        """Assign SIDs to items without training. Items that are published already keep their SIDs.

        Args:
            embeddings: [R, D] numbers.
            taken: the SIDs of existing items, from which those of the new items must differ: [items, L] integers (with
                the deduplication code, if there is one), or an index, a catalog or `SemanticIds`. Default: none; the
                new SIDs are distinct among themselves.
            ids: the ids of the R items, for `keep`.
            keep: an index or a catalog of published items. Those of the R items that it contains, by id, keep their
                SIDs. The other items are new: all its SIDs are taken.
            on_collision: for items with the same codes. "separate": the smallest free deduplication code. "nearest":
                the nearest code of the last level with room for an item. "keep": the items share the SID. Default:
                "separate" if the quantizer has deduplication codes, otherwise "keep".
            items_per_sid: the maximum number of items of a SID, for "nearest".

        Raises:
            ArgumentError: as for `encode`; or an argument does not fit; or no free code is left for an item.
            CatalogError: `ids` are not distinct ids of the type of the ids of `keep`.

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

            published = hr.Catalog(first.sids, codebook_sizes=first.codebook_sizes, item_ids=range(90))
            every = first.quantizer.assign(embeddings, ids=range(100), keep=published)
            assert (every.sids[:90] == first.sids).all()
            ```
        """
        vectors = as_embeddings(embeddings, dim=self.dim)
        policy = checked_policy(self, on_collision, items_per_sid)
        if taken is not None and policy == "keep":
            raise ArgumentError(
                "taken= needs a quantizer with deduplication codes, and this one has none. Omit taken=, use "
                "quantizer.deduplicating(codes), or on_collision='nearest'."
            )
        others = [] if taken is None else [checked_sids(self, taken, "taken")]
        found, published = np.zeros(len(vectors), bool), None
        if ids is not None or keep is not None:
            found, published, every = kept_sids(self, ids, keep, len(vectors))
            others.append(every)
        check_embeddings(self, vectors)
        new = vectors if published is None else vectors[~found]
        existing = np.concatenate(others) if others else None
        options = {"taken": existing, "items_per_sid": items_per_sid, "rows": np.flatnonzero(~found)}
        sids = sids_of_codes(self, new, self.encode(new), policy, **options)
        if published is not None:
            every_sid = np.empty((len(vectors), sids.shape[1]), np.int32)
            every_sid[found], every_sid[~found] = published, sids
            sids = every_sid
        return assigned(self, vectors, sids)

    def deduplicating(self, codes: int | None) -> Quantizer:
        """Return a copy with another number of deduplication codes.

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
        """Write the quantizer to one safetensors file, completely or not at all. An existing quantizer is replaced.

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
        """Load a quantizer that `save` wrote.

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
        """Measure the use of codes, collisions, the reconstruction error, and the purity of prefixes.

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


def assigned(quantizer: Quantizer, vectors: np.ndarray, sids: np.ndarray) -> SemanticIds:
    """The Semantic IDs [N, L], or [N, L + 1] with deduplication codes."""
    last = () if quantizer.deduplication_codes is None else (quantizer.deduplication_codes,)
    sids.setflags(write=False)
    return SemanticIds(sids, (*quantizer.codebook_sizes, *last), quantizer, vectors)
