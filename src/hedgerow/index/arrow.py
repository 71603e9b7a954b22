"""Conversions between Arrow and NumPy, and rows of Arrow tables, on the path of every search.

Arrow's own conversions import pandas if it is installed, which takes a third of a second and 30 MB per process. Arrow's
own `take` copies all rows of a column that has several chunks.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa


def as_arrow(values: np.ndarray) -> pa.Array:
    """Integers as an Arrow array, which shares their memory."""
    import pyarrow as pa

    values = np.ascontiguousarray(values)
    type_ = pa.from_numpy_dtype(values.dtype)
    return pa.Array.from_buffers(type_, len(values), [None, pa.py_buffer(values)])


def as_bools(array: Any) -> np.ndarray:
    """The values of a Boolean Arrow array without nulls: bool [R]."""
    bits = np.frombuffer(array.buffers()[1], np.uint8)
    count = array.offset + len(array)
    return np.unpackbits(bits, count=count, bitorder="little")[array.offset :].view(bool)


def plain_ids(values: Any, type_: pa.DataType) -> pa.Array | None:
    """Convert text to a text type, or integers to an integer type that holds them; None for other values or types.

    Args:
        values: a list or a NumPy array.
        type_: the type of the result.
    """
    import pyarrow as pa

    is_array = type(values) is np.ndarray
    kinds = set() if is_array else set(map(type, values))
    if pa.types.is_integer(type_) and (is_array or kinds == {int}):
        return _integers(np.asarray(values), np.dtype(type_.to_pandas_dtype()))
    if kinds != {str} or not (pa.types.is_string(type_) or pa.types.is_large_string(type_)):
        return None
    text = "".join(values)
    data = text.encode()
    # A character of ASCII is one byte; others need the length of each encoded value.
    lengths = map(len, values) if text.isascii() else (len(value.encode()) for value in values)
    offsets = np.cumsum([0, *lengths])
    if pa.types.is_string(type_):
        if offsets[-1] > np.iinfo(np.int32).max:
            return None
        offsets = offsets.astype(np.int32)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data)]
    return pa.Array.from_buffers(type_, len(values), buffers)


def _integers(values: np.ndarray, dtype: np.dtype) -> pa.Array | None:
    if values.dtype.kind not in "iu" or values.ndim != 1 or not len(values):
        return None
    limits = np.iinfo(dtype)
    fits = limits.min <= int(values.min()) and int(values.max()) <= limits.max
    return as_arrow(values.astype(dtype)) if fits else None


def take_values(column: pa.ChunkedArray, rows: np.ndarray) -> pa.Array:
    """Values of a column as one array."""
    import pyarrow as pa

    if column.num_chunks == 1:
        return column.chunk(0).take(as_arrow(rows))
    table = take_rows(pa.Table.from_arrays([column], [""]), rows)
    return table.column(0).combine_chunks()


def take_rows(table: pa.Table, rows: np.ndarray) -> pa.Table:
    """Rows of a table."""
    import pyarrow as pa

    batches = table.to_batches()
    if len(batches) < 2:
        return table.take(as_arrow(rows))
    starts = np.cumsum([0, *map(len, batches)])
    batch_of = np.searchsorted(starts, rows, side="right") - 1
    order = np.argsort(batch_of, kind="stable")
    bounds = np.searchsorted(batch_of[order], np.arange(len(batches) + 1))
    parts = [
        pa.Table.from_batches([batches[number].take(as_arrow(rows[order[begin:stop]] - starts[number]))])
        for number, (begin, stop) in enumerate(pairwise(bounds))
        if begin < stop
    ]
    places = np.empty(len(order), np.int64)
    places[order] = np.arange(len(order))
    return pa.concat_tables([table.slice(0, 0), *parts]).combine_chunks().take(as_arrow(places))
