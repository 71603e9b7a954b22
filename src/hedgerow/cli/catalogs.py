"""Catalogs from the files that commands name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import hedgerow as hr
from hedgerow.cli.common import read_npy
from hedgerow.errors import CatalogError

if TYPE_CHECKING:
    import pyarrow as pa

    from hedgerow.catalog.sources import Types

FILES = "Parquet, CSV, JSON (items to SIDs, or rows) or JSON lines; a folder, or a quoted pattern 'items/*.parquet'"
Items = Annotated[
    list[Path],
    typer.Argument(metavar="ITEMS", help=f"Files with SIDs and item ids: {FILES}.", show_default=False),
]


def read_catalog(
    paths: Sequence[Path], options: Mapping[str, Any], *, ragged: bool, types: Types | None = None
) -> hr.Catalog:
    """Read a catalog.

    Args:
        paths: files of one kind, folders or patterns.
        options: sid, item_id, codebook_sizes and attributes, as for `Catalog.from_arrow`.
        ragged: as for `Catalog`.
        types: as for `Catalog.from_csv`. Other files have types of their own.

    Raises:
        BadParameter: a .npy file with options for columns.
        CatalogError: the files cannot be read, or do not contain a catalog.
    """
    from hedgerow.catalog.sources import kind_of

    kind, files = kind_of(paths), [str(path) for path in paths]
    if kind == "parquet":
        return hr.Catalog.from_parquet(files, **options, ragged=ragged)
    if kind == "csv":
        return hr.Catalog.from_csv(files, **options, ragged=ragged, types=types)
    shared = {"codebook_sizes": options["codebook_sizes"], "ragged": ragged}
    columns = {name: options[name] for name in ("item_id", "attributes") if options[name] is not None}
    if kind == "json":
        # A mapping has no columns, so options that equal the default are not passed.
        named = columns if options["sid"] == "sid" else columns | {"sid": options["sid"]}
        return hr.Catalog.from_json(files, **named, **shared)
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


def read_rows(paths: Sequence[Path], item_id: str, columns: Sequence[str] | None, types: Types) -> Any:
    """Read the rows of files.

    Args:
        paths: files of one kind, folders or patterns.
        item_id: the column of item ids.
        columns: the other columns to read. None: all.
        types: as for `Catalog.from_csv`. Other files have types of their own.

    Returns:
        A table, or a mapping of names to columns.

    Raises:
        CatalogError: the files cannot be read, or do not have these columns.
    """
    from hedgerow.catalog.columns import column_of

    rows = _rows_of(paths, types=types, exact=[item_id])
    if rows is None:
        raise CatalogError(f"{', '.join(map(str, paths))}: expected rows with named columns.")
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


def _rows_of(paths: Sequence[Path], **csv_options: Any) -> pa.Table | None:
    """The rows of files; None if they have no columns."""
    from hedgerow.catalog import readers
    from hedgerow.catalog.sources import kind_of

    kind, files = kind_of(paths), [str(path) for path in paths]
    if kind == "csv":
        return readers.concatenated(readers.read_csv(files, **csv_options))
    read = {"parquet": readers.read_parquet, "json": readers.read_json}.get(kind)
    parts = read(files) if read else {}
    return None if isinstance(parts, Mapping) else readers.concatenated(parts)


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
