"""The live index that another folder is a copy of: its manifest, and the files of its current version."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from hedgerow._urls import RemotePath
from hedgerow.errors import IndexFileError
from hedgerow.index.manifest import MANIFEST as INDEX_MANIFEST
from hedgerow.index.manifest import parsed_manifest
from hedgerow.live.manifest import ENTRY, MANIFEST, State, VersionInfo, entry_of, state_of
from hedgerow.live.version_folders import REMOVED, VERSIONS

AGAIN = "Copy the live index there again, current.json last, or publish another version."


class OriginError(IndexFileError):
    """A file of the source is missing, damaged, or cannot be read."""


@dataclass(frozen=True)
class DataFile:
    """A file with a size and a SHA-256."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Folder:
    """The files in the folder of a version.

    Attributes:
        number: the number of the version.
        texts: the small files, each as its name and content.
        files: the other files.
    """

    number: int
    texts: tuple[tuple[str, bytes], ...]
    files: tuple[DataFile, ...]


@dataclass(frozen=True)
class Origin:
    """A live index at a path of fsspec, which is only read."""

    root: RemotePath

    def state(self) -> State:
        """Read the manifest.

        Raises:
            OriginError: it cannot be read, or is damaged.
        """
        path = self.root / MANIFEST
        with self._errors(path, f"so {self.root} is not a live index. Create one with hedgerow live init."):
            return state_of(path.read(), path)

    def folders(self, info: VersionInfo) -> list[Folder]:
        """The folders that a version consists of: its own, and that of its index.

        Raises:
            OriginError: a manifest cannot be read, is damaged, or belongs to another version.
        """
        return [self._folder(info, number) for number in sorted({info.index, info.number})]

    def _folder(self, current: VersionInfo, number: int) -> Folder:
        path = self._path(number, ENTRY)
        with self._errors(path):
            data = path.read()
            info = entry_of(data, path, number)
        texts, files = [(ENTRY, data)], []
        if number == current.number:
            if info != current:
                raise OriginError(f"{path} is not the entry of version {number} in {MANIFEST}. {AGAIN}")
            files += [] if info.removed is None else [DataFile(REMOVED, info.removed.bytes, info.removed.sha256)]
        if number == current.index:
            path = self._path(number, INDEX_MANIFEST)
            with self._errors(path):
                data = path.read()
                manifest = parsed_manifest(data, path)
            if current.index_sha256 not in (None, manifest["sha256"]):
                raise OriginError(f"{path} is not the manifest of the index of version {current.number}. {AGAIN}")
            texts.append((INDEX_MANIFEST, data))
            entries = manifest["files"].values()
            files += [DataFile(entry["name"], entry["bytes"], entry["sha256"]) for entry in entries]
        return Folder(number, tuple(texts), tuple(files))

    def read(self, number: int, file: DataFile, ranges: list[tuple[int, int]]) -> list[bytes]:
        """Read parts of a file in the folder of a version, from start to stop each.

        Raises:
            OriginError: the file cannot be read, or is shorter.
        """
        path = self._path(number, file.name)
        with self._errors(path):
            parts = path.read_ranges(ranges)
        if [len(part) for part in parts] != [stop - start for start, stop in ranges]:
            raise OriginError(f"{path} does not have {file.bytes:,} bytes. {AGAIN}")
        return parts

    def damaged(self, number: int, file: DataFile) -> OriginError:
        """The error for a file that was read completely, and differs from its checksum."""
        return OriginError(f"{self._path(number, file.name)} is damaged: its checksum differs. {AGAIN}")

    def _path(self, number: int, name: str) -> RemotePath:
        return self.root / VERSIONS / str(number) / name

    @contextmanager
    def _errors(self, path: RemotePath, missing: str = f"but {MANIFEST} needs it. {AGAIN}") -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise OriginError(f"{path} does not exist, {missing}") from None
        except OSError as error:
            raise OriginError(f"{path} cannot be read: {error}") from error
        except IndexFileError as error:
            raise OriginError(str(error)) from error
