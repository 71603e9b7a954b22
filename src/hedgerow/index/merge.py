"""Change an index without building it again: items are added, removed or moved, and the sorted rest is copied.

The added items are built as a trie of their own. A walk from its root, in parallel with the old trie, finds where each
of its nodes belongs. A walk up from the removed items finds the nodes that become empty. Then every level is spliced in
one pass. The result has exactly the arrays of `build_trie` for the resulting catalog.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from hedgerow.catalog.catalog import Catalog
from hedgerow.catalog.constructors import ITEM_ID
from hedgerow.catalog.ragged import without_ends
from hedgerow.errors import ArgumentError, CatalogError
from hedgerow.index.attributes import STRICT, AttributeRule, conformed, fitted_attributes, joined_schema
from hedgerow.index.build import DenseLevels, build_trie, dense_rule, finished
from hedgerow.index.compact import AnyLevel
from hedgerow.index.edit import (
    NO_EDIT,
    NONE,
    ROOT,
    Edit,
    Placement,
    edits_of,
    in_sorted,
    new_children,
    place_items,
    place_nodes,
)
from hedgerow.index.fanout import as_forks, as_start, is_forked, parents_of
from hedgerow.index.lazy import Lazy
from hedgerow.index.level import Level
from hedgerow.index.lookup import as_ids, changed_rows, check_is_list, check_known, hint_on_row_numbers
from hedgerow.index.order import spliced_order
from hedgerow.index.trie import Trie, plain_levels

if TYPE_CHECKING:
    import pyarrow as pa


def merge_trie(
    index: Trie,
    added: Catalog | None = None,
    removed: Any = (),
    *,
    rule: AttributeRule = STRICT,
    dense_levels: DenseLevels = "auto",
) -> Trie:
    """Build the trie of `index` with items added and removed. `hedgerow.merge` documents the arguments and errors."""
    if not isinstance(index, Trie):
        raise ArgumentError(f"merge takes a TrieIndex; got {type(index).__name__}.")
    rows = rows_to_remove(index, removed)
    if added is None:
        return splice_index(index, None, np.sort(rows), dense_levels=dense_levels)
    added = fitted(index, added, rule)
    replaced = present_rows(index, added)
    rows = np.unique(np.concatenate((rows, replaced[replaced >= 0])))
    return splice_index(index, added, rows, dense_levels=dense_levels)


def filter_trie(index: Trie, keep: np.ndarray, *, dense_levels: DenseLevels = "auto") -> Trie:
    """Build the trie of the items where `keep` bool [N] is true. `hedgerow.TrieIndex.filter` documents the rest."""
    return splice_index(index, None, np.flatnonzero(~keep), dense_levels=dense_levels)


def rows_to_remove(index: Trie, ids: Any) -> np.ndarray:
    """Row [R] int64 of each distinct id of `ids`.

    Raises:
        ArgumentError: `ids` is not a list of ids.
        CatalogError: an id is not in the index, or not of the type of its ids.
    """
    check_is_list(ids, "item ids to remove", ArgumentError)
    wanted = as_ids(index, ids, "item ids to remove", error=CatalogError).unique()
    rows = changed_rows(index, wanted)
    hint = hint_on_row_numbers(index) if (rows < 0).any() else ""
    check_known(rows, wanted, "item ids to remove", CatalogError, hint)
    return rows


def present_rows(index: Trie, added: Catalog) -> np.ndarray:
    """For each item of `added`, the row of the item of `index` with the same id, or -1. `added` must be `fitted`."""
    if not index.num_items:
        return np.full(len(added), -1)
    return changed_rows(index, as_ids(index, added.item_ids, "item ids", error=CatalogError))


def fitted(index: Trie, added: Catalog, rule: AttributeRule = STRICT) -> Catalog:
    """Convert added items to the codebook sizes of `index`, to the type of its ids, and to its attributes.

    Args:
        index: the index.
        added: the items.
        rule: for attributes that only the index or only the items have.

    Raises:
        ArgumentError: `added` is not a catalog.
        CatalogError: the items do not fit the index.
    """
    if not isinstance(added, Catalog):
        raise ArgumentError(f"expected the items to add as a Catalog; got {type(added).__name__}.")
    if not added.has_item_ids:
        raise CatalogError("the items to add need ids. Pass item_ids= to the Catalog.")
    if added.ragged and not index.ragged:
        raise CatalogError(
            "the items to add have ragged SIDs, but all SIDs of the index have the same length. Build a new index with "
            "ragged=True."
        )
    if index.ragged:
        return _fitted_ragged(index, added, rule)
    if added.num_levels != index.num_levels:
        raise CatalogError(
            f"the SIDs of the index have {index.num_levels} codes, but those of the items to add have "
            f"{added.num_levels}."
        )
    for level, (size, codes) in enumerate(zip(index.codebook_sizes, added.sids.T, strict=True)):
        if codes.max(initial=0) >= size:
            row = int(np.argmax(codes >= size))
            raise CatalogError(
                f"row {row}, level {level}: code {codes[row]} is outside the index's codebook of {size}. "
                "For larger codebooks, build a new index."
            )
    ids, columns = _typed(index, added, rule)
    return Catalog(added.sids, codebook_sizes=index.codebook_sizes, item_ids=ids, attributes=columns)


def _fitted_ragged(index: Trie, added: Catalog, rule: AttributeRule) -> Catalog:
    """Convert added items to the number of levels and the end codes of a ragged index."""
    if added.num_levels > index.num_levels:
        raise CatalogError(
            f"the SIDs of the index have up to {index.num_levels} codes, but those of the items to add have up to "
            f"{added.num_levels}."
        )
    levels = zip(index.codebook_sizes, index.end_codes, strict=True)
    ids, columns = _typed(index, added, rule)
    return Catalog(
        without_ends(added.sids.astype(np.int64), added.end_codes),
        codebook_sizes=[size - (end is not None) for size, end in levels],
        item_ids=ids,
        attributes=columns,
        ragged=True,
    )


def _typed(index: Trie, added: Catalog, rule: AttributeRule) -> tuple[Any, Any]:
    """The ids of `added` in the type of the index, and its attributes in the types of the result."""
    from hedgerow.catalog.columns import as_type

    ids, columns = added.item_ids, added.attributes
    if index.num_items == 0:
        return ids, columns
    field = index.items_table.schema.field(ITEM_ID)
    if str(ids.type).startswith(("int", "uint")) != str(field.type).startswith(("int", "uint")):
        raise CatalogError(
            f"the item ids of the index are {field.type}, but those of the items to add are {ids.type}. Pass ids of "
            "one type. To read a CSV file with the types of an index: Catalog.from_csv(path, "
            "types=index.items_table.schema)."
        )
    return as_type(ids, field), fitted_attributes(index.attributes, columns, rule)


def splice_index(index: Trie, added: Catalog | None, removed_rows: np.ndarray, *, dense_levels: DenseLevels) -> Trie:
    """Build the trie of an index with items removed and added.

    Args:
        index: the index.
        added: the items to add, `fitted`. An id of an added item is in the index only in a removed row.
        removed_rows: int64, ascending: the rows of the items to remove.
        dense_levels: as for `hedgerow.build_index`.
    """
    is_dense = dense_rule(dense_levels, index.num_levels)
    if index.num_items == 0:
        return index if added is None else build_trie(added, dense_levels=dense_levels, layout=index.layout)
    new = None if added is None else build_trie(added, dense_levels=())
    # Levels are changed in the plain layout.
    plain = replace(index, levels=plain_levels(index))
    placements = [] if new is None else place_nodes(plain, new)
    items = Edit(NONE if new is None else place_items(index, new, placements[-1]), removed_rows)
    change = _Change(plain, new, placements, edits_of(plain, placements, items))

    def splice_level(number: int) -> AnyLevel:
        return finished(change.level(number), number, is_dense, index.layout)

    # Compiled passes release the GIL, so levels are spliced in parallel.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        levels = tuple(pool.map(splice_level, range(index.num_levels)))
    load_order = _order_loader(index, new, items)
    fan = change.fan(index.num_levels)[:2]
    return Trie(levels, *fan, _items_loader(index, new, items), _load_order=load_order)


@dataclass(frozen=True)
class _Change:
    """A change of an index: its levels before and after. Level number L stands for the items of the leaves.

    Attributes:
        index: the old index.
        new: the trie of the added items; None if there are none.
        placements: the placement of the nodes of `new`, per level.
        edits: the edit of every level, and of the items last.
    """

    index: Trie
    new: Trie | None
    placements: Sequence[Placement]
    edits: Sequence[Edit]

    def level(self, number: int) -> Level:
        """The new level, without a bitmap."""
        old, edit = self.index.levels[number], self.edits[number]
        codes = old.codes[:0] if self.new is None else self.new.levels[number].codes[self.placements[number].is_new]
        child_start, forks, max_branch = self.fan(number)
        codes = splice_array(old.codes, edit.inserted, codes, edit.removed)
        return Level(codes, child_start, forks, None, old.codebook_size, max_branch, old.end)

    def fan(self, number: int) -> tuple[np.ndarray | None, np.ndarray | None, int]:
        """The fan-out of the new level, as `fanout.fan_out` makes it."""
        adopters, counts = NONE, NONE
        if self.new is not None:
            parent = _fan_of(self.new, number).parent_of_each()
            is_last = number == self.index.num_levels
            is_new = np.ones(len(parent), bool) if is_last else self.placements[number].is_new
            adopters, counts = new_children(parent, is_new, self.placements[number - 1] if number else ROOT)
        parents = self.edits[number - 1] if number else NO_EDIT
        return _splice_fan(_fan_of(self.index, number), parents, self.edits[number], adopters, counts)


@dataclass(frozen=True)
class _Fan:
    """The fan-out of a level, or from leaves to items: see `fanout`."""

    start: np.ndarray | None
    forks: np.ndarray | None
    parents: int
    children: int

    def parent_of_each(self) -> np.ndarray:
        return parents_of(self.start, self.forks, np.arange(self.children))


def _fan_of(index: Trie, number: int) -> _Fan:
    if number == index.num_levels:
        return _Fan(index.leaf_start, index.leaf_forks, index.num_sids, index.num_items)
    level = index.levels[number]
    return _Fan(level.child_start, level.forks, level.num_parents, level.num_nodes)


def splice_array(old: np.ndarray, inserted: np.ndarray, new: np.ndarray, removed: np.ndarray) -> np.ndarray:
    """Call `splice.splice`, or return `old` if nothing changes."""
    if not len(inserted) and not len(removed):
        return old
    from hedgerow.index.splice import splice

    return splice(old, inserted, new, removed)


def _splice_fan(
    fan: _Fan, parents: Edit, children: Edit, adopters: np.ndarray, counts: np.ndarray
) -> tuple[np.ndarray | None, np.ndarray | None, int]:
    """The fan-out of a level after a change, as `fanout.fan_out` makes it.

    Args:
        fan: the fan-out before the change.
        parents: the edit of the parents.
        children: the edit of the nodes of the level.
        adopters: the old parent of each new node that has one, ascending.
        counts: the number of children of each new parent.
    """
    from hedgerow.index.splice import splice_start

    losers = parents_of(fan.start, fan.forks, children.removed)
    changed, deltas = _net_changes(adopters, losers[~in_sorted(losers, parents.removed)])
    num_parents, num_children = fan.parents + parents.growth, fan.children + children.growth
    if num_children == num_parents:
        return None, None, min(1, num_children)
    forked = is_forked(num_parents, num_children)
    if forked and fan.start is None:
        forks = _splice_forks(fan.forks, parents, changed, deltas, counts)
        heads = np.flatnonzero(np.diff(forks, prepend=-1))
        return None, forks, int(np.diff(heads, append=len(forks)).max()) + 1
    start = as_start(fan.start, fan.forks, fan.parents)
    start, largest = splice_start(start, parents.inserted, counts, parents.removed, changed, deltas)
    return None if forked else start, as_forks(start, None) if forked else None, largest


def _net_changes(more: np.ndarray, fewer: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct values of two arrays, ascending, and how many times more often each occurs in the first."""
    values, inverse = np.unique(np.concatenate((more, fewer)), return_inverse=True)
    signs = np.repeat([1, -1], [len(more), len(fewer)])
    return values.astype(np.int64), np.bincount(inverse, signs, len(values)).astype(np.int64)


