"""The order of the item ids of an index that is built on disk: rows are spilled by their ids and sorted in parts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from hedgerow.catalog.columns import sortable
from hedgerow.catalog.constructors import ITEM_ID
from hedgerow.catalog.types import one_array
from hedgerow.index.order import distinct_order, lower_bounds, sorted_order
from hedgerow.index.spill import Spill, sample_evenly

BATCH = 2**16
SAMPLE = 2**18
ROW = "row"


def order_on_disk(path: Path, scratch: Path, part_rows: int) -> np.ndarray:
    """The order of the ids of the items in an Arrow file, with one part of the ids in memory at a time.

    Args:
        path: the Arrow file.
        scratch: a folder for temporary files.
        part_rows: the number of rows per part, on average.

    Returns:
        int32 [N], memory-mapped.

    Raises:
        CatalogError: an id appears twice. The message names it.
    """
    with pa.memory_map(str(path)) as mapped, pa.ipc.open_file(mapped) as file:
        batches = [file.get_batch(number).column(ITEM_ID) for number in range(file.num_record_batches)]
    num_rows = sum(map(len, batches))
    step = -(-num_rows // SAMPLE)
    sample = [batch.take(pa.array(np.arange(0, len(batch), step))) for batch in batches]
    bounds = id_bounds(pa.concat_arrays(sample), -(-num_rows // part_rows))
    start = 0
    with Spill(scratch, len(bounds) + 1) as spill:
        for batch in batches:
            spill_ids(spill, bounds, batch, start)
            start += len(batch)
    with open(scratch / "order", "wb") as order:
        for part in spill.parts():
            order.write(sorted_rows(part).data)
    return np.memmap(scratch / "order", np.int32, "r", shape=(num_rows,))


def id_bounds(ids: pa.Array, parts: int) -> pa.ChunkedArray:
    """The ids that divide a sample of ids into parts of about the same length, in ascending order."""
    sample = sortable(ids)
    ordered = sample.take(pa.array(sorted_order(pa.chunked_array([sample]))))
    return pa.chunked_array([ordered.take(pa.array(sample_evenly(np.arange(len(ordered)), parts)))])


def spill_ids(spill: Spill, bounds: pa.ChunkedArray, ids: pa.Array, start: int) -> None:
    """Divide the ids of the rows from `start` on, with their rows, among the parts that `id_bounds` gives."""
    order = np.arange(len(bounds))
    for begin in range(0, len(ids), BATCH):
        some = ids.slice(begin, BATCH)
        rows = np.arange(start + begin, start + begin + len(some), dtype=np.int32)
        spill.add(pa.table({ITEM_ID: some, ROW: rows}), lower_bounds(bounds, order, sortable(some)))


def sorted_rows(part: pa.Table) -> np.ndarray:
    """The rows of a part of `spill_ids` in ascending order of their ids: int32.

    Raises:
        CatalogError: an id appears twice.
    """
    order = distinct_order(pa.chunked_array([one_array(part.column(ITEM_ID))]))
    return part.column(ROW).combine_chunks().to_numpy()[order]
