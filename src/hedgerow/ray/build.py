"""Build an index from Parquet files over the processes of a Ray cluster."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import ray

from hedgerow._arguments import check_choice, whole_number
from hedgerow.errors import CatalogError
from hedgerow.index.batched import MAX_PARTS, BatchReader, Survey
from hedgerow.index.build import Progress, ignore_progress
from hedgerow.index.build_in_parts import PartsBuild
from hedgerow.index.build_on_disk import scratch_beside
from hedgerow.index.compact import LAYOUTS, Layout
from hedgerow.index.files import as_folder
from hedgerow.indexes import load_index
from hedgerow.ray.cluster import num_cpus, own_errors, run_tasks, start
from hedgerow.trie_index import TrieIndex

if TYPE_CHECKING:
    from hedgerow.catalog.sources import Source

GB = 10**9
# The number of tasks per worker, so that all workers end at about the same time.
TASKS_PER_WORKER = 4


def build(
    files: Source,
    output: str | Path,
    *,
    memory: int = GB,
    workers: int | None = None,
    sid: str | Sequence[str] = "sid",
    item_id: str | None = None,
    codebook_sizes: int | Sequence[int] | None = None,
    attributes: Sequence[str] | None = None,
    layout: Layout = "plain",
    progress: Progress = ignore_progress,
) -> TrieIndex:
    """Build and save the index of Parquet files with the processes of a Ray cluster.

    Processes read the files and divide their rows among ranges of SIDs, each builds ranges, and this process joins
    them. The saved files equal those of `build_index` and `TrieIndex.save`, byte for byte. A build that fails leaves no
    files.

    It connects to the cluster that RAY_ADDRESS names; without it, Ray starts on this machine. All machines need the
    files and the folder of the output under the same paths. During the build, temporary files of up to five times the
    size of the rows are next to the output.

    Args:
        files: the Parquet files, as for `Catalog.from_parquet`, but no open file.
        output: the folder of the index.
        memory: the memory limit in bytes of each process, in addition to what Python and its libraries use (about
            200 MB).
        workers: the maximum number of processes that work at a time. Default: one per CPU of the cluster.
        sid: as for `Catalog.from_arrow`.
        item_id: as for `Catalog.from_arrow`.
        codebook_sizes: as for `Catalog.from_arrow`.
        attributes: as for `Catalog.from_arrow`.
        layout: as for `hedgerow.build_index`.
        progress: called as ``progress(what, done, total)``.

    Returns:
        The index, whose files are mapped into memory.

    Raises:
        CatalogError: as for `Catalog.from_parquet`, or the memory limit is too low for this catalog.
        IndexFileError: as for `TrieIndex.save`, or a machine does not see the folder of the output.
        BackendError: a process of Ray ended.
        MissingDependencyError: Ray is not installed.

    Examples:
        ```python
        import pyarrow as pa
        import pyarrow.parquet as pq
        import hedgerow.ray

        for number, sids in enumerate([[[3, 1], [0, 2]], [[1, 1]]]):
            ids = [f"{number}-{row}" for row in range(len(sids))]
            pq.write_table(pa.table({"sid": sids, "item_id": ids}), f"items-{number}.parquet")
        index = hedgerow.ray.build("items-*.parquet", "items.hedgerow", codebook_sizes=6)
        assert index.item_ids.to_pylist() == ["0-1", "1-0", "0-0"]
        ```
    """
    whole_number(memory, "memory")
    check_choice(layout, "layout", LAYOUTS)
    if workers is not None:
        whole_number(workers, "workers")
    reader = BatchReader(_absolute(files), sid, item_id, codebook_sizes, attributes)
    parts, output = reader.num_parts(memory), as_folder(output).absolute()
    with scratch_beside(output) as scratch, own_errors():
        start()
        run = _Run(workers or num_cpus(), progress)
        parts = min(MAX_PARTS, max(parts, run.workers))
        run.build(reader, scratch, parts, 4 * reader.part_rows(memory), output, layout)
    return load_index(output, mmap=True)


class _Run:
    """A build that runs.

    Attributes:
        workers: the maximum number of processes.
        progress: see `build`.
    """

    def __init__(self, workers: int, progress: Progress) -> None:
        self.workers, self.progress = workers, progress

    def build(
        self, reader: BatchReader, scratch: Path, parts: int, max_rows: int, output: Path, layout: Layout
    ) -> None:
        """Build the index: the steps of `build_in_parts`."""
        groups = _groups(reader.files.rows_of_files, TASKS_PER_WORKER * self.workers)
        sizes = [sum(reader.files.rows_of_files[files]) for files in groups]
        read = ray.put(reader)
        surveys = self._tasks("read", _survey, [(read, files) for files in groups], sizes)
        steps = PartsBuild.of(reader, scratch, surveys, parts, max_rows, layout=layout)
        plan = ray.put(steps)
        spills = [(plan, number, files) for number, files in enumerate(groups)]
        rows = np.sum(self._tasks("spill", _spill, spills, sizes), axis=0)
        starts = np.cumsum(rows) - rows
        filled = np.flatnonzero(rows).tolist()
        builds = [(plan, part, int(starts[part])) for part in filled]
        self._tasks("build", _build, builds, rows[filled].tolist())
        ranges = len(steps.id_bounds) + 1
        self._tasks("sort", _sort, [(plan, part) for part in range(ranges)], [1] * ranges)
        self.progress("join", 0, 1)
        steps.join(filled, output)
        self.progress("join", 1, 1)

    def _tasks(
        self, what: str, function: Callable[..., Any], tasks: Sequence[tuple[Any, ...]], sizes: Sequence[int]
    ) -> list[Any]:
        """Run the tasks of a step, and report progress by their sizes."""
        total, finished = sum(sizes), 0
        self.progress(what, 0, total)

        def done(number: int) -> None:
            nonlocal finished
            finished += sizes[number]
            self.progress(what, finished, total)

        return run_tasks(function, tasks, workers=self.workers, done=done)


def _groups(rows: Sequence[int], groups: int) -> list[slice]:
    """Divide files among at most `groups` groups of neighbours with about the same number of rows."""
    starts = np.cumsum(rows) - rows
    # Files without rows belong to a group that has some.
    starts = np.minimum(starts, starts[np.flatnonzero(rows)[-1]])
    cuts = np.flatnonzero(np.diff(starts * groups // sum(rows))) + 1
    return [slice(begin, end) for begin, end in pairwise([0, *cuts.tolist(), len(rows)])]


def _absolute(files: Any) -> Any:
    """The files under paths that do not depend on the folder of a process.

    Raises:
        CatalogError: it is an open file.
    """
    if hasattr(files, "read"):
        raise CatalogError("hedgerow.ray.build needs paths of files, which other processes can open; got an open file.")
    if isinstance(files, str | os.PathLike):
        return files if "://" in str(files) else Path(files).expanduser().absolute()
    return [_absolute(path) for path in files] if isinstance(files, list | tuple) else files


def _survey(reader: BatchReader, files: slice) -> Survey:
    return reader.survey(files)


def _spill(steps: PartsBuild, number: int, files: slice) -> np.ndarray:
    return steps.spill(number, files)


def _build(steps: PartsBuild, part: int, start: int) -> None:
    steps.build(part, start)


def _sort(steps: PartsBuild, part: int) -> None:
    steps.sort(part)
