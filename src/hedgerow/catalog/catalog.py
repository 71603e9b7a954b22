"""Catalog: item ids, their Semantic IDs and attributes, validated once at the door."""

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


@dataclass(frozen=True, eq=False, init=False, repr=False)
class Catalog:
    """N items, each with a Semantic ID of L codes, an id and any attributes.

    Rows may come in any order. Several items may share one SID (a collision): all of them are found by it.

    Args:
        sids: [N, L] integers: a NumPy array, an Arrow list column, nested sequences, or what NumPy can view.
            L is 1 to 255; every code of level l lies in ``0 .. codebook_sizes[l] - 1``.
        codebook_sizes: codes per level, one number for all levels or L of them, each 1 to 2**31. Left out, each is
            the largest code seen, plus one.
        item_ids: N distinct ids of one type (integers, strings, bytes, dates, UUIDs, ...). Left out, row numbers.
        attributes: name -> column of N values, or an Arrow table or frame of N rows.
        ragged: SIDs may have different lengths, 1 to L codes, L the longest (or as many as codebook_sizes names); one
            may be a prefix of another. In a matrix, -1 stands after the end. The end is then a code of its own: every
            level but the first has one code more than its codebook, the last one, END, whose logit is the model's for
            ending there.

    Attributes:
        sids: [N, L] uint8, uint16 or uint32, the smallest that holds every codebook; read-only. A ragged SID has END at
            every level from its end on.
        codebook_sizes: L ints, the codes per level, END included: the widths of logits.
        end_codes: the END code of each level; None where there is none.

    Raises:
        CatalogError: naming the row and level at fault, both counted from 0.
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
        given = _from_lists(sids, ragged)
        matrix = as_ragged_sids(given, codebook_sizes) if ragged else as_sids(given)
        sizes = checked_codebook_sizes(matrix, codebook_sizes, smallest=ENDED if ragged else 0)
        ends: EndCodes = (None,) * len(sizes)
        if ragged:
            ends = end_codes_of(sizes)
            matrix = with_ends(matrix, ends)
            sizes = tuple(size + (end is not None) for size, end in zip(sizes, ends, strict=True))
        narrow = np.array(matrix, dtype=np.min_scalar_type(max(sizes) - 1), order="C")
        ids = _checked_ids(item_ids, len(narrow))
        self._set(narrow, sizes, ends, ids, _checked_attributes(attributes, len(narrow)))

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
        """Makes a catalog from an Arrow table, a pandas or Polars frame, or any Arrow C stream.

        Args:
            table: one row an item.
            sid: the column of lists that holds the SIDs, or the names of L columns, one a level.
            item_id: the column that names the items; left out, the column `item_id` if there is one, else row numbers.
            codebook_sizes: as for `Catalog`.
            attributes: the columns to take along; left out, every other column.
            ragged: as for `Catalog`; of columns one a level, null says that the SID has ended.

        Raises:
            CatalogError: a column is missing, or as for `Catalog`.
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
        taken = {*names, item_id}
        kept = [name for name in rows.column_names if name not in taken] if attributes is None else list(attributes)
        return cls(
            sids,
            codebook_sizes=codebook_sizes,
            item_ids=ids,
            attributes={name: columns.column_of(rows, name, "attribute") for name in kept},
            ragged=ragged,
        )

    @classmethod
    def from_parquet(cls, path: str | Path, **options: Any) -> Catalog:
        """Makes a catalog from a Parquet file; the options are those of `from_arrow`.

        Raises:
            CatalogError: the file cannot be read, or as for `from_arrow`.
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
        """Makes a catalog from a map item id -> codes: a JSON file that holds one object, or a mapping.

        Raises:
            CatalogError: not such a map, an item named twice, or as for `Catalog`.
        """
        if not isinstance(source, (str, Path, Mapping)):
            raise CatalogError(f"expected a path or a mapping, item id -> codes; got {type(source).__name__}.")
        items = source if isinstance(source, Mapping) else _read_json(Path(source))
        for item, codes in items.items():
            if not isinstance(codes, Sequence) or isinstance(codes, str):
                raise CatalogError(f"item {item!r} must map to a list of integer codes; got {codes!r}.")
        if not items:
            raise CatalogError("the map holds no item; use Catalog(np.zeros((0, levels), int), codebook_sizes=...).")
        return cls(list(items.values()), codebook_sizes=codebook_sizes, item_ids=list(items), ragged=ragged)

    @property
    def num_items(self) -> int:
        """N, the number of items."""
        return len(self.sids)

    @property
    def num_levels(self) -> int:
        """L, the number of codes in a SID; in the longest, where they are ragged."""
        return self.sids.shape[1]

    @property
    def ragged(self) -> bool:
        """Whether SIDs may end before the last level."""
        return any(end is not None for end in self.end_codes)

    @property
    def has_item_ids(self) -> bool:
        """Whether item ids were given; otherwise they are the row numbers."""
        return self._ids is not None

    @property
    def attribute_names(self) -> tuple[str, ...]:
        """The names of the attributes, in column order."""
        return () if self._attributes is None else tuple(self._attributes.column_names)

    @property
    def item_ids(self) -> pa.Array:
        """N item ids, as Arrow; row numbers where none were given."""
        import pyarrow as pa

        return pa.array(np.arange(self.num_items)) if self._ids is None else self._ids

    @property
    def attributes(self) -> pa.Table:
        """The attributes, as an Arrow table of N rows."""
        from hedgerow.catalog.columns import no_columns

        return no_columns(self.num_items) if self._attributes is None else self._attributes

    def filter(self, mask: Any) -> Catalog:
        """Returns the catalog of the items where `mask` (bool [N]) is true, with the same codebooks and ids.

        Raises:
            CatalogError: `mask` is not a boolean for every item.
        """
        if np.ma.is_masked(mask):
            raise CatalogError("the mask has masked entries; say of each item whether it stays: mask.filled(False).")
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


def _from_lists(sids: Any, ragged: bool) -> Any:
    """Returns the codes of an Arrow list column as a matrix, and anything else as it is."""
    if not hasattr(sids, "__arrow_c_array__") and not hasattr(sids, "__arrow_c_stream__"):
        return sids
    from hedgerow.catalog import columns

    return columns.sids_of_lists(columns.as_column(sids, "sids"), "sids", ragged=ragged)


def _checked_ids(item_ids: Any, items: int) -> pa.Array | None:
    if item_ids is None:
        return None
    from hedgerow.catalog.columns import checked_item_ids

    return checked_item_ids(item_ids, items)


def _checked_attributes(attributes: Any, items: int) -> pa.Table | None:
    if attributes is None:
        return None
    from hedgerow.catalog.columns import as_table

    table = as_table(attributes, items, reserved=ITEM_ID)
    # Arrow forgets the number of rows when it takes rows of a table without columns.
    return table if table.num_columns else None


def _read_json(path: Path) -> Mapping[str, Any]:
    def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        seen = dict(pairs)
        if len(seen) < len(pairs):
            twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
            raise CatalogError(f"{path} names item {twice!r} twice; item ids must be distinct.")
        return seen

    try:
        items = json.loads(path.read_text("utf-8"), object_pairs_hook=distinct)
    except CatalogError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise CatalogError(f"{path} cannot be read as JSON: {error}") from None
    if not isinstance(items, Mapping):
        raise CatalogError(f"{path} must hold one JSON object, item id -> list of codes; got {type(items).__name__}.")
    return items
