"""The code of others on a GPU: STATIC as published, the authors' own package, and RecTokens.

    python benchmarks/gpu_rivals.py FOLDER    build the tables of the authors' package, static_decoding, in FOLDER

Building these tables takes minutes at 20M items, on the host. gpu.sh does it beside the first checks.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpu_checks import Problem
from gpu_run import Run, described, eager_microseconds, microseconds

import hedgerow as hr
from hedgerow.bench.arrays import arrays_of
from hedgerow.bench.baselines.base import Problem as Sids
from hedgerow.bench.baselines.original import OriginalStatic, imported
from hedgerow.bench.baselines.rectokens import RecTokens
from hedgerow.bench.baselines.static_published import StaticPublished
from hedgerow.bench.cases import PAPER, Case, sids_of

# Larger tables are only read from the file.
BUILT_AT_ONCE = 10**6


def published(problem: Problem) -> list[tuple[str, Any, Any]]:
    """The name, the state at the root and the step of STATIC as published, if it supports the size."""
    try:
        if problem.case.items > (StaticPublished.max_items or problem.case.items):
            return []
        static = StaticPublished(Sids(problem.index), arrays_of("torch", str(problem.on_device.device)))
    except Exception as error:
        print(f"  STATIC as published is skipped: {described(error)}", flush=True)
        return []
    start = static.start(problem.case.batch)
    return [(static.name, start, lambda state, logits, width: static.step(static.tables, state, logits, width))]


def whole_decodes(run: Run, problem: Problem, static: Path | None) -> Iterator[tuple[str, np.ndarray]]:
    """The times of whole decodes in microseconds, in a graph and without, of what can run here."""
    for make in (authors_decode, rectokens_decode):
        try:
            name, decode = make(problem, static)
            with torch.inference_mode():
                yield f"{name}, no graph", eager_microseconds(run, decode)
                yield name, microseconds(run, decode, copies=2)
        except Exception as error:
            print(f"  {make.__name__} is skipped: {described(error)}", flush=True)


def authors_decode(problem: Problem, static: Path | None) -> tuple[str, Callable[[], Any]]:
    """The search of the authors' package. The graph of its whole decode holds copies of its own loop."""
    builder, path = imported("static_decoding.csr_utils", static), tables_path(problem.case)
    if path.exists():
        builder.build_static_index = lambda *_: read_tables(path)
    elif problem.case.items > BUILT_AT_ONCE:
        raise FileNotFoundError("its tables are not built; run gpu_rivals.py before")
    rival = OriginalStatic(Sids(problem.index), arrays_of("torch", str(problem.on_device.device)), static)
    return rival.name, lambda: rival.decode(problem.logits, problem.case.beam_width)


def rectokens_decode(problem: Problem, _: Path | None) -> tuple[str, Callable[[], Any]]:
    """The kernel of RecTokens, between log-softmax and top-k."""
    rival = RecTokens(Sids(problem.index), arrays_of("torch", str(problem.on_device.device)))

    def decode() -> Any:
        state = rival.start(problem.case.batch)
        for logits in problem.logits:
            state = rival.step(rival.tables, state, logits, problem.case.beam_width)
        return state

    return rival.name, decode


def tables_path(case: Case) -> Path:
    """Where the authors' tables of a case are written."""
    return Path(tempfile.gettempdir()) / f"static-{case.items}.npz"


def write_tables(case: Case, static: Path) -> None:
    """Build the authors' tables of a case."""
    sids = hr.build_index(hr.Catalog(sids_of(case), codebook_sizes=case.codebook_sizes)).sids()
    builder = imported("static_decoding.csr_utils", static)
    pairs, rows, branches, *dense = builder.build_static_index(sids.astype(np.int32), case.codebook_size)
    path = tables_path(case)
    part = path.with_suffix(".part.npz")
    named = {f"dense_{number}": table for number, table in enumerate(dense)}
    np.savez(part, pairs=pairs, rows=rows, branches=np.asarray(branches), **named)
    part.replace(path)


def read_tables(path: Path) -> tuple[Any, ...]:
    """What `build_static_index` returned."""
    with np.load(path) as held:
        dense = [held[name] for name in held.files if name.startswith("dense_")]
        return held["pairs"], held["rows"], tuple(held["branches"].tolist()), *dense


if __name__ == "__main__":
    write_tables(PAPER if len(sys.argv) < 3 else PAPER.of(items=int(sys.argv[2])), Path(sys.argv[1]))
