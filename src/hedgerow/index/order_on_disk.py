"""The order of the item ids of an index that is built on disk: rows are spilled by their ids and sorted in parts."""

# pyarrow.compute creates its functions at import time, so pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hedgerow.catalog.columns import as_column, sortable
from hedgerow.errors import CatalogError
from hedgerow.index.order import lower_bounds, sorted_order
from hedgerow.index.spill import Spill, sample_evenly

BATCH = 2**16
SAMPLE = 2**18
ROW = "row"


def order_on_disk(path: Path, column: str, scratch: Path, part_rows: int) -> np.ndarray:
    """The rows of an Arrow file in ascending order of a column, with one part of the values in memory at a time.

    Args:
        path: the Arrow file.
        column: the column.
        scratch: a folder for temporary files.
        part_rows: the number of rows per part, on average.

    Returns:
        int32 [N], memory-mapped.

    Raises:
        CatalogError: a value appears twice. The message names it.
    """
    with pa.memory_map(str(path)) as mapped, pa.ipc.open_file(mapped) as file:
        batches = [file.get_batch(number).column(column) for number in range(file.num_record_batches)]
    num_rows = sum(map(len, batches))
    bounds = _bounds(batches, -(-num_rows // part_rows))
    start = 0
    with Spill(scratch, len(bounds) + 1) as spill:
        for batch in batches:
            for ids in (batch.slice(begin, BATCH) for begin in range(0, len(batch), BATCH)):
                rows = np.arange(start, start + len(ids), dtype=np.int32)
                spill.add(
                    pa.table({column: ids, ROW: rows}), lower_bounds(bounds, np.arange(len(bounds)), sortable(ids))
                )
                start += len(ids)
    with open(scratch / "order", "wb") as order:
        for part in spill.parts():
            order.write(_sorted_rows(part, column).data)
    return np.memmap(scratch / "order", np.int32, "r", shape=(num_rows,))


def _bounds(batches: Sequence[pa.Array], parts: int) -> pa.ChunkedArray:
    """Values that divide a column into parts of about the same length, in ascending order."""
    step = -(-sum(map(len, batches)) // SAMPLE)
    sample = pa.concat_arrays([sortable(batch).take(pa.array(np.arange(0, len(batch), step))) for batch in batches])
    ordered = sample.take(pa.array(sorted_order(pa.chunked_array([sample]))))
    return pa.chunked_array([ordered.take(pa.array(sample_evenly(np.arange(len(ordered)), parts)))])


def _sorted_rows(part: pa.Table, column: str) -> np.ndarray:
    """The rows of a part in ascending order of their values.

    Raises:
        CatalogError: a value appears twice.
    """
    values = as_column(part.column(column), column)
    order = sorted_order(pa.chunked_array([values]))
    ordered = sortable(values).take(pa.array(order))
    if pc.any(equal := pc.equal(ordered[1:], ordered[:-1])).as_py():
        repeated = values[int(order[pc.index(equal, True).as_py()])].as_py()
        raise CatalogError(f"item id {repeated!r} appears twice; item ids must be distinct.")
    return np.ascontiguousarray(part.column(ROW).combine_chunks().to_numpy()[order])
