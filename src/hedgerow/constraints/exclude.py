"""Exclusions on the host: the nodes of the trie that lose all their items to the exclusions of a request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hedgerow.constraints.sets import ConstraintSet
from hedgerow.index.bits import bits_at
from hedgerow.index.level import Level
from hedgerow.index.lookup import leaves_of
from hedgerow.index.trie import Trie


@dataclass(frozen=True, eq=False)
class DeadNodes:
    """The X dead nodes of one level for one request, ascending: no item below them is left.

    Attributes:
        parents: [X] int64, their parents, nodes of the level before.
        slots: [X] their codes if the level is dense, otherwise their positions among the children of their parents.
    """

    parents: np.ndarray
    slots: np.ndarray


def dead_nodes(
    index: Trie, constraint_set: ConstraintSet | None, rows: np.ndarray, dense: Sequence[bool]
) -> list[DeadNodes]:
    """Find the nodes that are alive for a request's constraint set, but whose items are all excluded.

    Args:
        index: the trie.
        constraint_set: the set of the request, or None for all items.
        rows: [R] int64, the excluded rows of the index, without -1. Rows outside of the set have no effect.
        dense: for each level, whether the device has a bitmap of it.

    Returns:
        One entry per level.
    """
    rows = np.unique(rows)
    if constraint_set is not None:
        rows = rows[bits_at(constraint_set._words, rows)]
    leaves, num_excluded = np.unique(leaves_of(index, rows), return_counts=True)
    nodes = leaves[num_excluded == _count_alive_items(index, constraint_set, leaves)]
    levels = []
    for level_number in range(index.num_levels - 1, -1, -1):
        level = index.levels[level_number]
        parents = level.parents(nodes).astype(np.int64)
        slots = level.codes[nodes] if dense[level_number] else nodes - level.children(parents)[0]
        levels.append(DeadNodes(parents, slots))
        parents, num_dead = np.unique(parents, return_counts=True)
        nodes = parents[num_dead == _count_alive_children(level, level_number, constraint_set, parents)]
    return levels[::-1]


def _count_alive_items(index: Trie, constraint_set: ConstraintSet | None, leaves: np.ndarray) -> np.ndarray:
    start, stop = index.rows_of(leaves)
    if constraint_set is None:
        return stop - start
    count_below = constraint_set._alive.count_below
    return count_below(-1, constraint_set._words, stop) - count_below(-1, constraint_set._words, start)


def _count_alive_children(
    level: Level, level_number: int, constraint_set: ConstraintSet | None, parents: np.ndarray
) -> np.ndarray:
    start, stop = level.children(parents)
    if constraint_set is None:
        return stop - start
    alive = constraint_set._alive
    words = alive.levels[level_number]
    if level.allowed is not None:
        return np.bitwise_count(words[parents]).sum(axis=1, dtype=np.int64)
    return alive.count_below(level_number, words, stop.astype(np.int64)) - alive.count_below(
        level_number, words, start.astype(np.int64)
    )
