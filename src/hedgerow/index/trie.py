"""Trie: the prefix tree of a catalog's SIDs, flattened into arrays per level."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from hedgerow._arguments import check_unmasked
from hedgerow._read_only import ReadOnlyArrays
from hedgerow.catalog.constructors import ITEM_ID
from hedgerow.catalog.ragged import ENDED, EndCodes, padded, resized, with_ends, without_ends
from hedgerow.catalog.sids import as_sids
from hedgerow.errors import ArgumentError
from hedgerow.index.compact import AnyLevel, CompactLevel, Layout, compact_level
from hedgerow.index.fanout import child_spans, count_children
from hedgerow.index.level import Level
from hedgerow.index.order import id_samples, sorted_order

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, eq=False, repr=False)
class Trie(ReadOnlyArrays):
    """A catalog's SIDs as a flat trie, and the items of its leaves (STATIC, section 4).

    This class holds the arrays and looks up SIDs, prefixes and leaves. The public class `hedgerow.TrieIndex` adds
    constraint sets, results, devices and files.

    Items are stored in the order of their SIDs; items that share a SID, in the order of their ids. Equal sets of items
    therefore give equal indexes, in whatever order the catalog lists them. `item_ids` and `attributes` have that order.

    Attributes:
        levels: L levels, from the root.
        leaf_start: [S + 1] int32: the items of leaf s are the rows leaf_start[s] to leaf_start[s + 1] - 1.
            None if no two items share a SID, or only a few do: then the first item of leaf s is row s plus the number
            of leaf forks smaller than s.
        leaf_forks: [N - S] int32, ascending: for each item that is not the first item of its leaf, that leaf. None if
            there is no such item, or if leaf_start is stored.
    """

    levels: tuple[AnyLevel, ...]
    leaf_start: np.ndarray | None
    leaf_forks: np.ndarray | None
    _load_items: Callable[[], pa.Table]
    # Makes `_id_order`. Default: it is sorted.
    _load_order: Callable[[], np.ndarray] | None = field(default=None, kw_only=True)

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

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """The index itself, because it never changes. Constraint sets of the original fit the copy."""
        return self

    @property
    def layout(self) -> Layout:
        """How the levels are stored: "plain" or "compact", see `hedgerow.build_index`."""
        return "compact" if isinstance(self.levels[0], CompactLevel) else "plain"

    @property
    def num_levels(self) -> int:
        """L, the number of codes in a SID; for ragged SIDs, in the longest one."""
        return len(self.levels)

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """The number of codes per level, including the end code: the widths of the logits."""
        return tuple(level.codebook_size for level in self.levels)

    @property
    def end_codes(self) -> EndCodes:
        """The end code per level, which marks the end of a ragged SID; None for levels without one."""
        return tuple(level.end for level in self.levels)

    @property
    def ragged(self) -> bool:
        """Whether SIDs may end before the last level."""
        return any(end is not None for end in self.end_codes)

    @property
    def nodes_per_level(self) -> tuple[int, ...]:
        """The number of nodes, which are distinct prefixes, per level."""
        return tuple(level.num_nodes for level in self.levels)

    @property
    def max_branch_factors(self) -> tuple[int, ...]:
        """The largest number of children of one node, per level. Entry 0 is that of the root."""
        return tuple(level.max_branch for level in self.levels)

    @property
    def nbytes(self) -> int:
        """The size of the trie's arrays in bytes, without item ids and attributes."""
        return sum(level.nbytes for level in self.levels) + sum(array.nbytes for array in leaf_arrays(self).values())

    @cached_property
    def items_table(self) -> pa.Table:
        """An Arrow table of N rows in index order: the column item_id, then the attributes. Read on first use."""
        return self._load_items()

    @cached_property
    def _id_order(self) -> np.ndarray:
        """Int32 [N], the rows in ascending order of the item ids. Read or made on first use."""
        order = sorted_order(self.item_ids) if self._load_order is None else self._load_order()
        order.setflags(write=False)
        return order

    @cached_property
    def _id_samples(self) -> pa.Array:
        return id_samples(self.item_ids, self._id_order)

    @property
    def _has_order(self) -> bool:
        """Whether `_id_order` can be read or made without sorting all ids."""
        return self._load_order is not None or "_id_order" in self.__dict__

    @property
    def item_ids(self) -> pa.ChunkedArray:
        """The N item ids, in index order."""
        return self.items_table.column(ITEM_ID)

    @property
    def attributes(self) -> pa.Table:
        """The attributes of the N items as an Arrow table, in index order."""
        return self.items_table.drop_columns([ITEM_ID])

    def find(self, sids: Any) -> np.ndarray:
        """Look up the leaves of SIDs.

        Args:
            sids: [R, L] integers. For an index of ragged SIDs, also lists of different lengths, or a matrix of any
                width with -1, or the end codes of beams, after the end of a SID.

        Returns:
            The leaf of each SID, [R] int64; -1 if no item has it.

        Raises:
            CatalogError: `sids` is not a matrix of integers.
            ArgumentError: the width is not L, and SIDs are not ragged.

        Examples:
            ```python
            import hedgerow as hr

            index = hr.build_index(hr.Catalog([[2, 0], [0, 1]]))
            assert index.find([[2, 0], [0, 1], [1, 1]]).tolist() == [1, 0, -1]
            ```
        """
        if self.ragged:
            return self._find_ragged(as_sids(padded(sids), min_code=ENDED))
        matrix = as_sids(sids)
        if matrix.shape[1] != self.num_levels:
            raise ArgumentError(
                f"sids must be [R, {self.num_levels}], with one code per level of this index; got {list(matrix.shape)}."
            )
        return self._walk(matrix)

    def contains(self, sids: Any) -> np.ndarray:
        """Check which SIDs belong to an item.

        Args:
            sids: [R, L] integers, as for `find`.

        Returns:
            Whether an item has the SID, bool [R].

        Raises:
            CatalogError: as for `find`.
            ArgumentError: as for `find`.

        Examples:
            ```python
            import hedgerow as hr

            index = hr.build_index(hr.Catalog([[2, 0], [0, 1]]))
            assert index.contains([[2, 0], [1, 1]]).tolist() == [True, False]
            ```
        """
        return self.find(sids) >= 0

    def allowed_codes(self, prefix: Sequence[int] = ()) -> np.ndarray:
        """List the codes that may follow a prefix.

        Args:
            prefix: 0 to L - 1 codes.

        Returns:
            The codes, int64, ascending; empty if no item has the prefix. For ragged SIDs, if the prefix itself is a
            SID, the last entry is the level's end code.

        Raises:
            ArgumentError: the prefix has L codes or more, or a code is outside the codebook of its level.

        Examples:
            ```python
            import hedgerow as hr

            index = hr.build_index(hr.Catalog([[2, 0], [2, 3], [0, 1]]))
            assert index.allowed_codes().tolist() == [0, 2]
            assert index.allowed_codes([2]).tolist() == [0, 3]
            ```
        """
        if isinstance(prefix, int):
            raise ArgumentError(f"a prefix is a sequence of codes; got {prefix!r}. For one code, pass [{prefix!r}].")
        check_unmasked(prefix, "the prefix", "Pass its codes alone.")
        depth = len(prefix)
        if depth >= self.num_levels:
            raise ArgumentError(f"a prefix of this index has 0 to {self.num_levels - 1} codes; got {depth}.")
        codes = as_sids(np.asarray([prefix])) if depth else np.zeros((1, 0), np.int64)
        for number, (code, size) in enumerate(zip(codes[0].tolist(), self.codebook_sizes, strict=False)):
            if not 0 <= code < size:
                raise ArgumentError(f"level {number}: code {code} is out of range; the codes are 0 to {size - 1}.")
        state = self._walk(codes)[0] if depth else 0
        if state < 0 or self.levels[depth].num_nodes == 0:
            return np.zeros(0, np.int64)
        start, stop = self.levels[depth].children(np.asarray([state]))
        return self.levels[depth].codes_of(np.arange(start[0], stop[0])).astype(np.int64)

    def sids(self, leaves: Any = None) -> np.ndarray:
        """List the SIDs of leaves.

        Args:
            leaves: R leaves, 0 to S - 1. Default: all S leaves, in lexicographic order of their SIDs.

        Returns:
            The SIDs, [R, L] int64. A ragged SID has -1 after its end, and comes after the SIDs that it is a prefix of.

        Raises:
            ArgumentError: a leaf is not 0 to S - 1.

        Examples:
            ```python
            import hedgerow as hr

            index = hr.build_index(hr.Catalog([[2, 0], [0, 1]]))
            assert index.sids().tolist() == [[0, 1], [2, 0]]
            assert index.sids([1]).tolist() == [[2, 0]]
            ```
        """
        codes = codes_of_leaves(self, leaves)
        return without_ends(codes, self.end_codes) if self.ragged else codes

    def rows_of(self, leaves: Any) -> tuple[np.ndarray, np.ndarray]:
        """Find the items of leaves, as rows of `item_ids` and `attributes`.

        Args:
            leaves: R leaves, 0 to S - 1.

        Returns:
            The row of the first item of each leaf [R], and the row after its last item [R].

        Raises:
            ArgumentError: a leaf is not 0 to S - 1.

        Examples:
            ```python
            import hedgerow as hr

            index = hr.build_index(hr.Catalog([[0, 1], [0, 1], [2, 0]], item_ids=["a", "b", "c"]))
            start, stop = index.rows_of([0])
            assert index.item_ids[start[0] : stop[0]].to_pylist() == ["a", "b"]
            ```
        """
        return child_spans(self.leaf_start, self.leaf_forks, checked_leaves(self, leaves))

    def collisions(self) -> tuple[int, int, int]:
        """Count the items that share a SID with another item.

        Returns:
            The number of items that share a SID, the number of SIDs that they share, and the largest number of items
            that share one SID. All are 0 if every item has its own SID.

        Examples:
            ```python
            import hedgerow as hr

            index = hr.build_index(hr.Catalog([[0, 1], [0, 1], [2, 0]]))
            assert index.collisions() == (2, 1, 2)
            ```
        """
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
        ragged = 'layout="compact", ' * (self.layout == "compact") + "ragged=True, " * self.ragged
        return (
            f"{type(self).__name__}(items={self.num_items:,}{shared}, levels={self.num_levels}, {ragged}"
            f"nodes={sum(self.nodes_per_level):,}, {bytes_as_text(self.nbytes)})"
        )


