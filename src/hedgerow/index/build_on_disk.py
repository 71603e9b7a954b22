"""Build an index that is larger than memory, from a Parquet file to a saved index.

Rows are spilled to parts by the leading bits of their SIDs. Each part is small enough to be built in memory as a
catalog of its own. The parts are in the order of SIDs, so they are joined: see `joining`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hedgerow._arguments import check_choice
from hedgerow.index.batched import BatchReader, Plan
from hedgerow.index.build import Progress, ignore_progress
from hedgerow.index.compact import LAYOUTS, Layout
from hedgerow.index.files import ORDER, as_folder, check_folder, index_file_errors, save_trie
from hedgerow.index.items import items_writer
from hedgerow.index.joining import Finished, Joined, Nodes
from hedgerow.index.order_on_disk import order_on_disk
from hedgerow.index.scratch import scratch_folder
from hedgerow.index.spill import Spill
from hedgerow.index.trie import Trie

if TYPE_CHECKING:
    import pyarrow as pa

    from hedgerow.catalog.sources import Source


def build_to_disk(
    source: Source,
    output: str | Path,
    *,
    memory: int,
    sid: str | Sequence[str] = "sid",
    item_id: str | None = None,
    codebook_sizes: int | Sequence[int] | None = None,
    attributes: Sequence[str] | None = None,
    layout: Layout = "plain",
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
        layout: as for `hedgerow.build_index`.
        progress: called as ``progress(what, done, total)``, in rows.

    Raises:
        CatalogError: as for `Catalog.from_parquet`, or the memory limit is too low for this catalog.
        IndexFileError: as for `TrieIndex.save`.
    """
    check_choice(layout, "layout", LAYOUTS)
    reader = BatchReader(source, sid, item_id, codebook_sizes, attributes)
    output = as_folder(output)
    with scratch_beside(output) as scratch:
        _build(reader, output, scratch, memory, layout, progress)


@contextmanager
def scratch_beside(output: Path) -> Iterator[Path]:
    """Check that an index can be saved to a folder, and make a temporary folder next to it.

    Raises:
        IndexFileError: it cannot be saved.
    """
    with index_file_errors(output):
        check_folder(output)
        output.absolute().parent.mkdir(parents=True, exist_ok=True)
        # Next to the output, so that a rename moves finished files there.
        with scratch_folder(output.absolute().parent) as scratch:
            yield scratch


def _build(reader: BatchReader, output: Path, scratch: Path, memory: int, layout: Layout, progress: Progress) -> None:
    rows, parts = reader.part_rows(memory), reader.num_parts(memory)
    plan = reader.survey(progress=progress).plan(parts)
    with Spill(scratch, plan.num_parts) as spill:
        reader.spill(plan, spill, progress=progress)
    items = scratch / "items"
    finished, sha256 = _build_parts(spill, plan, items, 4 * rows, reader.rows, layout, progress)
    save_finished(finished, output, items, sha256, order_on_disk(items, scratch, rows))


def save_finished(finished: Finished, output: Path, items: Path, sha256: str, order: np.ndarray) -> None:
    """Save a joined trie, whose large temporary files are emptied as they are written to the index.

    Args:
        finished: the trie.
        output: the folder of the index.
        items: the file of the items, on the same file system. It is moved.
        sha256: the checksum of that file.
        order: the order of the ids.
    """

    def move_items(path: Path) -> str:
        os.replace(items, path)
        return sha256

    def not_loaded() -> pa.Table:
        raise AssertionError("the items of an index built on disk are written part by part")

    save_trie(Trie(*finished, not_loaded, _load_order=lambda: order), output, items=move_items, written=_freed)


def _freed(name: str, array: np.ndarray) -> None:
    """Give the disk space of codes and of the order back. Of these, the manifest needs no more than the length."""
    is_large = name == ORDER or name.startswith("codes.")
    # Windows does not cut a mapped file short; there, the space is free at the end of the build.
    if is_large and isinstance(array, np.memmap) and array.filename is not None and os.name != "nt":
        os.truncate(array.filename, 0)


def _build_parts(
    spill: Spill, plan: Plan, items: Path, max_rows: int, total: int, layout: Layout, progress: Progress
) -> tuple[Finished, str]:
    """Build every part, write the items, and return the trie of the whole, as `join_on_disk` does."""

    def tries() -> Iterator[Trie]:
        done = 0
        for part in spill.parts():
            progress("build", done, total)
            yield plan.build(part, max_rows)
            done += len(part)

    return join_on_disk(tries(), plan.codebook_sizes, items, layout)


def join_on_disk(
    tries: Iterable[Trie], codebook_sizes: Sequence[int], items: Path, layout: Layout = "plain"
) -> tuple[Finished, str]:
    """Join tries of ascending ranges of SIDs, with one in memory at a time, and write their items.

    Args:
        tries: at least one, each with items.
        codebook_sizes: those of each trie.
        items: the new file of the items. The arrays of the trie are written next to it.
        layout: the layout of the levels.

    Returns:
        The trie of the whole, memory-mapped, and the SHA-256 of the file of the items.
    """
    joined = Joined(codebook_sizes, (None,) * len(codebook_sizes), items.parent)
    with ExitStack() as stack:
        writer, file = None, None
        for trie in tries:
            joined.add(Nodes.of(trie))
            if writer is None:
                writer, file = stack.enter_context(items_writer(items, trie.items_table.schema))
            writer.write_table(trie.items_table.combine_chunks())
    assert file is not None
    return joined.finish(layout=layout), file.sha256
