"""Catalog: item ids, their Semantic IDs and attributes, validated on construction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hedgerow.catalog.ragged import ENDED, EndCodes, as_ragged_sids, end_codes_of, with_ends
from hedgerow.catalog.rows import as_rows
from hedgerow.catalog.sids import as_sids, checked_codebook_sizes
from hedgerow.errors import CatalogError

if TYPE_CHECKING:
    import pyarrow as pa

    from hedgerow.catalog.sources import Source, Types

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
            sid: the column that holds the SIDs as lists or text, or the names of L columns, one per level.
            item_id: the column of item ids. Default: the column `item_id` if it exists, otherwise the row numbers.
            codebook_sizes: as for `Catalog`. Default: those that ``hedgerow semantic-ids`` stored with the column.
                Smaller ones than these are an error.
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
        from hedgerow.catalog.frames import arguments_of

        return cls(**arguments_of(table, ITEM_ID, sid, item_id, codebook_sizes, attributes, ragged=ragged))

    @classmethod
    def _from_file(cls, table: pa.Table, **options: Any) -> Catalog:
        """The same as `from_arrow`, but the catalog keeps the memory of the table, which nothing else uses."""
        from hedgerow.catalog.frames import arguments_of

        catalog = object.__new__(cls)
        catalog._fill(**arguments_of(table, ITEM_ID, **options), copy=False)
        return catalog

    @classmethod
    def from_pandas(cls, frame: Any, **options: Any) -> Catalog:
        """Make a catalog from a pandas frame; the same as `from_arrow`, with its options.

        Examples:
            ```python
            import pandas as pd
            import hedgerow as hr

            frame = pd.DataFrame({"sid": [[3, 1], [0, 2]], "item_id": ["a", "b"]})
            assert len(hr.Catalog.from_pandas(frame, codebook_sizes=6)) == 2
            ```
        """
        return cls.from_arrow(frame, **options)

    @classmethod
    def from_polars(cls, frame: Any, **options: Any) -> Catalog:
        """Make a catalog from a Polars frame; the same as `from_arrow`, with its options.

        Examples:
            ```python
            import polars as pl
            import hedgerow as hr

            frame = pl.DataFrame({"sid": [[3, 1], [0, 2]], "item_id": ["a", "b"]})
            assert len(hr.Catalog.from_polars(frame, codebook_sizes=6)) == 2
            ```
        """
        return cls.from_arrow(frame, **options)

    @classmethod
    def from_duckdb(cls, query: Any, *, connection: Any = None, **options: Any) -> Catalog:
        """Make a catalog from a DuckDB query. The rows have the order of the result.

        Args:
            query: SQL, or a relation of DuckDB. SQL has the rights of the connection: it can read and write files.
            connection: the DuckDB connection that runs the SQL. Default: `duckdb.default_connection()`.
            **options: as for `from_arrow`.

        Raises:
            CatalogError: DuckDB refuses the query, or as for `from_arrow`.
            MissingDependencyError: DuckDB is not installed.

        Examples:
            ```python
            import duckdb
            import hedgerow as hr

            with duckdb.connect() as connection:
                connection.sql("CREATE TABLE items AS SELECT 'a' AS item_id, [3, 1] AS sid, 9.5::DOUBLE AS price")
                catalog = hr.Catalog.from_duckdb("FROM items WHERE price < 10", connection=connection)
            assert catalog.item_ids.to_pylist() == ["a"]
            ```
        """
        from hedgerow.catalog.frames import duckdb_table

        return cls._from_file(duckdb_table(query, connection), **options)

    @classmethod
    def from_parquet(cls, path: Source, **options: Any) -> Catalog:
        """Make a catalog from Parquet files.

        Args:
            path: a file, a folder, a glob pattern (``"items/*.parquet"``), a list of these, or an open binary file.
                Names of subfolders become columns (``year=2020``); those that start with ``_`` or ``.`` are skipped.
                Paths may be URLs that fsspec reads: ``"s3://bucket/items/*.parquet"``.
            **options: as for `from_arrow`.

        Raises:
            CatalogError: a file cannot be read, or as for `from_arrow`. The message names the file.
            ArgumentError: the protocol of a URL is unknown.
            MissingDependencyError: a package that a URL needs is not installed.

        Examples:
            ```python
            import pyarrow as pa
            import pyarrow.parquet as pq
            import hedgerow as hr

            pq.write_table(pa.table({"sid": [[3, 1], [0, 2]], "item_id": ["a", "b"]}), "items.parquet")
            assert len(hr.Catalog.from_parquet("items.parquet", codebook_sizes=6)) == 2
            ```
        """
        from hedgerow.catalog import readers

        sid = options.get("sid", "sid")
        parts = readers.read_parquet(path, sid if isinstance(sid, str) else None)
        return readers.catalog_of(cls._from_file, parts, options)

    @classmethod
    def from_csv(
        cls, source: Source, *, text: Sequence[str] = (), types: Types | None = None, **options: Any
    ) -> Catalog:
        """Make a catalog from CSV files, or TSV files by their names. Empty fields are null.

        Columns of numbers, booleans, dates and timestamps are converted if no digit is lost: ``007`` stays text.

        Args:
            source: as for `from_parquet`.
            text: the columns to keep as text, for example ids such as ``0071`` in only some of the files.
            types: the types of columns, for example of the index that the items are added to:
                ``index.items_table.schema``. An attribute may get a wider type of the same kind.
            **options: as for `from_arrow`. The SID column holds text: ``"2,6,4"``, ``2-6-4`` or ``<a_2><b_6><c_4>``.

        Raises:
            CatalogError: a file cannot be read, a column of `text` does not exist, a value cannot be converted to its
                type in `types` without a change, or as for `from_arrow`. The message names the file, and the row of the
                value.

        Examples:
            ```python
            from pathlib import Path
            import hedgerow as hr

            Path("items.csv").write_text("item_id,sid,price\\na,3-1,9.5\\nb,0-2,4.0\\n")
            catalog = hr.Catalog.from_csv("items.csv", codebook_sizes=6)
            assert catalog.sids.tolist() == [[3, 1], [0, 2]]
            ```
        """
        from hedgerow.catalog import readers

        exact = [options.get("item_id") or ITEM_ID]
        return readers.catalog_of(cls._from_file, readers.read_csv(source, text, types, exact), options)

    @classmethod
    def from_json(
        cls,
        source: Source | Mapping[Any, Any],
        *,
        codebook_sizes: int | Sequence[int] | None = None,
        ragged: bool = False,
        keys: str | None = None,
        **options: Any,
    ) -> Catalog:
        """Make a catalog from a mapping of items and SIDs, from JSON files, or from files with one object per line.

        Args:
            source: a mapping of item ids to SIDs, or of SIDs to an item id or a list of item ids; or files, as for
                `from_parquet`, that contain one mapping, a list of objects, or one object per line (a row, with one
                entry per column). A SID is a list of codes or tokens, or text (``"<a_2><b_6>"``, ``"2-6"``).
            codebook_sizes: as for `Catalog`.
            ragged: as for `Catalog`.
            keys: what the keys of a mapping are, "item" or "sid". Default: "sid" if all keys are SIDs as text, and the
                values are not SIDs of one length.
            **options: for rows: `sid`, `item_id` and `attributes`, as for `from_arrow`.

        Raises:
            CatalogError: `source` is none of these, an item id appears twice, or as for `Catalog`. The message names
                the file and the item or the line.

        Examples:
            ```python
            import hedgerow as hr

            catalog = hr.Catalog.from_json({"a": [3, 1], "b": [0, 2]}, codebook_sizes=6)
            assert catalog.sids.tolist() == [[3, 1], [0, 2]]
            same = hr.Catalog.from_json({"<a_3><b_1>": "a", "<a_0><b_2>": ["b"]}, codebook_sizes=6)
            assert same.item_ids.to_pylist() == ["a", "b"]
            ```
        """
        from hedgerow.catalog import readers
        from hedgerow.catalog.mappings import rows_of_mapping

        content = source if isinstance(source, Mapping) else readers.read_json(source)
        shared = {"codebook_sizes": codebook_sizes, "ragged": ragged}
        if not isinstance(content, Mapping):
            return readers.catalog_of(cls._from_file, content, options | shared)
        if options:
            raise CatalogError(f"{', '.join(options)}: only for files with one object per item; got one mapping.")
        with nullcontext() if isinstance(source, Mapping) else readers.located(readers.name_of(source)):
            sids, ids = rows_of_mapping(content, keys, ragged=ragged)
            return cls(sids, item_ids=ids, **shared)

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
