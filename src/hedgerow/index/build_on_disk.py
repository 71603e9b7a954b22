"""Build an index that is larger than memory, from a Parquet file to a saved index.

Rows are spilled to parts by the leading bits of their SIDs. Each part is small enough to be built in memory as a
catalog of its own. The parts are in the order of SIDs, so they are joined: see `joining`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hedgerow.catalog.catalog import ITEM_ID, Catalog
from hedgerow.errors import CatalogError
from hedgerow.index.build import Progress, build_trie, ignore_progress
from hedgerow.index.files import as_folder, check_folder, index_file_errors, save_trie
from hedgerow.index.items import items_writer
from hedgerow.index.joining import Finished, Joined, Nodes
from hedgerow.index.order_on_disk import order_on_disk
from hedgerow.index.scratch import scratch_folder
from hedgerow.index.sort import leading_bits
from hedgerow.index.spill import Spill, sample_evenly
from hedgerow.index.trie import Trie

if TYPE_CHECKING:
    import pyarrow as pa

    from hedgerow.catalog.sources import Source

# Working memory in bytes per row of a part (keys, order, flags), in addition to three copies of the row itself.
WORK_BYTES = 96
BATCH = 2**16
MAX_PARTS = 512
SAMPLE = 2**18
# No attribute can have this name: the SID column is removed from the attributes when the catalog is read.
SID = "\0sid"
ADVICE = "Raise the memory limit."


def build_to_disk(
    source: Source,
    output: str | Path,
    *,
    memory: int,
    sid: str | Sequence[str] = "sid",
    item_id: str | None = None,
    codebook_sizes: int | Sequence[int] | None = None,
    attributes: Sequence[str] | None = None,
    progress: Progress = ignore_progress,
) -> None:
    """Build and save the index of Parquet files within a memory limit.

    The bytes of the trie equal those of ``build_index(...).save(...)``. The items are the same rows, in several record
    batches. If the process ends with SIGTERM, its temporary files are removed; if it is killed, the next build with an
    output in the same folder removes them.

    Args:
        source: the Parquet files, as for `Catalog.from_parquet`.
        output: the folder of the index. During the build, files of up to three times the size of `source` are next to
            it.
        memory: the memory limit in bytes, in addition to what Python and its libraries use (about 200 MB).
        sid: as for `Catalog.from_arrow`.
        item_id: as for `Catalog.from_arrow`.
        codebook_sizes: as for `Catalog.from_arrow`.
        attributes: as for `Catalog.from_arrow`.
        progress: called as ``progress(what, done, total)``, in rows.

    Raises:
        CatalogError: as for `Catalog.from_parquet`, or the memory limit is too low for this catalog.
        IndexFileError: as for `TrieIndex.save`.
    """
    reader = _Reader(source, sid, item_id, attributes, progress)
    output = as_folder(output)
    with index_file_errors(output):
        check_folder(output)
        output.absolute().parent.mkdir(parents=True, exist_ok=True)
        # Next to the output, so that a rename moves finished files there.
        with scratch_folder(output.absolute().parent) as scratch:
            _build(reader, output, scratch, codebook_sizes, memory)


def _build(reader: _Reader, output: Path, scratch: Path, codebook_sizes: Any, memory: int) -> None:
    rows = reader.part_rows(memory)
    sizes, bounds = _plan(reader, codebook_sizes, memory)
    with Spill(scratch, len(bounds) + 1) as spill:
        for catalog, ids in reader.catalogs("spill", sizes):
            part_of = np.searchsorted(bounds, leading_bits(catalog.sids, sizes), side="right")
            spill.add(_as_table(catalog, ids), part_of)
    items = scratch / "items"
    finished, sha256 = _build_parts(spill, sizes, items, reader, 4 * rows)
    order = order_on_disk(items, ITEM_ID, scratch, rows)

    def move_items(path: Path) -> str:
        os.replace(items, path)
        return sha256

    save_trie(Trie(*finished, _not_loaded, _load_order=lambda: order), output, items=move_items)


class _Reader:
    """Reads Parquet files as one catalog per batch, and reports progress."""

    def __init__(
        self, source: Source, sid: str | Sequence[str], item_id: str | None, attributes: Any, progress: Progress
    ) -> None:
        from hedgerow.catalog.readers import parquet_files

        self.files = parquet_files(source)
        self.sid, self.item_id, self.attributes, self.progress = sid, item_id, attributes, progress
        self.names = self.files.schema.names
        self.rows = self.files.num_rows
        if item_id is None and ITEM_ID in self.names:
            self.item_id = ITEM_ID
        self.row_bytes = self.files.nbytes / max(1, self.rows)

    def catalogs(self, what: str, sizes: Any, attributes: Any = ...) -> Iterator[tuple[Catalog, pa.Array]]:
        """Iterate over the batches and their item ids, which are row numbers if no column holds ids.

        Args:
            what: the name of the pass for the progress callback.
            sizes: the codebook sizes, as for `Catalog`.
            attributes: the attributes to read. Default: those of the reader.
        """
        import pyarrow as pa

        kept = self.attributes if attributes is ... else attributes
        required = [*([self.sid] if isinstance(self.sid, str) else self.sid), *([self.item_id] if self.item_id else [])]
        options = {"sid": self.sid, "item_id": self.item_id, "codebook_sizes": sizes, "attributes": kept}
        start = 0
        columns = None if kept is None else {*required, *kept}
        for name, batch in self.files.batches(BATCH, columns):
            self.progress(what, start, self.rows)
            try:
                catalog = Catalog.from_arrow(batch, **options)
            except CatalogError as error:
                raise CatalogError(f"{name}, in the batch that starts at row {start:,}: {error}") from None
            stop = start + len(catalog)
            yield catalog, catalog.item_ids if self.item_id else pa.array(np.arange(start, stop))
            start = stop

    def part_rows(self, memory: int) -> int:
        """The number of rows per part that fits the memory limit."""
        return max(1, int(memory / (WORK_BYTES + 3 * self.row_bytes)))


def _plan(reader: _Reader, sizes: Any, memory: int) -> tuple[tuple[int, ...], np.ndarray]:
    """Determine the codebook sizes, and the leading bits at which each part but the first starts."""
    if reader.rows == 0:
        name = reader.files.files[0].name
        raise CatalogError(f"{name} has no rows. Build an empty index with hr.Catalog and hr.build_index.")
    largest: np.ndarray | None = None
    samples, step = [], -(-reader.rows // SAMPLE)
    for catalog, _ in reader.catalogs("read", sizes, attributes=[]):
        batch_sizes = np.asarray(catalog.codebook_sizes)
        largest = batch_sizes if largest is None else np.maximum(largest, batch_sizes)
        samples.append(catalog.sids[::step].astype(np.uint32))
    assert largest is not None
    codebook_sizes = tuple(int(size) for size in largest)
    parts = -(-reader.rows // reader.part_rows(memory))
    if parts > MAX_PARTS:
        needed = reader.rows * (WORK_BYTES + 3 * reader.row_bytes) / MAX_PARTS
        raise CatalogError(f"{reader.rows:,} items need at least {needed / 1e6:,.0f} MB of memory. {ADVICE}")
    keys = leading_bits(np.concatenate(samples), codebook_sizes)
    return codebook_sizes, np.unique(sample_evenly(np.sort(keys), parts))


def _as_table(catalog: Catalog, ids: pa.Array) -> pa.Table:
    import pyarrow as pa

    sids = pa.FixedSizeListArray.from_arrays(catalog.sids.reshape(-1), catalog.num_levels)
    table = pa.table({ITEM_ID: ids, SID: sids})
    for name in catalog.attributes.column_names:
        table = table.append_column(name, catalog.attributes.column(name))
    return table


def _build_parts(
    spill: Spill, sizes: tuple[int, ...], items: Path, reader: _Reader, max_rows: int
) -> tuple[Finished, str]:
    """Build every part, write the items, and return the trie of the whole, memory-mapped.

    The second result is the SHA-256 of the file of the items.
    """
    joined, done = Joined(sizes, (None,) * len(sizes), items.parent), 0
    with ExitStack() as stack:
        writer, file = None, None
        for part in spill.parts():
            reader.progress("build", done, reader.rows)
            index = build_part(part, sizes, max_rows)
            joined.add(Nodes.of(index))
            if writer is None:
                writer, file = stack.enter_context(items_writer(items, index.items_table.schema))
            writer.write_table(index.items_table.combine_chunks())
            done += len(part)
    assert file is not None
    return joined.finish(), file.sha256


def build_part(rows: pa.Table, sizes: tuple[int, ...], max_rows: int) -> Trie:
    """Build the trie of the rows of a part.

    Raises:
        CatalogError: they are too many.
    """
    if len(rows) > max_rows:
        raise CatalogError(f"{len(rows):,} items have the same leading 64 bits in their SIDs. {ADVICE}")
    catalog = Catalog.from_arrow(rows, sid=SID, item_id=ITEM_ID, codebook_sizes=sizes)
    return build_trie(catalog, dense_levels=())


def _not_loaded() -> pa.Table:
    raise AssertionError("the items of an index built on disk are written part by part")
