"""Time each part of the way from a Parquet file to a saved and verified index, which a new live version takes as well.

    python benchmarks/build_parts.py                  10M items of 8 levels of 2,048 codes, with integer ids
    python benchmarks/build_parts.py --items 1e5      a smaller catalog

The parts are: read the file, check SIDs and ids, sort the SIDs, build the levels of the trie, put the items in order
and sort their ids, write the files, and open them again mapped with their checksums and structure checked. The file is
written before, with SIDs of 32-bit integers in random order. On a machine with other processes, the CPU time of a part
is more reliable than its time; it is that of all threads.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import hedgerow as hr
from hedgerow.bench.machine import conditions, set_threads
from hedgerow.bench.records import Report, Row
from hedgerow.bench.tables import console_for_tables, show_footer, show_rows
from hedgerow.catalog import readers

RESULTS = Path(__file__).parent / "results"
LEVELS, CODES = 8, 2048
PARTS = ("read", "check", "sort", "trie", "items", "write", "verify")
HEADINGS = {"part": "part", "min_seconds": "min s", "median_seconds": "median s", "cpu_min_seconds": "CPU s, min"}
HEADINGS |= {"cpu_median_seconds": "CPU s, median"}


class Clock:
    """The time and the CPU time of the parts of one run, in seconds."""

    def __init__(self) -> None:
        self.seconds: dict[str, tuple[float, float]] = {}
        self._last = time.perf_counter(), time.process_time()

    def end(self, part: str) -> None:
        """End a part, which began at the end of the one before."""
        now = time.perf_counter(), time.process_time()
        before = self.seconds.get(part, (0.0, 0.0))
        self.seconds[part] = before[0] + now[0] - self._last[0], before[1] + now[1] - self._last[1]
        self._last = now


def write_items(path: Path, items: int) -> None:
    """Write a Parquet file of random SIDs with ids in another order."""
    rng = np.random.default_rng(20_260_222)
    codes = rng.integers(0, CODES, items * LEVELS, dtype=np.int32)
    sids = pa.FixedSizeListArray.from_arrays(codes, LEVELS)
    pq.write_table(pa.table({"item_id": rng.permutation(items), "sid": sids}), path)


def run(path: Path, output: Path) -> dict[str, tuple[float, float]]:
    """Go the whole way once."""
    clock = Clock()
    tables = readers.read_parquet(path, "sid")
    clock.end("read")
    catalog = readers.catalog_of(hr.Catalog._from_file, tables, {"codebook_sizes": CODES})
    del tables
    clock.end("check")

    def progress(what: str, done: int, total: int) -> None:  # noqa: ARG001
        if what in ("level 0", "items", "done"):
            clock.end({"level 0": "sort", "items": "trie", "done": "items"}[what])

    index = hr.build_index(catalog, progress=progress)
    index.items_table  # noqa: B018
    index._id_order  # noqa: B018
    clock.end("items")
    index.save(output)
    clock.end("write")
    opened = hr.load_index(output, mmap=True, verify="full")
    clock.end("verify")
    assert opened.nodes_per_level == index.nodes_per_level
    return clock.seconds


def rows_of(items: int, runs: list[dict[str, tuple[float, float]]]) -> list[Row]:
    """One row per part, and one for all."""
    rows = []
    for part in (*PARTS, "total"):
        of_runs = [[seconds[name] for name in (PARTS if part == "total" else [part])] for seconds in runs]
        wall, cpu = (np.asarray([sum(pair[kind] for pair in pairs) for pairs in of_runs]) for kind in (0, 1))
        row: dict[str, Any] = {"part": part, "items": items, "levels": LEVELS, "codebook_size": CODES}
        row |= {"min_seconds": float(wall.min()), "median_seconds": float(np.median(wall))}
        row |= {"cpu_min_seconds": float(cpu.min()), "cpu_median_seconds": float(np.median(cpu)), "runs": len(runs)}
        rows.append(row)
    return rows


def main() -> None:
    """Run it, print the table and save the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=float, default=1e7, help="number of items (default: 1e7)")
    parser.add_argument("--repeats", type=int, default=7, help="number of runs (default: 7)")
    parser.add_argument("--threads", type=int, help="number of threads (default: all cores)")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    set_threads(arguments.threads)
    items = int(arguments.items)
    with tempfile.TemporaryDirectory(prefix="hedgerow-build-parts-") as folder:
        path = Path(folder) / "items.parquet"
        write_items(path, items)
        runs = [run(path, Path(folder) / "index") for _ in range(arguments.repeats)]
    rows = rows_of(items, runs)
    report = Report("build-parts", conditions() | {"quick": items < 1e7}, rows)
    console = console_for_tables()
    show_rows(f"Parquet to a verified index, {items:,} items, {LEVELS} x {CODES:,}", HEADINGS, rows, console)
    show_footer(report, console)
    for saved in report.save(arguments.out):
        print(f"wrote {saved}", file=sys.stderr)


if __name__ == "__main__":
    main()
