"""A picture of a search: the beam as a tree, level by level, with the prefixes that were cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hedgerow.decode.beams import Beams
from hedgerow.decode.ops import to_numpy
from hedgerow.errors import ArgumentError, MissingDependencyError

LABELS = 12
ON, OFF, MARKED = "#1f6f54", "#c9c9c9", "#c0392b"
FORMATS = (".png", ".svg", ".pdf")


@dataclass(frozen=True, eq=False)
class LevelOfBeams:
    """The live beams of one level of one search, in lexicographic order of their prefixes.

    Attributes:
        codes: [R, l + 1].
        scores: [R].
        parents: [R], places in the level before.
        survives: bool [R], whether a finished beam comes from it.
        heights: [R], where to draw it, 0 to 1.
        ranks: [R], its place among the beams, best first, from 0.
    """

    codes: np.ndarray
    scores: np.ndarray
    parents: np.ndarray
    survives: np.ndarray
    heights: np.ndarray
    ranks: np.ndarray


def levels_of(history: Sequence[Beams]) -> list[LevelOfBeams]:
    """Returns what is to be drawn of the beams of every level of one prompt's search (`Retriever.trace`)."""
    if [getattr(beams, "level", None) for beams in history] != [*range(1, len(history) + 1)] or not history:
        raise ArgumentError("expected the beams of every level of one search, as Retriever.trace returns them.")
    levels: list[LevelOfBeams] = []
    places = np.zeros(1, np.int64)
    for beams in history:
        codes, states = to_numpy(beams.codes)[0], to_numpy(beams.states)[0]
        live = np.flatnonzero(states >= 0)
        # Nodes of a level are numbered in lexicographic order, so lines that follow it do not cross.
        ordered = live[np.argsort(states[live], kind="stable")]
        parents = places[to_numpy(beams.parents)[0][ordered]]
        places = np.full(len(states), -1, np.int64)
        places[ordered] = np.arange(len(ordered))
        heights = (np.arange(len(ordered)) + 0.5) / max(1, len(ordered))
        survives = np.ones(len(ordered), bool)
        scores = to_numpy(beams.scores)[0][ordered]
        levels.append(LevelOfBeams(codes[ordered], scores, parents, survives, heights, ordered))
    for before, after in zip(levels[-2::-1], levels[:0:-1], strict=True):
        before.survives[:] = False
        before.survives[after.parents[after.survives]] = True
    return levels


def plot_beams(
    history: Sequence[Beams],
    path: str | Path,
    *,
    title: str = "",
    names: Sequence[str] = (),
    sid: Sequence[int] = (),
) -> None:
    """Writes the beams of one prompt's search as a tree: what survived, what was cut, and the way of one SID.

    Args:
        history: the beams of every level, as `Retriever.trace` returns them.
        path: a file that ends in .png, .svg or .pdf.
        title: above the picture.
        names: what the finished beams name, best first; a few are written beside them.
        sid: the codes of an item, end codes included, whose prefix is marked as far as it came.

    Raises:
        ArgumentError: the file's name has another ending, or it cannot be written.
        MissingDependencyError: matplotlib is not installed.
    """
    path = Path(path)
    if path.suffix not in FORMATS:
        raise ArgumentError(f"a picture is written to a file that ends in {', '.join(FORMATS)}; got {path.name!r}.")
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise MissingDependencyError.of("plot_beams", "matplotlib", "plot") from error
    levels = levels_of(history)
    figure = Figure(figsize=(2.5 + 2 * len(levels), 6.5), layout="constrained")
    axes = figure.add_subplot()
    for at, level in enumerate(levels):
        _draw_level(axes, at, level, levels[at - 1] if at else None, sid)
    _draw_cut(axes, levels, sid)
    _write_names(axes, levels[-1], names, len(levels))
    axes.set_title(title, loc="left", wrap=True)
    axes.set_xticks(range(len(levels) + 1), ["prompt", *(f"level {at}" for at in range(len(levels)))])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.set_xlim(-0.2, len(levels) + (1.1 if names else 0.2))
    axes.legend(handles=_legend(bool(sid)), loc="lower left", frameon=False, fontsize="small")
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise ArgumentError(f"{path} cannot be written: {error}") from None


def _draw_level(axes: Any, at: int, level: LevelOfBeams, before: LevelOfBeams | None, sid: Sequence[int]) -> None:
    starts = np.full(len(level.heights), 0.5) if before is None else before.heights[level.parents]
    on_way = np.array([tuple(codes) == tuple(sid[: at + 1]) for codes in level.codes.tolist()], bool)
    for row in np.argsort(level.survives, kind="stable"):
        colour = MARKED if on_way[row] and sid else ON if level.survives[row] else OFF
        axes.plot([at, at + 1], [starts[row], level.heights[row]], color=colour, linewidth=0.8, zorder=1)
        axes.scatter(at + 1, level.heights[row], color=colour, s=8, zorder=2)


def _draw_cut(axes: Any, levels: list[LevelOfBeams], sid: Sequence[int]) -> None:
    """Draws a broken line to where the prefix of a SID left the beam, if it did."""
    start = 0.5
    for at, level in enumerate(levels if sid else ()):
        place = sum(tuple(codes) < tuple(sid[: at + 1]) for codes in level.codes.tolist())
        if place == len(level.codes) or level.codes[place].tolist() != list(sid[: at + 1]):
            height = place / max(1, len(level.codes))
            axes.plot([at, at + 1], [start, height], color=MARKED, linewidth=1.2, linestyle="--", zorder=3)
            axes.scatter(at + 1, height, color=MARKED, marker="x", s=50, zorder=3)
            return
        start = level.heights[place]


def _write_names(axes: Any, last: LevelOfBeams, names: Sequence[str], x: int) -> None:
    best_first = np.argsort(last.ranks)
    for row, name in list(zip(best_first, names, strict=False))[:LABELS]:
        axes.annotate(name[:40], (x + 0.05, last.heights[row]), fontsize="x-small", va="center")


def _legend(marked: bool) -> list[Any]:
    from matplotlib.lines import Line2D

    kinds = [(ON, "in a finished beam"), (OFF, "cut later")] + [(MARKED, "the item asked about")] * marked
    return [Line2D([], [], color=colour, label=label) for colour, label in kinds]
