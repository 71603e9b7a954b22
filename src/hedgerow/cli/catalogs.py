"""Catalogs from the files that commands name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import hedgerow as hr
from hedgerow.catalog.constructors import ITEM_ID
from hedgerow.catalog.sources import DateOrder
from hedgerow.cli.common import names_of, printed_warnings, read_npy
from hedgerow.errors import CatalogError

if TYPE_CHECKING:
    import pyarrow as pa

    from hedgerow.catalog.sources import Types

FILES = "Parquet, CSV, JSON (items to SIDs, or rows) or JSON lines; a folder, a quoted pattern 'items/*.parquet', a URL"
Items = Annotated[
    list[Path],
    typer.Argument(metavar="ITEMS", help=f"Files with SIDs and item ids: {FILES}.", show_default=False),
]


ColumnTypes = Annotated[
    str | None,
    typer.Option(
        "--types",
        metavar="TYPES",
        help="The types of columns of a CSV file: price=float64,released=date32. Default: numbers, booleans, dates and "
        "timestamps, of columns that have only such values.",
    ),
]
AsText = Annotated[
    str | None, typer.Option("--as-text", metavar="COLUMNS", help="Columns of a CSV file that stay text: zip,code.")
]
Dates = Annotated[
    DateOrder | None,
    typer.Option(
        "--dates",
        help="The order of dates such as 31/12/2020 in CSV and JSON files: day, month, year (dmy), mdy or ymd.",
    ),
]


@dataclass(frozen=True)
class CsvTypes:
    """The types of columns of CSV files, and the dates of CSV and JSON files.

    Attributes:
        types: as for `Catalog.from_csv`.
        named: the types that --types names. The columns must exist, and must not get other types.
        text: the columns that stay text.
    """

    types: Types | None = None
    named: Mapping[str, pa.DataType] = field(default_factory=dict)
    text: tuple[str, ...] = ()
    dates: DateOrder | None = None

    @classmethod
    def of(
        cls,
        types: str | None,
        as_text: str | None,
        dates: DateOrder | None = None,
        known: Mapping[str, pa.DataType] | None = None,
    ) -> CsvTypes:
        """Parse --types and --as-text.

        Args:
            types: --types.
            as_text: --as-text.
            dates: --dates.
            known: the types of other columns.

        Raises:
            BadParameter: a type does not exist or has no text form, or a column is in both options.
        """
        text = names_of(as_text or "")
        if types is None:
            return cls(None if known is None else {**known}, {}, tuple(text), dates)
        named = dict(_type_named(part) for part in names_of(types))
        if both := [name for name in text if name in named]:
            raise typer.BadParameter(f"{both[0]!r} is in --types, too", param_hint="--as-text")
        return cls({**(known or {}), **named}, named, tuple(text), dates)

    def check_kind(self, kind: str) -> None:
        """Check that --types and --as-text are used for CSV files only, and --dates for CSV and JSON files.

        Raises:
            BadParameter: they are not.
        """
        if kind != "csv" and (self.named or self.text):
            message = f"for CSV files, whose columns are text; a {kind} file has types of its own"
            raise typer.BadParameter(message, param_hint="--types, --as-text")
        if kind not in ("csv", "json") and self.dates is not None:
            message = f"for CSV and JSON files; a {kind} file has dates as such, or text that SQL can convert"
            raise typer.BadParameter(message, param_hint="--dates")

    def check(self, catalog: hr.Catalog, item_id: str) -> None:
        """Check that the columns of --types have these types.

        Raises:
            CatalogError: a column does not exist, or has another type.
        """
        found = {name: catalog.attributes.schema.field(name).type for name in catalog.attribute_names}
        found |= {item_id: catalog.item_ids.type} if catalog.has_item_ids else {}
        for name, type_ in self.named.items():
            if name not in found:
                names = ", ".join(found) or "none"
                raise CatalogError(f"--types: there is no column {name!r} that is kept; those are {names}.")
            if found[name] != type_:
                raise CatalogError(
                    f"--types: column {name!r} has values of type {found[name]}, which {type_} does not hold."
                )


def _type_named(part: str) -> tuple[str, pa.DataType]:
    """Parse a part of --types: the column and its type."""
    import pyarrow as pa

    from hedgerow.catalog.text_columns import has_text_form

    name, _, alias = part.rpartition("=")
    try:
        type_ = pa.type_for_alias(alias.strip())
    except ValueError:
        type_ = None
    if not name or type_ is None or not has_text_form(type_):
        message = (
            f"expected columns and types of Arrow, as price=float64,released=date32; got {part!r}. Types are int8 to "
            "int64, uint8 to uint64, float32, float64, bool, date32, timestamp[us] and string"
        )
        raise typer.BadParameter(message, param_hint="--types")
    return name.strip(), type_


def read_catalog(paths: Sequence[Path], options: Mapping[str, Any], *, ragged: bool, csv_types: CsvTypes) -> hr.Catalog:
    """Read a catalog.

    Args:
        paths: files of one kind, folders or patterns.
        options: sid, item_id, codebook_sizes and attributes, as for `Catalog.from_arrow`.
        ragged: as for `Catalog`.
        csv_types: the types of columns of CSV files. Other files have types of their own.

    Raises:
        BadParameter: a .npy file with options for columns, or types of columns for other files than CSV.
        CatalogError: the files cannot be read, or do not contain a catalog.
    """
    from hedgerow.catalog.sources import kind_of

    kind, files = kind_of(paths), [str(path) for path in paths]
    csv_types.check_kind(kind)
    if kind == "parquet":
        return hr.Catalog.from_parquet(files, **options, ragged=ragged)
    if kind == "csv":
        typed = {"types": csv_types.types, "text": csv_types.text, "dates": csv_types.dates}
        with printed_warnings():
            catalog = hr.Catalog.from_csv(files, **options, ragged=ragged, **typed)
        csv_types.check(catalog, options["item_id"] or ITEM_ID)
        return catalog
    shared = {"codebook_sizes": options["codebook_sizes"], "ragged": ragged}
    columns = {name: options[name] for name in ("item_id", "attributes") if options[name] is not None}
    if kind == "json":
        # A mapping has no columns, so options that equal the default are not passed.
        named = columns if options["sid"] == "sid" else columns | {"sid": options["sid"]}
        with printed_warnings():
            return hr.Catalog.from_json(files, **named, **shared, dates=csv_types.dates)
    if columns or len(paths) > 1:
        raise typer.BadParameter("a .npy file is one array without columns", param_hint="--item-id, --attributes")
    sids = read_npy(paths[0])
    if sids.dtype.kind == "f":
        raise CatalogError(
            f"{paths[0]} holds {sids.dtype} numbers; SIDs are integers. To make SIDs from embeddings, run: hedgerow "
            f"semantic-ids {paths[0]} -o {paths[0].with_suffix('.parquet')}"
        )
    return hr.Catalog(sids, **shared)


def columns_of(paths: Sequence[Path]) -> list[str]:
    """The names of the columns of files; none of a mapping."""
    from hedgerow.catalog import readers
    from hedgerow.catalog.sources import kind_of

    if kind_of(paths) == "parquet":
        return readers.parquet_files([str(path) for path in paths]).schema.names
    rows = _rows_of(paths)
    return [] if rows is None else rows.column_names


def read_rows(
    paths: Sequence[Path], item_id: str, columns: Sequence[str] | None, types: Types, dates: DateOrder | None
) -> Any:
    """Read the rows of files.

    Args:
        paths: files of one kind, folders or patterns.
        item_id: the column of item ids.
        columns: the other columns to read. None: all.
        types: as for `Catalog.from_csv`. Other files have types of their own.
        dates: as for `Catalog.from_csv` and `Catalog.from_json`.

    Returns:
        A table, or a mapping of names to columns.

    Raises:
        CatalogError: the files cannot be read, or do not have these columns.
    """
    from hedgerow.catalog.columns import column_of
    from hedgerow.catalog.text_warnings import warn_of_text

    rows = _rows_of(paths, dates, [item_id], types=types, exact=[item_id])
    if rows is None:
        raise CatalogError(f"{', '.join(map(str, paths))}: expected rows with named columns.")
    with printed_warnings():
        kept = rows if columns is None else rows.select([name for name in rows.column_names if name in columns])
        warn_of_text(kept, {*types, item_id}, dates)
    return rows if columns is None else {name: column_of(rows, name, "attribute") for name in (item_id, *columns)}


def types_of(index: hr.TrieIndex, item_id: str, attributes: Sequence[str]) -> dict[str, pa.DataType]:
    """The types, in an index, of the columns of a file.

    Args:
        index: the index. Without items, it takes the types of the file; only text stays text.
        item_id: the column of item ids in the file.
        attributes: the attributes that are read from the file.
    """
    from hedgerow.catalog.types import is_text

    types = {field.name: field.type for field in index.attributes.schema if field.name in attributes}
    types[item_id] = index.item_ids.type
    return types if index.num_items else {name: type_ for name, type_ in types.items() if is_text(type_)}


def _rows_of(
    paths: Sequence[Path], dates: DateOrder | None = None, ids: Sequence[str] = (), **csv_options: Any
) -> pa.Table | None:
    """The rows of files; None if they have no columns."""
    from hedgerow.catalog import csv_files, readers
    from hedgerow.catalog.parts import concatenated
    from hedgerow.catalog.sources import kind_of

    kind, files = kind_of(paths), [str(path) for path in paths]
    if kind == "csv":
        return concatenated(csv_files.read_csv(files, dates=dates, ids=ids, **csv_options))
    parts = readers.read_json(files, dates, ids) if kind == "json" else {}
    if kind == "parquet":
        parts = readers.read_parquet(files)
    return None if isinstance(parts, Mapping) else concatenated(parts)


def stored_codebook_sizes(paths: Sequence[Path], sid: str | Sequence[str]) -> list[int] | None:
    """The codebook sizes that `hedgerow semantic-ids` stored with the SIDs; None without them."""
    from hedgerow.catalog.columns import codebook_sizes_of
    from hedgerow.catalog.readers import parquet_files
    from hedgerow.catalog.sources import kind_of

    if not isinstance(sid, str) or kind_of(paths) != "parquet":
        return None
    sizes = codebook_sizes_of(parquet_files([str(path) for path in paths]).schema, sid)
    return None if sizes is None else list(sizes)


def id_column(index: hr.TrieIndex, paths: Sequence[Path], sids: Sequence[str]) -> str | None:
    """Find the column of item ids; None if the files have no columns.

    Raises:
        CatalogError: several columns may hold the ids.
    """
    columns = columns_of(paths)
    candidates = [name for name in columns if name not in (*sids, *index.attributes.column_names)]
    if "item_id" in columns or not columns:
        return None
    if len(candidates) == 1:
        return candidates[0]
    raise CatalogError(
        f"{', '.join(map(str, paths))} has no column item_id; name the column of item ids with --item-id NAME. Its "
        f"columns are {', '.join(columns)}."
    )
