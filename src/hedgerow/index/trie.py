"""TrieIndex: the prefix tree of a catalog's SIDs, flattened level by level into arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from hedgerow.errors import ArgumentError
from hedgerow.index.fanout import count_children, count_parents, owners, spans
from hedgerow.ragged import ENDED, EndCodes, padded, resized, with_ends, without_ends
from hedgerow.sids import as_sids

if TYPE_CHECKING:
    import pyarrow as pa

    from hedgerow.constraints import ConstraintSet, Missing
    from hedgerow.decode.beams import Beams
    from hedgerow.decode.capacity import Capacity
    from hedgerow.decode.constrain import Exclusions, Sets
    from hedgerow.decode.device import DeviceIndex
    from hedgerow.index.lookup import IdLookup
    from hedgerow.results import OrderBy, Results
    from hedgerow.rules import Nulls

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


@dataclass(frozen=True, eq=False, repr=False)
class TrieIndex:
    """A catalog's SIDs as a flat trie, and the items that its leaves name (STATIC, section 4).

    Items are kept in the order of their SIDs, and of their ids where several share one, so that the same set of
    items makes the same index whatever order it came in. `item_ids` and `attributes` have that order.

    Attributes:
        levels: L levels, from the root.
        leaf_start: [S + 1] int32: the items of leaf s are the rows leaf_start[s] to leaf_start[s + 1] - 1.
            None where no two items share a SID, or few do: then the first item of leaf s is row s, plus the number of
            leaf forks before it.
        leaf_forks: [N - S] int32, ascending: for each item that is not the first of its leaf, that leaf. None where
            there is no such item, or where leaf_start is held.
    """

    levels: tuple[Level, ...]
    leaf_start: np.ndarray | None
    leaf_forks: np.ndarray | None
    load_items: Callable[[], pa.Table] = field(compare=False)

    def __post_init__(self) -> None:
        for array in self.leaf_arrays.values():
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
        return sum(level.nbytes for level in self.levels) + sum(array.nbytes for array in self.leaf_arrays.values())

    @property
    def leaf_arrays(self) -> dict[str, np.ndarray]:
        """The arrays that lead from leaves to items, where they are there, by field name."""
        named = {"leaf_start": self.leaf_start, "leaf_forks": self.leaf_forks}
        return {name: array for name, array in named.items() if array is not None}

    @cached_property
    def items_table(self) -> pa.Table:
        """N rows, in the index's order: the column item_id, then the attributes. Read when first used."""
        return self.load_items()

    @property
    def item_ids(self) -> pa.ChunkedArray:
        """N item ids, in the index's order."""
        return self.items_table.column("item_id")

    @property
    def attributes(self) -> pa.Table:
        """The attributes of the N items, in the index's order."""
        return self.items_table.drop_columns(["item_id"])

    @cached_property
    def id_lookup(self) -> IdLookup:
        """What finds the rows of item ids; made when first used, in the time of one sort of the ids."""
        from hedgerow.index.lookup import IdLookup

        return IdLookup(self.item_ids)

    def constraint(
        self, mask: Any = None, *, ids: Any = None, name: str | None = None, missing: Missing = "raise"
    ) -> ConstraintSet:
        """Returns a set of this index's items, for `constraints=` of a search.

        Args:
            mask: bool [N], **in the order of `index.item_ids` and `index.attributes`**, which is that of the SIDs and
                not that of the rows the catalog was made of. Or a function that is given `index.attributes` (an
                Arrow table of N rows) and returns such a mask, so that the order is right by itself.
            ids: item ids, in any order, in place of a mask.
            name: for people; left out, what it was made of.
            missing: what becomes of ids that no item has: "raise" an error, or "ignore" them.

        Raises:
            ConstraintError: the mask is not bool [N], an id is unknown, or not of the type of the ids.
        """
        from hedgerow.constraints import constraint

        return constraint(self, mask, ids, name, missing)

    def where(self, expression: str, *, name: str | None = None) -> ConstraintSet:
        """Returns the items of which an SQL expression is true, as DuckDB reads it: `"year >= 2000"`.

        The expression sees the attributes, `item_id`, and the table `items` in subqueries; no file, network or
        extension. What is null is not true, as in SQL. Asked again, the answer is remembered.

        Raises:
            ConstraintError: it is not one expression that is true or false of each item; it says what DuckDB said.
            BackendError: DuckDB is not installed.
        """
        from hedgerow.rules import where

        return where(self, expression, name)

    def newest(
        self, attribute: str, *, days: float, now: Any = None, nulls: Nulls = None, name: str | None = None
    ) -> ConstraintSet:
        """Returns the items whose `attribute` lies in the last `days` before `now`, both ends included.

        Moving the window is a new set, made in milliseconds, and never a new index or program.

        Args:
            attribute: of dates, timestamps (without a time zone: of UTC) or numbers.
            days: how far the window reaches back; for numbers, in their own units.
            now: a date (its midnight) or a datetime; left out, this moment. For numbers, a number.
            nulls: whether items without a value are "in" or "out"; must be said where there are any.

        Raises:
            ConstraintError: there is no such attribute, it has no such order, or nulls and nobody said what of them.
        """
        from hedgerow.rules import newest

        return newest(self, attribute, days, now, nulls, name)

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
        codes = self.codes_of(leaves)
        return without_ends(codes, self.end_codes) if self.ragged else codes

    def codes_of(self, leaves: Any = None) -> np.ndarray:
        """Returns `sids` as beams have them: the end code of each level, in place of -1, after the end of a SID."""
        nodes = np.arange(self.num_sids) if leaves is None else self._checked_leaves(leaves)
        matrix = np.empty((len(nodes), self.num_levels), np.int64)
        for at in range(self.num_levels - 1, -1, -1):
            level = self.levels[at]
            matrix[:, at] = level.codes[nodes]
            nodes = level.parents(nodes)
        return matrix

    def rows_of(self, leaves: Any) -> tuple[np.ndarray, np.ndarray]:
        """Returns, for each of `leaves` [R], the row of its first item, and the row after its last.

        Raises:
            ArgumentError: as for `sids`.
        """
        return spans(self.leaf_start, self.leaf_forks, self._checked_leaves(leaves))

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

    def items(
        self,
        beams: Beams,
        *,
        constraints: Sets = None,
        exclude: Exclusions = None,
        k: int | None = None,
        order_by: OrderBy = None,
        caps: Mapping[str, int] | None = None,
    ) -> list[Results]:
        """Returns the items that finished beams name: one `Results` a request, best first, live beams only.

        Args:
            beams: after the last level.
            constraints: what the search was given, as sets: of items that share a SID, only those in the request's
                set are named.
            exclude: what the search was given: excluded items are not named.
            k: items a request, at most; None for all.
            order_by: the attribute that items of one SID are ordered by, largest first, nulls last; or with its
                direction, `("price", "ascending")`. Left out, they are in the order of their ids.
            caps: attribute -> how many items of one value may be named, at most, counted in rank order. An item
                counts for each entry of a list; one whose value is null is not counted.

        Raises:
            ArgumentError: the beams have not all L codes, or are another index's, or k or a cap is no count.
            ConstraintError: there is no such attribute, or as for `constrain`.
        """
        from hedgerow.results import Picking, results_of

        return results_of(self, beams, constraints, exclude, Picking(k, order_by, caps))

    def to(self, backend: str, device: Any = None, *, capacity: Capacity | None = None) -> DeviceIndex:
        """Returns the trie as arrays of "numpy", "torch" or "jax" on `device`, ready for `step` and `beam_search`.

        With a capacity, ``hr.Capacity.of(index)``, arrays are padded to it. All indexes that fit in then have the same
        shapes, and a step that was compiled for one runs on each.

        Raises:
            BackendError: the backend is unknown or not installed.
            ArgumentError: the index does not fit in the capacity.
        """
        from hedgerow.decode.device import to_device

        return to_device(self, backend, device, capacity)

    def save(self, path: Any) -> None:
        """Writes the index to the folder `path`, whole or not at all; an index there before is replaced.

        Raises:
            IndexFileError: `path` holds something that is not an index, or cannot be written.
        """
        from hedgerow.index.files import save_index

        save_index(self, path)

    def describe(self) -> str:
        """Returns a table as text: nodes, branch factors, representation and bytes of every level."""
        from hedgerow.index.describe import describe

        return describe(self)

    def _checked_leaves(self, leaves: Any) -> np.ndarray:
        given = np.asarray(leaves)
        if given.dtype.kind not in "iu" and given.size:
            raise ArgumentError(f"leaves are integers; got {given.dtype}.")
        unknown = given[(given < 0) | (given >= self.num_sids)]
        if unknown.size:
            raise ArgumentError(f"leaf {unknown[0]} does not exist; this index has leaves 0 to {self.num_sids - 1}.")
        return given.astype(np.int64)

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
            f"TrieIndex(items={self.num_items:,}{shared}, levels={self.num_levels}, {ragged}"
            f"nodes={sum(self.nodes_per_level):,}, {bytes_as_text(self.nbytes)})"
        )


def bytes_as_text(nbytes: float) -> str:
    """Returns a size for people."""
    return f"{nbytes / 1e6:,.1f} MB" if nbytes >= 1e6 else f"{nbytes / 1e3:,.1f} kB"
