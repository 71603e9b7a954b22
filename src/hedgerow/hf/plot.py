"""A figure of a search: the beam as a tree, level by level, with the prefixes that were cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hedgerow.decode.beams import Beams
from hedgerow.decode.ops import to_numpy
from hedgerow.errors import ArgumentError, MissingDependencyError

MAX_NAMES = 12
SURVIVES_COLOR, CUT_COLOR, MARKED_COLOR = "#1f6f54", "#c9c9c9", "#c0392b"
FORMATS = (".png", ".svg", ".pdf")


def check_figure_path(path: Path) -> None:
    """Check the path of a figure, before the search that it shows.

    Raises:
        ArgumentError: it has another extension, or its folder does not exist.
    """
    if path.suffix not in FORMATS:
        raise ArgumentError(f"the path of a figure must end in {', '.join(FORMATS)}; got {path.name!r}.")
    if not path.parent.is_dir():
        raise ArgumentError(f"{path} cannot be written: there is no folder {path.parent}. Create it first.")


@dataclass(frozen=True, eq=False)
class LevelOfBeams:
    """The R live beams of one level of one search, in lexicographic order of their prefixes.

    Attributes:
        codes: [R, l + 1], the prefixes.
        scores: [R].
        parents: [R], positions among the live beams of the level before.
        survives: bool [R], whether a finished beam continues it.
        heights: [R], the vertical position, 0 to 1.
        ranks: [R], the rank among the beams of the level, from 0.
    """

    codes: np.ndarray
    scores: np.ndarray
    parents: np.ndarray
    survives: np.ndarray
    heights: np.ndarray
    ranks: np.ndarray


def levels_of(history: Sequence[Beams]) -> list[LevelOfBeams]:
    """Lay out the beams of every level of one prompt's search (`Retriever.trace`).

    Raises:
        ArgumentError: `history` is not the beams of every level.
    """
    if [getattr(beams, "level", None) for beams in history] != [*range(1, len(history) + 1)] or not history:
        raise ArgumentError("history must be the beams of every level of one search, as Retriever.trace returns them.")
    levels: list[LevelOfBeams] = []
    # The position of each beam of the level before among its live beams.
    positions = np.zeros(1, np.int64)
    for beams in history:
        codes, states = to_numpy(beams.codes)[0], to_numpy(beams.states)[0]
        live = np.flatnonzero(states >= 0)
        # Nodes of a level are numbered in lexicographic order, so lines in this order do not cross.
        ordered = live[np.argsort(states[live], kind="stable")]
        parents = positions[to_numpy(beams.parents)[0][ordered]]
        positions = np.full(len(states), -1, np.int64)
        positions[ordered] = np.arange(len(ordered))
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
    """Draw the beams of one prompt's search as a tree: which prefixes survived, and which were cut.

    Args:
        history: the beams of every level, as `Retriever.trace` returns them.
        path: the file to write; it ends in .png, .svg or .pdf.
        title: the title of the figure.
        names: the names of the items of the finished beams, best first. The first 12 are written beside the beams.
        sid: the codes of an item, end codes included. Its prefix is marked up to the level at which it left the beam.

    Raises:
        ArgumentError: the file has another extension, it cannot be written, or `history` is not the beams of every
            level.
        MissingDependencyError: matplotlib is not installed.

    Examples:
        ```python
        from pathlib import Path

        import numpy as np
        import hedgerow as hr
        from hedgerow.hf import plot_beams

        index = hr.build_index(hr.Catalog([[0, 1], [2, 0], [2, 2]]))
        history = [hr.init_beams(index, batch_size=1)]
        for level in range(index.num_levels):
            logits = np.zeros((*history[-1].states.shape, 3))
            history.append(hr.step(index, history[-1], logits, beam_width=2))
        plot_beams(history[1:], "beams.png", title="a search", sid=[2, 2])
        assert Path("beams.png").stat().st_size > 0
        ```
    """
    path = Path(path)
    check_figure_path(path)
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise MissingDependencyError.of("plot_beams", "matplotlib", "plot") from error
    levels = levels_of(history)
    figure = Figure(figsize=(2.5 + 2 * len(levels), 6.5), layout="constrained")
    axes = figure.add_subplot()
    for number, level in enumerate(levels):
        _draw_level(axes, number, level, levels[number - 1] if number else None, sid)
    _draw_cut(axes, levels, sid)
    _write_names(axes, levels[-1], names, len(levels))
    axes.set_title(title, loc="left", wrap=True)
    axes.set_xticks(range(len(levels) + 1), ["prompt", *(f"level {number}" for number in range(len(levels)))])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.set_xlim(-0.2, len(levels) + (1.1 if names else 0.2))
    axes.legend(handles=_legend(marked=bool(sid)), loc="lower left", frameon=False, fontsize="small")
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise ArgumentError(f"{path} cannot be written: {error}") from None


def _draw_level(axes: Any, number: int, level: LevelOfBeams, before: LevelOfBeams | None, sid: Sequence[int]) -> None:
    starts = np.full(len(level.heights), 0.5) if before is None else before.heights[level.parents]
    on_path = np.array([tuple(codes) == tuple(sid[: number + 1]) for codes in level.codes.tolist()], bool)
    for row in np.argsort(level.survives, kind="stable"):
        color = MARKED_COLOR if on_path[row] and sid else SURVIVES_COLOR if level.survives[row] else CUT_COLOR
        axes.plot([number, number + 1], [starts[row], level.heights[row]], color=color, linewidth=0.8, zorder=1)
        axes.scatter(number + 1, level.heights[row], color=color, s=8, zorder=2)


def _draw_cut(axes: Any, levels: list[LevelOfBeams], sid: Sequence[int]) -> None:
    """Draw a dashed line to the level at which the prefix of a SID left the beam, if it did."""
    start = 0.5
    for number, level in enumerate(levels if sid else ()):
        prefix = list(sid[: number + 1])
        row = sum(codes < prefix for codes in level.codes.tolist())
        if row == len(level.codes) or level.codes[row].tolist() != prefix:
            height = row / max(1, len(level.codes))
            axes.plot(
                [number, number + 1], [start, height], color=MARKED_COLOR, linewidth=1.2, linestyle="--", zorder=3
            )
            axes.scatter(number + 1, height, color=MARKED_COLOR, marker="x", s=50, zorder=3)
            return
        start = level.heights[row]


def _write_names(axes: Any, last: LevelOfBeams, names: Sequence[str], x: int) -> None:
    best_first = np.argsort(last.ranks)
    for row, name in list(zip(best_first, names, strict=False))[:MAX_NAMES]:
        axes.annotate(name[:40], (x + 0.05, last.heights[row]), fontsize="x-small", va="center")


def _legend(*, marked: bool) -> list[Any]:
    from matplotlib.lines import Line2D

    kinds = [(SURVIVES_COLOR, "in a finished beam"), (CUT_COLOR, "cut later")]
    kinds += [(MARKED_COLOR, "the given SID")] * marked
    return [Line2D([], [], color=color, label=label) for color, label in kinds]
