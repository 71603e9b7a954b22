"""The paper's figures 2 and 4: time a step against the catalog's size, and against the codebook. Log-log."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hedgerow.bench.baselines.base import Unavailable, optional
from hedgerow.bench.records import Row

MARKERS = "osD^vP*Xdph<>"


def plot(rows: Sequence[Row], path: Path, *, x: str, x_label: str, title: str, y: str = "step_ms") -> Path | None:
    """Draws one line a method and returns the file; None where matplotlib is not installed.

    Args:
        rows: measurements.
        path: the PNG.
        x: the column that lies along the axis.
        x_label: what it is called.
        title: above the figure.
        y: the column that is drawn, in milliseconds.
    """
    try:
        matplotlib = optional("matplotlib", "matplotlib")
    except Unavailable:
        return None
    matplotlib.use("Agg")
    pyplot = optional("matplotlib.pyplot", "matplotlib")
    figure, axes = pyplot.subplots(figsize=(9, 5.5), layout="constrained")
    for number, method in enumerate(dict.fromkeys(row["method"] for row in rows)):
        mine = sorted((row for row in rows if row["method"] == method), key=lambda row: row[x])
        _line(axes, mine, x, y, MARKERS[number % len(MARKERS)])
    axes.set(xscale="log", yscale="log", xlabel=x_label, ylabel="median ms a step", title=title)
    axes.grid(True, which="both", linestyle=":", alpha=0.5)
    axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
    return path


def _line(axes: Any, rows: Sequence[Row], x: str, y: str, marker: str) -> None:
    ours = rows[0]["method"].startswith("hedgerow")
    axes.plot(
        [row[x] for row in rows],
        [row[y] for row in rows],
        marker=marker,
        markersize=5,
        linewidth=2.4 if ours else 1.2,
        linestyle="--" if rows[0]["method"] == "unconstrained" else "-",
        label=rows[0]["method"],
    )
