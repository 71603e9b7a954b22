"""The folder of a live index: versions written beside each other, the manifest switched last, by an atomic rename."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from hedgerow.errors import IndexFileError, VersionError
from hedgerow.index.files import LOCK, OURS, locked, replace_file, save_trie, stamp_of, sync
from hedgerow.index.verify import verify_trie
from hedgerow.live.manifest import MANIFEST, RemovedFile, State, VersionInfo, read_state
from hedgerow.live.version import Devices, Pin, Room, Version
from hedgerow.trie_index import TrieIndex, load_index

VERSIONS = "versions"
NEW = "current-new"
REMOVED = "removed.npy"


class Store:
    """The files of a live index. Whatever stops a writer, the manifest names versions that are whole."""

    def __init__(self, path: Path, headroom: float | None = None) -> None:
        self.path, self.room = path, Room(headroom)

    def folder(self, number: int) -> Path:
        """Returns the folder of a version."""
        return self.path / VERSIONS / str(number)

    def stamp(self) -> tuple[int, int] | None:
        """Returns what changes with the manifest."""
        return stamp_of(self.path / MANIFEST)

    def read(self) -> State:
        """Returns the manifest.

        Raises:
            IndexFileError: there is none, or it is damaged.
        """
        try:
            return read_state(self.path / MANIFEST)
        except (FileNotFoundError, NotADirectoryError):
            raise IndexFileError(
                f"{self.path} holds no {MANIFEST}, so it is not a live index. Make one: hr.LiveIndex.create(...), or: "
                "hedgerow live init."
            ) from None
        except OSError as error:
            raise IndexFileError(f"{self.path} cannot be read: {error.strerror or error}.") from error

    def claim(self) -> None:
        """Makes the folder for a new live index, or makes sure that it holds nothing but what a crash left of one.

        Raises:
            IndexFileError: something else is there.
        """
        if self.path.exists() and not self.path.is_dir():
            raise IndexFileError(f"{self.path} is a file; a live index is a folder. Choose another path.")
        (self.path / VERSIONS).mkdir(parents=True, exist_ok=True)
        foreign = sorted(set(os.listdir(self.path)) - {LOCK, VERSIONS, NEW})
        if MANIFEST in foreign:
            raise IndexFileError(
                f"{self.path} is a live index already. Open it: hr.LiveIndex.open(path), or: hedgerow live status."
            )
        if foreign:
            raise IndexFileError(
                f"{self.path} holds {foreign[0]!r}, which is not part of a live index. Choose another."
            )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lets one writer at a time, of all processes, at the folder; a failure of the disk is an IndexFileError."""
        try:
            with locked(self.path):
                yield
        except OSError as error:
            raise IndexFileError(f"{self.path} cannot be written: {error.strerror or error}.") from error

    def write_index(self, number: int, index: TrieIndex) -> None:
        """Writes and verifies the index of a new version.

        Raises:
            VersionError: what was written is not a whole index.
        """
        folder = self.folder(number)
        try:
            save_trie(index, folder)
            verify_trie(folder)
        except IndexFileError as error:
            if isinstance(error.__cause__, OSError):
                raise
            raise VersionError(f"version {number} was refused, and the one before serves on: {error}") from error

    def write_removed(self, number: int, rows: np.ndarray) -> RemovedFile:
        """Writes the rows [R], rising, that a new version has not."""
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
        """Makes `state` the manifest: before it all is as it was, and from then on all is new."""
        sync(self.path / VERSIONS)
        replace_file(self.path / NEW, self.path / MANIFEST, state.to_bytes())

    def load(self, info: VersionInfo, held: Version | None = None, *, verify: bool = False) -> Version:
        """Returns a handle on a version.

        Args:
            info: what the manifest says of it.
            held: a version at hand: where it has the same index, that is taken, with what was read of it and moved.
            verify: compares the checksum of every byte of the index.

        Raises:
            FileNotFoundError: its folder is gone.
            IndexFileError: it is damaged.
        """
        folder = self.folder(info.index)
        pin = Pin(self.folder(number) for number in sorted({info.index, info.number}))
        same = held is not None and held.info.index == info.index and not verify
        index = held.index if held is not None and same else load_index(folder, mmap=True, verify=verify)
        rows = np.zeros(0, np.int64) if info.removed is None else self._read_removed(info, info.removed)
        if info.items != index.num_items - len(rows) or (rows[-1:] >= index.num_items).any():
            raise IndexFileError(f"{folder} does not hold the items that {MANIFEST} says of version {info.number}.")
        return Version(info, index, rows, pin, held.devices if held is not None and same else Devices(index, self.room))

    def _read_removed(self, info: VersionInfo, file: RemovedFile) -> np.ndarray:
        path = self.folder(info.number) / REMOVED
        content = path.read_bytes()
        if len(content) != file.bytes or hashlib.sha256(content).hexdigest() != file.sha256:
            raise IndexFileError(f"{path} was altered or damaged: its checksum differs. Roll back to another version.")
        return np.load(io.BytesIO(content), allow_pickle=False)

    def clean(self, state: State | None) -> None:
        """Removes the folders that the manifest does not name: what a crash left."""
        kept = set() if state is None else {version.number for version in state.versions}
        for name in os.listdir(self.path / VERSIONS):
            if name.isdecimal() and int(name) not in kept:
                self.discard(int(name))

    def discard(self, number: int) -> None:
        """Removes the folder of a version, if no process holds it."""
        with suppress(BlockingIOError), self._unpinned(self.folder(number)):
            self.remove(number)

    def remove(self, number: int) -> None:
        """Removes the folder of a version, as far as it goes: what is left, the next writer removes."""
        folder = self.folder(number)
        with suppress(OSError):
            for name in os.listdir(folder):
                if OURS.fullmatch(name) or name == REMOVED:
                    (folder / name).unlink()
            folder.rmdir()

    def pinned(self, number: int) -> bool:
        """Whether a process holds the version of that number."""
        try:
            with self._unpinned(self.folder(number)):
                return False
        except BlockingIOError:
            return True

    @contextmanager
    def _unpinned(self, folder: Path) -> Iterator[None]:
        """Holds the folder alone, or raises BlockingIOError where a `Pin` does; a folder without a lock is nobody's."""
        try:
            handle = os.open(folder / LOCK, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
        except FileNotFoundError:
            yield
            return
        try:
            _lock_alone(handle)
            yield
        finally:
            os.close(handle)


def _lock_alone(handle: int) -> None:
    try:
        import fcntl
    except ModuleNotFoundError:
        return
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
