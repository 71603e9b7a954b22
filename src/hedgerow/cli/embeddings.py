"""The input of `hedgerow semantic-ids`: tables, embeddings and texts from files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hedgerow as hr
from hedgerow.catalog.constructors import ITEM_ID
from hedgerow.cli.common import read_npy
from hedgerow.errors import ArgumentError, CatalogError
from hedgerow.index.build import Progress

if TYPE_CHECKING:
    import pyarrow as pa

    from hedgerow.catalog.sources import DateOrder

EMBEDDING = "embedding"


def read_table(
    source: Path, text_columns: Sequence[str] = (), dates: DateOrder | None = None, ids: Sequence[str] = (ITEM_ID,)
) -> pa.Table | None:
    """Read the rows of files.

    Args:
        source: Parquet, CSV or JSON files with rows, a folder or a pattern; or one .npy file.
        text_columns: columns to keep as text.
        dates: as for `Catalog.from_csv` and `Catalog.from_json`.
        ids: the columns of SIDs and ids, which are no dates.

    Returns:
        The table; None for .npy, which has no columns.

    Raises:
        CatalogError: a file does not exist, cannot be read, or has another extension.

    Warns:
        UserWarning: a column looks like dates or numbers, but stays text.
    """
    from hedgerow.catalog import csv_files, readers
    from hedgerow.catalog.parts import concatenated
    from hedgerow.catalog.sources import kind_of
    from hedgerow.catalog.text_warnings import warn_of_text

    kind = kind_of(source)
    if kind == "npy":
        return None
    if kind == "json":
        parts = readers.read_json(source, dates, {*ids, *text_columns})
        if isinstance(parts, Mapping):
            raise CatalogError(f"{source} contains one mapping; expected a list of objects, or one object per line.")
    elif kind == "csv":
        parts = csv_files.read_csv(source, text_columns, dates=dates, ids=ids)
    else:
        return concatenated(readers.read_parquet(source))
    rows = concatenated(parts)
    warn_of_text(rows, {*ids, *text_columns}, dates)
    return rows


def column_named(table: pa.Table | None, name: str) -> pa.Array:
    """A column of INPUT.

    Raises:
        ArgumentError: the input is a .npy file.
        CatalogError: the column does not exist, or exists twice.
    """
    from hedgerow.catalog.columns import column_of

    if table is None:
        raise ArgumentError(f"there is no column {name!r}: a .npy file has no columns.")
    return column_of(table, name, "input")


def embeddings_of(
    source: Path,
    table: pa.Table | None,
    column: str | None,
    text_columns: list[str] | None,
    model: str | None,
    progress: Progress,
) -> Any:
    """The embeddings [N, D] in INPUT, or those of its texts.

    Args:
        source: the file.
        table: its rows, as `read_table` returns them.
        column: the column of embeddings. Default: "embedding".
        text_columns: the columns of text to embed instead.
        model: the model that embeds texts, as for `hedgerow.embed_texts`.
        progress: called as ``progress(what, done, total)``.

    Raises:
        ArgumentError: a column does not exist or does not hold text.
        CatalogError: the array cannot be read.
    """
    if text_columns:
        return hr.embed_texts(_texts(table, text_columns), model=model, progress=progress)
    if table is None:
        if column is not None:
            raise ArgumentError(f"there is no column {column!r}: a .npy file has no columns.")
        return read_npy(source)
    if column is None and EMBEDDING not in table.column_names:
        raise ArgumentError(
            f"INPUT has no column {EMBEDDING!r}; its columns are {', '.join(table.column_names)}. Name the column of "
            "embeddings with --embeddings, or columns of text with --text."
        )
    return column_named(table, EMBEDDING if column is None else column)


def _texts(table: pa.Table | None, names: list[str]) -> list[str]:
    """The text of each row: the texts of its columns that are not null, joined.

    Raises:
        ArgumentError: a row has no text.
    """
    columns = [_column_texts(column_named(table, name), name) for name in names]
    texts = []
    for row, cells in enumerate(zip(*columns, strict=True)):
        parts = [cell for cell in cells if cell]
        if not parts:
            raise ArgumentError(f"row {row} has no text in {', '.join(names)}; remove such rows, or add columns.")
        texts.append(". ".join(parts))
    return texts


def _column_texts(column: pa.Array, name: str) -> list[str | None]:
    """The texts of a column of strings, numbers, or lists of them."""
    import pyarrow as pa

    from hedgerow.catalog.types import is_list

    kind = column.type.value_type if is_list(column.type) else column.type
    if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        raise ArgumentError(f"column {name!r} must hold text, numbers or lists of them; it holds {column.type}.")
    _check_text(column, name)
    if is_list(column.type):
        return [None if row is None else ", ".join(str(v) for v in row if v is not None) for row in column.to_pylist()]
    return column.cast(pa.string()).to_pylist()


def _check_text(column: pa.Array, name: str) -> None:
    """Check that strings are UTF-8, because other programs can write Parquet files with other bytes."""
    import pyarrow as pa

    try:
        column.validate(full=True)
    except pa.ArrowInvalid as error:
        raise ArgumentError(f"column {name!r} holds text that is not UTF-8: {error}. Convert it to UTF-8.") from None
