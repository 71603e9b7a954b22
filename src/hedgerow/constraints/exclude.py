"""Exclusions on the host: the nodes of the trie that lose all their items to the exclusions of a request."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from hedgerow.constraints.requests import BatchRules
from hedgerow.constraints.sets import ConstraintSet
from hedgerow.index.bits import bits_at
from hedgerow.index.lookup import leaves_of
from hedgerow.index.trie import Trie

# Counts items or children: (set or None, nodes [R]) -> [R].
Count = Callable[[ConstraintSet | None, np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class DeadNodes:
    """The X dead nodes of one level, ascending by request and node: no item below them is left for the request.

    Attributes:
        requests: [X] int64, the requests.
        parents: [X] int64, the parents of the nodes, which are nodes of the level before.
        slots: [X] their codes if the level is dense, otherwise their positions among the children of their parents.
    """

    requests: np.ndarray
    parents: np.ndarray
    slots: np.ndarray


def dead_nodes(rules: BatchRules, dense: Sequence[bool]) -> list[DeadNodes]:
    """Find the nodes that are alive for a request's constraint set, but whose items are all excluded.

    Args:
        rules: the rules of the batch. Excluded items outside of a request's set have no effect.
        dense: for each level, whether the device has a bitmap of it.

    Returns:
        One entry per level.
    """
    index = rules.index
    requests, rows = _excluded(rules)
    requests, leaves, num_excluded = _counted(requests, leaves_of(index, rows), index.num_sids)
    lost = num_excluded == _per_request(rules, requests, leaves, lambda *given: _count_items(index, *given))
    requests, nodes = requests[lost], leaves[lost]
    levels = []
    for number in range(index.num_levels - 1, -1, -1):
        level = index.levels[number]
        parents = level.parents(nodes).astype(np.int64)
        slots = level.codes_of(nodes) if dense[number] else nodes - level.children(parents)[0]
        levels.append(DeadNodes(requests, parents, slots))
        requests, parents, num_dead = _counted(requests, parents, level.num_parents)
        lost = num_dead == _per_request(
            rules, requests, parents, lambda *given, number=number: _count_children(index, number, *given)
        )
        requests, nodes = requests[lost], parents[lost]
    return levels[::-1]


def _excluded(rules: BatchRules) -> tuple[np.ndarray, np.ndarray]:
    """The distinct (request, row) pairs of excluded items in the request's set, ascending."""
    excluded = [rules.excluded_by(request) for request in range(rules.batch_size)]
    requests = np.repeat(np.arange(rules.batch_size), list(map(len, excluded)))
    requests, rows = np.divmod(
        np.unique(requests * rules.index.num_items + np.concatenate(excluded)), max(rules.index.num_items, 1)
    )
    keep = np.ones(len(rows), bool)
    for items, chosen in _groups(rules, requests):
        if items is not None:
            keep[chosen] = bits_at(items._words, rows[chosen])
    return requests[keep], rows[keep]


def _counted(requests: np.ndarray, nodes: np.ndarray, num_nodes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The distinct (request, node) pairs of ascending ones, and how often each occurs."""
    pairs, counts = np.unique(requests * num_nodes + nodes, return_counts=True)
    requests, nodes = np.divmod(pairs, max(num_nodes, 1))
    return requests, nodes, counts


def _per_request(rules: BatchRules, requests: np.ndarray, nodes: np.ndarray, count: Count) -> np.ndarray:
    """The count [X] int64 of each node, for the constraint set of its request."""
    counts = np.zeros(len(nodes), np.int64)
    for items, chosen in _groups(rules, requests):
        counts[chosen] = count(items, nodes[chosen])
    return counts


def _groups(rules: BatchRules, requests: np.ndarray) -> Iterator[tuple[ConstraintSet | None, np.ndarray | slice]]:
    """Each constraint set of the batch that has pairs, and which of the pairs are of requests with it."""
    if not len(requests):
        return
    sets = [rules.set_of(request) for request in range(rules.batch_size)]
    distinct = list({id(items): items for items in sets}.values())
    if len(distinct) == 1:
        yield distinct[0], slice(None)
        return
    numbers = np.asarray([next(n for n, items in enumerate(distinct) if items is own) for own in sets])
    for number, items in enumerate(distinct):
        chosen = numbers[requests] == number
        # A set on a device is not read for a request that excludes nothing.
        if chosen.any():
            yield items, chosen


def _count_items(index: Trie, constraint_set: ConstraintSet | None, leaves: np.ndarray) -> np.ndarray:
    start, stop = index.rows_of(leaves)
    if constraint_set is None:
        return stop - start
    count_below = constraint_set._alive.count_below
    return count_below(-1, constraint_set._words, stop) - count_below(-1, constraint_set._words, start)


def _count_children(
    index: Trie, level_number: int, constraint_set: ConstraintSet | None, parents: np.ndarray
) -> np.ndarray:
    level = index.levels[level_number]
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
