"""Changing an index without building it again: items come in, go, or move, and the sorted rest is copied.

The new items are built as a trie of their own. Walking it down beside the old one tells where each of its nodes
belongs; going up from the items that leave tells which nodes are left empty. Then every level is spliced in one pass.
The outcome has the arrays, bit for bit, of `build_trie` of the resulting catalog.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from hedgerow.catalog.catalog import ITEM_ID, Catalog
from hedgerow.catalog.ragged import without_ends
from hedgerow.errors import ArgumentError, CatalogError
from hedgerow.index.build import DenseLevels, build_trie, dense_rule, with_bitmap
from hedgerow.index.edit import (
    NO_EDIT,
    NONE,
    ROOT,
    Edit,
    Placed,
    edits_of,
    in_sorted,
    new_children,
    place_items,
    place_nodes,
)
from hedgerow.index.fanout import as_forks, as_start, is_forked, owners
from hedgerow.index.level import Level
from hedgerow.index.lookup import as_ids, check_known, scan_rows
from hedgerow.index.trie import Trie

if TYPE_CHECKING:
    import pyarrow as pa


def merge_trie(
    index: Trie, added: Catalog | None = None, removed: Any = (), *, dense_levels: DenseLevels = "auto"
) -> Trie:
    """The trie of `index` without the items removed and with those added: see `hedgerow.merge`."""
    if not isinstance(index, Trie):
        raise ArgumentError(f"merge takes a TrieIndex; got {type(index).__name__}.")
    rows = rows_to_remove(index, removed)
    if added is None:
        return splice_index(index, None, np.sort(rows), dense_levels=dense_levels)
    added = fitted(index, added)
    replaced = present_rows(index, added)
    rows = np.unique(np.concatenate((rows, replaced[replaced >= 0])))
    return splice_index(index, added, rows, dense_levels=dense_levels)


def filter_trie(index: Trie, mask: Any, *, dense_levels: DenseLevels = "auto") -> Trie:
    """The trie of the items where `mask` is true: see `hedgerow.TrieIndex.filter`."""
    keep = np.asarray(mask)
    if keep.dtype != bool or keep.shape != (index.num_items,):
        raise ArgumentError(f"the mask must be bool [{index.num_items}]; got {keep.dtype} {list(keep.shape)}.")
    return splice_index(index, None, np.flatnonzero(~keep), dense_levels=dense_levels)


def rows_to_remove(index: Trie, ids: Any) -> np.ndarray:
    """Rows of the items with these ids, each once.

    Raises:
        CatalogError: an id is not in the index.
    """
    wanted = as_ids(index, ids, "item ids to remove", error=CatalogError).unique()
    rows = scan_rows(index, wanted)
    check_known(rows, wanted, "item ids to remove", CatalogError)
    return rows


def present_rows(index: Trie, added: Catalog) -> np.ndarray:
    """Row [n] of the item with the id of each item of `added`, which is `fitted`, or -1."""
    if not index.num_items:
        return np.full(len(added), -1)
    return scan_rows(index, as_ids(index, added.item_ids, "item ids", error=CatalogError))


def fitted(index: Trie, added: Catalog) -> Catalog:
    """Returns `added` with the codebooks of `index`, and ids and attributes of its types.

    Raises:
        CatalogError: it cannot be.
    """
    if not isinstance(added, Catalog):
        raise ArgumentError(f"items are added as a Catalog; got {type(added).__name__}.")
    if not added.has_item_ids:
        raise CatalogError("items that are added need ids: give the catalog item_ids.")
    if added.ragged and not index.ragged:
        raise CatalogError(
            "the items added have ragged SIDs, and those of the index have one length; build a new index."
        )
    if index.ragged:
        return _fitted_ragged(index, added)
    if added.num_levels != index.num_levels:
        raise CatalogError(f"the index has SIDs of {index.num_levels} codes; those added have {added.num_levels}.")
    for level, (size, codes) in enumerate(zip(index.codebook_sizes, added.sids.T, strict=True)):
        if codes.max(initial=0) >= size:
            row = int(np.argmax(codes >= size))
            raise CatalogError(
                f"row {row}, level {level}: code {codes[row]} is outside the index's codebook of {size}. "
                "For larger codebooks, build a new index."
            )
    ids, columns = _typed(index, added)
    return Catalog(added.sids, codebook_sizes=index.codebook_sizes, item_ids=ids, attributes=columns)


def _fitted_ragged(index: Trie, added: Catalog) -> Catalog:
    """Returns `added`, whose longest SID may be shorter, with the ends of `index`."""
    if added.num_levels > index.num_levels:
        raise CatalogError(
            f"the index has SIDs of up to {index.num_levels} codes; those added have up to {added.num_levels}."
        )
    ends = ((size, end is not None) for size, end in zip(index.codebook_sizes, index.end_codes, strict=True))
    ids, columns = _typed(index, added)
    return Catalog(
        without_ends(added.sids.astype(np.int64), added.end_codes),
        codebook_sizes=[size - has_end for size, has_end in ends],
        item_ids=ids,
        attributes=columns,
        ragged=True,
    )


def _typed(index: Trie, added: Catalog) -> tuple[Any, Any]:
    """Returns ids and attributes as the index has them."""
    from hedgerow.catalog.columns import as_type

    ids, columns = added.item_ids, added.attributes
    if index.num_items == 0:
        return ids, columns
    schema = index.items_table.schema
    names = [name for name in schema.names if name != ITEM_ID]
    if sorted(columns.column_names) != sorted(names):
        raise CatalogError(f"the index has the attributes {names}; the items added have {columns.column_names}.")
    typed = {name: as_type(columns.column(name), schema.field(name)) for name in names}
    field = schema.field(ITEM_ID)
    if str(ids.type).startswith(("int", "uint")) != str(field.type).startswith(("int", "uint")):
        raise CatalogError(f"item ids are {field.type} in the index; those added are {ids.type}.")
    return as_type(ids, field), typed or None


def splice_index(index: Trie, added: Catalog | None, gone_rows: np.ndarray, *, dense_levels: DenseLevels) -> Trie:
    """Returns `index` without the items in the rows `gone_rows` [G], rising, and with those of `added`.

    `added` is `fitted`, and an id of it is in `index` only where the row is gone.
    """
    is_dense = dense_rule(dense_levels, index.num_levels)
    if index.num_items == 0:
        return index if added is None else build_trie(added, dense_levels=dense_levels)
    new = None if added is None else build_trie(added, dense_levels=())
    placed = [] if new is None else place_nodes(index, new)
    items = Edit(NONE if new is None else place_items(index, new, placed[-1]), gone_rows)
    change = _Change(index, new, placed, edits_of(index, placed, items))

    def splice_level(at: int) -> Level:
        level = change.level(at)
        return with_bitmap(level, at) if is_dense(at, level) else level

    # Numba's passes let go of the interpreter, so that levels are spliced side by side.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        levels = tuple(pool.map(splice_level, range(index.num_levels)))
    return Trie(levels, *change.fan(index.num_levels)[:2], _items_loader(index, new, items))


@dataclass(frozen=True)
class _Change:
    """An index, the index of what is added, and where all goes; level L stands for the items under the leaves."""

    index: Trie
    new: Trie | None
    placed: Sequence[Placed]
    edits: Sequence[Edit]

    def level(self, at: int) -> Level:
        """Returns level number `at` as it will be, without a bitmap."""
        old, edit = self.index.levels[at], self.edits[at]
        codes = old.codes[:0] if self.new is None else self.new.levels[at].codes[self.placed[at].is_new]
        child_start, forks, max_branch = self.fan(at)
        codes = splice_array(old.codes, edit.at, codes, edit.gone)
        return Level(codes, child_start, forks, None, old.codebook_size, max_branch, old.end)

    def fan(self, at: int) -> tuple[np.ndarray | None, np.ndarray | None, int]:
        """Returns what `fan_out` would give of level number `at`."""
        adopted, counts = NONE, NONE
        if self.new is not None:
            of = _fan_of(self.new, at).owners()
            is_new = self.placed[at].is_new if at < self.index.num_levels else np.ones(len(of), bool)
            adopted, counts = new_children(of, is_new, self.placed[at - 1] if at else ROOT)
        parents = self.edits[at - 1] if at else NO_EDIT
        return _splice_fan(_fan_of(self.index, at), parents, self.edits[at], adopted, counts)


@dataclass(frozen=True)
class _Fan:
    """How the children of a level, or the items of the leaves, belong to their parents: see `fanout`."""

    start: np.ndarray | None
    forks: np.ndarray | None
    parents: int
    children: int

    def owners(self) -> np.ndarray:
        return owners(self.start, self.forks, np.arange(self.children))


def _fan_of(index: Trie, at: int) -> _Fan:
    if at == index.num_levels:
        return _Fan(index.leaf_start, index.leaf_forks, index.num_sids, index.num_items)
    level = index.levels[at]
    return _Fan(level.child_start, level.forks, level.num_parents, level.num_nodes)


def splice_array(old: np.ndarray, at: np.ndarray, new: np.ndarray, gone: np.ndarray) -> np.ndarray:
    """Returns `splice`, which Numba compiles, or `old` where nothing changes."""
    if not len(at) and not len(gone):
        return old
    from hedgerow.index.splice import splice

    return splice(old, at, new, gone)


def _splice_fan(
    fan: _Fan, parents: Edit, children: Edit, adopted: np.ndarray, counts: np.ndarray
) -> tuple[np.ndarray | None, np.ndarray | None, int]:
    """Returns what `fan_out` gives of a level once it is changed.

    Args:
        fan: the level as it was.
        parents, children: what happens to its parents, and to its nodes.
        adopted: [A] the old parent of each new node that has one.
        counts: [I] how many children each new parent has.
    """
    from hedgerow.index.splice import splice_start

    bereft = owners(fan.start, fan.forks, children.gone)
    changed, deltas = _net(adopted, bereft[~in_sorted(bereft, parents.gone)])
    num_parents, num_children = fan.parents + parents.growth, fan.children + children.growth
    if num_children == num_parents:
        return None, None, min(1, num_children)
    forked = is_forked(num_parents, num_children)
    if forked and fan.start is None:
        forks = _splice_forks(fan.forks, parents, changed, deltas, counts)
        heads = np.flatnonzero(np.diff(forks, prepend=-1))
        return None, forks, int(np.diff(heads, append=len(forks)).max()) + 1
    start = as_start(fan.start, fan.forks, fan.parents)
    start, largest = splice_start(start, parents.at, counts, parents.gone, changed, deltas)
    return None if forked else start, as_forks(start, None) if forked else None, largest


def _net(more: np.ndarray, fewer: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the distinct values, rising, of two arrays, and how much oftener each is in the first."""
    values, which = np.unique(np.concatenate((more, fewer)), return_inverse=True)
    signs = np.repeat([1, -1], [len(more), len(fewer)])
    return values.astype(np.int64), np.bincount(which, signs, len(values)).astype(np.int64)


