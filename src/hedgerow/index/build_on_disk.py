"""Building an index that does not fit in memory: Parquet in, a saved index out.

Rows are spilled to parts by ranges of their SIDs' leading bits. Each part is small enough to be built as a catalog of
its own; since parts follow each other in the order of SIDs, their levels are written one after the other. Where the
first SID of a part shares a prefix with the last one of the part before, the shared nodes are already there.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hedgerow.catalog.catalog import ITEM_ID, Catalog
from hedgerow.errors import CatalogError
from hedgerow.index.build import Progress, build_trie, ignore_progress, pays_dense, with_bitmap
from hedgerow.index.fanout import fan_out
from hedgerow.index.files import as_folder, claim_folder, save_trie
from hedgerow.index.level import Level
from hedgerow.index.sort import leading_bits
from hedgerow.index.spill import Spill, check_distinct, sample_evenly
from hedgerow.index.trie import Trie

if TYPE_CHECKING:
    import pyarrow as pa

# Bytes of work for each row of a part (keys, order, marks), beside three copies of the row itself.
WORK_BYTES = 96
BATCH = 2**16
MAX_PARTS = 512
SAMPLE = 2**18
# No column of a catalog is called so, since the SID's own is taken away when it is read.
SID = "\0sid"
ADVICE = "give more memory."


def build_to_disk(
    source: str | Path,
    output: str | Path,
    *,
    memory: int,
    sid: str | Sequence[str] = "sid",
    item_id: str | None = None,
    codebook_sizes: int | Sequence[int] | None = None,
    attributes: Sequence[str] | None = None,
    progress: Progress = ignore_progress,
) -> None:
    """Builds the index of a Parquet file and saves it, within a limit of memory.

    The trie's bytes are those of ``build_index(...).save(...)``; the items are the same rows, in other row groups.

    Args:
        source: the Parquet file.
        output: the folder of the index. Beside it, up to three times the size of the file is used while building.
        memory: bytes that the build may take, beside what Python and its libraries do (about 200 MB).
        sid, item_id, codebook_sizes, attributes: as for `Catalog.from_parquet`.
        progress: called as ``progress(what, done, total)``, in rows.

    Raises:
        CatalogError: as for `Catalog.from_parquet`; or the memory does not do for this catalog.
        IndexFileError: as for `Trie.save`.
    """
    reader = _Reader(Path(source).absolute(), sid, item_id, attributes, progress)
    output = as_folder(output)
    claim_folder(output)
    # Beside the output, so that finished files move there by a rename.
    with tempfile.TemporaryDirectory(prefix=".hedgerow-build-", dir=output.absolute().parent) as folder:
        scratch, rows = Path(folder), reader.part_rows(memory)
        sizes, bounds = _plan(reader, codebook_sizes, memory)
        with Spill(scratch, len(bounds) + 1) as spill:
            for catalog, ids in reader.catalogs("spill", sizes):
                part_of = np.searchsorted(bounds, leading_bits(catalog.sids, sizes), side="right")
                spill.add(_as_table(catalog, ids), part_of)
        levels, leaves = _build_parts(spill, sizes, scratch, reader, 4 * rows)
        items = scratch / "items"
        if reader.item_id is not None:
            check_distinct(items, ITEM_ID, scratch, rows)
        index = Trie(levels, *leaves, _not_loaded)
        save_trie(index, output, write_items=lambda path: os.replace(items, path))


class _Reader:
    """A Parquet file as catalogs of a batch each, with the progress of reading them."""

    def __init__(
        self, path: Path, sid: str | Sequence[str], item_id: str | None, attributes: Any, progress: Progress
    ) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if not path.exists():
            raise CatalogError(f"{path} does not exist.")
        self.path, self.sid, self.item_id, self.attributes, self.progress = path, sid, item_id, attributes, progress
        try:
            facts = pq.read_metadata(path)
        except (OSError, pa.ArrowException) as error:
            raise CatalogError(f"{path} cannot be read as Parquet: {error}") from None
        self.rows = facts.num_rows
        if item_id is None and ITEM_ID in facts.schema.names:
            self.item_id = ITEM_ID
        stored = sum(facts.row_group(group).total_byte_size for group in range(facts.num_row_groups))
        self.row_bytes = stored / max(1, self.rows)

    def catalogs(self, what: str, sizes: Any, attributes: Any = ...) -> Iterator[tuple[Catalog, pa.Array]]:
        """The batches and their ids, which are numbers of rows where no column names them."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        kept = self.attributes if attributes is ... else attributes
        named = [*([self.sid] if isinstance(self.sid, str) else self.sid), *([self.item_id] if self.item_id else [])]
        options = {"sid": self.sid, "item_id": self.item_id, "codebook_sizes": sizes, "attributes": kept}
        first = 0
        with pq.ParquetFile(self.path) as file:
            wanted = None if kept is None else [name for name in [*named, *kept] if name in file.schema_arrow.names]
            for batch in file.iter_batches(BATCH, columns=wanted):
                self.progress(what, first, self.rows)
                try:
                    catalog = Catalog.from_arrow(pa.Table.from_batches([batch]), **options)
                except CatalogError as error:
                    raise CatalogError(f"in the rows from {first:,} on: {error}") from None
                last = first + len(catalog)
                yield catalog, catalog.item_ids if self.item_id else pa.array(np.arange(first, last))
                first = last

    def part_rows(self, memory: int) -> int:
        """How many rows a part may have."""
        return max(1, int(memory / (WORK_BYTES + 3 * self.row_bytes)))


