"""The alive nodes of a constraint set: those with an item of the set below them. One upward pass over bits.

Bit n % 32 of word n // 32 of a level is set if node n is alive. A dense level has a row of words per parent instead,
with a bit per code, as `Level.allowed` has, so that a step can read one in place of the other. Levels whose nodes have
one child each share their words.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from hedgerow._compiled import native
from hedgerow._read_only import ReadOnlyArrays, set_read_only
from hedgerow.index.bits import bits_before, packed, rank_of, unpacked
from hedgerow.index.compact import AnyLevel, CompactLevel
from hedgerow.index.level import WORD_BITS, words_of
from hedgerow.index.trie import Trie

# A bit per child: an eighth of a byte, where the row pointers of few children take as long to read as 32 bits each.
LAST_CHILDREN: WeakKeyDictionary[Trie | AnyLevel, np.ndarray] = WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class Alive(ReadOnlyArrays):
    """The alive nodes of a constraint set. All sets of the same items share one object.

    Attributes:
        leaves: [ceil(S / 32)] uint32, the words of the leaves.
        levels: L arrays of words: [ceil(E / 32)] uint32 over the nodes; [P, ceil(C / 32)] over the codes of a dense
            level.
        placed: copies of `levels` on devices, by device; filled on first use.
        before: by level, and -1 for the items: the number of bits set before each word; filled on first use.
    """

    leaves: np.ndarray
    levels: tuple[np.ndarray, ...]
    placed: dict[Any, tuple[Any, ...]] = field(default_factory=dict)
    before: dict[int, np.ndarray] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """Bytes of the words on the host. Words that levels share count once."""
        return sum(array.nbytes for array in {id(array): array for array in (self.leaves, *self.levels)}.values())

    def count_below(self, level_number: int, words: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """Count the bits that are set below each position.

        Args:
            level_number: the level of the words, or -1 for the items.
            words: the words of that level, or of the items.
            positions: [R] nodes of that level, or rows of items.

        Returns:
            [R] int64.
        """
        if level_number not in self.before:
            before = bits_before(words)
            set_read_only(before)
            self.before[level_number] = before
        return rank_of(words, self.before[level_number], positions)


def find_alive(index: Trie, items: np.ndarray) -> Alive:
    """Find the alive nodes of every level.

    Args:
        index: the trie.
        items: [ceil(N / 32)] uint32, the words of the items.
    """
    leaves = leaf_bits(index, items)
    leaves.setflags(write=False)
    return Alive(leaves, alive_levels(index, leaves))


def leaf_bits(index: Trie, items: np.ndarray) -> np.ndarray:
    """Words of the leaves, from those of the items. A leaf is alive if any of its items is in the set."""
    return _any_child(index, index.leaf_start, index.leaf_forks, items, index.num_items, index.num_sids)


def alive_levels(index: Trie, leaves: np.ndarray) -> tuple[np.ndarray, ...]:
    """Words of every level, from those of the leaves.

    Returns:
        L arrays: [ceil(E / 32)] uint32, or [P, ceil(C / 32)] if the level is dense.
    """
    words, levels = leaves, []
    for level in reversed(index.levels):
        levels.append(words if level.allowed is None else over_codes(level.allowed, words, level.num_nodes))
        words = _parents_of(level, words)
    for array in levels:
        array.setflags(write=False)
    return tuple(reversed(levels))


def _parents_of(level: AnyLevel, words: np.ndarray) -> np.ndarray:
    """Words of the parents of a level, from those of its nodes."""
    if native is not None and isinstance(level, CompactLevel) and level.bits is not None:
        out = np.zeros(max(1, words_of(level.num_parents)), np.uint32)
        native.any_with_vector(words, level.bits.words, level.high_bits, out)
        return out
    return _any_child(level, level.child_start, level.forks, words, level.num_nodes, level.num_parents)


def _any_child(
    owner: Trie | AnyLevel,
    start: np.ndarray | None,
    forks: np.ndarray | None,
    words: np.ndarray,
    num_children: int,
    num_parents: int,
) -> np.ndarray:
    """Words of the parents, from those of their children. A parent is alive if any of its children is.

    Args:
        owner: what `start` belongs to.
        start: the row pointers, or None.
        forks: the forks, or None.
        words: the words of the children.
        num_children: E.
        num_parents: P.
    """
    if start is None and forks is None:
        return words
    if num_children == 0:
        return packed(np.zeros(num_parents, bool))
    if native is not None:
        out = np.zeros(max(1, (num_parents + WORD_BITS - 1) // WORD_BITS), np.uint32)
        if start is not None:
            native.any_of_runs(words, _last_children(owner, start, num_children), out, True)
        else:
            native.any_with_forks(words, forks, num_parents, out)
        return out
    bits = unpacked(words, num_children)
    if start is not None:
        return packed(np.logical_or.reduceat(bits, start[:-1]))
    assert forks is not None
    later_children = forks + np.arange(1, len(forks) + 1)
    any_child = np.delete(bits, later_children)
    any_child[forks[bits[later_children]]] = True
    return packed(any_child)


def _last_children(owner: Trie | AnyLevel, start: np.ndarray, num_children: int) -> np.ndarray:
    """Words of the children, with the bits of the last child of each parent. They are made on first use."""
    words = LAST_CHILDREN.get(owner)
    if words is None:
        words = np.zeros(words_of(num_children), np.uint32)
        native.last_of_runs(start, words)
        set_read_only(words)
        LAST_CHILDREN[owner] = words
    return words


def over_codes(allowed: np.ndarray, words: np.ndarray, num_nodes: int) -> np.ndarray:
    """Words [P, W] of a dense level over its codes, from those over its nodes and from its bitmap `allowed` [P, W]."""
    if native is not None:
        out = np.empty_like(allowed)
        native.over_codes(words, allowed, out, True)
        return out
    bits = unpacked(allowed.reshape(-1), allowed.size * WORD_BITS).copy()
    bits[bits] = unpacked(words, num_nodes)
    return packed(bits).reshape(allowed.shape)


def over_nodes(allowed: np.ndarray, words: np.ndarray) -> np.ndarray:
    """Words [ceil(E / 32)] of a dense level over its nodes: the inverse of `over_codes`."""
    alive_codes, has_node = (unpacked(array.reshape(-1), array.size * WORD_BITS) for array in (words, allowed))
    return packed(alive_codes[has_node])
