"""The rows of a Parquet file, read by several threads, with lists of codes in the smallest type that holds them.

Parquet holds codes as 32-bit or 64-bit integers. Narrowed row group by row group, 64-bit codes of 10M items take 160 MB
in place of 640 MB; to fill new memory takes longer than to decode the file.
"""

# pyarrow.compute creates its functions at import time, so pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from hedgerow._cores import usable_cores
from hedgerow.catalog.sources import File
from hedgerow.catalog.types import is_list


def read_row_groups(file: File, lists: str | None = None) -> pa.Table:
    """Read a file.

    Args:
        file: the file.
        lists: the column whose lists of integers are narrowed if all have one length. Default: none.

    Raises:
        OSError, ValueError, ArrowException: the file cannot be read.
    """
    with file.opened() as opened:
        # An open file: of a path, Arrow would make columns of the names of all folders above it.
        parquet = pq.ParquetFile(opened)
        groups, metadata, schema = parquet.num_row_groups, parquet.metadata, parquet.schema_arrow
        name = lists if lists is not None and schema.names.count(lists) == 1 else None
        if groups < 2 or file.is_remote:
            table = parquet.read(use_threads=not file.is_remote)
            return _alike([_narrowed(table, name)], schema, name)

    def read(group: int) -> pa.Table:
        # A ParquetFile is for one thread.
        with file.opened() as opened:
            found = pq.ParquetFile(opened, metadata=metadata).read_row_group(group, use_threads=False)
        return _narrowed(found, name)

    with ThreadPoolExecutor(min(groups, usable_cores())) as pool:
        return _alike(list(pool.map(read, range(groups))), schema, name)


def _narrowed(table: pa.Table, name: str | None) -> pa.Table:
    """The table with lists of integers of one length as fixed-size lists of the smallest unsigned type."""
    if name is None or not len(table):
        return table
    position = table.schema.get_field_index(name)
    column = table.column(position)
    type_ = column.type
    if not is_list(type_) or not pa.types.is_integer(type_.value_type) or column.null_count:
        return table
    lengths = pc.min_max(pc.list_value_length(column)).as_py()
    if lengths["min"] != lengths["max"] or not lengths["min"]:
        return table
    values = [chunk.flatten() for chunk in column.chunks]
    if any(each.null_count for each in values):
        return table
    codes = [each.to_numpy() for each in values]
    if min(int(each.min()) for each in codes if len(each)) < 0:
        return table
    dtype = np.min_scalar_type(max(int(each.max()) for each in codes if len(each)))
    narrow = [pa.array(each.astype(dtype, copy=False)) for each in codes]
    chunks = [pa.FixedSizeListArray.from_arrays(each, lengths["min"]) for each in narrow]
    return _with_column(table, position, pa.chunked_array(chunks))


def _alike(tables: Sequence[pa.Table], schema: pa.Schema, name: str | None) -> pa.Table:
    """The tables as one. Lists that were narrowed in only some of them, or differ in length, are as they were."""
    if name is None:
        return pa.concat_tables(tables)
    position = schema.get_field_index(name)
    types = {table.schema.types[position] for table in tables}
    if len(types) == 1:
        return pa.concat_tables(tables)
    widest = schema.types[position]
    if all(pa.types.is_fixed_size_list(type_) for type_ in types) and len({type_.list_size for type_ in types}) == 1:
        widest = max(types, key=lambda type_: type_.value_type.bit_width)
    return pa.concat_tables([_with_column(table, position, table.column(position).cast(widest)) for table in tables])


def _with_column(table: pa.Table, position: int, column: pa.ChunkedArray) -> pa.Table:
    return table.set_column(position, table.schema.field(position).with_type(column.type), column)
