"""LiveIndex: an index that can be changed while it is searched."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from hedgerow._arguments import whole_number
from hedgerow.catalog.catalog import Catalog
from hedgerow.errors import ArgumentError
from hedgerow.index.files import Verify
from hedgerow.index.locks import LOCK_TIMEOUT, LockedError
from hedgerow.live.manifest import VersionInfo
from hedgerow.live.served import Prepare, Served, checked_store, do_nothing
from hedgerow.live.store import Store
from hedgerow.live.updates import Update, now
from hedgerow.live.version import Version
from hedgerow.trie_index import TrieIndex


class LiveIndex:
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

    def __init__(
        self,
        path: str | Path,
        *,
        max_shrink: float = 0.5,
        prepare: Prepare = do_nothing,
        headroom: float | None = None,
        verify: Verify = "structure",
        lock_timeout: float = LOCK_TIMEOUT,
    ) -> None:
        self._store = checked_store(path, max_shrink, prepare, headroom, verify, lock_timeout)
        self._max_shrink = max_shrink
        self._options = {"prepare": prepare, "headroom": headroom, "verify": verify, "lock_timeout": lock_timeout}
        self._served = Served(self._store, prepare)

    @classmethod
    def create(cls, path: str | Path, index: TrieIndex, **options: Any) -> LiveIndex:
        """Create a live index in the folder `path`, with `index` as version 1.

        Args:
            path: the folder.
            index: the index of version 1.
            **options: as for `LiveIndex`.

        Raises:
            ArgumentError: `index` is not a TrieIndex, or as for `LiveIndex`; nothing is written.
            IndexFileError: the folder contains something, or cannot be written.
            VersionError: `index` is not valid.

        Examples:
            ```python
            import hedgerow as hr

            live = hr.LiveIndex.create("items.live", hr.build_index(hr.Catalog([[0, 1], [2, 0]])))
            assert live.version.number == 1
            ```
        """
        if not isinstance(index, TrieIndex):
            hint = " Build one: hr.build_index(catalog)." if isinstance(index, Catalog) else ""
            raise ArgumentError(f"expected a TrieIndex; got {type(index).__name__}.{hint}")
        cls._store_of(path, options).create(index, now())
        return cls(path, **options)

    @classmethod
    def open(cls, path: str | Path, *, recover: bool = False, **options: Any) -> LiveIndex:
        """Open the live index in the folder `path`.

        Args:
            path: the folder.
            recover: whether to roll back, if the current version is damaged, to the latest version before it that is
                not.
            **options: as for `LiveIndex`.

        Raises:
            IndexFileError: there is no live index, or it is damaged.

        Examples:
            ```python
            import hedgerow as hr

            hr.LiveIndex.create("items.live", hr.build_index(hr.Catalog([[0, 1], [2, 0]])))
            assert hr.LiveIndex.open("items.live", headroom=1.5).version.num_items == 2
            ```
        """
        if recover:
            cls._store_of(path, options).recover()
        return cls(path, **options)

    @classmethod
    def _store_of(cls, path: str | Path, options: dict[str, Any]) -> Store:
        """The store of a folder, from the options of `LiveIndex`, which are checked."""
        arguments = inspect.signature(cls).bind(path, **options)
        arguments.apply_defaults()
        return checked_store(**arguments.arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as the folder and the options. A copy opens the folder again."""
        return partial(LiveIndex, self.path, max_shrink=self._max_shrink, **self._options), ()

    @property
    def path(self) -> Path:
        """The folder."""
        return self._store.path

    @property
    def version(self) -> Version:
        """The version that was current when this object last called `refresh` or wrote."""
        return self._served.version

    def refresh(self) -> Version:
        """Return the current version. If nothing has changed, this only checks the date of a file.

        While one thread loads a new version, other threads get the previous one.

        Raises:
            VersionError: the current version cannot be read; `version` does not change.

        Examples:
            ```python
            import hedgerow as hr

            live = hr.LiveIndex.create("items.live", hr.build_index(hr.Catalog([[0, 1], [2, 0]])))
            reader = hr.LiveIndex.open("items.live")
            live.remove([0])
            assert reader.version.number == 1
            assert reader.refresh().number == 2
            ```
        """
        return self._served.refresh()

    def versions(self) -> tuple[VersionInfo, ...]:
        """Read the entries of all versions that are kept, by ascending number.

        Raises:
            IndexFileError: the manifest or an entry is missing or damaged.

        Examples:
            ```python
            import hedgerow as hr

            live = hr.LiveIndex.create("items.live", hr.build_index(hr.Catalog([[0, 1], [2, 0]])))
            live.remove([0])
            assert [(info.number, info.items) for info in live.versions()] == [(1, 2), (2, 1)]
            ```
        """
        return self._store.infos(self._store.read())

    def add(self, catalog: Catalog, *, allow: Collection[str] = ()) -> Version:
        """Write and serve a version with more items, whose ids are new.

        Args:
            catalog: the items to add, as for `merge`.
            allow: as for `update`.

        Raises:
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
        return self._write(allow, lambda update: update.merge(catalog, (), only_new=True))

    def update(self, catalog: Catalog | None = None, *, removed: Any = (), allow: Collection[str] = ()) -> Version:
        """Write and serve a version with the items of `catalog`, which replace items with the same ids.

        The new index does not contain items that were removed before, so ``live.update()`` compacts it.

        Args:
            catalog: the items to add or replace, as for `merge`.
            removed: ids of items to remove in the same version.
            allow: reasons for which the version is not refused: "empty", "shrunk", "codebooks".

        Raises:
            ArgumentError: `removed` or `allow` is not a list.
            CatalogError: as for `merge`.
            VersionError: the version is refused, or the current version is damaged. The new version is deleted, and
                the previous version is still served.
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
        return self._write(allow, lambda update: update.merge(catalog, removed))

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
        search, and `Version.results` from its results. The next `add` or `update` writes an index without them.

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
            VersionError: the version does not exist or is damaged. The current version is still served.

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
            state = self._store.read()
            version = self._store.load_earlier(state, to)
            return self._served.switch(replace(state, current=version.info), version)

    def prune(self, keep: int = 3) -> list[int]:
        """Delete old versions, without waiting.

        The current version, versions that a process uses, and versions whose index another kept version uses, are not
        deleted. If another process is writing, none is.

        Args:
            keep: the number of latest versions to keep, at least 0.

        Returns:
            The numbers of the deleted versions.

        Raises:
            ArgumentError: `keep` is not an integer, or is below 0.
            IndexFileError: the folder cannot be written.

        Examples:
            ```python
            import hedgerow as hr

            live = hr.LiveIndex.create("items.live", hr.build_index(hr.Catalog([[0, 1], [2, 0]], codebook_sizes=3)))
            live.update(removed=[0])
            assert live.prune(keep=1) == [1]
            ```
        """
        keep = whole_number(keep, "keep", least=0)
        try:
            with self._store.locked(timeout=0):
                return self._store.prune(keep)
        except LockedError:
            return []

    def verify(self) -> dict[int, str]:
        """Check all files of all versions, as `hedgerow verify` does for an index.

        Returns:
            The number of each damaged version, and what is wrong with it; empty if all versions are correct.

        Raises:
            IndexFileError: the manifest is missing or damaged.

        Examples:
            ```python
            import hedgerow as hr

            live = hr.LiveIndex.create("items.live", hr.build_index(hr.Catalog([[0, 1], [2, 0]])))
            assert live.verify() == {}
            ```
        """
        return self._store.faults()

    def _write(self, allow: Collection[str], write: Callable[[Update], VersionInfo]) -> Version:
        """Write the next version and serve it. If that fails, the files of the version are deleted."""
        return self._served.write(
            lambda current, number: write(Update(self._store, current, number, self._max_shrink, allow))
        )

    @cached_property
    def _background(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(1, "hedgerow-live")

    def __repr__(self) -> str:
        return f"LiveIndex({str(self.path)!r}, {self.version!r})"
