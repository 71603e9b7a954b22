"""URLs in place of paths: files of object stores and of other machines, read through fsspec."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from urllib.request import url2pathname

from hedgerow.errors import ArgumentError, HedgerowError, MissingDependencyError

# A scheme has at least two letters, because C:/ is a drive.
URL = re.compile(r"([A-Za-z][A-Za-z0-9+.:-]+):/(/?)(.*)", re.DOTALL)
FILE_URL = re.compile(r"file://(?:localhost)?(/.*)", re.DOTALL)


@dataclass(frozen=True)
class RemotePath:
    """A file or folder of a file system of fsspec. Errors of reading are OSErrors, of whatever kind fsspec's are.

    Attributes:
        fs: the file system.
        path: the path in it.
    """

    fs: Any
    path: str

    def __str__(self) -> str:
        return self.fs.unstrip_protocol(self.path)

    def __truediv__(self, name: str) -> RemotePath:
        return self.at(f"{self.path.rstrip('/')}/{name}")

    def at(self, path: str) -> RemotePath:
        """Another path of the same file system."""
        return RemotePath(self.fs, path)

    def kind(self) -> str | None:
        """What the path is, "file" or "directory"; None if it does not exist."""
        with _as_os_errors():
            try:
                return self.fs.info(self.path)["type"]
            except FileNotFoundError:
                return None

    def find(self) -> list[RemotePath]:
        """The files in this folder and its subfolders, by name."""
        with _as_os_errors():
            return [self.at(path) for path in sorted(self.fs.find(self.path))]

    def glob(self) -> list[RemotePath]:
        """The files and folders that match this pattern, by name."""
        with _as_os_errors():
            return [self.at(path) for path in sorted(self.fs.glob(self.path))]

    def read(self) -> bytes:
        """The content of the file."""
        with _as_os_errors():
            return self.fs.cat_file(self.path)

    def read_ranges(self, ranges: list[tuple[int, int]]) -> list[bytes]:
        """The bytes from `start` to `stop` of each range, which may be fetched at the same time."""
        with _as_os_errors():
            starts, stops = zip(*ranges, strict=True)
            return self.fs.cat_ranges([self.path] * len(ranges), list(starts), list(stops), on_error="raise")

    @contextmanager
    def opened(self) -> Iterator[BinaryIO]:
        """The file, open for reading at any position."""
        with _as_os_errors(), self.fs.open(self.path, "rb") as file:
            yield file


@contextmanager
def _as_os_errors() -> Iterator[None]:
    """Raise errors of file systems, such as botocore's of missing credentials, as OSErrors."""
    try:
        yield
    except (OSError, ValueError, RecursionError, NotImplementedError, HedgerowError):
        raise
    except Exception as error:
        raise OSError(f"{type(error).__name__}: {error}") from error


def url_of(path: Any) -> str | None:
    """The URL that a text or a path is; None if it is none. `Path` makes s3:/bucket of s3://bucket: that is undone."""
    match = URL.fullmatch(str(path)) if isinstance(path, (str, os.PathLike)) else None
    if match is None or match[2]:
        return match and match[0]
    return f"{match[1]}://{'/' * (match[1] == 'file')}{match[3]}"


def path_of(path: str | os.PathLike[str]) -> Path | RemotePath:
    """A path on this machine, with `~` expanded, also of a file:// URL; or that of another URL.

    Raises:
        MissingDependencyError: a URL needs a package that is not installed.
        ArgumentError: the protocol of a URL is unknown.
    """
    return local_path(path) or remote_path(path)


def local_path(path: str | os.PathLike[str]) -> Path | None:
    """A path on this machine, with `~` expanded, also of a file:// URL; None for another URL."""
    url = url_of(path)
    if url is None:
        return Path(path).expanduser()
    local = FILE_URL.fullmatch(url)
    return None if local is None else Path(url2pathname(local[1]))


def remote_path(path: str | os.PathLike[str]) -> RemotePath:
    """A URL, or a path on this machine, as a path of fsspec. What fsspec remembers of the file system is dropped.

    Raises:
        MissingDependencyError: a URL needs a package that is not installed.
        ArgumentError: the protocol of a URL is unknown.
    """
    text = url_of(path) or os.path.abspath(Path(path).expanduser())
    try:
        from fsspec.core import url_to_fs

        fs, inner = url_to_fs(text)
    except ImportError as error:
        # fsspec names the package in words, and the missing module in the cause.
        package = getattr(error.__cause__ or error, "name", None) or "of its protocol"
        raise MissingDependencyError.of(f"reading {text}", package, "remote") from error
    except ValueError as error:
        raise ArgumentError(f"{text} cannot be read: {error}") from None
    fs.invalidate_cache()
    return RemotePath(fs, inner)


@contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file on this machine or of a URL, open for reading.

    Raises:
        OSError: the file cannot be read.
    """
    found = path_of(path)
    with found.open("rb") if isinstance(found, Path) else found.opened() as file:
        yield file
