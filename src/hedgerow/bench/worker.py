"""One build in a separate process, so that its peak memory can be measured: `python -m hedgerow.bench.worker`.

Prints JSON: the seconds of each part, the peak of the resident memory minus the input, and the bytes of the result.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import hedgerow as hr
from hedgerow.bench.baselines.base import Unavailable
from hedgerow.bench.baselines.original import imported
from hedgerow.bench.baselines.static_published import build_tables
from hedgerow.bench.cases import PAPER, Case, sids_of
from hedgerow.bench.machine import memory_bytes, reset_peak
from hedgerow.index.compact import Layout

# The seconds of each part, and the bytes of the result.
Built = tuple[dict[str, float], int]


def hedgerow(case: Case, sids: np.ndarray, layout: Layout = "plain") -> Callable[[], Built]:
    """A function that builds hedgerow's index of the unsorted catalog; sorting is included."""
    catalog = hr.Catalog(sids, codebook_sizes=case.codebook_size)

    def run() -> Built:
        started = time.perf_counter()
        index = hr.build_index(catalog, layout=layout)
        return {"build": time.perf_counter() - started}, index.nbytes

    return run


def published(case: Case, sids: np.ndarray) -> Callable[[], Built]:
    """A function that runs a lexsort and then builds the tables of `StaticPublished`."""
    nodes = hr.build_index(hr.Catalog(sids, codebook_sizes=case.codebook_size)).nodes_per_level

    def run() -> Built:
        ordered, seconds = _lexsorted(sids)
        started = time.perf_counter()
        kept = np.ones(len(ordered), bool)
        kept[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
        tables = build_tables(ordered[kept], nodes, case.codebook_size)
        return {"sort": seconds, "build": time.perf_counter() - started}, sum(table.nbytes for table in tables)

    return run


def authors(case: Case, sids: np.ndarray, folder: Path | None) -> Callable[[], Built]:
    """A function that runs a lexsort of int32 and then the authors' `build_static_index`."""
    build = imported("static_decoding.csr_utils", folder).build_static_index
    # Their own benchmark uses contiguous rows of int32.
    rows = np.ascontiguousarray(sids, np.int32)

    def run() -> Built:
        ordered, seconds = _lexsorted(rows)
        started = time.perf_counter()
        tables = build(ordered, case.codebook_size)
        nbytes = sum(table.nbytes for table in tables if isinstance(table, np.ndarray))
        return {"sort": seconds, "build": time.perf_counter() - started}, nbytes

    return run


def main() -> None:
    """Run the build of the arguments: method, items, levels, codebook size, and the folder of the authors' code."""
    method, items, levels, codebook_size, folder = sys.argv[1:]
    case = PAPER.of(items=int(items), levels=int(levels), codebook_size=int(codebook_size))
    sids = sids_of(case)
    try:
        if method == "authors":
            run = authors(case, sids, Path(folder) if folder else None)
        else:
            builders = {"hedgerow": hedgerow, "compact": partial(hedgerow, layout="compact"), "published": published}
            run = builders[method](case, sids)
    except Unavailable as reason:
        print(json.dumps({"unavailable": str(reason)}))
        return
    del sids
    reset_peak()
    before = memory_bytes()
    seconds, nbytes = run()
    result: dict[str, Any] = {"seconds": seconds, "nbytes": nbytes}
    print(json.dumps(result | {"peak_mb": (memory_bytes(peak=True) - before) / 1e6}))


def _lexsorted(sids: np.ndarray) -> tuple[np.ndarray, float]:
    started = time.perf_counter()
    ordered = sids[np.lexsort(sids.T[::-1])]
    return ordered, time.perf_counter() - started


if __name__ == "__main__":
    main()
