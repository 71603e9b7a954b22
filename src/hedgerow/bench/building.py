"""`hedgerow bench build`: time, peak memory and bytes an item, beside a lexsort and the published build."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from hedgerow.bench.baselines.base import Problem
from hedgerow.bench.cases import PAPER, Case
from hedgerow.bench.compare import Tell, problem_of
from hedgerow.bench.machine import conditions
from hedgerow.bench.records import Report, Row
from hedgerow.bench.tables import show_footer, show_rows
from hedgerow.errors import HedgerowError

LABELS = {
    "hedgerow": "hedgerow",
    "published": "lexsort + STATIC as published",
    "authors": "lexsort + STATIC, authors' code",
}
# What the paper plans for: 90 MB a million items of 8 levels.
PAPER_BYTES_AN_ITEM = 90
# The published layout's entry for a node: code, next state and row pointer, 4 bytes each.
PUBLISHED_NODE_BYTES = 12


def build(
    items: int, levels: int, codebook: int, *, repeats: int, reference: Path | None, tell: Tell = lambda _: None
) -> Report:
    """Builds `repeats` times with each method, round robin, and describes the index level by level.

    Raises:
        HedgerowError: a build failed.
    """
    case = PAPER.of(items=items, levels=levels, codebook=codebook)
    taken: dict[str, list[dict[str, Any]]] = {}
    skipped: list[tuple[str, str, str]] = []
    for round_number in range(repeats):
        for method in LABELS:
            tell(f"round {round_number + 1} of {repeats}: {LABELS[method]}, {items:,} items")
            result = run_worker(method, case, reference)
            if "unavailable" in result:
                if round_number == 0:
                    skipped.append((f"{items:,} items", LABELS[method], result["unavailable"]))
                continue
            taken.setdefault(method, []).append(result)
    tell("describing the index")
    rows = [_build_row(case, method, results) for method, results in taken.items()]
    rows += level_rows(case, problem_of(case))
    return Report("build", conditions() | {"quick": repeats == 1}, rows, skipped)


def run_worker(method: str, case: Case, reference: Path | None) -> dict[str, Any]:
    """Runs one build in a process of its own.

    Raises:
        HedgerowError: it failed; its last words are in the message.
    """
    numbers = [str(number) for number in (case.items, case.levels, case.codebook)]
    command = [sys.executable, "-m", "hedgerow.bench.worker", method, *numbers, str(reference or "")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or [f"signal {-done.returncode}"]
        raise HedgerowError(f"the build by {LABELS[method]} of {case.items:,} items failed: {last[0]}")
    return json.loads(done.stdout)


def level_rows(case: Case, problem: Problem) -> list[Row]:
    """Returns, per level, nodes and their bound, and the bytes of the published layout at that bound."""
    rows, product = [], 1
    for level, nodes in enumerate(problem.index.nodes_per_level):
        product *= case.codebook
        bound = min(product, case.items)
        rows.append(
            {
                "scope": f"level {level}",
                "items": case.items,
                "levels": case.levels,
                "codebook": case.codebook,
                "nodes": nodes,
                "bound_nodes": bound,
                "max_branch": problem.index.max_branch_factors[level],
                "published_bound_bytes": bound * PUBLISHED_NODE_BYTES,
            }
        )
    return rows


def show(report: Report, console: Console) -> None:
    """Prints the builds, then the levels."""
    builds = [row for row in report.rows if row["scope"] == "build"]
    headings = {
        "method": "method",
        "sort_seconds": "sort s",
        "build_seconds": "build s",
        "total_seconds": "total s",
        "total_sd_seconds": "sd",
        "peak_mb": "peak MB beyond input",
        "bytes_per_item": "bytes an item",
        "times_hedgerow": "x hedgerow",
    }
    ours = next((row["total_seconds"] for row in builds if row["method"] == LABELS["hedgerow"]), None)
    shown = [row | {"times_hedgerow": row["total_seconds"] / ours if ours else None} for row in builds]
    first = report.rows[0]
    title = f"build of {first['items']:,} items, {first['levels']} x {first['codebook']:,}, uniform random, unsorted"
    show_rows(title, headings, shown, console)
    headings = {
        "scope": "level",
        "nodes": "nodes",
        "bound_nodes": "bound: min(product, N)",
        "max_branch": "largest branch",
        "published_bound_bytes": "12 B x bound",
    }
    levels = [row for row in report.rows if row["scope"] != "build"]
    show_rows("nodes by level", headings, levels, console)
    total = sum(row["published_bound_bytes"] for row in levels)
    console.print(
        f"published layout at its bound: {total / first['items']:,.1f} bytes an item; "
        f"the paper plans {PAPER_BYTES_AN_ITEM} for 8 levels"
    )
    show_footer(report, console)


def _build_row(case: Case, method: str, results: Sequence[dict[str, Any]]) -> Row:
    totals = np.asarray([sum(result["seconds"].values()) for result in results])
    parts = {
        f"{part}_seconds": float(np.median([result["seconds"].get(part, 0.0) for result in results]))
        for part in ("sort", "build")
    }
    return {
        "method": LABELS[method],
        "scope": "build",
        "items": case.items,
        "levels": case.levels,
        "codebook": case.codebook,
        **parts,
        "total_seconds": float(np.median(totals)),
        "total_sd_seconds": float(totals.std(ddof=1)) if len(totals) > 1 else 0.0,
        "runs": len(totals),
        "peak_mb": float(np.median([result["peak_mb"] for result in results])),
        "bytes_per_item": results[0]["nbytes"] / case.items,
    }
