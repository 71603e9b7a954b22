"""Catalog: item ids, their Semantic IDs and attributes, validated on construction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hedgerow._arguments import check_unmasked
from hedgerow._read_only import ReadOnlyArrays
from hedgerow.catalog.constructors import ITEM_ID, FromSources
from hedgerow.catalog.ragged import ENDED, EndCodes, as_ragged_sids, end_codes_of, with_ends
from hedgerow.catalog.rows import as_rows
from hedgerow.catalog.sids import as_sids, checked_codebook_sizes
from hedgerow.errors import CatalogError

if TYPE_CHECKING:
    import pyarrow as pa

# The names that results have of their own.
RESERVED = (ITEM_ID, "score", "sid")


@dataclass(frozen=True, eq=False, init=False, repr=False)
class Catalog(ReadOnlyArrays, FromSources):
    """N items, each with a Semantic ID of L codes, an item id and optional attributes.

    Rows may be in any order. Several items may share one SID (a collision); a search that reaches the SID returns all
    of them. A catalog copies its inputs and is immutable.

    Args:
        sids: [N, L] integers: a NumPy array, an Arrow list column, nested sequences, or another object that NumPy can
            convert; or SIDs as text, ``"<a_2><b_6>"`` or ``"2-6"``. L is 1 to 255. The codes of level l are
            ``0 .. codebook_sizes[l] - 1``.
        codebook_sizes: the codebook size, 1 to 2**31: one number for all levels, or one per level. Default: the
            largest code of each level, plus one.
        item_ids: N distinct ids of one type (integers, strings, bytes, dates, UUIDs, ...), not floats. Default: the row
            numbers.
        attributes: a mapping of names to columns of N values, or an Arrow table or data frame of N rows. The names
            ``item_id``, ``score`` and ``sid`` are reserved for results.
        ragged: whether SIDs may have different lengths, from 1 to L codes. L is the length of the longest SID, or the
            number of entries of `codebook_sizes` if that is larger. A SID may be a prefix of another SID. In a matrix,
            -1 fills the entries after the end of a SID. Every level except the first gets one additional code, the
            end code: its last one. The logit of the end code is the model's logit for ending the SID there.

    Attributes:
        sids: [N, L] uint8, uint16 or uint32: the smallest dtype that holds all codes; read-only. A ragged SID has the
            end code at every level after its last code.
        codebook_sizes: L ints, the number of codes per level, including the end code: the widths of the logits.
        end_codes: the end code per level; None for levels without one.

    Raises:
        CatalogError: an argument is invalid. The message names the row and the level, both counted from 0.

    Examples:
        ```python
        import hedgerow as hr

        catalog = hr.Catalog(
            [[3, 1, 4], [0, 2, 2]], codebook_sizes=6, item_ids=["anvil", "rope"], attributes={"price": [30, 5]}
        )
        assert (catalog.num_items, catalog.num_levels) == (2, 3)

        ragged = hr.Catalog([[3, 1, 4], [3]], codebook_sizes=6, ragged=True)
        assert ragged.end_codes == (None, 6, 6)
        assert ragged.sids.tolist() == [[3, 1, 4], [3, 6, 6]]
        ```
    """

    sids: np.ndarray
    codebook_sizes: tuple[int, ...]
    end_codes: EndCodes
    _ids: pa.Array | None
    _attributes: pa.Table | None

    def __init__(
        self,
        sids: Any,
        *,
        codebook_sizes: int | Sequence[int] | None = None,
        item_ids: Any = None,
        attributes: Any = None,
        ragged: bool = False,
    ) -> None:
        self._fill(sids, codebook_sizes, item_ids, attributes, ragged=ragged, copy=True)

    def _fill(
        self, sids: Any, codebook_sizes: Any, item_ids: Any, attributes: Any, *, ragged: bool, copy: bool
    ) -> None:
        rows = as_rows(sids, ragged=ragged)
        matrix = as_ragged_sids(rows, codebook_sizes) if ragged else as_sids(rows)
        sizes = checked_codebook_sizes(matrix, codebook_sizes, min_code=ENDED if ragged else 0)
        ends: EndCodes = (None,) * len(sizes)
        if ragged:
            ends = end_codes_of(sizes)
            matrix = with_ends(matrix, ends)
            sizes = tuple(size + (end is not None) for size, end in zip(sizes, ends, strict=True))
        dtype = np.min_scalar_type(max(sizes) - 1)
        # The codes of a file are in memory that nothing else writes to.
        codes = np.array(matrix, dtype, order="C") if copy else np.ascontiguousarray(matrix, dtype)
        ids = _checked_ids(item_ids, len(codes), copy=copy)
        self._set(codes, sizes, ends, ids, _checked_attributes(attributes, len(codes), copy=copy))

    def _set(self, sids: np.ndarray, sizes: Any, ends: EndCodes, ids: pa.Array | None, table: pa.Table | None) -> None:
        sids.setflags(write=False)
        fields = {"sids": sids, "codebook_sizes": sizes, "end_codes": ends, "_ids": ids, "_attributes": table}
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    @classmethod
    def _of(cls, *, copy: bool, **arguments: Any) -> Catalog:
        catalog = object.__new__(cls)
        catalog._fill(**arguments, copy=copy)
        return catalog

    @property
    def num_items(self) -> int:
        """N, the number of items."""
        return len(self.sids)

    @property
    def num_levels(self) -> int:
        """L, the number of codes in a SID; for ragged SIDs, in the longest one."""
        return self.sids.shape[1]

    @property
    def ragged(self) -> bool:
        """Whether SIDs may end before the last level."""
        return any(end is not None for end in self.end_codes)

    @property
    def has_item_ids(self) -> bool:
        """Whether the catalog was made with item ids. Otherwise they are the row numbers."""
        return self._ids is not None

    @property
    def attribute_names(self) -> tuple[str, ...]:
        """The names of the attributes, in column order."""
        return () if self._attributes is None else tuple(self._attributes.column_names)

    @property
    def item_ids(self) -> pa.Array:
        """The N item ids as an Arrow array. Default: the row numbers."""
        import pyarrow as pa

        return pa.array(np.arange(self.num_items)) if self._ids is None else self._ids

    @property
    def attributes(self) -> pa.Table:
        """The attributes as an Arrow table of N rows."""
        from hedgerow.catalog.columns import no_columns

        return no_columns(self.num_items) if self._attributes is None else self._attributes

    def filter(self, mask: Any) -> Catalog:
        """Make the catalog of the items where `mask` is true, with the same codebook sizes and item ids.

        Args:
            mask: bool [N], in row order.

        Raises:
            CatalogError: `mask` is not bool [N].

        Examples:
            ```python
            import hedgerow as hr

            catalog = hr.Catalog([[3, 1], [0, 2]], codebook_sizes=6, item_ids=["a", "b"])
            assert catalog.filter([False, True]).item_ids.to_pylist() == ["b"]
            ```
        """
        check_unmasked(mask, "the mask", "Fill them: mask.filled(False).", error=CatalogError)
        keep = np.asarray(mask)
        if keep.dtype != bool or keep.shape != (self.num_items,):
            raise CatalogError(f"the mask must be bool [{self.num_items}]; got {keep.dtype} {list(keep.shape)}.")
        rows = np.flatnonzero(keep)
        attributes = None if self._attributes is None else self._attributes.take(rows)
        kept = object.__new__(Catalog)
        kept._set(self.sids[rows], self.codebook_sizes, self.end_codes, self.item_ids.take(rows), attributes)
        return kept

    def __len__(self) -> int:
        return self.num_items

    def __repr__(self) -> str:
        ragged = "ragged=True, " if self.ragged else ""
        return (
            f"Catalog(items={self.num_items:,}, levels={self.num_levels}, {ragged}"
            f"codebook_sizes={list(self.codebook_sizes)}, attributes=[{', '.join(self.attribute_names)}])"
        )


def _checked_ids(item_ids: Any, num_items: int, *, copy: bool) -> pa.Array | None:
    if item_ids is None:
        return None
    from hedgerow.catalog.columns import checked_item_ids

    return checked_item_ids(item_ids, num_items, copy=copy)


def _checked_attributes(attributes: Any, num_items: int, *, copy: bool) -> pa.Table | None:
    if attributes is None:
        return None
    from hedgerow.catalog.columns import as_table

    table = as_table(attributes, num_items, reserved=RESERVED, copy=copy)
    # Arrow loses the number of rows when it takes rows of a table without columns.
    return table if table.num_columns else None
