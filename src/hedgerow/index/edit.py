"""What a change does to every level of a trie: which nodes go, and where new ones come in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hedgerow.index.fanout import first_children, owners, spans
from hedgerow.index.level import Level
from hedgerow.index.trie import Trie

NONE = np.zeros(0, np.int64)


@dataclass(frozen=True)
class Edit:
    """What happens to the E nodes of a level, or to the N items.

    Attributes:
        at: [I] int64, rising or equal: each new node comes before the old one of that number.
        gone: [G] int64, rising: the old nodes that go.
    """

    at: np.ndarray
    gone: np.ndarray

    @property
    def growth(self) -> int:
        """How many nodes more there are after it."""
        return len(self.at) - len(self.gone)

    def moved(self, nodes: np.ndarray) -> np.ndarray:
        """Returns the new numbers of old `nodes`, which stay."""
        return nodes + np.searchsorted(self.at, nodes, "right") - np.searchsorted(self.gone, nodes)

    def placed(self) -> np.ndarray:
        """Returns the numbers [I] of the new nodes."""
        return self.at + np.arange(len(self.at)) - np.searchsorted(self.gone, self.at)


NO_EDIT = Edit(NONE, NONE)


@dataclass(frozen=True)
class Placed:
    """The nodes of the added items' own trie at one level, beside those of the old index.

    Attributes:
        same: [R] int64, the old node with the same prefix, or -1.
        at: [R] int64, how many old nodes come before it.
    """

    same: np.ndarray
    at: np.ndarray

    @property
    def is_new(self) -> np.ndarray:
        """Whether [R] the old index has no such node."""
        return self.same < 0


ROOT = Placed(np.zeros(1, np.int64), np.zeros(1, np.int64))


def in_sorted(values: np.ndarray, ascending: np.ndarray) -> np.ndarray:
    """Returns bool [R]: whether each of `values` is among `ascending`."""
    if not len(ascending):
        return np.zeros(len(values), bool)
    return ascending[np.minimum(np.searchsorted(ascending, values), len(ascending) - 1)] == values


def place_nodes(old: Trie, added: Trie) -> list[Placed]:
    """Returns, level by level, where the nodes of `added` belong among those of `old`."""
    placed, above = [], ROOT
    for mine, theirs in zip(old.levels, added.levels, strict=True):
        above = _place_level(mine, theirs, above)
        placed.append(above)
    return placed


def _place_level(old: Level, added: Level, parents: Placed) -> Placed:
    of = added.parents(np.arange(added.num_nodes))
    at = first_children(old.child_start, old.forks, parents.at[of])
    same = np.full(len(of), -1, np.int64)
    known = np.flatnonzero(parents.same[of] >= 0)
    if len(known) and old.num_nodes:
        from hedgerow.index.splice import lower_bounds

        first, end = old.children(parents.same[of[known]])
        codes = added.codes[known]
        low = lower_bounds(old.codes, first, end, codes)
        found = (low < end) & (old.codes[np.minimum(low, old.num_nodes - 1)] == codes)
        at[known], same[known] = low, np.where(found, low, -1)
    return Placed(same, at)


def place_items(old: Trie, added: Trie, leaves: Placed) -> np.ndarray:
    """Returns, for each item of `added` [n], how many items of `old` come before it; leaves are placed already."""
    of = owners(added.leaf_start, added.leaf_forks, np.arange(added.num_items))
    at = first_children(old.leaf_start, old.leaf_forks, leaves.at[of])
    sharing = np.flatnonzero(leaves.same[of] >= 0)
    if len(sharing):
        at[sharing] = _among_sharers(old, added, sharing, leaves.same[of[sharing]])
    return at


def _among_sharers(old: Trie, added: Trie, items: np.ndarray, leaves: np.ndarray) -> np.ndarray:
    """Returns the place [R] of each of `items` of `added` beside the old items of its leaf, by their ids."""
    import pyarrow as pa

    from hedgerow.catalog.columns import as_column, ranks

    touched, which = np.unique(leaves, return_inverse=True)
    first, end = (bound.astype(np.int64) for bound in spans(old.leaf_start, old.leaf_forks, touched))
    counts = end - first
    before = np.cumsum(counts) - counts
    rows = np.repeat(first - before, counts) + np.arange(counts.sum())
    ids = [as_column(ids.take(taken), "item_ids") for ids, taken in ((old.item_ids, rows), (added.item_ids, items))]
    groups = np.concatenate((np.repeat(np.arange(len(touched)), counts), which))
    order = np.lexsort((ranks(pa.concat_arrays(ids)), groups))
    smaller = np.empty(len(order), np.int64)
    smaller[order] = np.cumsum(order < len(rows))
    return first[which] + smaller[len(rows) :] - before[which]


def edits_of(old: Trie, placed: Sequence[Placed], items: Edit) -> list[Edit]:
    """Returns the edit of every level, and of the items last.

    Args:
        old: the index that changes.
        placed: what `place_nodes` gave for the items added; nothing where none are.
        items: the edit of the items.
    """
    edits = [items]
    fans = [(level.child_start, level.forks) for level in old.levels[1:]] + [(old.leaf_start, old.leaf_forks)]
    for at in range(old.num_levels - 1, -1, -1):
        used = placed[at].same[placed[at].same >= 0] if placed else NONE
        gone = _emptied(*fans[at], edits[0].gone)
        new = placed[at].at[placed[at].is_new] if placed else NONE
        edits.insert(0, Edit(new, gone[~in_sorted(gone, used)]))
    return edits


def _emptied(start: np.ndarray | None, forks: np.ndarray | None, gone: np.ndarray) -> np.ndarray:
    """Returns the parents, rising, all of whose children are `gone`."""
    of = owners(start, forks, gone)
    heads = np.flatnonzero(np.diff(of, prepend=-1))
    parents = of[heads]
    first, end = spans(start, forks, parents)
    return parents[np.diff(heads, append=len(of)) == end - first].astype(np.int64)


def new_children(added_of: np.ndarray, is_new: np.ndarray, parents: Placed) -> tuple[np.ndarray, np.ndarray]:
    """Returns the old parents [A], rising or equal, of new children that have one; and how many children each of the
    new parents [I] has.

    Args:
        added_of: [R] the parent, in the added items' trie, of each of its nodes.
        is_new: [R] whether the node is new.
        parents: where the parents are.
    """
    of = added_of[is_new]
    known = parents.same[of]
    rank = np.cumsum(parents.is_new) - 1
    return known[known >= 0], np.bincount(rank[of[known < 0]], minlength=int(parents.is_new.sum()))
