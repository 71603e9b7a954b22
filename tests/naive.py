"""A trie as a set of prefixes: the expected contents of an index, by brute force."""

from __future__ import annotations

from collections import Counter

import hedgerow as hr
from hedgerow.index.trie import Trie, leaf_arrays

Prefix = tuple[int, ...]


class NaiveTrie:
    """The set of all prefixes of a catalog's SIDs."""

    def __init__(self, catalog: hr.Catalog) -> None:
        self.rows: list[Prefix] = [tuple(row) for row in catalog.sids.tolist()]
        self.sids = sorted(set(self.rows))
        self.prefixes = {sid[:depth] for sid in self.sids for depth in range(1, catalog.num_levels + 1)}
        self.num_levels = catalog.num_levels

    def nodes(self, level: int) -> list[Prefix]:
        return sorted(prefix for prefix in self.prefixes if len(prefix) == level + 1)

    def parents(self, level: int) -> list[Prefix]:
        return self.nodes(level - 1) if level else [()]

    def allowed_codes(self, prefix: Prefix) -> list[int]:
        return [node[-1] for node in self.nodes(len(prefix)) if node[:-1] == prefix]

    def max_branch(self, level: int) -> int:
        return max(Counter(node[:-1] for node in self.nodes(level)).values(), default=0)

    def items(self, ids: list) -> list:
        """Sort ids by the SIDs of their items, then by the ids themselves."""
        return [item for _, item in sorted(zip(self.rows, ids, strict=True))]


def same_trie(left: Trie, right: Trie) -> bool:
    """Whether two indexes have the same arrays with the same dtypes."""

    def flat(index: Trie) -> list:
        levels = enumerate(index.levels)
        arrays = [(number, name, array) for number, level in levels for name, array in level.arrays.items()]
        arrays += [(-1, name, array) for name, array in leaf_arrays(index).items()]
        return [(number, name, array.dtype, array.shape, array.tolist()) for number, name, array in arrays]

    return (
        flat(left) == flat(right)
        and left.codebook_sizes == right.codebook_sizes
        and left.max_branch_factors == right.max_branch_factors
    )
