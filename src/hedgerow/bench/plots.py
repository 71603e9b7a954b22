"""Figures 2 and 4 of the paper: time per step against the number of items and the codebook size, on log axes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hedgerow.bench.baselines.base import Unavailable, optional
from hedgerow.bench.records import Row

MARKERS = "osD^vP*Xdph<>"


def plot(rows: Sequence[Row], path: Path, *, x: str, x_label: str, title: str, y: str = "step_ms") -> Path | None:
    """Draw one line per method and return the path of the figure; None if matplotlib is not installed.

    Args:
        rows: the measurements.
        path: the PNG file.
        x: the column on the x axis.
        x_label: the label of the x axis.
        title: the title of the figure.
        y: the column on the y axis, in milliseconds.
    """
    try:
        matplotlib = optional("matplotlib", "matplotlib")
    except Unavailable:
        return None
    matplotlib.use("Agg")
    pyplot = optional("matplotlib.pyplot", "matplotlib")
    figure, axes = pyplot.subplots(figsize=(9, 5.5), layout="constrained")
    for number, method in enumerate(dict.fromkeys(row["method"] for row in rows)):
        rows_of_method = sorted((row for row in rows if row["method"] == method), key=lambda row: row[x])
        _line(axes, rows_of_method, x, y, MARKERS[number % len(MARKERS)])
    axes.set(xscale="log", yscale="log", xlabel=x_label, ylabel="median ms per step", title=title)
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
