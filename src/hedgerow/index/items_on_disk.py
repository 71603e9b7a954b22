"""Join the items of several Arrow files into one record batch, as `write_items` writes it, without reading them all.

The buffers of the joined columns are written to files, which are mapped into memory as one Arrow array per column.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path

import numpy as np
import pyarrow as pa

from hedgerow.catalog.types import large_type
from hedgerow.errors import IndexFileError
from hedgerow.index.arrow import as_bools
from hedgerow.index.items import items_writer, read_buffer

# The largest offset of 32 bits.
MAX_OFFSET = 2**31 - 1
# Makes the path of a new file.
NewPath = Callable[[], Path]


def join_items(paths: Sequence[Path], output: Path, scratch: Path) -> str:
    """Join the items of Arrow files of one schema in one record batch, and return the SHA-256 of the file.

    Args:
        paths: the files, which have rows.
        output: the new file.
        scratch: a folder for temporary files.

    Raises:
        IndexFileError: Arrow cannot write the items, or a column is too large.
    """
    parts = [pa.ipc.open_file(read_buffer(path, mmap=True)).read_all() for path in paths]
    numbers = count()

    def new() -> Path:
        return scratch / f"buffer-{next(numbers)}"

    schema, columns = parts[0].schema, []
    for field in schema:
        columns.append(_column(field.name, [chunk for part in parts for chunk in part.column(field.name).chunks], new))
    fields = [field.with_type(column.type) for field, column in zip(schema, columns, strict=True)]
    table = pa.Table.from_arrays(columns, schema=pa.schema(fields, schema.metadata))
    with items_writer(output, table.schema) as (writer, file):
        writer.write_table(table)
    return file.sha256


def _column(name: str, chunks: Sequence[pa.Array], new: NewPath) -> pa.Array:
    """The chunks as one array, of the type that `catalog.types.one_array` gives it.

    Raises:
        IndexFileError: no type holds them.
    """
    type_ = chunks[0].type
    for wide in dict.fromkeys((type_, large_type(type_))):
        with suppress(pa.ArrowInvalid):
            return _joined(chunks, wide, new)
    raise IndexFileError(
        f"column {name!r} of {type_} is too large: it nests more than 2 GiB of text, or more than 2,147,483,647 "
        "entries. Drop the column, or convert it to large types."
    )


def _joined(chunks: Sequence[pa.Array], type_: pa.DataType, new: NewPath) -> pa.Array:
    """The chunks as one array of a type, which differs from theirs at most in the width of its offsets.

    It reads and writes one chunk at a time.

    Raises:
        ArrowInvalid: the offsets do not fit the type.
    """
    if isinstance(type_, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(
            type_, _joined([chunk.storage for chunk in chunks], type_.storage_type, new)
        )
    chunks = [chunk for chunk in chunks if len(chunk)]
    if not chunks:
        return pa.array([], type_)
    length, nulls = sum(map(len, chunks)), sum(chunk.null_count for chunk in chunks)
    if pa.types.is_null(type_):
        return pa.nulls(length)
    buffers = [_written(_bits(as_bools(chunk.is_valid()) for chunk in chunks), new) if nulls else None]
    children: list[pa.Array] = []
    if pa.types.is_struct(type_):
        fields = [type_.field(position) for position in range(type_.num_fields)]
        children = [
            _joined([chunk.field(position) for chunk in chunks], field.type, new)
            for position, field in enumerate(fields)
        ]
    elif pa.types.is_fixed_size_list(type_):
        size = type_.list_size
        values = [chunk.values.slice(chunk.offset * size, len(chunk) * size) for chunk in chunks]
        children = [_joined(values, type_.value_type, new)]
    elif pa.types.is_boolean(type_):
        buffers.append(_written(_bits(map(as_bools, chunks)), new))
    elif _has_offsets(type_):
        offsets = list(map(_offsets, chunks))
        buffers.append(_written(_rebased(offsets, _offset_dtype(type_)), new))
        spans = [(int(of[0]), int(of[-1])) for of in offsets]
        if pa.types.is_nested(type_):
            values = [
                chunk.values.slice(start, stop - start) for chunk, (start, stop) in zip(chunks, spans, strict=True)
            ]
            children = [_joined(values, _value_type(type_), new)]
        else:
            content = [chunk.buffers()[2] for chunk in chunks]
            buffers.append(_written(_slices(content, spans), new))
    else:
        width = type_.bit_width // 8
        spans = [(chunk.offset * width, (chunk.offset + len(chunk)) * width) for chunk in chunks]
        buffers.append(_written(_slices([chunk.buffers()[1] for chunk in chunks], spans), new))
    return pa.Array.from_buffers(type_, length, buffers, null_count=nulls, children=children)


def _has_offsets(type_: pa.DataType) -> bool:
    is_text = pa.types.is_string(type_) or pa.types.is_large_string(type_)
    is_bytes = pa.types.is_binary(type_) or pa.types.is_large_binary(type_)
    return is_text or is_bytes or pa.types.is_nested(type_)


def _offset_dtype(type_: pa.DataType) -> np.dtype:
    large = pa.types.is_large_string(type_) or pa.types.is_large_binary(type_) or pa.types.is_large_list(type_)
    return np.dtype(np.int64 if large else np.int32)


def _value_type(type_: pa.DataType) -> pa.DataType:
    """The type of the entries of a list or a map."""
    return pa.struct([type_.key_field, type_.item_field]) if pa.types.is_map(type_) else type_.value_type


def _offsets(chunk: pa.Array) -> np.ndarray:
    """The offsets of an array of texts or lists: [rows + 1]."""
    offsets = np.frombuffer(chunk.buffers()[1], _offset_dtype(chunk.type))
    return offsets[chunk.offset : chunk.offset + len(chunk) + 1]


def _rebased(offsets: Sequence[np.ndarray], dtype: np.dtype) -> Iterator[np.ndarray]:
    """The offsets of the joined array.

    Raises:
        ArrowInvalid: they do not fit the dtype.
    """
    total = sum(int(of[-1]) - int(of[0]) for of in offsets)
    if dtype == np.int32 and total > MAX_OFFSET:
        raise pa.ArrowInvalid(f"offsets of {total:,} do not fit {dtype}")
    start = 0
    yield np.zeros(1, dtype)
    for of in offsets:
        yield (of[1:].astype(np.int64) + (start - int(of[0]))).astype(dtype)
        start += int(of[-1]) - int(of[0])


def _slices(buffers: Sequence[pa.Buffer | None], spans: Sequence[tuple[int, int]]) -> Iterator[np.ndarray]:
    for buffer, (start, stop) in zip(buffers, spans, strict=True):
        if buffer is not None and stop > start:
            yield np.frombuffer(buffer, np.uint8)[start:stop]


def _bits(flags: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Bool arrays as the bytes of one bitmap."""
    rest = np.zeros(0, bool)
    for some in flags:
        some = np.concatenate((rest, some))
        whole = len(some) // 8 * 8
        yield np.packbits(some[:whole], bitorder="little")
        rest = some[whole:]
    yield np.packbits(rest, bitorder="little")


def _written(arrays: Iterable[np.ndarray], new: NewPath) -> pa.Buffer:
    """Arrays, one after the other, as a buffer in a new file that is mapped into memory."""
    path = new()
    with path.open("wb") as file:
        for array in arrays:
            file.write(np.ascontiguousarray(array).data)
    # An empty file cannot be mapped.
    return read_buffer(path, mmap=path.stat().st_size > 0)