def _plan(reader: _Reader, sizes: Any, memory: int) -> tuple[tuple[int, ...], np.ndarray]:
    """Returns the codebook sizes, and the leading bits at which a new part begins."""
    if reader.rows == 0:
        raise CatalogError(f"{reader.path} holds no row; build an empty index with Catalog and build_index.")
    largest: np.ndarray | None = None
    samples, step = [], -(-reader.rows // SAMPLE)
    for catalog, _ in reader.catalogs("read", sizes, attributes=[]):
        found = np.asarray(catalog.codebook_sizes)
        largest = found if largest is None else np.maximum(largest, found)
        samples.append(catalog.sids[::step].astype(np.uint32))
    assert largest is not None
    known = tuple(int(size) for size in largest)
    parts = -(-reader.rows // reader.part_rows(memory))
    if parts > MAX_PARTS:
        needed = reader.rows * (WORK_BYTES + 3 * reader.row_bytes) / MAX_PARTS
        raise CatalogError(f"{reader.rows:,} items need {needed / 1e6:,.0f} MB of memory at least; {ADVICE}")
    keys = leading_bits(np.concatenate(samples), known)
    return known, np.unique(sample_evenly(np.sort(keys), parts))


def _as_table(catalog: Catalog, ids: pa.Array) -> pa.Table:
    import pyarrow as pa

    sids = pa.FixedSizeListArray.from_arrays(catalog.sids.reshape(-1), catalog.num_levels)
    table = pa.table({ITEM_ID: ids, SID: sids})
    for name in catalog.attributes.column_names:
        table = table.append_column(name, catalog.attributes.column(name))
    return table


def _build_parts(
    spill: Spill, sizes: tuple[int, ...], scratch: Path, reader: _Reader, most_rows: int
) -> tuple[tuple[Level, ...], tuple[np.ndarray | None, np.ndarray | None]]:
    """Builds every part, and returns the levels and the leaf arrays of the whole, mapped from files."""
    import pyarrow.parquet as pq

    columns = [_Column(scratch / f"level-{at}", size) for at, size in enumerate(sizes)]
    leaves = _Column(scratch / "leaves", 1)
    last, done = None, 0
    with ExitStack() as stack:
        writer = None
        for part in spill.parts():
            if len(part) > most_rows:
                raise CatalogError(f"{len(part):,} items share the leading 64 bits of their SIDs; {ADVICE}")
            reader.progress("build", done, reader.rows)
            catalog = Catalog.from_arrow(part, sid=SID, item_id=ITEM_ID, codebook_sizes=sizes)
            index = build_trie(catalog, dense_levels=())
            ends = index.sids([0, index.num_sids - 1])
            shared = -1 if last is None else int(np.argmax(ends[0] != last))
            for at, (column, level) in enumerate(zip(columns, index.levels, strict=True)):
                column.add(level.codes, _is_first(level.children, level.num_parents, level.num_nodes), at, shared)
            no_codes = np.zeros(index.num_items, np.uint8)
            leaves.add(no_codes, _is_first(index.rows_of, index.num_sids, index.num_items), len(sizes), shared)
            if writer is None:
                schema = index.items_table.schema
                writer = stack.enter_context(pq.ParquetWriter(scratch / "items", schema, compression="zstd"))
            writer.write_table(index.items_table)
            last, done = ends[1], done + len(part)
    levels: list[Level] = []
    for at, column in enumerate(columns):
        levels.append(column.level(levels[-1].num_nodes if levels else 1, at))
    return tuple(levels), leaves.fan_out(levels[-1].num_nodes)[:2]


def _is_first(spans: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]], parents: int, children: int) -> np.ndarray:
    """Returns bool [children]: whether each child is its parent's first."""
    flags = np.zeros(children, bool)
    flags[spans(np.arange(parents))[0]] = True
    return flags


class _Column:
    """A level that grows on disk: the codes of its nodes, and which of them are first children."""

    def __init__(self, path: Path, codebook_size: int) -> None:
        self.path, self.size = path, codebook_size
        self.dtype = np.min_scalar_type(codebook_size - 1)
        self.codes, self.first = (open(path.with_suffix(end), "wb") for end in (".codes", ".first"))  # noqa: SIM115

    def add(self, codes: np.ndarray, is_first: np.ndarray, at: int, shared: int) -> None:
        """Appends the nodes of a part at level `at`, whose first SID shares `shared` codes with the last one here."""
        # The first node is here already where its prefix is shared, and is no first child where its parent's is.
        known = int(at < shared)
        is_first[0] &= at != shared
        self.codes.write(codes[known:].astype(self.dtype).data)
        self.first.write(is_first[known:].data)

    def fan_out(self, parents: int) -> tuple[np.ndarray | None, np.ndarray | None, int]:
        """Closes the files, and returns `fan_out` of the whole, on disk."""
        self.codes.close()
        self.first.close()
        return fan_out(np.memmap(self.path.with_suffix(".first"), bool, "r"), parents, self._mapped)

    def level(self, parents: int, at: int) -> Level:
        """Returns the whole level number `at`, mapped, dense by the rule of `build_index`."""
        child_start, forks, max_branch = self.fan_out(parents)
        codes = np.memmap(self.path.with_suffix(".codes"), self.dtype, "r")
        level = Level(codes, child_start, forks, None, self.size, max_branch)
        return with_bitmap(level, at) if pays_dense(level) else level

    def _mapped(self, length: int, dtype: Any) -> np.ndarray:
        return np.memmap(self.path.with_suffix(".fan"), dtype, "w+", shape=(length,))


def _not_loaded() -> pa.Table:
    raise AssertionError("the items of an index built on disk are written part by part")
