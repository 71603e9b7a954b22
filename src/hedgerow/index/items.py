"""The items of a saved index: an Arrow IPC file; in format version 1, a Parquet file."""

from __future__ import annotations

import os
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hedgerow.catalog.constructors import ITEM_ID
from hedgerow.catalog.sources import arrow_buffer
from hedgerow.errors import IndexFileError
from hedgerow.index.hashed import HashedFile
from hedgerow.index.manifest import REBUILD

if TYPE_CHECKING:
    import pyarrow as pa

# Arrow writes the schema of a table into the metadata of a Parquet file.
ARROW_SCHEMA = b"ARROW:schema"


def write_items(table: pa.Table, path: Path) -> str:
    """Write items to a new Arrow file, in one record batch if Arrow can, and return its SHA-256."""
    with items_writer(path, table.schema) as (writer, file):
        writer.write_table(table.combine_chunks())
    return file.sha256


@contextmanager
def items_writer(path: Path, schema: pa.Schema) -> Iterator[tuple[Any, HashedFile]]:
    """Open a new Arrow file for items, which takes tables of a schema; and the file, which has its SHA-256 at the end.

    Raises:
        IndexFileError: Arrow cannot write the items, or an index cannot hold a type.
    """
    import pyarrow as pa

    try:
        _check_types(schema)
        # Arrow interprets paths such as "~" and "a:b" differently than Python. Without threads, because they would
        # use memory of Python.
        options = pa.ipc.IpcWriteOptions(compression=None, use_threads=False)
        with HashedFile(path) as file, pa.ipc.new_file(file, schema, options=options) as writer:
            yield writer, file
    except pa.ArrowException as error:
        raise IndexFileError(f"the items cannot be written as Arrow: {error}") from error


def read_buffer(path: Path, *, mmap: bool) -> pa.Buffer:
    """The content of a file, read into the memory of Arrow or mapped by it: see `arrow_buffer`."""
    import pyarrow as pa

    # Arrow would replace a "~" at the beginning.
    name = os.path.abspath(path)
    with pa.memory_map(name) if mmap else pa.OSFile(name) as file:
        return file.read_buffer()


def read_arrow(path: Path, buffer: pa.Buffer, num_items: int, *, validate: bool) -> pa.Table:
    """The items in the content of an Arrow file, which share its memory.

    Args:
        path: the file, for messages.
        buffer: its content.
        num_items: the number of items in the manifest.
        validate: whether to check all offsets, text and sizes, so that nothing reads outside the buffer.

    Raises:
        IndexFileError: it is not an Arrow file, or does not contain these items.
    """
    import pyarrow as pa

    options = pa.ipc.IpcReadOptions(use_threads=False, ensure_alignment=pa.ipc.Alignment.DataTypeSpecific)
    try:
        with pa.ipc.open_file(buffer, options=options) as file:
            _check_types(file.schema)
            table = file.read_all()
        if validate:
            table.validate(full=True)
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError, pa.ArrowException) as error:
        raise IndexFileError(f"{path} cannot be read: {error}. {REBUILD}") from error
    return _checked(path, table, num_items)


def _checked(path: Path, table: pa.Table, num_items: int) -> pa.Table:
    names = table.column_names
    if table.num_rows != num_items or names[:1] != [ITEM_ID] or len(set(names)) < len(names):
        raise IndexFileError(f"{path} does not contain the {num_items:,} items of the manifest. {REBUILD}")
    return table


def _check_types(schema: pa.Schema) -> None:
    """Check that an index can hold the types of the columns: see `catalog.types.plain_type`.

    Raises:
        ArrowException: it cannot.
    """
    import pyarrow as pa

    for field in schema:
        if _is_refused(field.type):
            raise pa.ArrowTypeError(f"column {field.name!r} has the type {field.type}, which an index cannot hold")


def _is_refused(type_: pa.DataType) -> bool:
    import pyarrow as pa

    from hedgerow.catalog.types import UnsupportedTypeError, plain_type

    if isinstance(type_, pa.BaseExtensionType):
        return _is_refused(type_.storage_type)
    try:
        is_other = plain_type(type_).id != type_.id
    except UnsupportedTypeError:
        return True
    return is_other or any(_is_refused(type_.field(position).type) for position in range(type_.num_fields))


class ParquetItems:
    """The items of an index of format version 1: read from the bytes of their file on first use, then released."""

    def __init__(self, path: Path, data: np.ndarray, num_items: int) -> None:
        self.path, self.num_items = path, num_items
        self.content: np.ndarray | pa.Table = data

    def __call__(self) -> pa.Table:
        """Read the items, unless they have been read before."""
        if isinstance(self.content, np.ndarray):
            self.content = _checked(self.path, _read_parquet(self.path, self.content), self.num_items)
        return self.content


def _read_parquet(path: Path, data: np.ndarray) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # Not read_table, which imports pandas if it is installed; the import takes a third of a second.
        file = pq.ParquetFile(pa.BufferReader(arrow_buffer(data)))
        return _as_written(file.read(), file.metadata.metadata or {})
    except (OSError, ValueError, pa.ArrowException) as error:
        raise IndexFileError(f"{path} cannot be read: {error}. {REBUILD}") from error


def _as_written(table: pa.Table, metadata: dict[bytes, bytes]) -> pa.Table:
    """The table with the types of dates and times that it was written with. Parquet has no seconds and no date64."""
    import pyarrow as pa

    from hedgerow.catalog.types import holds_time

    if ARROW_SCHEMA not in metadata:
        return table
    written = pa.ipc.read_schema(pa.py_buffer(b64decode(metadata[ARROW_SCHEMA])))
    if written.names != table.column_names:
        return table
    for position, field in enumerate(written):
        if field.type != table.column(position).type and holds_time(field.type):
            table = table.set_column(position, field.name, table.column(position).cast(field.type))
    return table