def _splice_forks(
    forks: np.ndarray | None, parents: Edit, changed: np.ndarray, deltas: np.ndarray, counts: np.ndarray
) -> np.ndarray:
    """Returns the forks after parents came, went and changed; see `splice_start` for the arguments."""
    forks = as_forks(None, forks).astype(np.int64)
    stays = ~in_sorted(forks, parents.gone)
    less = deltas < 0
    first, drop = np.searchsorted(forks, changed[less]), -deltas[less]
    stays[np.repeat(first - np.cumsum(drop) + drop, drop) + np.arange(drop.sum())] = False
    more = np.repeat(changed[~less], deltas[~less])
    of_new = np.repeat(parents.placed(), counts - 1)
    forks = np.concatenate((parents.moved(np.concatenate((forks[stays], more))), of_new)).astype(np.int32)
    forks.sort(kind="stable")
    return forks


def _items_loader(index: Trie, new: Trie | None, items: Edit) -> Callable[[], pa.Table]:
    """Returns what makes the table of items, when it is wanted; it holds no trie but that of a subset's."""
    if new is None:
        return partial(_items_left, index, items.gone)
    return partial(_items_merged, index.items_table, new._load_items, items)


def _items_left(index: Trie, gone: np.ndarray) -> pa.Table:
    stays = np.ones(index.num_items, bool)
    stays[gone] = False
    return index.items_table.take(np.flatnonzero(stays))


def _items_merged(old: pa.Table, load_new: Callable[[], pa.Table], items: Edit) -> pa.Table:
    import pyarrow as pa

    new = load_new().cast(old.schema)
    order = splice_array(np.arange(old.num_rows), items.at, old.num_rows + np.arange(new.num_rows), items.gone)
    return pa.concat_tables([old, new]).combine_chunks().take(order)