def bytes_as_text(nbytes: float) -> str:
    """Format a size in bytes as kB or MB."""
    return f"{nbytes / 1e6:,.1f} MB" if nbytes >= 1e6 else f"{nbytes / 1e3:,.1f} kB"


def leaf_arrays(trie: Trie) -> dict[str, np.ndarray]:
    """The stored arrays that map leaves to items, by field name."""
    arrays = {"leaf_start": trie.leaf_start, "leaf_forks": trie.leaf_forks}
    return {name: array for name, array in arrays.items() if array is not None}


def plain_levels(trie: Trie) -> tuple[Level, ...]:
    """The levels of a trie in the plain layout."""
    return tuple(level.plain() if isinstance(level, CompactLevel) else level for level in trie.levels)


def in_layout(trie: Trie, layout: Layout) -> Trie:
    """The same trie in a layout."""
    if layout == trie.layout:
        return trie
    plain = plain_levels(trie)
    return replace(trie, levels=plain if layout == "plain" else tuple(map(compact_level, plain)))


def codes_of_leaves(trie: Trie, leaves: Any = None) -> np.ndarray:
    """Codes [R, L] int64 of `leaves` [R], default all: as `Trie.sids`, but with end codes in place of -1."""
    if leaves is None:
        return _codes_of_ascending(trie, np.arange(trie.num_sids))
    nodes = checked_leaves(trie, leaves)
    # In ascending order, neighbours read the same cache lines: less than half the time in a large index.
    order = np.argsort(nodes)
    matrix = np.empty((len(nodes), trie.num_levels), np.int64)
    matrix[order] = _codes_of_ascending(trie, nodes[order])
    return matrix


def _codes_of_ascending(trie: Trie, nodes: np.ndarray) -> np.ndarray:
    matrix = np.empty((len(nodes), trie.num_levels), np.int64)
    for number in range(trie.num_levels - 1, -1, -1):
        level = trie.levels[number]
        matrix[:, number] = level.codes_of(nodes)
        nodes = level.parents(nodes)
    return matrix


def checked_leaves(trie: Trie, leaves: Any) -> np.ndarray:
    """Convert leaves [R] to int64.

    Raises:
        ArgumentError: a leaf is not 0 to S - 1.
    """
    check_unmasked(leaves, "leaves", "Remove them: leaves.compressed().")
    array = np.asarray(leaves)
    if array.dtype.kind not in "iu" and array.size:
        raise ArgumentError(f"leaves must be integers; got {array.dtype}.")
    invalid = array[(array < 0) | (array >= trie.num_sids)]
    if invalid.size:
        raise ArgumentError(f"leaf {invalid[0]} does not exist; this index has leaves 0 to {trie.num_sids - 1}.")
    return array.astype(np.int64)