def _splice_forks(
    forks: np.ndarray | None, parents: Edit, changed: np.ndarray, deltas: np.ndarray, counts: np.ndarray
) -> np.ndarray:
    """Update forks after a change of the parents. The arguments are those of `splice.splice_start`."""
    forks = as_forks(None, forks).astype(np.int64)
    keep = ~in_sorted(forks, parents.removed)
    less = deltas < 0
    first, drop = np.searchsorted(forks, changed[less]), -deltas[less]
    keep[np.repeat(first - np.cumsum(drop) + drop, drop) + np.arange(drop.sum())] = False
    more = np.repeat(changed[~less], deltas[~less])
    of_new = np.repeat(parents.placed(), counts - 1)
    forks = np.concatenate((parents.moved(np.concatenate((forks[keep], more))), of_new)).astype(np.int32)
    forks.sort(kind="stable")
    return forks


def _items_loader(index: Trie, new: Trie | None, items: Edit) -> Callable[[], pa.Table]:
    """The function that makes the items table on first use. It keeps no trie in memory."""
    if new is None:
        return Lazy(partial(_items_left, index._load_items, items.removed))
    return Lazy(partial(_items_merged, index.items_table, new._load_items, items))


def _items_left(load_items: Callable[[], pa.Table], removed: np.ndarray) -> pa.Table:
    table = load_items()
    keep = np.ones(table.num_rows, bool)
    keep[removed] = False
    return table.take(np.flatnonzero(keep))


def _items_merged(old: pa.Table, load_new: Callable[[], pa.Table], items: Edit) -> pa.Table:
    import pyarrow as pa

    new = load_new()
    schema = joined_schema(old.schema, new.schema)
    old, new = (conformed(table, schema) for table in (old, new))
    rows = np.arange(old.num_rows)
    order = splice_array(rows, items.inserted, old.num_rows + np.arange(new.num_rows), items.removed)
    return pa.concat_tables([old, new]).combine_chunks().take(order)


def _order_loader(index: Trie, new: Trie | None, items: Edit) -> Callable[[], np.ndarray] | None:
    """The function that makes the order of the ids on first use; None if that of the old ids must be sorted first."""
    if not index._has_order:
        return None
    added = None if new is None else new._load_items
    return Lazy(partial(_order_spliced, index.item_ids, index._id_order, added, items))


def _order_spliced(
    ids: pa.ChunkedArray, order: np.ndarray, load_new: Callable[[], pa.Table] | None, items: Edit
) -> np.ndarray:
    new_ids = ids.slice(0, 0) if load_new is None else load_new().column(ITEM_ID)
    return spliced_order(ids, order, items.inserted, items.removed, new_ids)
