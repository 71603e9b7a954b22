"""Trie: the prefix tree of a catalog's SIDs, flattened level by level into arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from hedgerow.catalog.catalog import ITEM_ID
from hedgerow.catalog.ragged import ENDED, EndCodes, padded, resized, with_ends, without_ends
from hedgerow.catalog.sids import as_sids
from hedgerow.errors import ArgumentError
from hedgerow.index.fanout import count_children, spans
from hedgerow.index.level import Level

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, eq=False, repr=False)
class Trie:
    """A catalog's SIDs as a flat trie, and the items of its leaves (STATIC, section 4).

    This class holds the arrays and answers questions about them. `hedgerow.Trie`, which users hold, adds
    constraint sets, results, devices and files.

    Items are stored in the order of their SIDs, and of their ids where several items share one SID. So the same set of
    items gives the same index, whatever order it came in. `item_ids` and `attributes` have that order.

    Attributes:
        levels: L levels, from the root.
        leaf_start: [S + 1] int32: the items of leaf s are the rows leaf_start[s] to leaf_start[s + 1] - 1.
            None if no two items share a SID, or only a few do: then the first item of leaf s is row s, plus the number
            of leaf forks before it.
        leaf_forks: [N - S] int32, ascending: for each item that is not the first of its leaf, that leaf. None if
            there is no such item, or if leaf_start is held.
    """

    levels: tuple[Level, ...]
    leaf_start: np.ndarray | None
    leaf_forks: np.ndarray | None
    _load_items: Callable[[], pa.Table]

    def __post_init__(self) -> None:
        for array in leaf_arrays(self).values():
            array.setflags(write=False)

    @property
    def num_items(self) -> int:
        """N, the number of items."""
        return count_children(self.leaf_start, self.leaf_forks, self.num_sids)

    @property
    def num_sids(self) -> int:
        """S, the number of distinct SIDs, which is the number of leaves."""
        return self.levels[-1].num_nodes

    @property
    def num_levels(self) -> int:
        """L, the number of codes in a SID; in the longest, where they are ragged."""
        return len(self.levels)

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """Codes per level, the end code included: the widths of logits."""
        return tuple(level.codebook_size for level in self.levels)

    @property
    def end_codes(self) -> EndCodes:
        """The code of each level that says that a SID has ended; None where none does."""
        return tuple(level.end for level in self.levels)

    @property
    def ragged(self) -> bool:
        """Whether SIDs may end before the last level."""
        return any(end is not None for end in self.end_codes)

    @property
    def nodes_per_level(self) -> tuple[int, ...]:
        """Distinct prefixes per level."""
        return tuple(level.num_nodes for level in self.levels)

    @property
    def max_branch_factors(self) -> tuple[int, ...]:
        """The largest number of children of one node, per level: entry 0 is the root's."""
        return tuple(level.max_branch for level in self.levels)

    @property
    def nbytes(self) -> int:
        """Bytes of the trie's arrays; item ids and attributes are not counted."""
        return sum(level.nbytes for level in self.levels) + sum(array.nbytes for array in leaf_arrays(self).values())

    @cached_property
    def items_table(self) -> pa.Table:
        """N rows, in the index's order: the column item_id, then the attributes. Read when first used."""
        return self._load_items()

    @property
    def item_ids(self) -> pa.ChunkedArray:
        """N item ids, in the index's order."""
        return self.items_table.column(ITEM_ID)

    @property
    def attributes(self) -> pa.Table:
        """The attributes of the N items, in the index's order."""
        return self.items_table.drop_columns([ITEM_ID])

    def find(self, sids: Any) -> np.ndarray:
        """Returns the leaf [R] of each SID of `sids` [R, L], or -1 where no item has it.

        Where SIDs are ragged, lists of different lengths are taken, and matrices of any width with -1, or the end
        codes of beams, after the end of a SID.

        Raises:
            CatalogError: `sids` is not a matrix of integers.
            ArgumentError: its width is not L, and SIDs are not ragged.
        """
        if self.ragged:
            return self._find_ragged(as_sids(padded(sids), smallest=ENDED))
        matrix = as_sids(sids)
        if matrix.shape[1] != self.num_levels:
            raise ArgumentError(f"sids must be [R, {self.num_levels}], as this index has; got {list(matrix.shape)}.")
        return self._walk(matrix)

    def contains(self, sids: Any) -> np.ndarray:
        """Returns bool [R]: whether each SID of `sids` [R, L] is that of an item. Errors as for `find`."""
        return self.find(sids) >= 0

    def allowed_codes(self, prefix: Sequence[int] = ()) -> np.ndarray:
        """Returns the codes that may follow `prefix` (0 to L - 1 codes), ascending; none where no item has it.

        Where SIDs are ragged and the prefix is itself a SID, the last of them is the level's end code.

        Raises:
            ArgumentError: the prefix is as long as a SID, or longer.
        """
        if isinstance(prefix, int):
            raise ArgumentError(f"a prefix is a sequence of codes; got {prefix!r}. For one code: [{prefix!r}].")
        depth = len(prefix)
        if depth >= self.num_levels:
            raise ArgumentError(f"a prefix has 0 to {self.num_levels - 1} codes here; got {depth}.")
        state = self._walk(as_sids(np.asarray([prefix])))[0] if depth else 0
        if state < 0 or self.levels[depth].num_nodes == 0:
            return np.zeros(0, np.int64)
        first, end = self.levels[depth].children(np.asarray([state]))
        return self.levels[depth].codes[first[0] : end[0]].astype(np.int64)

    def sids(self, leaves: Any = None) -> np.ndarray:
        """Returns the SIDs [R, L] (int64) of `leaves` [R], or all S of them in lexicographic order.

        Where SIDs are ragged, -1 stands after the end of one, and it comes after all those that it is a prefix of.

        Raises:
            ArgumentError: a leaf is not 0 to S - 1.
        """
        codes = codes_of_leaves(self, leaves)
        return without_ends(codes, self.end_codes) if self.ragged else codes

    def rows_of(self, leaves: Any) -> tuple[np.ndarray, np.ndarray]:
        """Returns, for each of `leaves` [R], the row of its first item, and the row after its last.

        Raises:
            ArgumentError: as for `sids`.
        """
        return spans(self.leaf_start, self.leaf_forks, checked_leaves(self, leaves))

    def collisions(self) -> tuple[int, int, int]:
        """Returns how many items share a SID, how many SIDs they share, and how many items share one at most."""
        if self.leaf_start is not None:
            counts = np.diff(self.leaf_start)
        elif self.leaf_forks is not None:
            counts = np.unique(self.leaf_forks, return_counts=True)[1] + 1
        else:
            return 0, 0, 0
        counts = counts[counts > 1]
        return int(counts.sum()), len(counts), int(counts.max(initial=0))

    def _find_ragged(self, matrix: np.ndarray) -> np.ndarray:
        sids = with_ends(resized(matrix, self.num_levels), self.end_codes)
        too_long = (matrix[:, self.num_levels :] != ENDED).any(axis=1)
        return np.where(too_long, -1, self._walk(sids))

    def _walk(self, prefixes: np.ndarray) -> np.ndarray:
        states = np.zeros(len(prefixes), np.int64)
        for level, codes in zip(self.levels, prefixes.T, strict=False):
            states = level.find(states, codes)
        return states

    def __repr__(self) -> str:
        shared = f", sids={self.num_sids:,}" if self.num_sids < self.num_items else ""
        ragged = "ragged=True, " if self.ragged else ""
        return (
            f"{type(self).__name__}(items={self.num_items:,}{shared}, levels={self.num_levels}, {ragged}"
            f"nodes={sum(self.nodes_per_level):,}, {bytes_as_text(self.nbytes)})"
        )


