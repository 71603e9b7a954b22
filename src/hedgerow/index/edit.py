"""The edit of every level of a trie: which nodes are removed, and where new nodes are inserted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hedgerow._read_only import set_read_only
from hedgerow.index.compact import AnyLevel
from hedgerow.index.fanout import child_spans, first_children, parents_of
from hedgerow.index.trie import Trie

NONE = np.zeros(0, np.int64)


@dataclass(frozen=True)
class Edit:
    """The change of the E nodes of a level, or of the N items.

    Attributes:
        inserted: [new nodes] int64, ascending, may repeat: the old node before which each new node is inserted, 0 to
            E.
        removed: [removed nodes] int64, ascending: the old nodes that are removed.
    """

    inserted: np.ndarray
    removed: np.ndarray

    def __post_init__(self) -> None:
        # An index whose items have not been read holds them.
        set_read_only((self.inserted, self.removed))

    @property
    def growth(self) -> int:
        """The number of nodes after the edit, minus the number before."""
        return len(self.inserted) - len(self.removed)

    def moved(self, nodes: np.ndarray) -> np.ndarray:
        """The new numbers of old `nodes` [R] that are kept."""
        return nodes + np.searchsorted(self.inserted, nodes, "right") - np.searchsorted(self.removed, nodes)

    def placed(self) -> np.ndarray:
        """The numbers of the new nodes."""
        return self.inserted + np.arange(len(self.inserted)) - np.searchsorted(self.removed, self.inserted)


NO_EDIT = Edit(NONE, NONE)


@dataclass(frozen=True)
class Placement:
    """Where the E nodes of one level of the added items' trie belong among the nodes of the old index.

    Attributes:
        match: [E] int64, the old node with the same prefix, or -1.
        before: [E] int64, the number of old nodes that come before the node.
    """

    match: np.ndarray
    before: np.ndarray

    @property
    def is_new(self) -> np.ndarray:
        """Whether the old index has no such node: bool [E]."""
        return self.match < 0


ROOT = Placement(np.zeros(1, np.int64), np.zeros(1, np.int64))


def in_sorted(values: np.ndarray, ascending: np.ndarray) -> np.ndarray:
    """Whether each of `values` [R] is in the sorted array `ascending`: bool [R]."""
    if not len(ascending):
        return np.zeros(len(values), bool)
    return ascending[np.minimum(np.searchsorted(ascending, values), len(ascending) - 1)] == values


def place_nodes(old: Trie, added: Trie) -> list[Placement]:
    """The placement of the nodes of `added` among those of `old`, per level."""
    placements, parents = [], ROOT
    for old_level, added_level in zip(old.levels, added.levels, strict=True):
        parents = _place_level(old_level, added_level, parents)
        placements.append(parents)
    return placements


def _place_level(old: AnyLevel, added: AnyLevel, parents: Placement) -> Placement:
    parent = added.parents(np.arange(added.num_nodes))
    before = first_children(old.child_start, old.forks, parents.before[parent])
    match = np.full(len(parent), -1, np.int64)
    candidates = np.flatnonzero(parents.match[parent] >= 0)
    if len(candidates) and old.num_nodes:
        from hedgerow.index.splice import lower_bounds

        start, stop = old.children(parents.match[parent[candidates]])
        codes = added.codes[candidates]
        low = lower_bounds(old.codes, start, stop, codes)
        is_match = (low < stop) & (old.codes[np.minimum(low, old.num_nodes - 1)] == codes)
        before[candidates], match[candidates] = low, np.where(is_match, low, -1)
    return Placement(match, before)


def place_items(old: Trie, added: Trie, leaves: Placement) -> np.ndarray:
    """The number of items of `old` that come before each item of `added` [N].

    Args:
        old: the old index.
        added: the trie of the added items.
        leaves: the placement of the leaves of `added`.
    """
    leaf = parents_of(added.leaf_start, added.leaf_forks, np.arange(added.num_items))
    before = first_children(old.leaf_start, old.leaf_forks, leaves.before[leaf])
    sharing = np.flatnonzero(leaves.match[leaf] >= 0)
    if len(sharing):
        before[sharing] = _place_among_sharers(old, added, sharing, leaves.match[leaf[sharing]])
    return before


def _place_among_sharers(old: Trie, added: Trie, items: np.ndarray, leaves: np.ndarray) -> np.ndarray:
    """Place added items among the old items that share their SIDs, in the order of ids.

    Args:
        old: the old index.
        added: the trie of the added items.
        items: R items of `added`.
        leaves: [R], the leaf of `old` with the SID of each item.

    Returns:
        [R], the number of items of `old` that come before each item.
    """
    import pyarrow as pa

    from hedgerow.catalog.columns import as_column, ranks

    shared, group = np.unique(leaves, return_inverse=True)
    start, stop = (bound.astype(np.int64) for bound in child_spans(old.leaf_start, old.leaf_forks, shared))
    counts = stop - start
    before = np.cumsum(counts) - counts
    rows = np.repeat(start - before, counts) + np.arange(counts.sum())
    ids = [as_column(ids.take(taken), "item_ids") for ids, taken in ((old.item_ids, rows), (added.item_ids, items))]
    groups = np.concatenate((np.repeat(np.arange(len(shared)), counts), group))
    order = np.lexsort((ranks(pa.concat_arrays(ids)), groups))
    smaller = np.empty(len(order), np.int64)
    smaller[order] = np.cumsum(order < len(rows))
    return start[group] + smaller[len(rows) :] - before[group]


def edits_of(old: Trie, placements: Sequence[Placement], items: Edit) -> list[Edit]:
    """The edit of every level, and of the items last.

    Args:
        old: the index that changes.
        placements: the result of `place_nodes` for the added items; empty if no items are added.
        items: the edit of the items.
    """
    edits = [items]
    fans = [(level.child_start, level.forks) for level in old.levels[1:]] + [(old.leaf_start, old.leaf_forks)]
    for number in range(old.num_levels - 1, -1, -1):
        used, inserted = NONE, NONE
        if placements:
            placement = placements[number]
            used, inserted = placement.match[placement.match >= 0], placement.before[placement.is_new]
        emptied = _emptied(*fans[number], edits[0].removed)
        edits.insert(0, Edit(inserted, emptied[~in_sorted(emptied, used)]))
    return edits


def _emptied(start: np.ndarray | None, forks: np.ndarray | None, removed: np.ndarray) -> np.ndarray:
    """The parents, ascending, all of whose children are `removed`."""
    parent = parents_of(start, forks, removed)
    heads = np.flatnonzero(np.diff(parent, prepend=-1))
    parents = parent[heads]
    first, stop = child_spans(start, forks, parents)
    return parents[np.diff(heads, append=len(parent)) == stop - first].astype(np.int64)


def new_children(parent: np.ndarray, is_new: np.ndarray, parents: Placement) -> tuple[np.ndarray, np.ndarray]:
    """The parents of the new nodes of a level.

    Args:
        parent: [E] the parent of each node, in the trie of the added items.
        is_new: [E] bool, whether the node is new.
        parents: the placement of the parents.

    Returns:
        The old parent of each new node that has an old parent, ascending; and the number of children of each new
        parent.
    """
    parent = parent[is_new]
    match = parents.match[parent]
    rank = np.cumsum(parents.is_new) - 1
    return match[match >= 0], np.bincount(rank[parent[match < 0]], minlength=int(parents.is_new.sum()))
