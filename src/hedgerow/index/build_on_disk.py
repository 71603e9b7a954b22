"""Build an index that is larger than memory, from a Parquet file to a saved index.

Rows are spilled to parts by the leading bits of their SIDs. Each part is small enough to be built in memory as a
catalog of its own. The parts are in the order of SIDs, so their levels are written one after the other. If the first
SID of a part shares a prefix with the last SID of the part before, the shared nodes have been written already.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hedgerow.catalog.catalog import ITEM_ID, Catalog
from hedgerow.errors import CatalogError
from hedgerow.index.build import Progress, build_trie, ignore_progress, pays_dense, with_bitmap
from hedgerow.index.fanout import fan_out
from hedgerow.index.files import as_folder, check_folder, index_file_errors, save_trie
from hedgerow.index.items import items_writer
from hedgerow.index.level import Level
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
    levels, leaves, sha256 = _build_parts(spill, sizes, items, reader, 4 * rows)
    order = order_on_disk(items, ITEM_ID, scratch, rows)

    def move_items(path: Path) -> str:
        os.replace(items, path)
        return sha256

    save_trie(Trie(levels, *leaves, _not_loaded, _load_order=lambda: order), output, items=move_items)


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
) -> tuple[tuple[Level, ...], tuple[np.ndarray | None, np.ndarray | None], str]:
    """Build every part, write the items, and return the levels and leaf arrays of the whole, memory-mapped.

    The third result is the SHA-256 of the file of the items.
    """
    columns = [_Column(items.with_name(f"level-{number}"), size) for number, size in enumerate(sizes)]
    leaves = _Column(items.with_name("leaves"), 1)
    last_sid, done = None, 0
    with ExitStack() as stack:
        writer, file = None, None
        for part in spill.parts():
            if len(part) > max_rows:
                raise CatalogError(f"{len(part):,} items have the same leading 64 bits in their SIDs. {ADVICE}")
            reader.progress("build", done, reader.rows)
            catalog = Catalog.from_arrow(part, sid=SID, item_id=ITEM_ID, codebook_sizes=sizes)
            index = build_trie(catalog, dense_levels=())
            ends = index.sids([0, index.num_sids - 1])
            shared = -1 if last_sid is None else int(np.argmax(ends[0] != last_sid))
            for number, (column, level) in enumerate(zip(columns, index.levels, strict=True)):
                column.add(level.codes, _is_first(level.children, level.num_parents, level.num_nodes), number, shared)
            no_codes = np.zeros(index.num_items, np.uint8)
            leaves.add(no_codes, _is_first(index.rows_of, index.num_sids, index.num_items), len(sizes), shared)
            if writer is None:
                writer, file = stack.enter_context(items_writer(items, index.items_table.schema))
            writer.write_table(index.items_table.combine_chunks())
            last_sid, done = ends[1], done + len(part)
    levels: list[Level] = []
    for number, column in enumerate(columns):
        levels.append(column.level(levels[-1].num_nodes if levels else 1, number))
    assert file is not None
    return tuple(levels), leaves.fan_out(levels[-1].num_nodes)[:2], file.sha256


def _is_first(spans: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]], parents: int, children: int) -> np.ndarray:
    """Whether each child is the first child of its parent: bool [children]."""
    is_first = np.zeros(children, bool)
    is_first[spans(np.arange(parents))[0]] = True
    return is_first


class _Column:
    """A level that grows on disk: the codes of its nodes, and which of them are first children."""

    def __init__(self, path: Path, codebook_size: int) -> None:
        self.path, self.size = path, codebook_size
        self.dtype = np.min_scalar_type(codebook_size - 1)
        self.codes, self.first = (open(path.with_suffix(end), "wb") for end in (".codes", ".first"))  # noqa: SIM115

    def add(self, codes: np.ndarray, is_first: np.ndarray, number: int, shared: int) -> None:
        """Append the nodes of a part at level `number`.

        Args:
            codes: [E] the codes of the nodes.
            is_first: [E] bool, whether each node is the first child of its parent; modified.
            number: the level number.
            shared: the number of leading codes that the first SID of the part shares with the last SID of the part
                before; -1 for the first part.
        """
        # If the first SID shares its prefix at this level, the first node has been written already. If it shares only
        # the parent's prefix, the first node is not the first child of that parent.
        skipped = int(number < shared)
        is_first[0] &= number != shared
        self.codes.write(codes[skipped:].astype(self.dtype).data)
        self.first.write(is_first[skipped:].data)

    def fan_out(self, parents: int) -> tuple[np.ndarray | None, np.ndarray | None, int]:
        """Close the files, and make the fan-out of the whole level on disk, as `fanout.fan_out` does."""
        self.codes.close()
        self.first.close()
        return fan_out(np.memmap(self.path.with_suffix(".first"), bool, "r"), parents, self._mapped)

    def level(self, parents: int, number: int) -> Level:
        """The whole level, memory-mapped, and dense by the default rule of `build_index`."""
        child_start, forks, max_branch = self.fan_out(parents)
        codes = np.memmap(self.path.with_suffix(".codes"), self.dtype, "r")
        level = Level(codes, child_start, forks, None, self.size, max_branch)
        return with_bitmap(level, number) if pays_dense(level) else level

    def _mapped(self, length: int, dtype: Any) -> np.ndarray:
        return np.memmap(self.path.with_suffix(".fan"), dtype, "w+", shape=(length,))


def _not_loaded() -> pa.Table:
    raise AssertionError("the items of an index built on disk are written part by part")
