"""Which nodes of a trie are alive: those with an item of a set below them, by one upward pass over bits.

A level's words say it of its nodes, bit n % 32 of word n // 32 for node n; those of a dense level of its codes, as
`Level.allowed` does, so that a step reads the one in place of the other. Levels whose nodes have one child each share
their words.
"""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np

from hedgerow.index.bits import packed, unpacked
from hedgerow.index.level import WORD_BITS
from hedgerow.index.trie import Trie

# From this many items on, Numba's loops gain more than loading them costs.
NUMBA_FROM = 2**18
HAS_NUMBA = find_spec("numba") is not None


def leaf_bits(index: Trie, items: np.ndarray) -> np.ndarray:
    """Returns the words of the leaves, given those of the items: a leaf is alive if any of its items is."""
    return _parents_alive(index.leaf_start, index.leaf_forks, items, index.num_items, index.num_sids)


def alive_levels(index: Trie, leaves: np.ndarray) -> tuple[np.ndarray, ...]:
    """Returns the words of every level, given those of the leaves.

    Returns:
        L arrays: [ceil(E / 32)] uint32, or [P, ceil(C / 32)] where the level is dense.
    """
    words, levels = leaves, []
    for level in reversed(index.levels):
        levels.append(words if level.allowed is None else over_codes(level.allowed, words, level.num_nodes))
        words = _parents_alive(level.child_start, level.forks, words, level.num_nodes, level.num_parents)
    for array in levels:
        array.setflags(write=False)
    return tuple(reversed(levels))


def _parents_alive(
    start: np.ndarray | None, forks: np.ndarray | None, words: np.ndarray, children: int, parents: int
) -> np.ndarray:
    if start is None and forks is None:
        return words
    if children == 0:
        return packed(np.zeros(parents, bool))
    if HAS_NUMBA and children >= NUMBA_FROM:
        from hedgerow.constraints import alive_numba

        if start is not None:
            return alive_numba.any_of_spans(words, start)
        return alive_numba.any_with_forks(words, forks, parents)
    bits = unpacked(words, children)
    if start is not None:
        return packed(np.logical_or.reduceat(bits, start[:-1]))
    assert forks is not None
    others = forks + np.arange(1, len(forks) + 1)
    any_child = np.delete(bits, others)
    any_child[forks[bits[others]]] = True
    return packed(any_child)


def over_codes(allowed: np.ndarray, words: np.ndarray, nodes: int) -> np.ndarray:
    """Returns the bits of a level's nodes where its bitmap `allowed` [P, W] has those of their codes."""
    if HAS_NUMBA and nodes >= NUMBA_FROM:
        from hedgerow.constraints import alive_numba

        return alive_numba.over_codes(words, allowed)
    bits = unpacked(allowed.reshape(-1), allowed.size * WORD_BITS).copy()
    bits[bits] = unpacked(words, nodes)
    return packed(bits).reshape(allowed.shape)


def over_nodes(allowed: np.ndarray, words: np.ndarray) -> np.ndarray:
    """Returns the words [ceil(E / 32)] of the nodes that `over_codes` made these [P, W] of."""
    bits, there = (unpacked(array.reshape(-1), array.size * WORD_BITS) for array in (words, allowed))
    return packed(bits[there])
