"""LiveIndex: an index that can be changed while it is searched."""

from __future__ import annotations

from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property
from typing import Any

from hedgerow._arguments import whole_number
from hedgerow.catalog.catalog import Catalog
from hedgerow.catalog.constructors import ITEM_ID
from hedgerow.errors import ArgumentError
from hedgerow.index.attributes import AttributeRule, MissingAttributes, NewAttributes
from hedgerow.live.copied import check_own
from hedgerow.live.folder import LiveFolder
from hedgerow.live.store import Written
from hedgerow.live.updates import Update
from hedgerow.live.version import Version
from hedgerow.trie_index import TrieIndex


class LiveIndex(LiveFolder):
    """An index in a folder of versions, one of which is served. A writer writes the next version, then switches to it.

    Any number of processes can read and write the folder; writers take turns. If a writer is interrupted, the old or
    the new version is current and complete. A search continues with the `Version` that it started with; `refresh`
    returns the current one.

    Args:
        path: the folder.
        max_shrink: the largest share of its items that the next version may lack without being refused.
        prepare: a function that is called with a version before it is served, for example to copy it to a device.
        headroom: the factor by which the index can grow before a step on a device is compiled again; see `Capacity.of`.
            Default: None, arrays on devices are not padded.
        verify: what to check when a version is loaded, as for `load_index`. Its checksums were verified when it was
            published.
        lock_timeout: the seconds that a change waits for another writer. Default: 300.

    Raises:
        ArgumentError: `max_shrink`, `headroom`, `verify` or `lock_timeout` is out of range, or `prepare` is not a
            function.
        IndexFileError: there is no live index, or it is damaged.

    Examples:
        ```python
        import hedgerow as hr

        index = hr.build_index(hr.Catalog([[0, 1], [2, 0]], codebook_sizes=3, item_ids=["a", "b"]))
        live = hr.LiveIndex.create("items.live", index)
        live.add(hr.Catalog([[1, 1]], item_ids=["c"]))
        live.remove(["a"])
        assert (live.version.number, live.version.num_items) == (3, 2)
        ```
    """

    def add(
        self,
        catalog: Catalog,
        *,
        new_attributes: NewAttributes = "error",
        missing_attributes: MissingAttributes = "error",
        allow: Collection[str] = (),
    ) -> Version:
        """Write and serve a version with more items, whose ids are new.

        Args:
            catalog: the items to add, as for `merge`.
            new_attributes: as for `merge`.
            missing_attributes: as for `merge`.
            allow: as for `update`.

        Raises:
            ArgumentError: `catalog` is not a Catalog.
            CatalogError: an item with such an id exists, or as for `merge`.
            VersionError: as for `update`.
            IndexFileError: as for `update`.

        Examples:
            ```python
            import hedgerow as hr

            index = hr.build_index(hr.Catalog([[0, 1], [2, 0]], codebook_sizes=3, item_ids=["a", "b"]))
            version = hr.LiveIndex.create("items.live", index).add(hr.Catalog([[1, 1]], item_ids=["c"]))
            assert version.num_items == 3
            ```
        """
        if not isinstance(catalog, Catalog):
            given = type(catalog).__name__
            raise ArgumentError(f"add takes a Catalog; got {given}. Make one with hr.Catalog(sids, item_ids=ids).")
        rule = AttributeRule(new_attributes, missing_attributes)
        return self._write(allow, lambda update: update.merge(catalog, (), rule, only_new=True))

    def update(
        self,
        catalog: Catalog | None = None,
        *,
        removed: Any = (),
        new_attributes: NewAttributes = "error",
        missing_attributes: MissingAttributes = "error",
        allow: Collection[str] = (),
    ) -> Version:
        """Write and serve a version with the items of `catalog`, which replace items with the same ids.

        The new index does not contain items that were removed before, so ``live.update()`` compacts it.

        Args:
            catalog: the items to add or replace, as for `merge`.
            removed: ids of items to remove in the same version.
            new_attributes: as for `merge`.
            missing_attributes: as for `merge`.
            allow: reasons for which the version is not refused: "empty", "shrunk", "codebooks".

        Raises:
            ArgumentError: `removed` or `allow` is not a list, or as for `merge`.
            CatalogError: as for `merge`.
            VersionError: the version is refused, the current version is damaged, or the folder is a copy: see `pull`.
                The new version is deleted, and the previous version is still served.
            IndexFileError: the version cannot be written, or another process has written for longer than
                `lock_timeout`. The previous version is still served.

        Examples:
            ```python
            import hedgerow as hr

            index = hr.build_index(hr.Catalog([[0, 1], [2, 0]], codebook_sizes=3, item_ids=["a", "b"]))
            live = hr.LiveIndex.create("items.live", index)
            version = live.update(hr.Catalog([[1, 1]], item_ids=["a"]), removed=["b"])
            assert version.index.sids_of(["a"]).tolist() == [[1, 1]]
            ```
        """
        rule = AttributeRule(new_attributes, missing_attributes)
        return self._write(allow, lambda update: update.merge(catalog, removed, rule))

    def update_attributes(
        self,
        table: Any = None,
        *,
        item_id: str = ITEM_ID,
        new_attributes: NewAttributes = "error",
        drop: Collection[str] = (),
    ) -> Version:
        """Write and serve a version in which attributes of some items differ. SIDs and other attributes stay.

        Only the items are computed again, not the trie. Items that were removed before are not written.

        Args:
            table: the changes, as for `TrieIndex.with_attributes`.
            item_id: as for `TrieIndex.with_attributes`.
            new_attributes: as for `TrieIndex.with_attributes`.
            drop: as for `TrieIndex.with_attributes`.

        Raises:
            ArgumentError: as for `TrieIndex.with_attributes`.
            CatalogError: as for `TrieIndex.with_attributes`.
            VersionError: as for `update`.
            IndexFileError: as for `update`.

        Examples:
            ```python
            import hedgerow as hr

            catalog = hr.Catalog([[0, 1], [2, 0]], item_ids=["a", "b"], attributes={"price": [3, 9]})
            live = hr.LiveIndex.create("items.live", hr.build_index(catalog))
            version = live.update_attributes({"item_id": ["b"], "price": [8]})
            assert version.index.attributes["price"].to_pylist() == [3, 8]
            ```
        """
        return self._write((), lambda update: update.set_attributes(table, item_id, new_attributes, drop))

    def update_in_background(self, catalog: Catalog | None = None, **options: Any) -> Future[Version]:
        """Run `update` in another thread, one update at a time.

        Args:
            catalog: as for `update`.
            **options: as for `update`.

        Returns:
            A future of the version, or of the error that `update` raises.

        Examples:
            ```python
            import hedgerow as hr

            index = hr.build_index(hr.Catalog([[0, 1], [2, 0]], codebook_sizes=3, item_ids=["a", "b"]))
            live = hr.LiveIndex.create("items.live", index)
            future = live.update_in_background(hr.Catalog([[1, 1]], item_ids=["c"]))
            assert future.result().num_items == 3
            ```
        """
        return self._background.submit(self.update, catalog, **options)

    def remove(self, ids: Any, *, allow: Collection[str] = ()) -> Version:
        """Write and serve a version without some items. Only the rows of the removed items are written.

        The index does not change; `Version.removed` marks its removed items. `Version.restrict` excludes them from a
        search, and `Version.results` from its results. The next `add`, `update` or `update_attributes` writes an index
        without them.

        Args:
            ids: the ids of the items to remove.
            allow: as for `update`.

        Raises:
            ArgumentError: `ids` or `allow` is not a list.
            CatalogError: there is no such item.
            VersionError: as for `update`.
            IndexFileError: as for `update`.

        Examples:
            ```python
            import hedgerow as hr

            index = hr.build_index(hr.Catalog([[0, 1], [2, 0]], item_ids=["a", "b"]))
            version = hr.LiveIndex.create("items.live", index).remove(["b"])
            assert version.removed.tolist() == [False, True]
            ```
        """
        return self._write(allow, lambda update: update.remove(ids))

    def publish(self, index: TrieIndex, *, allow: Collection[str] = ()) -> Version:
        """Write and serve a version with an index that was built separately.

        Args:
            index: the index.
            allow: as for `update`.

        Raises:
            ArgumentError: `index` is not a TrieIndex.
            VersionError: as for `update`.
            IndexFileError: as for `update`.

        Examples:
            ```python
            import hedgerow as hr

            live = hr.LiveIndex.create("items.live", hr.build_index(hr.Catalog([[0, 1], [2, 0]], codebook_sizes=3)))
            assert live.publish(hr.build_index(hr.Catalog([[1, 1]], codebook_sizes=3))).num_items == 1
            ```
        """
        return self._write(allow, lambda update: update.publish(index))

    def rollback(self, to: int | None = None) -> Version:
        """Serves an earlier version again, after verifying the checksums of its files.

        Args:
            to: the number of the version. Default: the version that the current one was made from.

        Raises:
            ArgumentError: `to` is not a positive integer.
            VersionError: the version does not exist or is damaged, or the folder is a copy: see `pull`. The current
                version is still served.

        Examples:
            ```python
            import hedgerow as hr

            live = hr.LiveIndex.create("items.live", hr.build_index(hr.Catalog([[0, 1], [2, 0]])))
            live.remove([0])
            assert live.rollback().num_items == 2
            ```
        """
        if to is not None:
            whole_number(to, "to")
        with self._store.locked():
            check_own(self.path)
            state = self._store.read()
            version = self._store.load_earlier(state, to)
            return self._served.switch(replace(state, current=version.info), version)

    def _write(self, allow: Collection[str], write: Callable[[Update], Written]) -> Version:
        """Write the next version and serve it. If that fails, the files of the version are deleted."""
        return self._served.write(
            lambda current, number: write(Update(self._store, current, number, self._max_shrink, allow))
        )

    @cached_property
    def _background(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(1, "hedgerow-live")
