"""Exclusion on the host: which nodes of the trie have no item left for a request, once some items are excluded."""

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
    """The nodes of one level that one request's exclusions leave without an item, in their order.

    Attributes:
        parents: [D] the node of the level before that each is a child of.
        slots: [D] its code where the level is dense, else its place among its parent's children.
    """

    parents: np.ndarray
    slots: np.ndarray


def dead_nodes(index: Trie, within: ConstraintSet | None, rows: np.ndarray, dense: Sequence[bool]) -> list[DeadNodes]:
    """Returns, level by level, the nodes that are alive for the request's set, but whose items are all excluded.

    Args:
        index: the trie.
        within: the request's set; None for all items.
        rows: the excluded rows of the index, without -1; rows outside of the set do not matter.
        dense: of each level, whether a bitmap of it is on the device.
    """
    rows = np.unique(rows)
    if within is not None:
        rows = rows[bits_at(within._words, rows)]
    leaves, excluded = np.unique(leaves_of(index, rows), return_counts=True)
    nodes = leaves[excluded == _alive_items(index, within, leaves)]
    levels = []
    for at in range(index.num_levels - 1, -1, -1):
        level = index.levels[at]
        parents = level.parents(nodes).astype(np.int64)
        slots = level.codes[nodes] if dense[at] else nodes - level.children(parents)[0]
        levels.append(DeadNodes(parents, slots))
        parents, dead = np.unique(parents, return_counts=True)
        nodes = parents[dead == _alive_children(level, at, within, parents)]
    return levels[::-1]


def _alive_items(index: Trie, within: ConstraintSet | None, leaves: np.ndarray) -> np.ndarray:
    first, end = index.rows_of(leaves)
    if within is None:
        return end - first
    below = within._alive.count_below
    return below(-1, within._words, end) - below(-1, within._words, first)


def _alive_children(level: Level, at: int, within: ConstraintSet | None, parents: np.ndarray) -> np.ndarray:
    first, end = level.children(parents)
    if within is None:
        return end - first
    words = within._alive.levels[at]
    if level.allowed is not None:
        return np.bitwise_count(words[parents]).sum(axis=1, dtype=np.int64)
    below = within._alive.count_below
    return below(at, words, end.astype(np.int64)) - below(at, words, first.astype(np.int64))