def bytes_as_text(nbytes: float) -> str:
    """Returns a size for people."""
    return f"{nbytes / 1e6:,.1f} MB" if nbytes >= 1e6 else f"{nbytes / 1e3:,.1f} kB"


def leaf_arrays(trie: Trie) -> dict[str, np.ndarray]:
    """The arrays that map leaves to items, those that are held, by field name."""
    named = {"leaf_start": trie.leaf_start, "leaf_forks": trie.leaf_forks}
    return {name: array for name, array in named.items() if array is not None}


def codes_of_leaves(trie: Trie, leaves: Any = None) -> np.ndarray:
    """The codes [R, L] int64 of `leaves` [R], or of all: as `Trie.sids`, with end codes in place of -1."""
    nodes = np.arange(trie.num_sids) if leaves is None else checked_leaves(trie, leaves)
    matrix = np.empty((len(nodes), trie.num_levels), np.int64)
    for number in range(trie.num_levels - 1, -1, -1):
        level = trie.levels[number]
        matrix[:, number] = level.codes[nodes]
        nodes = level.parents(nodes)
    return matrix


def checked_leaves(trie: Trie, leaves: Any) -> np.ndarray:
    """Leaves [R] as int64.

    Raises:
        ArgumentError: a leaf is not 0 to S - 1.
    """
    given = np.asarray(leaves)
    if given.dtype.kind not in "iu" and given.size:
        raise ArgumentError(f"leaves must be integers; got {given.dtype}.")
    unknown = given[(given < 0) | (given >= trie.num_sids)]
    if unknown.size:
        raise ArgumentError(f"leaf {unknown[0]} does not exist; this index has leaves 0 to {trie.num_sids - 1}.")
    return given.astype(np.int64)
