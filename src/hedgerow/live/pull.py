"""pull(): make a folder a copy of the current version of a live index elsewhere.

The folder is a live index itself, so that readers follow it as they follow any other. Files are first written to
`pulling`, with the name of their version, and only complete versions are moved to `versions`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from hedgerow._urls import remote_path
from hedgerow.errors import IndexFileError
from hedgerow.index.build import Progress
from hedgerow.index.files import sync
from hedgerow.index.locks import LOCK
from hedgerow.live import kept
from hedgerow.live.copied import PULLED, source_of, write_source
from hedgerow.live.manifest import MANIFEST, State, VersionInfo
from hedgerow.live.origin import DataFile, Folder, Origin, OriginError
from hedgerow.live.store import Store
from hedgerow.live.version_folders import CREATING, PULLING, VERSIONS

# The bytes of a request, and the requests that are made at the same time.
BLOCK = 1 << 24
BLOCKS_AT_ONCE = 4
# How often a pull begins again because the source has changed.
ATTEMPTS = 20
PART = ".part"


def pull(source: str | os.PathLike[str], store: Store, keep: int, progress: Progress) -> VersionInfo:
    """Make the current version of a live index elsewhere the current one of a folder: see `LiveIndex.pull`.

    Args:
        source: the live index: a URL or a path.
        store: the folder.
        keep: the number of latest versions to keep in the folder.
        progress: called as ``progress("pull", done, total)``, in bytes.

    Returns:
        The entry of the version.
    """
    origin = Origin(remote_path(source))
    # Before anything is written: the source must be a live index.
    origin.state()
    try:
        _claim(store, str(origin.root))
    except OSError as error:
        raise IndexFileError(f"{store.path} cannot be written: {error.strerror or error}.") from error
    with store.locked():
        _claim(store, str(origin.root))
        state = origin.state()
        for _ in range(ATTEMPTS):
            try:
                _Pull(origin, store, state, progress).run(keep)
                return state.current
            except OriginError:
                before, state = state, origin.state()
                if state == before:
                    raise
    raise IndexFileError(f"{origin.root} has changed {ATTEMPTS} times while it was pulled. Pull again.")


def _claim(store: Store, source: str) -> None:
    """Make a new folder a copy of `source`, or check that it is one.

    Raises:
        IndexFileError: the folder is another live index, a copy of another one, or contains something else.
    """
    known = source_of(store.path)
    if known is None:
        store.claim()
        write_source(store.path, source)
    elif known != source:
        raise IndexFileError(
            f"{store.path} is a copy of {known}, not of {source}. Pull to another folder; or, if the same live index "
            f"has moved there, change the source in {store.path / PULLED}."
        )


@dataclass
class _Pull:
    """One attempt to pull a version."""

    origin: Origin
    store: Store
    state: State
    progress: Progress

    def run(self, keep: int) -> None:
        """Make the version current in the folder.

        Raises:
            OriginError: a file of the source is missing or damaged; perhaps the source has changed.
        """
        if self._is_current():
            self._clean()
            return
        self.store.clean_pruned()
        if not (self.store.path / MANIFEST).exists():
            (self.store.path / CREATING).touch()
        info, served = self.state.current, self._served()
        folders = [folder for folder in self.origin.folders(info) if not self._holds(folder, served)]
        missing = [(folder, file) for folder in folders for file in folder.files if not self._reuse(folder, file)]
        total = sum(file.bytes for _, file in missing)
        done = 0
        for folder, file in missing:
            self._fetch(folder, file, done, total)
            done += file.bytes
        for folder in folders:
            self._place(folder)
        self._switch(info)
        kept.prune(self.store, keep)
        self._clean()

    def _clean(self) -> None:
        shutil.rmtree(self.store.path / PULLING, ignore_errors=True)

    def _is_current(self) -> bool:
        """Whether the version is current in the folder, with all files in their sizes."""
        try:
            if self.store.read() != self.state:
                return False
            folders = Origin(remote_path(self.store.path)).folders(self.state.current)
            return all(_has_size(self._path(folder, file), file) for folder in folders for file in folder.files)
        except (OSError, IndexFileError):
            return False

    def _path(self, folder: Folder, file: DataFile) -> Path:
        return self.store.folder(folder.number) / file.name

    def _holds(self, folder: Folder, served: int | None) -> bool:
        """Whether the folder of a version is complete here, and not damaged.

        The files in the folder of the index that is served, `served`, have been compared with their checksums when it
        became current. Reading them again for each version that uses it would take longer than all else.
        """
        texts = all(_content(self.store.folder(folder.number) / name) == content for name, content in folder.texts)
        is_same = _has_size if folder.number == served else _is
        return texts and all(is_same(self._path(folder, file), file) for file in folder.files)

    def _served(self) -> int | None:
        """The number of the folder with the index of the current version here."""
        try:
            return self.store.read().current.index
        except IndexFileError:
            return None

    def _staged(self, folder: Folder) -> Path:
        return self.store.path / PULLING / str(folder.number)

    def _reuse(self, folder: Folder, file: DataFile) -> bool:
        """Take a file from an interrupted pull or another version. If there is none: a part of it, to go on from."""
        target = self._staged(folder) / file.name
        if _is(target, file):
            return True
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        part = target.with_name(file.name + PART)
        versions, pulling = self.store.path / VERSIONS, self.store.path / PULLING
        for path in [*versions.glob(f"*/{file.name}"), *pulling.glob(f"*/{file.name}")]:
            if _is(path, file):
                part.unlink(missing_ok=True)
                _link(path, part)
                os.replace(part, target)
                return True
        parts = [] if part.exists() else list(pulling.glob(f"*/{part.name}"))
        if parts:
            os.replace(parts[0], part)
        return False

    def _fetch(self, folder: Folder, file: DataFile, done: int, total: int) -> None:
        """Fetch a file, from where an interrupted pull has stopped."""
        target = self._staged(folder) / file.name
        part = target.with_name(file.name + PART)
        while True:
            start = part.stat().st_size if part.exists() else 0
            self.progress("pull", done + min(start, file.bytes), total)
            with part.open("ab") as out:
                step = BLOCK * BLOCKS_AT_ONCE
                for first in range(start, file.bytes, step):
                    stops = range(first, min(first + step, file.bytes), BLOCK)
                    ranges = [(begin, min(begin + BLOCK, file.bytes)) for begin in stops]
                    out.writelines(self.origin.read(folder.number, file, ranges))
                    self.progress("pull", done + ranges[-1][1], total)
            if _is(part, file):
                sync(part)
                os.replace(part, target)
                return
            part.unlink()
            # What was there before may be of another file.
            if not start:
                raise self.origin.damaged(folder.number, file)

    def _place(self, folder: Folder) -> None:
        """Move a complete folder to the versions. One that is there is damaged, or of another live index."""
        staged = self._staged(folder)
        staged.mkdir(parents=True, exist_ok=True)
        names = {name for name, _ in folder.texts} | {file.name for file in folder.files}
        for name in set(os.listdir(staged)) - names:
            (staged / name).unlink()
        for name, content in folder.texts:
            (staged / name).write_bytes(content)
            sync(staged / name)
        (staged / LOCK).touch()
        sync(staged)
        target = self.store.folder(folder.number)
        target.parent.mkdir(exist_ok=True)
        if target.exists():
            self.store.move(folder.number)
        os.rename(staged, target)

    def _switch(self, info: VersionInfo) -> None:
        """Make a complete version current, and remove what is no part of the live index."""
        try:
            self.store.load(info)
        except IndexFileError as error:
            raise OriginError(f"version {info.number} of {self.origin.root} cannot be read: {error}") from error
        self.store.switch(self.state)
        # Versions of a source that was replaced by an earlier copy.
        for number in self.store.numbers(None):
            if number >= self.state.next:
                self.store.move(number)


def _is(path: Path, file: DataFile) -> bool:
    """Whether a path is a file with that content."""
    if not _has_size(path, file):
        return False
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest() == file.sha256


def _has_size(path: Path, file: DataFile) -> bool:
    return path.is_file() and path.stat().st_size == file.bytes


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _link(path: Path, new: Path) -> None:
    """Give a file another name; copy it where that cannot be done. Files of versions are never modified."""
    try:
        os.link(path, new)
    except OSError:
        shutil.copyfile(path, new)
        sync(new)
