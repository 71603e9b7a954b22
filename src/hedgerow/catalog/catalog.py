"""Catalog: item ids, their Semantic IDs and attributes, validated on construction."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hedgerow.catalog.ragged import ENDED, EndCodes, as_ragged_sids, end_codes_of, with_ends
from hedgerow.catalog.sids import as_sids, checked_codebook_sizes
from hedgerow.errors import CatalogError

if TYPE_CHECKING:
    import pyarrow as pa

ITEM_ID = "item_id"
# The names that results have of their own.
RESERVED = (ITEM_ID, "score", "sid")


@dataclass(frozen=True, eq=False, init=False, repr=False)
class Catalog:
    """N items, each with a Semantic ID of L codes, an item id and optional attributes.

    Rows may be in any order. Several items may share one SID (a collision); a search that reaches the SID returns all
    of them. A catalog copies its inputs and is immutable.

    Args:
        sids: [N, L] integers: a NumPy array, an Arrow list column, nested sequences, or another object that NumPy can
            convert. L is 1 to 255. The codes of level l are ``0 .. codebook_sizes[l] - 1``.
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
        rows = _arrow_to_matrix(sids, ragged=ragged)
        matrix = as_ragged_sids(rows, codebook_sizes) if ragged else as_sids(rows)
        sizes = checked_codebook_sizes(matrix, codebook_sizes, min_code=ENDED if ragged else 0)
        ends: EndCodes = (None,) * len(sizes)
        if ragged:
            ends = end_codes_of(sizes)
            matrix = with_ends(matrix, ends)
            sizes = tuple(size + (end is not None) for size, end in zip(sizes, ends, strict=True))
        codes = np.array(matrix, dtype=np.min_scalar_type(max(sizes) - 1), order="C")
        ids = _checked_ids(item_ids, len(codes))
        self._set(codes, sizes, ends, ids, _checked_attributes(attributes, len(codes)))

    def _set(
        self,
        sids: np.ndarray,
        sizes: tuple[int, ...],
        ends: EndCodes,
        ids: pa.Array | None,
        attributes: pa.Table | None,
    ) -> None:
        sids.setflags(write=False)
        object.__setattr__(self, "sids", sids)
        object.__setattr__(self, "codebook_sizes", sizes)
        object.__setattr__(self, "end_codes", ends)
        object.__setattr__(self, "_ids", ids)
        object.__setattr__(self, "_attributes", attributes)

    @classmethod
    def from_arrow(
        cls,
        table: Any,
        *,
        sid: str | Sequence[str] = "sid",
        item_id: str | None = None,
        codebook_sizes: int | Sequence[int] | None = None,
        attributes: Sequence[str] | None = None,
        ragged: bool = False,
    ) -> Catalog:
        """Make a catalog from an Arrow table, a pandas or Polars frame, or an Arrow C stream.

        Args:
            table: one row per item.
            sid: the list column that holds the SIDs, or the names of L columns, one per level.
            item_id: the column of item ids. Default: the column `item_id` if it exists, otherwise the row numbers.
            codebook_sizes: as for `Catalog`.
            attributes: the columns to keep as attributes. Default: all other columns, without the row labels of pandas
                (``__index_level_0__``).
            ragged: as for `Catalog`. With one column per level, null marks the levels after the end of a SID.

        Raises:
            CatalogError: a column is missing, or as for `Catalog`.

        Examples:
            ```python
            import pyarrow as pa
            import hedgerow as hr

            table = pa.table({"sid": [[3, 1], [0, 2]], "item_id": ["a", "b"], "price": [30, 5]})
            catalog = hr.Catalog.from_arrow(table, codebook_sizes=6)
            assert catalog.item_ids.to_pylist() == ["a", "b"]
            assert catalog.attribute_names == ("price",)
            ```
        """
        from hedgerow.catalog import columns

        rows = columns.from_frame(table)
        if item_id is None and ITEM_ID in rows.column_names:
            item_id = ITEM_ID
        if isinstance(sid, str):
            names, sids = [sid], columns.sids_of_lists(columns.column_of(rows, sid, "SID"), sid, ragged=ragged)
        else:
            names, sids = list(sid), columns.sids_of_columns(rows, list(sid), ragged=ragged)
        ids = None if item_id is None else columns.column_of(rows, item_id, "item id")
        used = {*names, item_id}
        kept = columns.other_columns(rows, used) if attributes is None else list(attributes)
        return cls(
            sids,
            codebook_sizes=codebook_sizes,
            item_ids=ids,
            attributes={name: columns.column_of(rows, name, "attribute") for name in kept},
            ragged=ragged,
        )

    @classmethod
    def from_parquet(cls, path: str | Path, **options: Any) -> Catalog:
        """Make a catalog from a Parquet file.

        Args:
            path: the file.
            **options: as for `from_arrow`.

        Raises:
            CatalogError: the file cannot be read, or as for `from_arrow`.

        Examples:
            ```python
            import pyarrow as pa
            import pyarrow.parquet as pq
            import hedgerow as hr

            pq.write_table(pa.table({"sid": [[3, 1], [0, 2]], "item_id": ["a", "b"]}), "items.parquet")
            assert len(hr.Catalog.from_parquet("items.parquet", codebook_sizes=6)) == 2
            ```
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        if "://" not in str(path) and not Path(path).exists():
            raise CatalogError(f"{path} does not exist.")
        try:
            table = pq.read_table(path)
        except (OSError, pa.ArrowException) as error:
            raise CatalogError(f"{path} cannot be read as Parquet: {error}") from None
        return cls.from_arrow(table, **options)

    @classmethod
    def from_json(
        cls,
        source: str | Path | Mapping[Any, Sequence[int]],
        *,
        codebook_sizes: int | Sequence[int] | None = None,
        ragged: bool = False,
    ) -> Catalog:
        """Make a catalog from a mapping of item ids to codes.

        Args:
            source: a mapping, or the path of a JSON file that contains one object.
            codebook_sizes: as for `Catalog`.
            ragged: as for `Catalog`.

        Raises:
            CatalogError: `source` is not such a mapping, an item id appears twice, or as for `Catalog`.

        Examples:
            ```python
            import hedgerow as hr

            catalog = hr.Catalog.from_json({"a": [3, 1], "b": [0, 2]}, codebook_sizes=6)
            assert catalog.sids.tolist() == [[3, 1], [0, 2]]
            ```
        """
        if not isinstance(source, (str, Path, Mapping)):
            raise CatalogError(f"expected a path or a mapping of item ids to codes; got {type(source).__name__}.")
        items = source if isinstance(source, Mapping) else _read_json(Path(source))
        for item, codes in items.items():
            if not isinstance(codes, Sequence) or isinstance(codes, str):
                raise CatalogError(f"item {item!r} must map to a list of integer codes; got {codes!r}.")
        if not items:
            raise CatalogError(
                "the mapping has no items, so the number of levels is unknown. For an empty catalog, use "
                "hr.Catalog(np.zeros((0, levels), int), codebook_sizes=...)."
            )
        return cls(list(items.values()), codebook_sizes=codebook_sizes, item_ids=list(items), ragged=ragged)

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
        if np.ma.is_masked(mask):
            raise CatalogError("the mask has masked entries; every item needs True or False. Use mask.filled(False).")
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


def _arrow_to_matrix(sids: Any, *, ragged: bool) -> Any:
    """Convert an Arrow list column to a matrix of codes; return other objects unchanged."""
    if not hasattr(sids, "__arrow_c_array__") and not hasattr(sids, "__arrow_c_stream__"):
        return sids
    from hedgerow.catalog import columns

    return columns.sids_of_lists(columns.as_column(sids, "sids"), "sids", ragged=ragged)


def _checked_ids(item_ids: Any, num_items: int) -> pa.Array | None:
    if item_ids is None:
        return None
    from hedgerow.catalog.columns import checked_item_ids

    return checked_item_ids(item_ids, num_items)


def _checked_attributes(attributes: Any, num_items: int) -> pa.Table | None:
    if attributes is None:
        return None
    from hedgerow.catalog.columns import as_table

    table = as_table(attributes, num_items, reserved=RESERVED)
    # Arrow loses the number of rows when it takes rows of a table without columns.
    return table if table.num_columns else None


def _read_json(path: Path) -> Mapping[str, Any]:
    def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        items = dict(pairs)
        if len(items) < len(pairs):
            repeated = Counter(name for name, _ in pairs).most_common(1)[0][0]
            raise CatalogError(f"{path} contains item {repeated!r} twice; item ids must be distinct.")
        return items

    try:
        items = json.loads(path.read_text("utf-8"), object_pairs_hook=distinct)
    except CatalogError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise CatalogError(f"{path} cannot be read as JSON: {error}") from None
    if not isinstance(items, Mapping):
        raise CatalogError(
            f"{path} must contain one JSON object that maps item ids to lists of codes; got {type(items).__name__}."
        )
    return items
