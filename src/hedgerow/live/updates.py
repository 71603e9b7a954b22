"""Updates: the next version of a live index, computed from the current version, checked and written."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hedgerow.catalog.catalog import Catalog
from hedgerow.errors import ArgumentError, CatalogError, IndexFileError, VersionError
from hedgerow.index.attributes import AttributeRule, NewAttributes
from hedgerow.index.edit import in_sorted
from hedgerow.index.files import Verify
from hedgerow.index.merge import fitted, present_rows, rows_to_remove, splice_index
from hedgerow.live.manifest import RemovedFile, VersionInfo
from hedgerow.live.store import Store, Written
from hedgerow.live.version import Version
from hedgerow.trie_index import TrieIndex

REFUSALS = ("empty", "shrunk", "codebooks")


@dataclass(frozen=True)
class Update:
    """The next version of a live index, before it is served. Each method writes the files of the version.

    Attributes:
        store: the files of the live index.
        current: the version to change.
        number: the number of the next version.
        max_shrink: the largest share of the items that the next version may lack.
        allow: the reasons of REFUSALS for which the next version is not refused.
    """

    store: Store
    current: Version
    number: int
    max_shrink: float
    allow: Collection[str]

    def __post_init__(self) -> None:
        is_list = isinstance(self.allow, Collection) and not isinstance(self.allow, str)
        if not is_list or any(reason not in REFUSALS for reason in self.allow):
            raise ArgumentError(f"allow must be a list of {', '.join(map(repr, REFUSALS))}; got {self.allow!r}.")

    def merge(self, catalog: Catalog | None, removed: Any, rule: AttributeRule, *, only_new: bool = False) -> Written:
        """The version with the items of a catalog, and without the items with the ids `removed`.

        Raises:
            CatalogError: with `only_new`, an item of the catalog exists; or as for `hedgerow.merge`.
            VersionError: the version is refused, or the current version is damaged.
        """
        return replace(self, current=self._stored(verify="full"))._merge(catalog, removed, rule, only_new=only_new)

    def _merge(self, catalog: Catalog | None, removed: Any, rule: AttributeRule, *, only_new: bool) -> Written:
        current = self.current
        rows = [current.removed_rows, self._existing_rows(removed)]
        added = None if catalog is None else fitted(current.index, catalog, rule)
        if added is not None:
            replaced = present_rows(current.index, added)
            exists = (replaced >= 0) & ~in_sorted(replaced, current.removed_rows)
            if only_new and exists.any():
                item_id = added.item_ids[int(np.argmax(exists))].as_py()
                raise CatalogError(
                    f"item {item_id!r} is already in version {current.number}. To replace items, use update(...) or "
                    "hedgerow live update."
                )
            rows.append(replaced[replaced >= 0])
        index = splice_index(current.index, added, np.unique(np.concatenate(rows)), dense_levels="auto")
        return self.publish(TrieIndex._of(index))

    def set_attributes(self, table: Any, item_id: str, new_attributes: NewAttributes, drop: Collection[str]) -> Written:
        """The version in which attributes of some items differ.

        Raises:
            CatalogError: as for `TrieIndex.with_attributes`.
            VersionError: the current version is damaged.
        """
        current = self._stored(verify="full")
        index, removed = current.index, current.removed_rows
        if len(removed):
            index = TrieIndex._of(splice_index(index, None, removed, dense_levels="auto"))
        return self.publish(index.with_attributes(table, item_id=item_id, new_attributes=new_attributes, drop=drop))

    def remove(self, ids: Any) -> Written:
        """The version without some items, which keeps the index of the current version.

        Raises:
            CatalogError: there is no such item.
            VersionError: the version is refused, or the current version is damaged.
        """
        return replace(self, current=self._stored(self.current))._remove(ids)

    def _remove(self, ids: Any) -> Written:
        rows = np.union1d(self.current.removed_rows, self._existing_rows(ids))
        num_items = self.current.index.num_items - len(rows)
        self._check_size(num_items)
        return Written(self._info(self.current.info.index, self.store.write_removed(self.number, rows), num_items))

    def publish(self, index: TrieIndex) -> Written:
        """The version with another index.

        Raises:
            ArgumentError: `index` is not a TrieIndex.
            VersionError: the version is refused.
        """
        if not isinstance(index, TrieIndex):
            raise ArgumentError(f"expected a TrieIndex; got {type(index).__name__}.")
        self._check_size(index.num_items)
        sizes = self.current.index.codebook_sizes
        if "codebooks" not in self.allow and index.codebook_sizes != sizes:
            reason = (
                f"the current codebook sizes are {list(sizes)}, and those of the version {list(index.codebook_sizes)}"
            )
            raise self._refusal(reason, "codebooks")
        verified = self.store.write_index(self.number, index)
        return Written(self._info(self.number, None, index.num_items), verified)

    def _stored(self, loaded: Version | None = None, verify: Verify | None = None) -> Version:
        """The current version as its files are now, because rows of one index mean nothing in another.

        With `verify="full"`, its checksums are verified, so that no damage is copied to the next version.

        Raises:
            VersionError: the version is damaged, or was replaced.
        """
        try:
            return self.store.load(self.current.info, loaded, verify=verify)
        except (IndexFileError, OSError) as error:
            raise VersionError(
                f"version {self.number} was refused, because the version that it is made from is damaged: {error} Roll "
                "back to another version, or publish an index."
            ) from error

    def _existing_rows(self, ids: Any) -> np.ndarray:
        """The rows of the items with these ids, none of which was removed before."""
        rows = rows_to_remove(self.current.index, ids)
        gone = rows[in_sorted(rows, self.current.removed_rows)]
        if len(gone):
            item_id = self.current.index.item_ids[int(gone[0])].as_py()
            raise CatalogError(f"item {item_id!r} is not in version {self.current.number}: it was removed.")
        return rows

    def _check_size(self, num_items: int) -> None:
        before = self.current.num_items
        if num_items == 0 and before and "empty" not in self.allow:
            raise self._refusal("it has no items", "empty")
        if 0 < num_items < (1 - self.max_shrink) * before and "shrunk" not in self.allow:
            reason = f"it has {num_items:,} of {before:,} items, and may lack a share of {self.max_shrink} at most"
            raise self._refusal(reason, "shrunk")

    def _refusal(self, reason: str, name: str) -> VersionError:
        return VersionError(
            f"version {self.number} was refused: {reason}. Version {self.current.number} is still served. If this is "
            f"intended, pass allow=[{name!r}], or --allow {name}."
        )

    def _info(self, index: int, removed: RemovedFile | None, num_items: int) -> VersionInfo:
        content = self.store.index_sha256(index)
        return VersionInfo(self.number, index, removed, self.current.number, num_items, now(), content)


def now() -> str:
    """The current time in UTC, ISO 8601."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")
