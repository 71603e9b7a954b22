"""The differences between two indexes: items, SIDs, attributes and levels."""

# pyarrow.compute creates its functions at import time, so pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hedgerow._read_only import ReadOnlyArrays, set_read_only
from hedgerow.errors import ArgumentError, CatalogError
from hedgerow.index.describe import level_facts
from hedgerow.index.lookup import as_ids, changed_rows, leaves_of
from hedgerow.index.trie import Trie

if TYPE_CHECKING:
    import pyarrow as pa

BLOCK = 2**18


@dataclass(frozen=True, eq=False)
class Diff(ReadOnlyArrays):
    """The differences between an old and a new index, as `diff` returns them.

    Item ids are Arrow arrays. `removed` is in the order of the old index, the others are in the order of the new one.

    Attributes:
        added: ids of the items that only the new index has.
        removed: ids of the items that only the old index has.
        moved: ids of the items whose SID differs.
        changed: ids of the items for which an attribute that both indexes have differs.
        sids_added: int64, one row per SID that only the new index has.
        sids_removed: int64, one row per SID that only the old index has.
        columns_added: the attributes that only the new index has.
        columns_removed: the attributes that only the old index has.
        levels: for each level, its properties in the old and in the new index, as `hedgerow inspect` lists them; None
            if an index does not have the level.

    Examples:
        ```python
        import hedgerow as hr

        old = hr.build_index(hr.Catalog([[0, 1], [2, 0]], item_ids=["a", "b"]))
        new = hr.build_index(hr.Catalog([[0, 1], [2, 1]], item_ids=["a", "b"]))
        changes = hr.diff(old, new)
        assert changes.moved.to_pylist() == ["b"]
        assert changes.sids_added.tolist() == [[2, 1]]
        ```
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

    def __post_init__(self) -> None:
        set_read_only((self.sids_added, self.sids_removed))

    @property
    def counts(self) -> dict[str, int]:
        """The numbers of items added, removed, moved and changed, and of SIDs added and removed."""
        names = ("added", "removed", "moved", "changed", "sids_added", "sids_removed")
        return {name: len(getattr(self, name)) for name in names}

    def to_dict(self, limit: int) -> dict[str, Any]:
        """Convert the differences to values that JSON can hold.

        Args:
            limit: the maximum number of ids and of SIDs of each kind.

        Examples:
            ```python
            import hedgerow as hr

            old = hr.build_index(hr.Catalog([[0, 1]], item_ids=["a"]))
            new = hr.build_index(hr.Catalog([[0, 1], [2, 1]], item_ids=["a", "b"]))
            assert hr.diff(old, new).to_dict(limit=10)["examples"]["added"] == ["b"]
            ```
        """
        ids = {name: getattr(self, name)[:limit].to_pylist() for name in ("added", "removed", "moved", "changed")}
        sids = {name: getattr(self, name)[:limit].tolist() for name in ("sids_added", "sids_removed")}
        columns = {"columns_added": list(self.columns_added), "columns_removed": list(self.columns_removed)}
        levels = [{"old": old, "new": new} for old, new in self.levels]
        return {"counts": self.counts, "examples": ids | sids, **columns, "levels": levels}


def diff(old: Trie, new: Trie) -> Diff:
    """Compare two indexes. Items with the same id are the same item.

    Args:
        old: the old `TrieIndex`.
        new: the new `TrieIndex`.

    Raises:
        ArgumentError: an argument is not an index.
        CatalogError: the item ids of `new` cannot be converted to the type of those of `old`.

    Examples:
        ```python
        import hedgerow as hr

        old = hr.build_index(hr.Catalog([[0, 1], [2, 0]], item_ids=["a", "b"]))
        new = hr.build_index(hr.Catalog([[0, 1], [1, 1]], item_ids=["a", "c"]))
        changes = hr.diff(old, new)
        assert changes.added.to_pylist() == ["c"]
        assert changes.removed.to_pylist() == ["b"]
        ```
    """
    for index in (old, new):
        if not isinstance(index, Trie):
            raise ArgumentError(
                f"diff takes two indexes; got {type(index).__name__}. Load one with hr.load_index(path)."
            )
    rows = _rows_in_old(old, new)
    common = np.flatnonzero(rows >= 0)
    is_removed = np.ones(old.num_items, bool)
    is_removed[rows[common]] = False
    ids = new.item_ids
    old_names, new_names = old.items_table.column_names[1:], new.items_table.column_names[1:]
    num_levels = max(old.num_levels, new.num_levels)
    old_levels, new_levels = (
        tuple(level_facts(index)) + (None,) * (num_levels - index.num_levels) for index in (old, new)
    )
    return Diff(
        added=_taken(ids, np.flatnonzero(rows < 0)),
        removed=_taken(old.item_ids, np.flatnonzero(is_removed)),
        moved=_taken(ids, common[_moved(old, new, rows[common], common)]),
        changed=_taken(ids, common[_changed(old, new, rows[common], common)]),
        sids_added=_missing(new, old),
        sids_removed=_missing(old, new),
        columns_added=tuple(name for name in new_names if name not in old_names),
        columns_removed=tuple(name for name in old_names if name not in new_names),
        levels=tuple(zip(old_levels, new_levels, strict=True)),
    )


def _rows_in_old(old: Trie, new: Trie) -> np.ndarray:
    """For each item of the new index, its row in the old index [N], or -1."""
    if not len(old.item_ids):
        return np.full(new.num_items, -1)
    return changed_rows(old, as_ids(old, new.item_ids, "the item ids of the new index", error=CatalogError))


def _taken(ids: pa.ChunkedArray, rows: np.ndarray) -> pa.Array:
    from hedgerow.catalog.columns import as_column

    return as_column(ids.take(rows), "item_ids")


def _moved(old: Trie, new: Trie, old_rows: np.ndarray, new_rows: np.ndarray) -> np.ndarray:
    """Whether the SID of each row of the old index differs from that of a row of the new index: bool [R]."""
    if old.num_levels != new.num_levels:
        return np.ones(len(old_rows), bool)
    moved = np.empty(len(old_rows), bool)
    for start in range(0, len(moved), BLOCK):
        block = slice(start, start + BLOCK)
        moved[block] = (_sids_of_rows(old, old_rows[block]) != _sids_of_rows(new, new_rows[block])).any(axis=1)
    return moved


def _sids_of_rows(index: Trie, rows: np.ndarray) -> np.ndarray:
    return index.sids(leaves_of(index, rows))


def _missing(index: Trie, other: Trie) -> np.ndarray:
    """The SIDs of `index` that `other` does not have: int64, one per row."""
    if index.num_levels != other.num_levels:
        return index.sids()
    missing = []
    for start in range(0, index.num_sids, BLOCK):
        sids = index.sids(np.arange(start, min(start + BLOCK, index.num_sids)))
        missing.append(sids[~other.contains(sids)])
    return np.concatenate(missing) if missing else np.zeros((0, index.num_levels), np.int64)


def _changed(old: Trie, new: Trie, old_rows: np.ndarray, new_rows: np.ndarray) -> np.ndarray:
    """Whether an attribute that both indexes have differs between two rows: bool [R]."""
    changed = np.zeros(len(old_rows), bool)
    for name in old.items_table.column_names[1:]:
        if name in new.items_table.column_names:
            old_values = old.items_table.column(name).take(old_rows)
            changed |= differ(old_values, new.items_table.column(name).take(new_rows))
    return changed


def differ(old: pa.ChunkedArray, new: pa.ChunkedArray) -> np.ndarray:
    """Whether two values differ: bool [R]. A null equals a null, and a NaN equals a NaN."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from hedgerow.catalog.columns import as_type, sortable

    columns: list[pa.Array] = []
    # One of the types can often hold the values of both.
    for type_ in (old.type, new.type):
        with suppress(CatalogError):
            columns = columns or [sortable(as_type(column, pa.field("", type_))) for column in (old, new)]
    if not columns:
        return np.ones(len(old), bool)
    try:
        equal = pc.equal(*columns)
    except pa.ArrowNotImplementedError:
        # Arrow does not compare lists and other nested types.
        pairs = zip(old.to_pylist(), new.to_pylist(), strict=True)
        return np.fromiter((before != after for before, after in pairs), bool, len(old))
    missing = [pc.is_null(column, nan_is_null=True) for column in columns]
    is_nan = [pc.and_(absent, pc.is_valid(column)) for absent, column in zip(missing, columns, strict=True)]
    both_missing = pc.and_(pc.and_(*missing), pc.equal(*is_nan))
    return ~pc.or_(pc.fill_null(equal, False), both_missing).to_numpy(zero_copy_only=False)
