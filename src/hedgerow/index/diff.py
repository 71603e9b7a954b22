"""What is different between two indexes: items, SIDs, attributes, levels."""

# pyarrow.compute makes its functions when it is imported, where pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hedgerow.errors import ArgumentError, CatalogError
from hedgerow.index.describe import level_facts
from hedgerow.index.lookup import as_ids, leaves_of, scan_rows
from hedgerow.index.trie import Trie

if TYPE_CHECKING:
    import pyarrow as pa

BLOCK = 2**18


@dataclass(frozen=True, eq=False)
class Diff:
    """What became of an old index in a new one. Ids are Arrow arrays, in the order of the index that has them.

    Attributes:
        added: ids of items that only the new one has.
        removed: ids of items that only the old one has.
        moved: ids of items with another SID.
        changed: ids of items with another value of an attribute that both have.
        sids_added: [R, L] int64, SIDs that only the new one has.
        sids_removed: [R, L] int64, SIDs that only the old one has.
        columns_added: attributes that only the new one has.
        columns_removed: attributes that only the old one has.
        levels: for each level, what `hedgerow inspect` says of it in the old index, and in the new; None where there is
            no such level.
    """

    added: pa.Array
    removed: pa.Array
    moved: pa.Array
    changed: pa.Array
    sids_added: np.ndarray
    sids_removed: np.ndarray
    columns_added: tuple[str, ...]
    columns_removed: tuple[str, ...]
    levels: tuple[tuple[dict[str, Any] | None, dict[str, Any] | None], ...]

    @property
    def counts(self) -> dict[str, int]:
        """How many items were added, removed, moved and changed, and how many SIDs added and removed."""
        names = ("added", "removed", "moved", "changed", "sids_added", "sids_removed")
        return {name: len(getattr(self, name)) for name in names}

    def to_dict(self, limit: int) -> dict[str, Any]:
        """Returns all of it as what JSON can hold, with `limit` ids and SIDs of each kind at most."""
        ids = {name: getattr(self, name)[:limit].to_pylist() for name in ("added", "removed", "moved", "changed")}
        sids = {name: getattr(self, name)[:limit].tolist() for name in ("sids_added", "sids_removed")}
        columns = {"columns_added": list(self.columns_added), "columns_removed": list(self.columns_removed)}
        levels = [{"old": old, "new": new} for old, new in self.levels]
        return {"counts": self.counts, "examples": ids | sids, **columns, "levels": levels}


def diff(old: Trie, new: Trie) -> Diff:
    """Returns what became of `old` in `new`. Items are the same where their ids are.

    Raises:
        CatalogError: the ids of the one are not of a type that those of the other can be.
    """
    for index in (old, new):
        if not isinstance(index, Trie):
            raise ArgumentError(f"diff takes two indexes; got {type(index).__name__}. Load one: hr.load_index(path).")
    rows = (
        scan_rows(old, as_ids(old, new.item_ids, "the item ids of the new index", error=CatalogError))
        if len(old.item_ids)
        else np.full(new.num_items, -1)
    )
    both = np.flatnonzero(rows >= 0)
    gone = np.ones(old.num_items, bool)
    gone[rows[both]] = False
    ids = new.item_ids
    before, after = old.items_table.column_names[1:], new.items_table.column_names[1:]
    facts = [level_facts(index) for index in (old, new)]
    depth = max(old.num_levels, new.num_levels)
    olds, news = (tuple(of) + (None,) * (depth - len(of)) for of in facts)
    return Diff(
        added=_taken(ids, np.flatnonzero(rows < 0)),
        removed=_taken(old.item_ids, np.flatnonzero(gone)),
        moved=_taken(ids, both[_moved(old, new, rows[both], both)]),
        changed=_taken(ids, both[_changed(old, new, rows[both], both)]),
        sids_added=_missing(new, old),
        sids_removed=_missing(old, new),
        columns_added=tuple(name for name in after if name not in before),
        columns_removed=tuple(name for name in before if name not in after),
        levels=tuple(zip(olds, news, strict=True)),
    )


def _taken(ids: pa.ChunkedArray, rows: np.ndarray) -> pa.Array:
    from hedgerow.catalog.columns import as_column

    return as_column(ids.take(rows), "item_ids")


def _moved(old: Trie, new: Trie, old_rows: np.ndarray, new_rows: np.ndarray) -> np.ndarray:
    """Returns bool [R]: whether the item in a row of the old index has another SID in a row of the new one."""
    if old.num_levels != new.num_levels:
        return np.ones(len(old_rows), bool)
    moved = np.empty(len(old_rows), bool)
    for first in range(0, len(moved), BLOCK):
        block = slice(first, first + BLOCK)
        moved[block] = (_sids_of_rows(old, old_rows[block]) != _sids_of_rows(new, new_rows[block])).any(axis=1)
    return moved


def _sids_of_rows(index: Trie, rows: np.ndarray) -> np.ndarray:
    return index.sids(leaves_of(index, rows))


def _missing(index: Trie, other: Trie) -> np.ndarray:
    """Returns the SIDs of `index` that `other` has not."""
    if index.num_levels != other.num_levels:
        return index.sids()
    found = []
    for first in range(0, index.num_sids, BLOCK):
        sids = index.sids(np.arange(first, min(first + BLOCK, index.num_sids)))
        found.append(sids[~other.contains(sids)])
    return np.concatenate(found) if found else np.zeros((0, index.num_levels), np.int64)


def _changed(old: Trie, new: Trie, old_rows: np.ndarray, new_rows: np.ndarray) -> np.ndarray:
    """Returns bool [R]: whether an attribute that both indexes have differs between two rows."""
    changed = np.zeros(len(old_rows), bool)
    for name in old.items_table.column_names[1:]:
        if name in new.items_table.column_names:
            changed |= _differ(
                *(index.items_table.column(name).take(rows) for index, rows in ((old, old_rows), (new, new_rows)))
            )
    return changed


def _differ(old: pa.ChunkedArray, new: pa.ChunkedArray) -> np.ndarray:
    """Returns bool [R]: whether two values differ; nulls and NaNs are equal to their like."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from hedgerow.catalog.columns import as_type, sortable

    try:
        mine, theirs = (sortable(as_type(column, pa.field("", old.type))) for column in (old, new))
        equal = pc.equal(mine, theirs)
    except CatalogError:
        return np.ones(len(old), bool)
    except pa.ArrowNotImplementedError:
        # Lists and the like, which Arrow does not compare.
        pairs = zip(old.to_pylist(), new.to_pylist(), strict=True)
        return np.fromiter((one != other for one, other in pairs), bool, len(old))
    nothing = [pc.is_null(column, nan_is_null=True) for column in (mine, theirs)]
    nan = [pc.and_(missing, pc.is_valid(column)) for missing, column in zip(nothing, (mine, theirs), strict=True)]
    alike = pc.and_(pc.and_(*nothing), pc.equal(*nan))
    return ~pc.or_(pc.fill_null(equal, False), alike).to_numpy(zero_copy_only=False)
