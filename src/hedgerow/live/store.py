"""The folder of a live index: each version has a folder, and an atomic rename of the manifest switches versions."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from hedgerow.errors import IndexFileError, VersionError
from hedgerow.index.files import OURS, replace_file, save_trie, stamp_of, sync
from hedgerow.index.locks import LOCK, locked
from hedgerow.index.verify import verify_trie
from hedgerow.live.manifest import MANIFEST, RemovedFile, State, VersionInfo, read_state
from hedgerow.live.version import Devices, Pin, SharedCapacity, Version
from hedgerow.trie_index import TrieIndex, load_index

VERSIONS = "versions"
NEW = "current-new"
REMOVED = "removed.npy"


class Store:
    """The files of a live index. If a writer is interrupted, the manifest still names complete versions only."""

    def __init__(self, path: Path, headroom: float | None = None) -> None:
        self.path, self.capacity = path, SharedCapacity(headroom)

    def folder(self, number: int) -> Path:
        """The folder of a version."""
        return self.path / VERSIONS / str(number)

    def stamp(self) -> tuple[int, int] | None:
        """A value that changes with the manifest."""
        return stamp_of(self.path / MANIFEST)

    def read(self) -> State:
        """Read the manifest.

        Raises:
            IndexFileError: there is no manifest, or it is damaged.
        """
        try:
            return read_state(self.path / MANIFEST)
        except (FileNotFoundError, NotADirectoryError):
            raise IndexFileError(
                f"{self.path} contains no {MANIFEST}, so it is not a live index. Create one with "
                "hr.LiveIndex.create(path, index) or hedgerow live init."
            ) from None
        except OSError as error:
            raise IndexFileError(f"{self.path} cannot be read: {error.strerror or error}.") from error

    def claim(self) -> None:
        """Create the folder for a new live index, unless it exists and contains only the rest of an interrupted one.

        Raises:
            IndexFileError: the path contains something else.
        """
        if self.path.exists() and not self.path.is_dir():
            raise IndexFileError(f"{self.path} is a file; a live index is a folder. Choose another path.")
        (self.path / VERSIONS).mkdir(parents=True, exist_ok=True)
        foreign = sorted(set(os.listdir(self.path)) - {LOCK, VERSIONS, NEW})
        if MANIFEST in foreign:
            raise IndexFileError(
                f"{self.path} is a live index already. Open it with hr.LiveIndex.open(path), or see hedgerow live "
                "status."
            )
        if foreign:
            raise IndexFileError(
                f"{self.path} contains {foreign[0]!r}, which is not part of a live index. Choose another path."
            )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the exclusive lock of the folder, so that one process at a time writes.

        Raises:
            IndexFileError: an operation on files failed inside the block.
        """
        try:
            with locked(self.path):
                yield
        except OSError as error:
            raise IndexFileError(f"{self.path} cannot be written: {error.strerror or error}.") from error

    def write_index(self, number: int, index: TrieIndex) -> None:
        """Write and verify the index of a new version.

        Raises:
            VersionError: the index is not valid.
        """
        folder = self.folder(number)
        try:
            save_trie(index, folder)
            verify_trie(folder)
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
        data = io.BytesIO()
        np.save(data, rows.astype("<i8"))
        content = data.getvalue()
        (folder / LOCK).touch()
        (folder / REMOVED).write_bytes(content)
        sync(folder / REMOVED)
        sync(folder)
        return RemovedFile(len(content), hashlib.sha256(content).hexdigest())

    def switch(self, state: State) -> None:
        """Replace the manifest atomically."""
        sync(self.path / VERSIONS)
        replace_file(self.path / NEW, self.path / MANIFEST, state.to_bytes())

    def load(self, info: VersionInfo, loaded: Version | None = None, *, verify: bool = False) -> Version:
        """Open a version.

        Args:
            info: the entry of the version in the manifest.
            loaded: a version that is loaded already. If it has the same index, its index and device copies are reused.
            verify: verify the checksums of the files of the index, which is then read again.

        Raises:
            FileNotFoundError: the folder of the version does not exist.
            IndexFileError: the version is damaged.
        """
        folder = self.folder(info.index)
        pin = Pin(self.folder(number) for number in sorted({info.index, info.number}))
        if loaded is not None and loaded.info.index == info.index and not verify:
            index, devices = loaded.index, loaded._devices
        else:
            index = load_index(folder, mmap=True, verify="full" if verify else "structure")
            devices = Devices(index, self.capacity)
        rows = np.zeros(0, np.int64) if info.removed is None else self._read_removed(info, info.removed)
        if info.items != index.num_items - len(rows) or (rows[-1:] >= index.num_items).any():
            raise IndexFileError(
                f"{folder} does not contain the {info.items:,} items of version {info.number} in {MANIFEST}. Roll back "
                "to another version."
            )
        return Version(info, index, rows, pin, devices)

    def _read_removed(self, info: VersionInfo, file: RemovedFile) -> np.ndarray:
        path = self.folder(info.number) / REMOVED
        content = path.read_bytes()
        if len(content) != file.bytes or hashlib.sha256(content).hexdigest() != file.sha256:
            raise IndexFileError(f"{path} was altered or damaged: its checksum differs. Roll back to another version.")
        return np.load(io.BytesIO(content), allow_pickle=False)

    def clean(self, state: State | None) -> None:
        """Remove the folders of versions that the manifest does not name, left by interrupted writers."""
        kept = set() if state is None else {version.number for version in state.versions}
        for name in os.listdir(self.path / VERSIONS):
            if name.isdecimal() and int(name) not in kept:
                self.discard(int(name))

    def discard(self, number: int) -> None:
        """Remove the folder of a version unless a process uses it."""
        with suppress(BlockingIOError), self._unpinned(self.folder(number)):
            self.remove(number)

    def remove(self, number: int) -> None:
        """Remove the folder of a version. The next writer removes files that cannot be removed now."""
        folder = self.folder(number)
        with suppress(OSError):
            for name in os.listdir(folder):
                if OURS.fullmatch(name) or name == REMOVED:
                    (folder / name).unlink()
            folder.rmdir()

    def pinned(self, number: int) -> bool:
        """Whether a process uses the version."""
        try:
            with self._unpinned(self.folder(number)):
                return False
        except BlockingIOError:
            return True

    @contextmanager
    def _unpinned(self, folder: Path) -> Iterator[None]:
        """Hold the exclusive lock of a version's folder, if it has a lock file.

        Raises:
            BlockingIOError: a `Pin` holds the folder.
        """
        try:
            handle = os.open(folder / LOCK, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
        except FileNotFoundError:
            yield
            return
        try:
            _lock_exclusively(handle)
            yield
        finally:
            os.close(handle)


def _lock_exclusively(handle: int) -> None:
    try:
        import fcntl
    except ModuleNotFoundError:
        return
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
