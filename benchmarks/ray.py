"""Measure a build and retrieval with Ray, with 1, 2, ... worker processes on this machine.

    python benchmarks/ray.py            10M items in 40 files, and 10,000 prompts to the films: about 15 minutes
    python benchmarks/ray.py --quick    200,000 items and 256 prompts, about 2 minutes

First, one process builds and answers the same. Each build with Ray must give the same files, and each retrieval the
same items; otherwise nothing is written. The processes start before the clock does.
"""

# ruff: noqa: E402

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# From this folder, `import ray` finds this file, and not the package that it measures. The folder is therefore not
# searched: neither here, nor in the processes of Ray, which get the same path. Other scripts are told that there is no
# such package here.
if __name__ != "__main__":
    raise ImportError("benchmarks/ray.py is a script, and not the package ray")
sys.path[:] = [path for path in sys.path if Path(path).resolve() != Path(__file__).resolve().parent]

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
from ray.util import ActorPool

import hedgerow as hr
import hedgerow.ray
from hedgerow.bench.machine import conditions
from hedgerow.bench.records import Report
from hedgerow.bench.tables import console_for_tables, show_footer, show_rows
from hedgerow.index.manifest import read_manifest

RESULTS = Path(__file__).parent / "results"
FILES, LEVELS, CODES = 40, 8, 2048
PROMPTS_AT_ONCE = 256
GENRES = ("western", "comedy", "horror film", "war film", "musical", "thriller", "drama", "documentary")
RETRIEVE: dict[str, Any] = {"model": None, "index": None, "k": 10, "beam_width": 50, "columns": ["title"]}
HEADINGS = {"what": "what", "workers": "workers", "seconds": "seconds", "per_second": "per second", "bytes": "bytes"}
STEPS = ("read", "spill", "build", "sort", "join")


def main() -> None:
    """Run the measurements, print the table and save the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--items", type=float, help="number of items of the build")
    parser.add_argument("--prompts", type=int, help="number of prompts")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="numbers of worker processes")
    parser.add_argument("--memory", type=float, default=1e9, help="memory limit of each process of a build, in bytes")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    items = int(options.items or (2e5 if options.quick else 1e7))
    prompts = options.prompts or (256 if options.quick else 10_000)
    hedgerow.ray.start()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        rows += measure_build(Path(folder), items, options.workers, int(options.memory))
    rows += measure_retrieval(prompts, options.workers)
    facts = conditions() | {"quick": options.quick, "items": items, "prompts": prompts, "memory": options.memory}
    report = Report("ray", facts, rows)
    console = console_for_tables()
    show_rows(f"{items:,} items in {FILES} files; {prompts:,} prompts", HEADINGS, rows, console)
    show_footer(report, console)
    for path in report.save(options.out):
        print(f"wrote {path}", file=sys.stderr)


def row(what: str, workers: int, seconds: float, count: int, nbytes: int | None = None) -> dict[str, Any]:
    """A row of the report."""
    return {"what": what, "workers": workers, "seconds": seconds, "per_second": count / seconds, "bytes": nbytes}


def measure_build(folder: Path, items: int, workers: list[int], memory: int) -> list[dict[str, Any]]:
    """The rows of builds: by one process (workers 0), and by Ray, whole and step by step."""
    write_items(folder / "items", items)
    write_items(folder / "few", 100 * FILES)
    started = time.perf_counter()
    hr.build_index(hr.Catalog.from_parquet(folder / "items")).save(folder / "one")
    expected = read_manifest(folder / "one")
    size = sum(entry["bytes"] for entry in expected["files"].values())
    rows = [row("build", 0, time.perf_counter() - started, items, size)]
    for count in workers:
        # The processes start, and import what a build needs.
        hedgerow.ray.build(folder / "few", folder / "warm", workers=count)
        seconds: dict[str, float] = {}
        progress = clock(seconds)
        started = time.perf_counter()
        hedgerow.ray.build(folder / "items", folder / "ray", workers=count, memory=memory, progress=progress)
        rows.append(row("build", count, time.perf_counter() - started, items, size))
        rows += [row(f"build: {step}", count, seconds[step], items) for step in STEPS]
        # The manifest has the checksums of both files.
        if read_manifest(folder / "ray") != expected:
            sys.exit(f"{count} workers built other files than one process; nothing was written.")
    return rows


def write_items(folder: Path, items: int) -> None:
    """Parquet files of items with random SIDs, integer ids in random order, and a title."""
    rng, folder_rows = np.random.default_rng(20_260_222), -(-items // FILES)
    ids = rng.permutation(items)
    folder.mkdir()
    for number in range(FILES):
        some = ids[number * folder_rows : (number + 1) * folder_rows]
        sids = rng.integers(0, CODES, len(some) * LEVELS, dtype=np.uint16)
        lists = pa.FixedSizeListArray.from_arrays(pa.array(sids), LEVELS)
        titles = [f"the title of item {item}" for item in some.tolist()]
        pq.write_table(pa.table({"item_id": some, "sid": lists, "title": titles}), folder / f"part-{number:02}.parquet")


def clock(seconds: dict[str, float]) -> Callable[[str, int, int], None]:
    """A progress callback that measures each step."""
    started: dict[str, float] = {}

    def progress(what: str, done: int, total: int) -> None:  # noqa: ARG001
        now = time.perf_counter()
        seconds[what] = max(now - started.setdefault(what, now), 1e-9)

    return progress


def measure_retrieval(prompts: int, workers: list[int]) -> list[dict[str, Any]]:
    """The rows of retrieval: by one process (workers 0), and by actors of Ray."""
    rng = np.random.default_rng(1)
    texts = [
        f"Recommend me a {GENRES[rng.integers(len(GENRES))]} from {rng.integers(1950, 2020)}" for _ in range(prompts)
    ]
    batches = [pa.table({"prompt": texts[at : at + PROMPTS_AT_ONCE]}) for at in range(0, prompts, PROMPTS_AT_ONCE)]
    local = hedgerow.ray.Retrieve(**RETRIEVE)
    started = time.perf_counter()
    expected = [local(batch) for batch in batches]
    rows = [row("retrieve", 0, time.perf_counter() - started, prompts)]
    for count in workers:
        actors = [ray.remote(num_cpus=1)(hedgerow.ray.Retrieve).remote(**RETRIEVE) for _ in range(count)]
        ray.get([actor.__call__.remote(batches[0].slice(0, 1)) for actor in actors])
        started = time.perf_counter()
        found = list(ActorPool(actors).map(lambda actor, batch: actor.__call__.remote(batch), batches))
        rows.append(row("retrieve", count, time.perf_counter() - started, prompts))
        if list(map(ids_of, found)) != list(map(ids_of, expected)):
            sys.exit(f"{count} workers retrieved other items than one process; nothing was written.")
        for actor in actors:
            ray.kill(actor)
    return rows


def ids_of(answers: pa.Table) -> list[list[int]]:
    """The ids of the items of each row."""
    return [[item["item_id"] for item in items] for items in answers.column("items").to_pylist()]


if __name__ == "__main__":
    main()
