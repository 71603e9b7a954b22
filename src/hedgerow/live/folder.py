"""The folder of a live index as a process sees it: opened, followed, and rid of old versions."""

from __future__ import annotations

import inspect
import warnings
from functools import partial
from pathlib import Path
from typing import Any, Self

from hedgerow._arguments import whole_number
from hedgerow.catalog.catalog import Catalog
from hedgerow.errors import ArgumentError
from hedgerow.index.build import Progress, ignore_progress
from hedgerow.index.files import Verify
from hedgerow.index.locks import LOCK_TIMEOUT, LockedError
from hedgerow.live import kept
from hedgerow.live.manifest import VersionInfo
from hedgerow.live.served import Prepare, Served, checked_store, do_nothing
from hedgerow.live.store import Store
from hedgerow.live.updates import now
from hedgerow.live.version import Version
from hedgerow.trie_index import TrieIndex


class LiveFolder:
    """The part of `hedgerow.LiveIndex` that writes no new versions. `LiveIndex` documents the arguments."""

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
    def create(cls, path: str | Path, index: TrieIndex, **options: Any) -> Self:
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
    def open(cls, path: str | Path, *, recover: bool = False, **options: Any) -> Self:
        """Open the live index in the folder `path`.

        Args:
            path: the folder.
            recover: whether to roll back, if the current version is damaged, to the latest version before it that is
                not. If `current.json` is damaged or missing, the latest correct version becomes the current one; this
                can be a version that was rolled back before.
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
            kept.recover(cls._store_of(path, options))
        return cls(path, **options)

    @classmethod
    def pull(
        cls,
        source: str | Path,
        path: str | Path,
        *,
        keep: int = 3,
        progress: Progress = ignore_progress,
        **options: Any,
    ) -> Self:
        """Make the folder `path` a copy of the current version of a live index elsewhere, and open it.

        Only files that the folder does not have are fetched, and compared with their checksums before the version
        becomes the current one. If a pull is interrupted, the next one continues. Pull again for the next version;
        readers of the folder follow it as they follow any live index, and writing is refused.

        Args:
            source: the live index: a URL that fsspec reads (``s3://bucket/items.live``), or a path. It is only read.
            path: the folder: new or empty, or a copy of the same source.
            keep: the number of latest versions to keep in the folder, as for `prune`.
            progress: called as ``progress("pull", done, total)``, in bytes.
            **options: as for `LiveIndex`.

        Raises:
            ArgumentError: `keep` is not an integer or is below 0, the protocol of the URL is unknown, or as for
                `LiveIndex`.
            IndexFileError: there is no live index at `source`, it is damaged or cannot be read; or `path` is another
                live index, a copy of another source, or cannot be written. The version before is still current.
            MissingDependencyError: a package that the URL needs is not installed.

        Examples:
            ```python
            import hedgerow as hr

            shop = hr.LiveIndex.create("shop.live", hr.build_index(hr.Catalog([[0, 1], [2, 0]])))
            copy = hr.LiveIndex.pull("shop.live", "copy.live")
            shop.remove([0])
            hr.LiveIndex.pull("shop.live", "copy.live")
            assert copy.refresh().number == 2
            ```
        """
        from hedgerow.live.pull import pull

        pull(source, cls._store_of(path, options), whole_number(keep, "keep", least=0), progress)
        return cls(path, **options)

    @classmethod
    def _store_of(cls, path: str | Path, options: dict[str, Any]) -> Store:
        """The store of a folder, from the options of `LiveIndex`, which are checked."""
        arguments = inspect.signature(cls).bind(path, **options)
        arguments.apply_defaults()
        return checked_store(**arguments.arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as the folder and the options. A copy opens the folder again."""
        return partial(type(self), self.path, max_shrink=self._max_shrink, **self._options), ()

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

    def load_version(self, number: int) -> Version:
        """Load a version that is kept, for example to compare it with the current one, which does not change.

        Args:
            number: the number of the version.

        Raises:
            ArgumentError: `number` is not a positive integer.
            VersionError: the version does not exist or is damaged.
            IndexFileError: the manifest is missing or damaged.

        Examples:
            ```python
            import hedgerow as hr

            live = hr.LiveIndex.create("items.live", hr.build_index(hr.Catalog([[0, 1], [2, 0]])))
            live.remove([0])
            assert live.load_version(1).num_items == 2
            assert live.version.number == 2
            ```
        """
        whole_number(number, "number")
        return self._store.load_kept(self._store.read(), number, self.version)

    def versions(self) -> tuple[VersionInfo, ...]:
        """Read the entries of all versions that are kept, by ascending number.

        Versions whose entry is damaged are left out, with a UserWarning that names them.

        Raises:
            IndexFileError: the manifest is missing or damaged.

        Examples:
            ```python
            import hedgerow as hr

            live = hr.LiveIndex.create("items.live", hr.build_index(hr.Catalog([[0, 1], [2, 0]])))
            live.remove([0])
            assert [(info.number, info.items) for info in live.versions()] == [(1, 2), (2, 1)]
            ```
        """
        infos, damaged = kept.read_entries(self._store, self._store.read())
        _warn(damaged)
        return infos

    def prune(self, keep: int = 3) -> list[int]:
        """Delete old versions, without waiting.

        The current version, versions that a process uses, and versions whose index another kept version uses, are not
        deleted. If another process is writing, none is. Versions whose entry is damaged are neither counted nor
        deleted, and a UserWarning names them.

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
                removed, damaged = kept.prune(self._store, keep)
        except LockedError:
            return []
        _warn(damaged)
        return removed

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
        return kept.faults(self._store)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r}, {self.version!r})"


def _warn(damaged: dict[int, str]) -> None:
    """Warn of versions whose entry is damaged."""
    for number, fault in damaged.items():
        warnings.warn(f"version {number} is damaged: {fault}", stacklevel=3)
