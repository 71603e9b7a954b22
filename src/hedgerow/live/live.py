"""LiveIndex: an index that changes while it is searched."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from hedgerow._arguments import whole_number
from hedgerow.catalog.catalog import Catalog
from hedgerow.errors import ArgumentError, CatalogError, IndexFileError, VersionError
from hedgerow.index.edit import in_sorted
from hedgerow.index.files import as_folder
from hedgerow.index.merge import fitted, present_rows, rows_to_remove, splice_index
from hedgerow.live.manifest import State, VersionInfo
from hedgerow.live.store import Store
from hedgerow.live.version import Version
from hedgerow.trie_index import TrieIndex

REFUSALS = ("empty", "shrunk", "codebooks")
Prepare = Callable[[Version], object]


def do_nothing(version: Version) -> None:
    """What is done with a new version before it is served, where nothing is asked for."""


class LiveIndex:
    """An index in a folder of versions: one is current, and served; a writer makes the next beside it, and switches.

    The folder is the truth. Any number of processes may read it, and any number may write: they take turns. A writer
    that is stopped anywhere leaves the old version current or the new one. A search goes on with the `Version` that it
    began with; `refresh` gives the one that is current now.

    Args:
        path: the folder.
        max_shrink: the share of its items that the next version may lack without being refused.
        prepare: called with a version before it is served, to move it to a device for instance.
        headroom: how many times the index may grow before a step on a device is compiled again; see `Capacity.of`.
            None: not at all, and no memory is spent on it.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        max_shrink: float = 0.5,
        prepare: Prepare = do_nothing,
        headroom: float | None = None,
    ) -> None:
        if not 0 <= max_shrink <= 1:
            raise ArgumentError(f"max_shrink is a share, 0 to 1; got {max_shrink!r}.")
        if headroom is not None and not headroom >= 1:
            raise ArgumentError(f"headroom is how many times the index may grow, 1 or more; got {headroom!r}.")
        self._store = Store(as_folder(path), headroom)
        self._max_shrink, self._prepare = max_shrink, prepare
        self._loading = threading.Lock()
        self._stamp, self._version = self._follow(None)

    @classmethod
    def create(cls, path: str | Path, index: TrieIndex, **options: Any) -> LiveIndex:
        """Makes the folder `path` a live index with `index` as version 1, and returns it; the options are those above.

        Raises:
            IndexFileError: something is there already, or cannot be written.
            VersionError: `index` is not whole.
        """
        store = Store(as_folder(path))
        try:
            store.claim()
        except OSError as error:
            raise IndexFileError(f"{store.path} cannot be written: {error.strerror or error}.") from error
        with store.locked():
            store.claim()
            store.clean(None)
            try:
                store.write_index(1, index)
                info = VersionInfo(1, 1, None, None, index.num_items, _now())
                store.switch(State(1, 2, (info,)))
            except BaseException:
                store.remove(1)
                raise
        return cls(path, **options)

    @classmethod
    def open(cls, path: str | Path, **options: Any) -> LiveIndex:
        """Returns the live index in the folder `path`; the options are those above.

        Raises:
            IndexFileError: there is none, or it is damaged.
        """
        return cls(path, **options)

    @property
    def path(self) -> Path:
        """The folder."""
        return self._store.path

    @property
    def version(self) -> Version:
        """The version that is served here: the current one when this process last looked, or wrote."""
        return self._version

    def refresh(self) -> Version:
        """Returns the version that is current now; where nothing has changed, that is one look at a file's date.

        While one thread loads a new version, the others go on with the one before.

        Raises:
            VersionError: the current version cannot be read; `version` stays what it was.
        """
        if self._store.stamp() == self._stamp or not self._loading.acquire(blocking=False):
            return self._version
        try:
            self._stamp, self._version = self._follow(self._version)
        except IndexFileError as error:
            raise VersionError(f"{error} Version {self._version.number} serves on.") from error
        finally:
            self._loading.release()
        return self._version

    def versions(self) -> tuple[VersionInfo, ...]:
        """Returns what the manifest says of every version that is kept, by number."""
        return self._store.read().versions

    def add(self, catalog: Catalog, *, allow: Collection[str] = ()) -> Version:
        """Makes and serves a version with the items of `catalog` besides, whose ids are new. See `update`.

        Raises:
            CatalogError: an item with such an id is there.
        """
        return self._change(catalog, (), allow, only_new=True)

    def update(self, catalog: Catalog | None = None, *, removed: Any = (), allow: Collection[str] = ()) -> Version:
        """Makes and serves a version with the items of `catalog`, which replace those with the same ids, if any.

        Items removed before leave the index that is written, so ``live.update()`` alone compacts it.

        Args:
            catalog: as for `merge`.
            removed: ids of items that are to go in the same version.
            allow: what the version is not to be refused for: "empty", "shrunk", "codebooks".

        Raises:
            CatalogError: as for `merge`.
            VersionError: the version was refused; nothing of it stays, and the one before serves on.
            IndexFileError: it cannot be written; the one before serves on.
        """
        return self._change(catalog, removed, allow)

    def update_in_background(self, catalog: Catalog | None = None, **options: Any) -> Future[Version]:
        """Does what `update` does in another thread, one at a time, and returns what will have the version."""
        return self._background.submit(self.update, catalog, **options)

    def remove(self, ids: Any, *, allow: Collection[str] = ()) -> Version:
        """Makes and serves a version without the items of these ids, at once: nothing is written but the ids' rows.

        The index stays as it is, and `Version.removed` says which items of it are gone. `Version.within` keeps a search
        to the rest, and `Version.items` the results. The next `add` or `update` leaves them out of the index.

        Raises:
            CatalogError: there is no such item.
            VersionError, IndexFileError: as for `update`.
        """

        def without(served: Version, number: int) -> VersionInfo:
            rows = rows_to_remove(served.index, ids)
            _check_there(served, rows)
            rows = np.union1d(served.removed_rows, rows)
            left = served.index.num_items - len(rows)
            self._check_size(served, number, left, allow)
            return self._info(served, number, left, rows)

        return self._write(without)

    def publish(self, index: TrieIndex, *, allow: Collection[str] = ()) -> Version:
        """Makes and serves a version of an index that was built anew. Arguments and errors as for `update`."""
        return self._write(lambda served, number: self._info_of_index(served, number, index, allow))

    def rollback(self, to: int | None = None) -> Version:
        """Serves an earlier version again, with every byte of it compared.

        Args:
            to: its number; left out, the version that the current one was made from.

        Raises:
            VersionError: it is not kept, or damaged; the current one serves on.
        """
        if to is not None:
            whole_number(to, "to, the number of a version,")
        with self._store.locked():
            state = self._store.read()
            wanted = state.served.parent if to is None else to
            info = state.find(wanted)
            if wanted is None:
                raise VersionError(f"version {state.current} has none before it to roll back to.")
            if info is None:
                kept = ", ".join(str(version.number) for version in state.versions)
                raise VersionError(f"there is no version {wanted} to roll back to; kept are {kept}.")
            try:
                version = self._store.load(info, verify=True)
            except (IndexFileError, OSError) as error:
                raise VersionError(
                    f"version {wanted} was refused; version {state.current} serves on: {error}"
                ) from error
            return self._serve(replace(state, current=info.number), version)

    def prune(self, keep: int = 3) -> list[int]:
        """Removes all versions but the latest `keep`, the current one, those that any process holds, and those whose
        index one of these has; returns the numbers of the versions removed.
        """
        keep = whole_number(keep, "keep", least=0)
        with self._store.locked():
            state = self._store.read()
            latest = {version.number for version in state.versions[max(0, len(state.versions) - keep) :]}
            held = {version.number for version in state.versions if self._store.pinned(version.number)}
            served = latest | held | {state.current}
            needed = served | {version.index for version in state.versions if version.number in served}
            stay = [version for version in state.versions if version.number in needed]
            left = replace(state, versions=tuple(stay))
            if left != state:
                self._store.switch(left)
            self._store.clean(left)
        return [version.number for version in state.versions if version not in stay]

    def _change(
        self, catalog: Catalog | None, removed: Any, allow: Collection[str], *, only_new: bool = False
    ) -> Version:
        def merged(served: Version, number: int) -> VersionInfo:
            gone = rows_to_remove(served.index, removed)
            _check_there(served, gone)
            added = None if catalog is None else fitted(served.index, catalog)
            rows = [served.removed_rows, gone]
            if added is not None:
                replaced = present_rows(served.index, added)
                known = (replaced >= 0) & ~in_sorted(replaced, served.removed_rows)
                if only_new and known.any():
                    item = added.item_ids[int(np.argmax(known))].as_py()
                    raise CatalogError(
                        f"item {item!r} is there already; to replace it: update, or: hedgerow live update."
                    )
                rows.append(replaced[replaced >= 0])
            index = splice_index(served.index, added, np.unique(np.concatenate(rows)), dense_levels="auto")
            return self._info_of_index(served, number, TrieIndex._of(index), allow)

        return self._write(merged)

    def _write(self, make: Callable[[Version, int], VersionInfo]) -> Version:
        """Makes a version of what is current and its number, and serves it; nothing of it stays where that fails."""
        with self._store.locked():
            state = self._store.read()
            self._store.clean(state)
            served = self.refresh()
            if served.number != state.current:
                served = self._store.load(state.served)
            try:
                info = make(served, state.next)
                version = self._store.load(info, served)
                return self._serve(State(info.number, info.number + 1, (*state.versions, info)), version)
            except BaseException:
                if self._store.read().find(state.next) is None:
                    self._store.remove(state.next)
                raise

    def _serve(self, state: State, version: Version) -> Version:
        self._prepare(version)
        self._store.switch(state)
        with self._loading:
            self._stamp, self._version = self._store.stamp(), version
        return version

    def _follow(self, held: Version | None) -> tuple[tuple[int, int] | None, Version]:
        """Returns the stamp of the manifest and the current version, which may be the one held."""
        while True:
            stamp = self._store.stamp()
            info = self._store.read().served
            if held is not None and held.number == info.number:
                return stamp, held
            try:
                version = self._store.load(info, held)
                self._prepare(version)
                return stamp, version
            except (IndexFileError, OSError) as error:
                # Where the manifest has changed meanwhile, the version may have been pruned.
                if self._store.stamp() == stamp:
                    raise IndexFileError(f"version {info.number} of {self.path} cannot be read: {error}") from error

    def _info(self, served: Version, number: int, items: int, rows: np.ndarray) -> VersionInfo:
        file = self._store.write_removed(number, rows)
        return VersionInfo(number, served.info.index, file, served.number, items, _now())

    def _info_of_index(self, served: Version, number: int, index: TrieIndex, allow: Collection[str]) -> VersionInfo:
        if not isinstance(index, TrieIndex):
            raise ArgumentError(f"a version is a TrieIndex; got {type(index).__name__}.")
        self._check_size(served, number, index.num_items, allow)
        if "codebooks" not in allow and index.codebook_sizes != served.index.codebook_sizes:
            sizes = f"codebooks of {list(served.index.codebook_sizes)} codes, not {list(index.codebook_sizes)}"
            raise _refused(served, number, f"the model served has {sizes}", "codebooks")
        self._store.write_index(number, index)
        return VersionInfo(number, number, None, served.number, index.num_items, _now())

    def _check_size(self, served: Version, number: int, items: int, allow: Collection[str]) -> None:
        unknown = [name for name in allow if name not in REFUSALS]
        if isinstance(allow, str) or unknown:
            raise ArgumentError(f"allow is a list of {', '.join(REFUSALS)}; got {allow!r}.")
        if items == 0 and served.num_items and "empty" not in allow:
            raise _refused(served, number, "it has no items", "empty")
        if 0 < items < (1 - self._max_shrink) * served.num_items and "shrunk" not in allow:
            limit = f"more than the share of {self._max_shrink} that may go"
            raise _refused(served, number, f"it has {items:,} of {served.num_items:,} items, {limit}", "shrunk")

    @cached_property
    def _background(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(1, "hedgerow-live")

    def __repr__(self) -> str:
        return f"LiveIndex({str(self.path)!r}, {self._version!r})"


def _check_there(served: Version, rows: np.ndarray) -> None:
    gone = rows[in_sorted(rows, served.removed_rows)]
    if len(gone):
        item = served.index.item_ids[int(gone[0])].as_py()
        raise CatalogError(f"there is no item {item!r} in version {served.number}: it was removed.")


def _refused(served: Version, number: int, why: str, name: str) -> VersionError:
    return VersionError(
        f"version {number} was refused: {why}. Version {served.number} serves on. If it is meant: allow=[{name!r}], "
        f"or: --allow {name}."
    )


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")
