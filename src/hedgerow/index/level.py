"""Level: the arrays of one level of the trie, and the mapping between parents and children."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from hedgerow._read_only import ReadOnlyArrays
from hedgerow.index.fanout import child_spans, count_parents, parents_of

WORD_BITS = 32
ARRAYS = ("codes", "child_start", "forks", "allowed")


def words_of(codebook_size: int) -> int:
    """The number of words per parent in a bitmap."""
    return -(-codebook_size // WORD_BITS)


class _Stored(Protocol):
    """What `StoredLevel` needs of a level: see `Level`."""

    @property
    def num_nodes(self) -> int: ...
    @property
    def max_branch(self) -> int: ...
    @property
    def arrays(self) -> dict[str, np.ndarray]: ...
    def children(self, parents: np.ndarray) -> tuple[np.ndarray, np.ndarray]: ...
    def codes_of(self, nodes: np.ndarray) -> np.ndarray: ...


class StoredLevel(ReadOnlyArrays):
    """What the levels of all layouts have in common. Their arrays are read-only."""

    def __post_init__(self: _Stored) -> None:
        for array in self.arrays.values():
            array.setflags(write=False)

    @property
    def nbytes(self: _Stored) -> int:
        """The size of this level's arrays in bytes."""
        return sum(array.nbytes for array in self.arrays.values())

    def find(self: _Stored, parents: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """The child [R] int64 of each of `parents` [R] that has the code of `codes` [R], or -1.

        A parent of -1 has no children.
        """
        if self.num_nodes == 0:
            return np.full(len(parents), -1, np.int64)
        start, stop = self.children(np.maximum(parents, 0).astype(np.int64))
        low, high, last = start.astype(np.int64), stop.astype(np.int64), self.num_nodes - 1
        for _ in range(int(self.max_branch).bit_length()):
            middle = (low + high) // 2
            right = (low < high) & (self.codes_of(np.minimum(middle, last)) < codes)
            low, high = np.where(right, middle + 1, low), np.where(right, high, middle)
        matches = (low < stop) & (self.codes_of(np.minimum(low, last)) == codes) & (parents >= 0)
        return np.where(matches, low, -1)


@dataclass(frozen=True, eq=False)
class Level(StoredLevel):
    """One level of the trie: E nodes, children of the P nodes of the level before (P = 1, the root, for level 0).

    Nodes are numbered from 0 in the lexicographic order of their prefixes. The children of a node are therefore
    contiguous, in the order of their codes, and no node stores a pointer to a child.

    Attributes:
        codes: [E] uint8, uint16 or uint32, the code of each node.
        child_start: [P + 1] int32: the children of parent p are the nodes child_start[p] to child_start[p + 1] - 1.
            None if every parent has one child, or nearly every one: then the first child of p is p plus the number of
            forks smaller than p.
        forks: [E - P] int32, ascending: for each node that is not the first child of its parent, that parent. None if
            there is no such node, or if child_start is stored.
        allowed: [P, ceil(C / 32)] uint32: bit c % 32 of word c // 32 is set if parent p has a child with code c.
            None if the level is not dense.
        codebook_size: C.
        max_branch: K, the largest number of children of one parent; 0 if there are no nodes.
        end: the end code, C - 1, which marks the end of a SID; None if the level has none.
    """

    codes: np.ndarray
    child_start: np.ndarray | None
    forks: np.ndarray | None
    allowed: np.ndarray | None
    codebook_size: int
    max_branch: int
    end: int | None = None

    @property
    def num_nodes(self) -> int:
        """E, the number of distinct prefixes that end at this level."""
        return len(self.codes)

    @property
    def num_parents(self) -> int:
        """P, the number of nodes of the level before; 1 for level 0."""
        return count_parents(self.child_start, self.forks, self.num_nodes)

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """The stored arrays, by field name."""
        arrays = {name: getattr(self, name) for name in ARRAYS}
        return {name: array for name, array in arrays.items() if array is not None}

    @property
    def representation(self) -> str:
        """'unary' (codes only), 'forked' (also forks), 'sparse' (also row pointers) or 'dense' (also a bitmap)."""
        if self.allowed is not None:
            return "dense"
        if self.child_start is not None:
            return "sparse"
        return "unary" if self.forks is None else "forked"

    def children(self, parents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The first child of each of `parents` [R], and the node after its last child."""
        return child_spans(self.child_start, self.forks, parents)

    def parents(self, nodes: np.ndarray) -> np.ndarray:
        """The parent of each of `nodes` [R]."""
        return parents_of(self.child_start, self.forks, nodes)

    def codes_of(self, nodes: np.ndarray) -> np.ndarray:
        """The codes of `nodes` [R]."""
        return self.codes[nodes]
