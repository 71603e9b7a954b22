"""The constructors of a catalog from tables and files."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Self

from hedgerow._arguments import check_choice
from hedgerow.errors import CatalogError

if TYPE_CHECKING:
    import pyarrow as pa

    from hedgerow.catalog.parts import Part
    from hedgerow.catalog.sources import DateOrder, Source, Types

ITEM_ID = "item_id"


class FromSources:
    """What makes a `Catalog` of tables and files."""

    @classmethod
    def _of(cls, *, copy: bool, **arguments: Any) -> Self:
        """A catalog of the arguments of `Catalog`; without `copy`, it can share their memory."""
        raise NotImplementedError

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
    ) -> Self:
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

        arguments = arguments_of(table, ITEM_ID, sid, item_id, codebook_sizes, attributes, ragged=ragged)
        return cls._of(**arguments, copy=True)

    @classmethod
    def _from_file(cls, table: pa.Table, **options: Any) -> Self:
        """The same as `from_arrow`, but the catalog keeps the memory of the table, which nothing else uses."""
        from hedgerow.catalog.frames import arguments_of

        return cls._of(**arguments_of(table, ITEM_ID, **options), copy=False)

    @classmethod
    def from_pandas(cls, frame: Any, **options: Any) -> Self:
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
    def from_polars(cls, frame: Any, **options: Any) -> Self:
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
    def from_duckdb(cls, query: Any, *, connection: Any = None, **options: Any) -> Self:
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
    def from_parquet(cls, path: Source, **options: Any) -> Self:
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
        cls,
        source: Source,
        *,
        text: Sequence[str] = (),
        types: Types | None = None,
        dates: DateOrder | None = None,
        **options: Any,
    ) -> Self:
        """Make a catalog from CSV files, or TSV files by their names. Empty fields are null.

        Columns of numbers, booleans, dates and timestamps are converted if no digit is lost: ``007`` stays text.

        Args:
            source: as for `from_parquet`.
            text: the columns to keep as text, for example ids such as ``0071`` in only some of the files.
            types: the types of columns, for example of the index that the items are added to:
                ``index.items_table.schema``. An attribute may get a wider type of the same kind.
            dates: the order of day, month and year in dates such as 31/12/2020: "dmy", "mdy" or "ymd". Dates that are
                written as 2020-12-31 need none.
            **options: as for `from_arrow`. The SID column holds text: ``"2,6,4"``, ``2-6-4`` or ``<a_2><b_6><c_4>``.

        Raises:
            CatalogError: a file cannot be read, a column of `text` does not exist, a value cannot be converted to its
                type in `types` without a change, or as for `from_arrow`. The message names the file, and the row of the
                value.

        Warns:
            UserWarning: a column looks like dates or numbers, but stays text.

        Examples:
            ```python
            from pathlib import Path
            import hedgerow as hr

            Path("items.csv").write_text("item_id,sid,price\\na,3-1,9.5\\nb,0-2,4.0\\n")
            catalog = hr.Catalog.from_csv("items.csv", codebook_sizes=6)
            assert catalog.sids.tolist() == [[3, 1], [0, 2]]
            ```
        """
        from hedgerow.catalog import csv_files, readers

        _check_dates(dates)
        exact = [options.get("item_id") or ITEM_ID]
        ids = _id_columns(options)
        parts = csv_files.read_csv(source, text, types, exact, dates, ids)
        _warn_of_text(parts, options.get("attributes"), {*text, *csv_files.fields_of(types), *ids}, dates)
        return readers.catalog_of(cls._from_file, parts, options)

    @classmethod
    def from_json(
        cls,
        source: Source | Mapping[Any, Any],
        *,
        codebook_sizes: int | Sequence[int] | None = None,
        ragged: bool = False,
        keys: str | None = None,
        dates: DateOrder | None = None,
        **options: Any,
    ) -> Self:
        """Make a catalog from a mapping of items and SIDs, from JSON files, or from files with one object per line.

        Args:
            source: a mapping of item ids to SIDs, or of SIDs to an item id or a list of item ids; or files, as for
                `from_parquet`, that contain one mapping, a list of objects, or one object per line (a row, with one
                entry per column). A SID is a list of codes or tokens, or text (``"<a_2><b_6>"``, ``"2-6"``).
            codebook_sizes: as for `Catalog`.
            ragged: as for `Catalog`.
            keys: what the keys of a mapping are, "item" or "sid". Default: "sid" if all keys are SIDs as text, and the
                values are not SIDs of one length.
            dates: the order of day, month and year in columns of text, which become dates: "dmy", "mdy" or "ymd".
                Default: text stays text.
            **options: for rows: `sid`, `item_id` and `attributes`, as for `from_arrow`.

        Raises:
            CatalogError: `source` is none of these, an item id appears twice, or as for `Catalog`. The message names
                the file and the item or the line.

        Warns:
            UserWarning: a column looks like dates or numbers, but stays text.

        Examples:
            ```python
            import hedgerow as hr

            catalog = hr.Catalog.from_json({"a": [3, 1], "b": [0, 2]}, codebook_sizes=6)
            assert catalog.sids.tolist() == [[3, 1], [0, 2]]
            same = hr.Catalog.from_json({"<a_3><b_1>": "a", "<a_0><b_2>": ["b"]}, codebook_sizes=6)
            assert same.item_ids.to_pylist() == ["a", "b"]
            ```
        """
        from hedgerow.catalog import parts, readers
        from hedgerow.catalog.mappings import rows_of_mapping

        _check_dates(dates)
        ids = _id_columns(options)
        content = source if isinstance(source, Mapping) else readers.read_json(source, dates, ids)
        shared = {"codebook_sizes": codebook_sizes, "ragged": ragged}
        if not isinstance(content, Mapping):
            _warn_of_text(content, options.get("attributes"), ids, dates)
            return readers.catalog_of(cls._from_file, content, options | shared)
        if options:
            raise CatalogError(f"{', '.join(options)}: only for files with one object per item; got one mapping.")
        with nullcontext() if isinstance(source, Mapping) else parts.located(readers.name_of(source)):
            sids, ids = rows_of_mapping(content, keys, ragged=ragged)
            return cls._of(sids=sids, item_ids=ids, attributes=None, **shared, copy=True)


def _check_dates(dates: str | None) -> None:
    if dates is not None:
        from hedgerow.catalog.sources import DATE_ORDERS

        check_choice(dates, "dates", DATE_ORDERS)


def _id_columns(options: Mapping[str, Any]) -> set[str]:
    """The columns of SIDs and item ids."""
    sid = options.get("sid", "sid")
    return {options.get("item_id") or ITEM_ID, *([sid] if isinstance(sid, str) else sid)}


def _warn_of_text(
    parts: Sequence[Part], attributes: Sequence[str] | None, known: Collection[str], dates: DateOrder | None
) -> None:
    """Warn of the attributes that look like dates or numbers, but are text."""
    from hedgerow.catalog.parts import concatenated
    from hedgerow.catalog.text_warnings import warn_of_text

    rows = concatenated(parts)
    names = rows.column_names if attributes is None else attributes
    warn_of_text(rows, {*known, *(name for name in rows.column_names if name not in names)}, dates)
