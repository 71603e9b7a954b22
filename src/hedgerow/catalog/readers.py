"""Readers of catalog files: Parquet, CSV, JSON and JSON lines. Every road into a catalog uses them."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

from hedgerow._arguments import distinct_keys
from hedgerow._urls import RemotePath
from hedgerow.catalog.columns import as_column, codebook_sizes_of
from hedgerow.catalog.row_groups import read_row_groups
from hedgerow.catalog.sources import COMPRESSED, File, Types, arrow_buffer, files_of
from hedgerow.catalog.text_columns import INTEGER, inferred, typed
from hedgerow.errors import CatalogError

# No row of a CSV file may be longer: 64 MB.
CSV_BLOCK = 1 << 26
Part = tuple[str, pa.Table]
T = TypeVar("T")


@dataclass(frozen=True)
class ParquetFiles:
    """Parquet files with one schema: columns that a file does not have are null, and types are widened.

    Attributes:
        files: the files.
    """

    files: Sequence[File]

    @cached_property
    def _metadata(self) -> list[tuple[pa.Schema, pq.FileMetaData]]:
        found = []
        for file in self.files:
            with _readable(file, "Parquet"), file.opened() as opened:
                parquet = pq.ParquetFile(opened)
                found.append((parquet.schema_arrow, parquet.metadata))
        return found

    @property
    def num_rows(self) -> int:
        """The number of rows of all files."""
        return sum(self.rows_of_files)

    @property
    def rows_of_files(self) -> list[int]:
        """The number of rows of each file."""
        return [metadata.num_rows for _, metadata in self._metadata]

    @property
    def nbytes(self) -> int:
        """The size of all columns, not compressed."""
        return sum(m.row_group(group).total_byte_size for _, m in self._metadata for group in range(m.num_row_groups))

    @cached_property
    def schema(self) -> pa.Schema:
        """The columns of all files, and those of the names of folders."""
        schemas = [schema.remove_metadata() for schema, _ in self._metadata]
        names = {name for schema in schemas for name in schema.names}
        partitions = [field for field in _partition_fields(self.files) if field.name not in names]
        if len(schemas) == 1:
            return pa.schema([*schemas[0], *partitions])
        for name in names:
            sizes = {codebook_sizes_of(schema, name) for schema in schemas}
            if len(sizes) > 1:
                raise CatalogError(
                    f"column {name!r} has different codebook sizes in {_names(self.files)}. Pass codebook_sizes, or "
                    "--codebook-sizes, and read the files one by one."
                )
        schemas = [pa.schema([_decoded(field) for field in schema]) for schema in schemas]
        try:
            return pa.schema([*pa.unify_schemas(schemas, promote_options="permissive"), *partitions])
        except pa.ArrowException as error:
            raise CatalogError(
                f"the columns of {_names(self.files)} do not fit each other: {error}. Convert them to one type."
            ) from None

    def tables(self, lists: str | None = None) -> Iterator[Part]:
        """Each file's name and its rows. Of a single file, the column `lists` is narrowed: see `read_row_groups`."""
        for file in self.files:
            with _readable(file, "Parquet"):
                table = read_row_groups(file, lists if len(self.files) == 1 else None)
                yield file.name, self._fitted(table, file, self.schema)

    def batches(self, size: int, columns: Collection[str] | None = None, files: slice = slice(None)) -> Iterator[Part]:
        """Each file's name and its rows, up to `size` rows at a time.

        Args:
            size: the number of rows.
            columns: the columns to read. Default: all.
            files: the files to read. Default: all.
        """
        schema = pa.schema([field for field in self.schema if columns is None or field.name in columns])
        for file in self.files[files]:
            with _readable(file, "Parquet"), file.opened() as opened:
                parquet = pq.ParquetFile(opened)
                present = [name for name in schema.names if name in parquet.schema_arrow.names]
                for batch in parquet.iter_batches(size, columns=present, use_threads=not file.is_remote):
                    yield file.name, self._fitted(pa.Table.from_batches([batch]), file, schema)

    def _fitted(self, table: pa.Table, file: File, schema: pa.Schema) -> pa.Table:
        if len(self.files) == 1 and not file.partitions:
            return table
        arrays = []
        for field in schema:
            if field.name in table.column_names:
                arrays.append(table.column(field.name).cast(field.type))
            else:
                value = pa.scalar(file.partitions.get(field.name)).cast(field.type)
                arrays.append(pa.repeat(value, table.num_rows))
        return pa.Table.from_arrays(arrays, schema=schema)


