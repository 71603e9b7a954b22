"""The folders of the versions of a live index: which are used, and how they are removed."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from hedgerow.index.files import OURS
from hedgerow.index.locks import open_lock, try_lock
from hedgerow.live.manifest import ENTRY, State

VERSIONS = "versions"
# Versions are moved here before their files are removed, so that a version is complete or gone.
PRUNED = "pruned"
# A copy fetches the files of a version here: see pull.py.
PULLING = "pulling"
# Exists while version 1 is written, which tells an interrupted `create` from a live index that lost its manifest.
CREATING = "creating"
REMOVED = "removed.npy"


class VersionFolders:
    """The folders of versions, one for each number.

    Args:
        path: the folder of the live index.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def folder(self, number: int) -> Path:
        """The folder of a version."""
        return self.path / VERSIONS / str(number)

    def clean(self, number: int) -> None:
        """Remove what interrupted writers left: the folder of version `number`, which is the next, and pruned files."""
        self.discard(number)
        self.clean_pruned()
        (self.path / CREATING).unlink(missing_ok=True)

    def clean_pruned(self) -> None:
        """Remove the files of pruned versions."""
        pruned = self.path / PRUNED
        with suppress(OSError):
            for name in os.listdir(pruned):
                with suppress(OSError):
                    _remove_folder(pruned / name)
            pruned.rmdir()

    def free_number(self, state: State) -> int:
        """The number of the next version. A folder that is still there keeps its number.

        After an older manifest was restored, a process may still use a version with that number.
        """
        number = state.next
        while self.folder(number).exists():
            number += 1
        return number

    def move(self, number: int) -> bool:
        """Move the folder of a version to the pruned ones; a later version that uses its index has been moved."""
        try:
            (self.path / PRUNED).mkdir(exist_ok=True)
            os.rename(self.folder(number), self.path / PRUNED / str(number))
        except PermissionError:
            # Windows does not move a folder whose files a reader has mapped.
            return False
        return True

    def discard(self, number: int) -> None:
        """Remove the folder of a version unless a process uses it."""
        if not self.pinned(number):
            self.remove(number)

    def remove(self, number: int) -> None:
        """Remove the folder of a version. The next writer removes files that cannot be removed now."""
        with suppress(OSError):
            _remove_folder(self.folder(number))

    def pinned(self, number: int) -> bool:
        """Whether a process uses the version."""
        handle = open_lock(self.folder(number), create=False)
        if handle is None:
            return False
        try:
            return not try_lock(handle)
        finally:
            os.close(handle)


def _remove_folder(folder: Path) -> None:
    for name in os.listdir(folder):
        if OURS.fullmatch(name) or name in (REMOVED, ENTRY):
            (folder / name).unlink()
    folder.rmdir()
