"""The reader of CSV files."""

from __future__ import annotations

import io
from collections.abc import Collection
from typing import Any

import pyarrow as pa
from pyarrow import csv

from hedgerow.catalog.parts import Part, concatenated, content_of, divided, place, readable
from hedgerow.catalog.sources import DateOrder, Types, files_of
from hedgerow.catalog.text_columns import inferred, typed
from hedgerow.errors import CatalogError

# No row of a CSV file may be longer: 64 MB.
CSV_BLOCK = 1 << 26


def read_csv(
    source: Any,
    text: Collection[str] = (),
    types: Types | None = None,
    exact: Collection[str] = (),
    dates: DateOrder | None = None,
    ids: Collection[str] = (),
) -> list[Part]:
    """The CSV files of a source, each with its name.

    Fields are separated by commas; by tabs in .tsv files; or by the semicolons or tabs of a header without commas.
    Empty fields are null. A column becomes integers, floats, booleans, dates or timestamps if all its values are
    written so and no digit is lost; otherwise it stays text, as "007" does.

    Args:
        source: see `files_of`.
        text: the columns that stay text; they must exist.
        types: the types of columns by name; a column may get a wider type of the same kind.
        exact: the columns of `types` that must not get another type.
        dates: the order of day, month and year in dates that are not written as 2020-12-31.
        ids: the columns of SIDs and ids, which do not become dates unless `types` says so.

    Raises:
        CatalogError: a file cannot be read, or a value does not have the type of its column. The message names the
            file and the row.
    """
    parts = []
    for file in files_of(source, "csv"):
        with readable(file, "CSV"):
            table = _csv_table(content_of(file), file.suffix)
        for name, value in file.partitions.items():
            table = table.append_column(name, pa.repeat(pa.scalar(value, pa.string()), len(table)))
        parts.append((file.name, table))
    rows = concatenated(parts)
    fields = fields_of(types)
    if absent := [name for name in text if name not in rows.column_names]:
        raise CatalogError(f"there is no column {absent[0]!r} to keep as text; the columns are {rows.column_names}.")

    def typed_column(name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
        if name in text:
            return column
        if name in fields:
            return typed(column, fields[name], widens=name not in exact, dates=dates)
        return inferred(column, dates, is_id=name in ids)

    try:
        columns = [typed_column(*named) for named in zip(rows.column_names, rows.columns, strict=True)]
    except CatalogError as error:
        raise CatalogError(f"{place(parts, str(error))}: {error}") from None
    return divided(pa.Table.from_arrays(columns, rows.column_names), parts)


def fields_of(types: Types | None) -> dict[str, pa.Field]:
    """The fields of `types`, by name."""
    try:
        return {} if types is None else {field.name: field for field in pa.schema(types)}
    except (TypeError, ValueError, pa.ArrowException) as error:
        raise CatalogError(
            f"types must map names of columns to Arrow types, or be an Arrow schema; got {types!r:.60}: {error}"
        ) from None


def _csv_table(content: bytes, suffix: str) -> pa.Table:
    """The rows of a CSV file, all as text.

    Raises:
        ValueError: it is not UTF-8.
        ArrowException: it cannot be read.
    """
    try:
        return _csv_rows(content, "\t" if suffix == ".tsv" else _delimiter(content))
    except pa.ArrowException:
        try:
            content.decode()
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            raise ValueError(
                f"it is not UTF-8: line {line} has the byte {content[error.start]:#x}. Convert it, for example with "
                "iconv -f latin1 -t utf-8."
            ) from None
        raise


def _delimiter(content: bytes) -> str:
    """A comma; or the semicolon or tab of a header that has no comma, as spreadsheets of many countries write."""
    header = content[: max(0, content.find(b"\n"))] or content[:CSV_BLOCK]
    return next((mark for mark in ";\t" if mark.encode() in header and b"," not in header), ",")


def _csv_rows(content: bytes, delimiter: str) -> pa.Table:
    read = csv.ReadOptions(block_size=min(CSV_BLOCK, max(1, len(content))), use_threads=False)
    parse = csv.ParseOptions(newlines_in_values=True, delimiter=delimiter)
    names = csv.open_csv(io.BytesIO(content), read, parse).schema.names
    convert = csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True, null_values=[""]
    )
    return csv.read_csv(io.BytesIO(content), read, parse, convert)
