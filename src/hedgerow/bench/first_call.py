"""`hedgerow bench first-call`: the time from the start of a process to its first answer, with empty caches."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from hedgerow.bench.compare import OnStatus
from hedgerow.bench.machine import conditions
from hedgerow.bench.processes import run_module
from hedgerow.bench.records import Report, Row
from hedgerow.bench.tables import show_footer, show_rows
from hedgerow.errors import install_command
from hedgerow.trie_index import TrieIndex

# What answers: its label, the packages that it needs, and the extra that installs them.
METHODS = {
    "numpy": ("step, NumPy", ("numpy",), "numpy"),
    "torch": ("step, PyTorch", ("torch",), "torch"),
    "jax": ("step, JAX", ("jax",), "jax"),
    "retriever": ("Retriever, films", ("torch", "transformers"), "demo"),
}
PARTS = ("import", "load", "first", "second")
# The names that libraries have for the folders of their caches, beside those below HOME.
CACHES = ("HOME", "XDG_CACHE_HOME", "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "NUMBA_CACHE_DIR", "HF_HOME")


def first_call(
    index: TrieIndex, films: TrieIndex, model: Path, *, repeats: int, on_status: OnStatus = lambda _: None
) -> Report:
    """Time the first answer of new processes: imports, loading an index, the first search and the second.

    Args:
        index: it is saved, and each process of a step loads it.
        films: the index of the process with a model.
        model: the folder of the model.
        repeats: number of processes per method.
        on_status: called with a message before each process.

    Raises:
        HedgerowError: a process failed.
    """
    results: dict[str, list[dict[str, float]]] = {}
    skipped = []
    with tempfile.TemporaryDirectory() as folder:
        index.save(Path(folder) / "index")
        films.save(Path(folder) / "films")
        for method, (label, packages, extra) in METHODS.items():
            missing = [name for name in packages if find_spec(name) is None]
            if missing:
                why = f"{missing[0]} is not installed: {install_command(extra)}"
                skipped.append((f"{len(index):,} items", label, why))
                continue
            paths = [f"{folder}/films", str(model)] if method == "retriever" else [f"{folder}/index"]
            for run in range(repeats):
                on_status(f"run {run + 1} of {repeats}: {label}")
                results.setdefault(method, []).append(_run(method, paths, folder))
    items = {method: len(films if method == "retriever" else index) for method in results}
    rows = [_row(METHODS[method][0], items[method], runs) for method, runs in results.items()]
    return Report("first-call", conditions() | {"quick": repeats == 1}, rows, skipped)


def show(report: Report, console: Console) -> None:
    """Print the seconds of each part."""
    headings = {
        "method": "method",
        "import_seconds": "start and imports s",
        "load_seconds": "load s",
        "first_seconds": "first search s",
        "total_seconds": "start to answer s",
        "cpu_seconds": "processor s",
        "second_seconds": "second search s",
    }
    show_rows("the first answer of a new process, with empty caches", headings, report.rows, console)
    show_footer(report, console)


def _run(method: str, paths: Sequence[str], folder: str) -> dict[str, float]:
    """Run one process. Its caches are empty folders."""
    with tempfile.TemporaryDirectory(dir=folder) as empty:
        environment = os.environ | {name: str(Path(empty) / name) for name in CACHES}
        arguments = [method, str(time.time()), *paths]
        what = f"the first call of {METHODS[method][0]}"
        return run_module("hedgerow.bench.first_worker", arguments, what, environment)


def _row(method: str, items: int, runs: Sequence[dict[str, float]]) -> Row:
    medians: dict[str, Any] = {
        f"{part}_seconds": float(np.median([run[part] for run in runs])) for part in (*PARTS, "total", "cpu")
    }
    slowest = max(run["total"] for run in runs)
    return {"method": method, "items": items, **medians, "slowest_total_seconds": slowest, "runs": len(runs)}
