"""The folder of a live index: each version has a folder, and an atomic rename of the manifest switches versions."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NoReturn

import numpy as np

from hedgerow.errors import IndexFileError, VersionError
from hedgerow.index.files import Verify, replace_file, save_trie, stamp_of, sync
from hedgerow.index.locks import LOCK, LOCK_TIMEOUT, locked
from hedgerow.index.manifest import read_manifest
from hedgerow.indexes import load_index
from hedgerow.live.copied import NEW_PULLED
from hedgerow.live.manifest import (
    ENTRY,
    MANIFEST,
    RECOVER,
    DamagedError,
    RemovedFile,
    State,
    VersionInfo,
    read_entry,
    read_state,
)
from hedgerow.live.removed import removed_content, removed_rows
from hedgerow.live.version import Devices, Pin, SharedCapacity, Version
from hedgerow.live.version_folders import CREATING, PRUNED, REMOVED, VERSIONS, VersionFolders
from hedgerow.trie_index import TrieIndex

NEW = "current-new"
ROLL_BACK = "Roll back to another version."


@dataclass(frozen=True)
class Written:
    """A new version whose files are written.

    Attributes:
        info: its entry.
        index: its index, read back and verified; None if it uses the index of an earlier version.
    """

    info: VersionInfo
    index: TrieIndex | None = None


class Store(VersionFolders):
    """The files of a live index. If a writer is interrupted, the manifest still names a complete version.

    Args:
        path: the folder.
        headroom: as for `LiveIndex`.
        verify: the checks of an index that is loaded, as for `LiveIndex`.
        lock_timeout: the seconds to wait for another writer.
    """

    def __init__(
        self,
        path: Path,
        headroom: float | None = None,
        verify: Verify = "structure",
        lock_timeout: float = LOCK_TIMEOUT,
    ) -> None:
        super().__init__(path)
        self.capacity = SharedCapacity(headroom)
        self.verify: Verify = verify
        self.lock_timeout = lock_timeout

    def stamp(self) -> tuple[int, int, int] | None:
        """A value that changes with the manifest.

        Raises:
            IndexFileError: the folder cannot be read.
        """
        with self._read_errors():
            return stamp_of(self.path / MANIFEST)

    def read(self) -> State:
        """Read the manifest.

        Raises:
            DamagedError: the manifest is damaged, or missing although there are versions.
            IndexFileError: there is no live index, or it cannot be read.
        """
        with self._read_errors():
            try:
                return read_state(self.path / MANIFEST)
            except (FileNotFoundError, NotADirectoryError):
                if self.lost_manifest():
                    raise DamagedError(f"{self.path / MANIFEST} is missing. {RECOVER}") from None
                problem = (
                    f"contains no {MANIFEST}, so it is not a live index" if self.path.exists() else "does not exist"
                )
                raise IndexFileError(
                    f"{self.path} {problem}. Create one with hr.LiveIndex.create(path, index) or hedgerow live init."
                ) from None

    def lost_manifest(self) -> bool:
        """Whether the folder has complete versions, but no manifest, and no `create` was interrupted."""
        names = os.listdir(self.path) if self.path.is_dir() else []
        entries = (self.path / VERSIONS).glob(f"*/{ENTRY}")
        return MANIFEST not in names and CREATING not in names and any(entries)

    def entry(self, number: int) -> VersionInfo:
        """Read the entry of a version.

        Raises:
            IndexFileError: the entry is missing or damaged.
        """
        with self._read_errors():
            return read_entry(self.folder(number) / ENTRY, number)

    def numbers(self, state: State | None) -> list[int]:
        """The numbers of all versions that are kept, in ascending order; of all folders if there is no manifest."""
        with self._read_errors():
            names = os.listdir(self.path / VERSIONS)
        numbers = sorted(int(name) for name in names if name.isdecimal() and str(int(name)) == name)
        return [number for number in numbers if number > 0 and (state is None or number < state.next)]

    def index_sha256(self, number: int) -> str:
        """The checksum in the manifest of the index in the folder of a version, which differs for other content.

        Raises:
            IndexFileError: there is no index, or its manifest is damaged.
        """
        return read_manifest(self.folder(number))["sha256"]

    @contextmanager
    def _read_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise IndexFileError(f"{self.path} cannot be read: {error.strerror or error}.") from error

    def create(self, index: TrieIndex, created: str) -> None:
        """Create a live index with `index` as version 1.

        Raises:
            IndexFileError: the folder contains something, or cannot be written.
            VersionError: `index` is not valid.
        """
        try:
            self.claim()
        except OSError as error:
            raise IndexFileError(f"{self.path} cannot be written: {error.strerror or error}.") from error
        with self.locked():
            self.claim()
            self.clean(1)
            (self.path / CREATING).touch()
            try:
                self.write_index(1, index)
                info = VersionInfo(1, 1, None, None, index.num_items, created, self.index_sha256(1))
                self.write_entry(info)
                self.switch(State(info, 2))
            except BaseException:
                if not (self.path / MANIFEST).exists():
                    self.remove(1)
                raise
            finally:
                (self.path / CREATING).unlink(missing_ok=True)

    def claim(self) -> None:
        """Create the folder for a new live index, unless it exists and contains only the rest of an interrupted one.

        Raises:
            IndexFileError: the path contains something else.
        """
        if self.path.exists() and not self.path.is_dir():
            raise IndexFileError(f"{self.path} is a file; a live index is a folder. Choose another path.")
        (self.path / VERSIONS).mkdir(parents=True, exist_ok=True)
        foreign = sorted(set(os.listdir(self.path)) - {LOCK, VERSIONS, NEW, PRUNED, CREATING, NEW_PULLED})
        if MANIFEST in foreign or self.lost_manifest():
            self._refuse_claim()
        if foreign:
            raise IndexFileError(
                f"{self.path} contains {foreign[0]!r}, which is not part of a live index. Choose another path."
            )

    def _refuse_claim(self) -> NoReturn:
        """Refuse to create a live index where there is one, with the way to open it."""
        try:
            self.read()
        except DamagedError as error:
            raise IndexFileError(f"{self.path} is a live index already, and it is damaged: {error}") from error
        raise IndexFileError(
            f"{self.path} is a live index already. Open it with hr.LiveIndex.open(path), or see hedgerow live status."
        )

    @contextmanager
    def locked(self, timeout: float | None = None) -> Iterator[None]:
        """Hold the exclusive lock of the folder, so that one process at a time writes.

        Args:
            timeout: the seconds to wait for another writer. Default: those of the store.

        Raises:
            LockedError: another process holds the lock.
            IndexFileError: an operation on files failed inside the block.
        """
        try:
            with locked(self.path, self.lock_timeout if timeout is None else timeout):
                yield
        except OSError as error:
            raise IndexFileError(f"{self.path} cannot be written: {error.strerror or error}.") from error

    def write_index(self, number: int, index: TrieIndex) -> TrieIndex:
        """Write the index of a new version, read it back with all checks of `load_index`, and return it.

        `hedgerow verify` also looks up every SID. That repeats what the structure proves, and takes much longer.

        Raises:
            VersionError: the index is not valid.
        """
        folder = self.folder(number)
        try:
            save_trie(index, folder, lock_timeout=self.lock_timeout)
            return load_index(folder, mmap=True, verify="full")
        except IndexFileError as error:
            if isinstance(error.__cause__, OSError):
                raise
            raise VersionError(
                f"version {number} was refused, and the version before it is still served: {error}"
            ) from error

    def write_removed(self, number: int, rows: np.ndarray) -> RemovedFile:
        """Write the removed rows, ascending, of a new version."""
        folder = self.folder(number)
        folder.mkdir()
        content = removed_content(rows)
        (folder / LOCK).touch()
        (folder / REMOVED).write_bytes(content)
        sync(folder / REMOVED)
        return RemovedFile(len(content), hashlib.sha256(content).hexdigest())

    def write_entry(self, info: VersionInfo) -> None:
        """Write the entry of a new version, whose other files are complete."""
        folder = self.folder(info.number)
        (folder / ENTRY).write_bytes(info.to_bytes())
        sync(folder / ENTRY)
        sync(folder)

    def switch(self, state: State) -> None:
        """Replace the manifest atomically."""
        sync(self.path / VERSIONS)
        replace_file(self.path / NEW, self.path / MANIFEST, state.to_bytes())

    def load(
        self,
        info: VersionInfo,
        loaded: Version | None = None,
        *,
        verified: TrieIndex | None = None,
        verify: Verify | None = None,
    ) -> Version:
        """Open a version.

        Args:
            info: the entry of the version.
            loaded: a version that is loaded already. If its index has the same content as the one in the folder, it
                is reused with its device copies.
            verified: the index in the folder, if it has just been loaded and verified.
            verify: as for `load_index`; the index is then read again. Default: `self.verify`.

        Raises:
            FileNotFoundError: the folder of the version does not exist.
            IndexFileError: the version is damaged.
        """
        folder = self.folder(info.index)
        pin = Pin(self.folder(number) for number in sorted({info.index, info.number}))
        content = self.index_sha256(info.index)
        if info.index_sha256 not in (None, content):
            raise IndexFileError(f"{folder} was replaced: its index is not that of version {info.number}. {ROLL_BACK}")
        same = loaded is not None and (loaded.info.index, loaded.info.index_sha256) == (info.index, content)
        if loaded is not None and same and verify is None:
            index, devices = loaded.index, loaded._devices
        else:
            index = load_index(folder, mmap=True, verify=verify or self.verify) if verified is None else verified
            devices = Devices(index, self.capacity)
        rows = np.zeros(0, np.int64) if info.removed is None else self._read_removed(info, info.removed)
        if info.items != index.num_items - len(rows) or (rows[-1:] >= index.num_items).any():
            raise IndexFileError(
                f"{folder} does not contain the {info.items:,} items of version {info.number}. {ROLL_BACK}"
            )
        return Version(info, index, rows, pin, devices, self._opens())

    def _opens(self) -> Callable[[VersionInfo, TrieIndex], Version]:
        """The function that opens a version that was pickled."""
        return partial(_open_pickled, os.path.abspath(self.path), self.capacity.headroom, self.verify)

    def load_earlier(self, state: State, number: int | None) -> Version:
        """Open the version to roll back to, and verify its checksums.

        Args:
            state: the manifest.
            number: the number of the version. Default: the version that the current one was made from.

        Raises:
            VersionError: the version does not exist or is damaged.
        """
        current = state.current.number
        number = state.current.parent if number is None else number
        if number is None:
            raise VersionError(f"version {current} has no version before it to roll back to.")
        self._check_kept(state, number)
        try:
            return self.load(self.entry(number), verify="full")
        except (IndexFileError, OSError) as error:
            raise VersionError(
                f"version {number} was refused, and version {current} is still served: {error}"
            ) from error

    def load_kept(self, state: State, number: int, loaded: Version) -> Version:
        """Open a version that is kept.

        Args:
            state: the manifest.
            number: the number of the version.
            loaded: as for `load`.

        Raises:
            VersionError: the version does not exist or is damaged.
        """
        self._check_kept(state, number)
        try:
            info = self.entry(number)
            return loaded if info == loaded.info else self.load(info, loaded)
        except (IndexFileError, OSError) as error:
            raise VersionError(f"version {number} cannot be loaded: {error}") from error

    def _check_kept(self, state: State, number: int) -> None:
        numbers = self.numbers(state)
        if number not in numbers:
            kept = ", ".join(map(str, numbers))
            raise VersionError(f"there is no version {number}; the versions kept are {kept}.")

    def _read_removed(self, info: VersionInfo, file: RemovedFile) -> np.ndarray:
        path = self.folder(info.number) / REMOVED
        if not path.exists():
            raise IndexFileError(f"{path} is missing. {ROLL_BACK}")
        # The size is checked first, because reading a FIFO would wait.
        content = path.read_bytes() if path.stat().st_size == file.bytes else b""
        rows = removed_rows(content)
        if len(content) != file.bytes or hashlib.sha256(content).hexdigest() != file.sha256 or rows is None:
            raise IndexFileError(f"{path} was altered or damaged: its checksum differs. {ROLL_BACK}")
        return rows


def _open_pickled(path: str, headroom: float | None, verify: Verify, info: VersionInfo, index: TrieIndex) -> Version:
    try:
        return Store(Path(path), headroom, verify).load(info, verified=index)
    except OSError as error:
        raise IndexFileError(
            f"version {info.number} of {path}, which was pickled, cannot be opened: {error.strerror or error}. It may "
            "have been pruned. Open the current version: hr.LiveIndex.open(path).version."
        ) from error