def parquet_files(source: Any) -> ParquetFiles:
    """The Parquet files of a source: see `files_of`."""
    return ParquetFiles(files_of(source, "parquet"))


def read_parquet(source: Any, lists: str | None = None) -> list[Part]:
    """The Parquet files of a source, each with its name: see `ParquetFiles.tables`."""
    return list(parquet_files(source).tables(lists))


def read_csv(
    source: Any,
    text: Collection[str] = (),
    types: Types | None = None,
    exact: Collection[str] = (),
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

    Raises:
        CatalogError: a file cannot be read, or a value does not have the type of its column. The message names the
            file and the row.
    """
    parts = []
    for file in files_of(source, "csv"):
        with _readable(file, "CSV"):
            table = _csv_table(_content(file), file.suffix)
        for name, value in file.partitions.items():
            table = table.append_column(name, pa.repeat(pa.scalar(value, pa.string()), len(table)))
        parts.append((file.name, table))
    rows = concatenated(parts)
    fields = _fields(types)
    if absent := [name for name in text if name not in rows.column_names]:
        raise CatalogError(f"there is no column {absent[0]!r} to keep as text; the columns are {rows.column_names}.")

    def typed_column(name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
        if name in text:
            return column
        return typed(column, fields[name], widens=name not in exact) if name in fields else inferred(column)

    try:
        columns = [typed_column(*named) for named in zip(rows.column_names, rows.columns, strict=True)]
    except CatalogError as error:
        raise CatalogError(f"{_place(parts, str(error))}: {error}") from None
    rows, start = pa.Table.from_arrays(columns, rows.column_names), 0
    for position, (name, table) in enumerate(parts):
        parts[position] = name, rows.slice(start, table.num_rows)
        start += table.num_rows
    return parts


def _fields(types: Types | None) -> dict[str, pa.Field]:
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


def read_json(source: Any) -> Mapping[str, Any] | list[Part]:
    """The JSON files of a source: one mapping, or the rows of each file with its name.

    A file contains one object (a mapping), a list of objects (rows), or one object per line (rows).

    Raises:
        CatalogError: a file cannot be read, or contains something else. The message names the file and the line.
    """
    mapping: dict[str, Any] = {}
    parts: list[Part] = []
    for file in files_of(source, "json"):
        content = _json_of(file)
        if isinstance(content, Mapping):
            repeated = next((item for item in content if item in mapping), None)
            if repeated is not None:
                raise CatalogError(f"{file.name} contains {repeated!r}, as another file does; keys must be distinct.")
            mapping.update(content)
        else:
            with located(file.name):
                parts.append((file.name, _table_of_records(content)))
    if parts and mapping:
        raise CatalogError("expected files of one layout; some contain one mapping, others rows.")
    return parts or mapping


def _json_of(file: File) -> Mapping[str, Any] | list[Any]:
    with _readable(file, "JSON"):
        text = _content(file).decode("utf-8-sig")
        if file.suffix in (".jsonl", ".ndjson"):
            return _lines(file, text)
        try:
            content = json.loads(text, object_pairs_hook=distinct_keys)
        except json.JSONDecodeError as error:
            if not error.msg.startswith("Extra data"):
                raise
            return _lines(file, text)
    if isinstance(content, list) and content and all(isinstance(record, Mapping) for record in content):
        return content
    if isinstance(content, Mapping):
        return content
    raise CatalogError(
        f"{file.name} must contain one JSON object that maps item ids to SIDs, a list of objects, or one object per "
        f"line; got {type(content).__name__}."
    )


def _lines(file: File, text: str) -> list[Any]:
    records = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line, object_pairs_hook=distinct_keys)
        except ValueError as error:
            raise CatalogError(f"{file.name}, line {number} cannot be read as JSON: {error}") from None
        if not isinstance(record, Mapping):
            raise CatalogError(
                f'{file.name}, line {number}: expected a JSON object, as {{"item_id": ..., "sid": [...]}}; got '
                f"{line.strip():.60}"
            )
        records.append(record)
    if not records:
        raise CatalogError(f"{file.name} contains no rows.")
    return records


def _table_of_records(records: list[Any]) -> pa.Table:
    names = dict.fromkeys(name for record in records for name in record)
    arrays = [as_column([record.get(name) for record in records], f"column {name!r}") for name in names]
    return pa.Table.from_arrays(arrays, list(names))


def catalog_of(make: Callable[..., T], parts: Sequence[Part], options: Mapping[str, Any]) -> T:
    """The catalog of the rows of files. An error names the file, and the row in it.

    Args:
        make: as `Catalog.from_arrow`.
        parts: the rows of each file.
        options: the options of `make`.
    """
    if len(parts) == 1:
        with located(parts[0][0]):
            return make(parts[0][1], **options)
    try:
        return make(concatenated(parts), **options)
    except CatalogError as error:
        for file, table in parts:
            with located(file):
                make(table, **options)
        raise CatalogError(f"{_place(parts, str(error))}: {error}") from None


def _place(parts: Sequence[Part], message: str) -> str:
    """The file of the row that a message names, which is counted over all files."""
    if len(parts) == 1:
        return parts[0][0]
    match = re.search(r"\brows? (?:[0-9]+ and )?([0-9]+)", message)
    row = int(match[1]) if match else sum(len(table) for _, table in parts)
    start = 0
    for name, table in parts:
        if row < start + len(table):
            return f"{len(parts)} files, with rows counted over all; row {row} is row {row - start} of {name}"
        start += len(table)
    return f"{len(parts)} files, {parts[0][0]} to {parts[-1][0]}"


def concatenated(parts: Sequence[Part]) -> pa.Table:
    """The rows of all parts.

    Raises:
        CatalogError: a column has types that do not fit each other.
    """
    try:
        return pa.concat_tables([table for _, table in parts], promote_options="permissive")
    except pa.ArrowException as error:
        names = ", ".join(name for name, _ in parts[:3])
        raise CatalogError(f"the columns of {names} do not fit each other: {error}") from None


def _decoded(field: pa.Field) -> pa.Field:
    """The field of a decoded dictionary, which fits the text of other files."""
    return field.with_type(field.type.value_type) if pa.types.is_dictionary(field.type) else field


def _partition_fields(files: Sequence[File]) -> list[pa.Field]:
    """The columns of the names of folders: integers if all values are, otherwise text."""
    fields = []
    for name in dict.fromkeys(name for file in files for name in file.partitions):
        values = [value for file in files if (value := file.partitions.get(name)) is not None]
        whole = bool(values) and all(re.match(INTEGER, value) for value in values)
        fields.append(pa.field(name, pa.int64() if whole else pa.string()))
    return fields


def name_of(source: Any) -> str:
    """The name of the first JSON file of a source, for messages."""
    return files_of(source, "json")[0].name


def _names(files: Sequence[File]) -> str:
    return ", ".join(file.name for file in files[:3]) + ", ..." * (len(files) > 3)


@contextmanager
def located(name: str) -> Iterator[None]:
    """Add the name of a file to the errors about its content."""
    try:
        yield
    except CatalogError as error:
        raise CatalogError(f"{name}: {error}") from None


@contextmanager
def _readable(file: File, kind: str) -> Iterator[None]:
    try:
        yield
    except CatalogError:
        raise
    except (OSError, ValueError, RecursionError, pa.ArrowException) as error:
        raise CatalogError(f"{file.name} cannot be read as {kind}: {error}") from None


def _content(file: File) -> bytes:
    """The bytes of a file, decompressed by its suffix."""
    if isinstance(file.content, Path):
        with pa.input_stream(str(file.content), compression="detect") as stream:
            return stream.read()
    if isinstance(file.content, RemotePath):
        content = file.content.read()
        if Path(file.name).suffix.lower() not in COMPRESSED:
            return content
        with pa.input_stream(arrow_buffer(content), compression=pa.Codec.detect(file.name).name) as stream:
            return stream.read()
    content = file.content.read()
    return content.encode() if isinstance(content, str) else content
