"""`hedgerow bench build`: time, peak memory and bytes per item, compared with a lexsort and the published build."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from hedgerow.bench.baselines.base import Problem
from hedgerow.bench.cases import PAPER, Case
from hedgerow.bench.compare import OnStatus, problem_of
from hedgerow.bench.machine import conditions
from hedgerow.bench.processes import run_module
from hedgerow.bench.records import Report, Row
from hedgerow.bench.tables import show_footer, show_rows

LABELS = {
    "hedgerow": "hedgerow",
    "compact": "hedgerow, compact",
    "published": "lexsort + STATIC as published",
    "authors": "lexsort + STATIC, authors' code",
}
# The paper's estimate: 90 MB per million items of 8 levels.
PAPER_BYTES_PER_ITEM = 90
# Bytes per node in the published layout: code, next state and row pointer, 4 bytes each.
PUBLISHED_NODE_BYTES = 12


def build(
    items: int,
    levels: int,
    codebook_size: int,
    *,
    repeats: int,
    reference: Path | None,
    on_status: OnStatus = lambda _: None,
) -> Report:
    """Build `repeats` times with each method, round robin, and describe the index level by level.

    Args:
        items: N.
        levels: L.
        codebook_size: C, the same for every level.
        repeats: number of builds per method.
        reference: folder of the authors' code. None: import it, if it is installed.
        on_status: called with a message before each build.

    Raises:
        HedgerowError: a build failed.
    """
    case = PAPER.of(items=items, levels=levels, codebook_size=codebook_size)
    results: dict[str, list[dict[str, Any]]] = {}
    skipped: list[tuple[str, str, str]] = []
    for round_number in range(repeats):
        for method in LABELS:
            on_status(f"round {round_number + 1} of {repeats}: {LABELS[method]}, {items:,} items")
            result = run_worker(method, case, reference)
            if "unavailable" in result:
                if round_number == 0:
                    skipped.append((f"{items:,} items", LABELS[method], result["unavailable"]))
                continue
            results.setdefault(method, []).append(result)
    on_status("describing the index")
    rows = [_build_row(case, method, results_of_method) for method, results_of_method in results.items()]
    rows += level_rows(case, problem_of(case))
    return Report("build", conditions() | {"quick": repeats == 1}, rows, skipped)


def run_worker(method: str, case: Case, reference: Path | None) -> dict[str, Any]:
    """Run one build in a separate process. Its result is the JSON object that `hedgerow.bench.worker` prints.

    Raises:
        HedgerowError: the build failed; the message ends with the last line of its error output.
    """
    numbers = [str(number) for number in (case.items, case.levels, case.codebook_size)]
    arguments = [method, *numbers, str(reference or "")]
    return run_module("hedgerow.bench.worker", arguments, f"building {case.items:,} items with {LABELS[method]}")


def level_rows(case: Case, problem: Problem) -> list[Row]:
    """One row per level: the nodes, their upper bound, and the bytes of the published layout at that bound."""
    rows, product = [], 1
    for level, nodes in enumerate(problem.index.nodes_per_level):
        product *= case.codebook_size
        bound = min(product, case.items)
        rows.append(
            {
                "scope": f"level {level}",
                "items": case.items,
                "levels": case.levels,
                "codebook_size": case.codebook_size,
                "nodes": nodes,
                "bound_nodes": bound,
                "max_branch": problem.index.max_branch_factors[level],
                "published_bound_bytes": bound * PUBLISHED_NODE_BYTES,
            }
        )
    return rows


def show(report: Report, console: Console) -> None:
    """Print the builds, then the levels."""
    builds = [row for row in report.rows if row["scope"] == "build"]
    headings = {
        "method": "method",
        "sort_seconds": "sort s",
        "build_seconds": "build s",
        "total_seconds": "total s",
        "total_sd_seconds": "sd",
        "peak_mb": "peak MB beyond input",
        "bytes_per_item": "bytes per item",
        "times_hedgerow": "x hedgerow",
    }
    ours = next((row["total_seconds"] for row in builds if row["method"] == LABELS["hedgerow"]), None)
    shown = [row | {"times_hedgerow": row["total_seconds"] / ours if ours else None} for row in builds]
    first = report.rows[0]
    title = (
        f"build of {first['items']:,} items, {first['levels']} x {first['codebook_size']:,}, uniform random, unsorted"
    )
    show_rows(title, headings, shown, console)
    headings = {
        "scope": "level",
        "nodes": "nodes",
        "bound_nodes": "bound: min(product, N)",
        "max_branch": "max branch",
        "published_bound_bytes": "12 B x bound",
    }
    levels = [row for row in report.rows if row["scope"] != "build"]
    show_rows("nodes per level", headings, levels, console)
    total = sum(row["published_bound_bytes"] for row in levels)
    console.print(
        f"published layout at its bound: {total / first['items']:,.1f} bytes per item; "
        f"the paper's estimate is {PAPER_BYTES_PER_ITEM} for 8 levels"
    )
    show_footer(report, console)


def _build_row(case: Case, method: str, results: Sequence[dict[str, Any]]) -> Row:
    totals = np.asarray([sum(result["seconds"].values()) for result in results])
    seconds_of_parts = {
        f"{part}_seconds": float(np.median([result["seconds"].get(part, 0.0) for result in results]))
        for part in ("sort", "build")
    }
    return {
        "method": LABELS[method],
        "scope": "build",
        "items": case.items,
        "levels": case.levels,
        "codebook_size": case.codebook_size,
        **seconds_of_parts,
        "total_seconds": float(np.median(totals)),
        "total_sd_seconds": float(totals.std(ddof=1)) if len(totals) > 1 else 0.0,
        "runs": len(totals),
        "peak_mb": float(np.median([result["peak_mb"] for result in results])),
        "bytes_per_item": results[0]["nbytes"] / case.items,
    }
