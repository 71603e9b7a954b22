"""One build in a process of its own, so that its peak memory is its own: `python -m hedgerow.bench.worker`.

Prints JSON: seconds by part, the peak of resident memory beyond what the input already took, and bytes of the result.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import hedgerow as hr
from hedgerow.bench.baselines.base import Unavailable
from hedgerow.bench.baselines.original import imported
from hedgerow.bench.baselines.static_published import build_tables
from hedgerow.bench.cases import PAPER, Case, sids_of
from hedgerow.bench.machine import memory_bytes, reset_peak

Built = tuple[dict[str, float], int]


def hedgerow(case: Case, sids: np.ndarray) -> Callable[[], Built]:
    """hr.build_index of the unsorted catalog; sorting is part of it."""
    catalog = hr.Catalog(sids, codebook_sizes=case.codebook)
    # Compiling is paid once an installation, not once a build.
    hr.build_index(hr.Catalog(sids[:1000], codebook_sizes=case.codebook))

    def run() -> Built:
        started = time.perf_counter()
        index = hr.build_index(catalog)
        return {"build": time.perf_counter() - started}, index.nbytes

    return run


def published(case: Case, sids: np.ndarray) -> Callable[[], Built]:
    """A lexsort, then the tables of STATIC as published, as this package states them."""
    nodes = hr.build_index(hr.Catalog(sids, codebook_sizes=case.codebook)).nodes_per_level

    def run() -> Built:
        ordered, seconds = _lexsorted(sids)
        started = time.perf_counter()
        kept = np.ones(len(ordered), bool)
        kept[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
        tables = build_tables(ordered[kept], nodes, case.codebook)
        return {"sort": seconds, "build": time.perf_counter() - started}, sum(table.nbytes for table in tables)

    return run


def authors(case: Case, sids: np.ndarray, folder: Path | None) -> Callable[[], Built]:
    """The authors' way: a lexsort of int32, then their `build_static_index`."""
    build = imported("static_decoding.csr_utils", folder).build_static_index
    # Rows of int32 side by side, as their own benchmark has them.
    given = np.ascontiguousarray(sids, np.int32)

    def run() -> Built:
        ordered, seconds = _lexsorted(given)
        started = time.perf_counter()
        made = build(ordered, case.codebook)
        nbytes = sum(part.nbytes for part in made if isinstance(part, np.ndarray))
        return {"sort": seconds, "build": time.perf_counter() - started}, nbytes

    return run


def main() -> None:
    """Runs the build that the arguments name: method, items, levels, codebook, folder of the authors' code or ''."""
    method, items, levels, codebook, folder = sys.argv[1:]
    case = PAPER.of(items=int(items), levels=int(levels), codebook=int(codebook))
    sids = sids_of(case)
    try:
        if method == "authors":
            run = authors(case, sids, Path(folder) if folder else None)
        else:
            run = {"hedgerow": hedgerow, "published": published}[method](case, sids)
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
