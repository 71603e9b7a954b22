"""Level: the arrays of one level of the trie, and the ways from parents to children and back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hedgerow.index.fanout import count_parents, owners, spans

WORD_BITS = 32
ARRAYS = ("codes", "child_start", "forks", "allowed")


def words_of(codebook_size: int) -> int:
    """Returns how many words a parent's row of a bitmap has."""
    return -(-codebook_size // WORD_BITS)


@dataclass(frozen=True, eq=False)
class Level:
    """One level of the trie: E nodes, under the P nodes of the level before (P = 1, the root, for level 0).

    Nodes are numbered from 0 in lexicographic order of their prefixes, so the children of a node are neighbours, in
    the order of their codes, and need no pointer each.

    Attributes:
        codes: [E] uint8, uint16 or uint32, each node's code.
        child_start: [P + 1] int32: the children of parent p are the nodes child_start[p] to child_start[p + 1] - 1.
            None where all parents have one child, or nearly all: then the first child of p is p, plus the number of
            forks before it.
        forks: [X] int32, ascending: for each node that is not its parent's first child, that parent. None where there
            is no such node, or where row pointers are held.
        allowed: [P, ceil(C / 32)] uint32, bit c % 32 of word c // 32 set where parent p has a child of code c.
            None where the level is not dense.
        codebook_size: C.
        max_branch: K, the largest number of children of one parent; 0 where there are no nodes.
        end: the code that says that a SID has ended, C - 1; None where none does.
    """

    codes: np.ndarray
    child_start: np.ndarray | None
    forks: np.ndarray | None
    allowed: np.ndarray | None
    codebook_size: int
    max_branch: int
    end: int | None = None

    def __post_init__(self) -> None:
        for array in self.arrays.values():
            array.setflags(write=False)

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
        """The arrays that are there, by field name."""
        named = {name: getattr(self, name) for name in ARRAYS}
        return {name: array for name, array in named.items() if array is not None}

    @property
    def nbytes(self) -> int:
        """Bytes of this level's arrays."""
        return sum(array.nbytes for array in self.arrays.values())

    @property
    def representation(self) -> str:
        """'unary' (codes alone), 'forked' (and forks), 'sparse' (and row pointers) or 'dense' (and a bitmap)."""
        if self.allowed is not None:
            return "dense"
        if self.child_start is not None:
            return "sparse"
        return "unary" if self.forks is None else "forked"

    def children(self, parents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the first child of each of `parents` [R], and the node after its last."""
        return spans(self.child_start, self.forks, parents)

    def parents(self, nodes: np.ndarray) -> np.ndarray:
        """Returns the parent of each of `nodes` [R]."""
        return owners(self.child_start, self.forks, nodes)

    def find(self, parents: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """Returns the child [R] of each of `parents` [R] that has the code, or -1; a parent of -1 has none."""
        if self.num_nodes == 0:
            return np.full(len(parents), -1, np.int64)
        low, end = self.children(np.maximum(parents, 0).astype(np.int64))
        low, high = low.astype(np.int64), end.astype(np.int64)
        for _ in range(int(self.max_branch).bit_length()):
            middle = (low + high) // 2
            right = (low < high) & (self.codes[np.minimum(middle, self.num_nodes - 1)] < codes)
            low, high = np.where(right, middle + 1, low), np.where(right, high, middle)
        found = (low < end) & (self.codes[np.minimum(low, self.num_nodes - 1)] == codes) & (parents >= 0)
        return np.where(found, low, -1)
