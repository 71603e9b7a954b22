"""The files of a source: a file, a folder, a glob pattern (here or as URLs), a list of these, or an open file."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, TypeAlias, get_args
from urllib.parse import unquote

import numpy as np

from hedgerow._urls import RemotePath, path_of
from hedgerow.errors import CatalogError

if TYPE_CHECKING:
    import pyarrow as pa

Source: TypeAlias = str | Path | BinaryIO | Sequence[str | Path]
# The order of day, month and year in a date.
DateOrder: TypeAlias = Literal["dmy", "mdy", "ymd"]
DATE_ORDERS: tuple[DateOrder, ...] = get_args(DateOrder)
Types: TypeAlias = "Mapping[str, pa.DataType] | pa.Schema"

SUFFIXES = {
    "parquet": (".parquet", ".parq", ".pq"),
    "csv": (".csv", ".tsv"),
    "json": (".json", ".jsonl", ".ndjson"),
    "npy": (".npy",),
}
COMPRESSED = (".gz", ".bz2", ".zst", ".lz4", ".br")
GLOB = re.compile(r"[*?\[]")
# The name of the folder of rows without a value, as Hive and Spark write it.
NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class File:
    """One file of a source.

    Attributes:
        content: the path, here or of a URL, or an open binary file.
        partitions: the columns that the names of folders hold, as in year=2020.
    """

    content: Path | RemotePath | BinaryIO
    partitions: Mapping[str, str | None] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name of the file in messages."""
        is_path = isinstance(self.content, (Path, RemotePath))
        return str(self.content if is_path else getattr(self.content, "name", "the open file"))

    @property
    def suffix(self) -> str:
        """The end of the name, without that of a compression."""
        return suffix_of(Path(self.name))

    @property
    def is_remote(self) -> bool:
        """Whether Arrow reads the file through Python, and should not do so in threads of its own: `arrow_buffer`."""
        return isinstance(self.content, RemotePath)

    @cached_property
    def _bytes(self) -> bytes:
        """The content of an open file, which stays open."""
        assert not isinstance(self.content, (Path, RemotePath))
        if self.content.seekable():
            self.content.seek(0)
        return self.content.read()

    @contextmanager
    def opened(self) -> Iterator[Any]:
        """The file, open for reading by Arrow."""
        import pyarrow as pa

        if isinstance(self.content, RemotePath):
            with self.content.opened() as content, pa.PythonFile(content, "r") as file:
                yield file
            return
        is_path = isinstance(self.content, Path)
        with pa.OSFile(str(self.content)) if is_path else pa.BufferReader(arrow_buffer(self._bytes)) as file:
            yield file


def arrow_buffer(data: bytes | np.ndarray) -> pa.Buffer:
    """A copy of bytes in the memory of Arrow.

    A thread of Arrow that releases the memory of Python while the interpreter exits ends the process, or waits forever.
    """
    import pyarrow as pa

    buffer = pa.allocate_buffer(len(data))
    np.frombuffer(buffer, np.uint8)[:] = np.frombuffer(data, np.uint8)
    return buffer


def suffix_of(path: Path) -> str:
    """The suffix of a path in lower case, without that of a compression."""
    return (path.with_suffix("") if path.suffix.lower() in COMPRESSED else path).suffix.lower()


def files_of(source: Any, kind: str) -> list[File]:
    """The files of a source, in the order of their names; at least one.

    Args:
        source: a path or URL, a glob pattern, a folder, a list of these, or an open binary file. Of a folder, files
            and folders whose names start with "_" or "." are skipped, as well as files of another kind.
        kind: one of SUFFIXES.

    Raises:
        CatalogError: there is no such file.
    """
    if hasattr(source, "read"):
        return [File(source)]
    if isinstance(source, (str, os.PathLike)):
        return _files_of_path(source, kind)
    if not isinstance(source, Iterable) or isinstance(source, (Mapping, bytes)):
        raise CatalogError(f"expected a path, a list of paths, or an open file; got {type(source).__name__}.")
    paths = list(source)
    for path in paths:
        if not isinstance(path, (str, os.PathLike)):
            raise CatalogError(f"expected a list of paths; it contains {path!r}.")
    if not paths:
        raise CatalogError("the list of paths is empty.")
    files = [file for path in paths for file in _files_of_path(path, kind)]
    if len(paths) == 1 or any(file.partitions for file in files):
        return files
    found = [file.content for file in files if isinstance(file.content, (Path, RemotePath))]
    folders = [_parts(path)[:-1] for path in found]
    shared = takewhile(lambda names: len(set(names)) == 1, zip(*folders, strict=False))
    root = len(list(shared))
    return [_file(path, root) for path in found]


def _files_of_path(given: str | os.PathLike[str], kind: str) -> list[File]:
    path = path_of(given)
    try:
        files = _found(path, kind)
    except OSError as error:
        raise CatalogError(f"{path} cannot be read: {error}") from None
    if not files:
        raise CatalogError(f"{path} matches no files.")
    return list({file.name: file for file in files}.values())


def _found(path: Path | RemotePath, kind: str) -> list[File]:
    """The files of a file, a folder or a glob pattern.

    Raises:
        CatalogError: there is no such file or folder, and it is no pattern.
        OSError: a file system cannot be read.
    """
    parts = _parts(path)
    what = _what(path)
    if what == "directory":
        return _files_of_folder(path, len(parts), kind)
    if what is not None:
        return [File(path)]
    if not GLOB.search(str(path)):
        raise CatalogError(f"{path} does not exist.")
    root = len(list(_until_glob(parts)))
    matches = sorted(map(Path, glob.glob(str(path), recursive=True))) if isinstance(path, Path) else path.glob()
    return [
        file
        for match in matches
        for file in (_files_of_folder(match, root, kind) if _what(match) == "directory" else [_file(match, root)])
    ]


def _what(path: Path | RemotePath) -> str | None:
    """What a path is: "directory", "file" (or a pipe), or None if it does not exist."""
    if isinstance(path, RemotePath):
        return path.kind()
    return "directory" if path.is_dir() else "file" if path.exists() else None


def _parts(path: Path | RemotePath) -> tuple[str, ...]:
    """The folders and the name of a path."""
    return path.absolute().parts if isinstance(path, Path) else tuple(path.path.rstrip("/").split("/"))


def _until_glob(parts: Sequence[str]) -> Iterator[str]:
    for part in parts[:-1]:
        if GLOB.search(part):
            return
        yield part


def _files_of_folder(folder: Path | RemotePath, root: int, kind: str) -> list[File]:
    below = (
        [path for path in sorted(folder.rglob("*")) if path.is_file()] if isinstance(folder, Path) else folder.find()
    )
    depth = len(_parts(folder))
    files = [path for path in below if not any(part.startswith((".", "_")) for part in _parts(path)[depth:])]
    files = [path for path in files if suffix_of(Path(str(path))) in SUFFIXES[kind]] or files
    if not files:
        raise CatalogError(f"the folder {folder} contains no files.")
    return [_file(path, root) for path in files]


def _file(path: Path | RemotePath, root: int) -> File:
    """A file with the partitions of its folders, without the first `root` of them."""
    pairs = (folder.partition("=") for folder in _parts(path)[root:-1] if "=" in folder)
    values = {unquote(name): None if value == NULL_PARTITION else unquote(value) for name, _, value in pairs}
    return File(path, values)


def kind_of(source: Any) -> str:
    """The kind of the files of a source: one of SUFFIXES.

    Raises:
        CatalogError: the names of the files do not tell it, or there are none.
    """
    paths = [source] if isinstance(source, (str, os.PathLike)) else list(source)
    suffixes = {suffix_of(Path(path)) for path in paths}
    if not all(map(_kind_of_suffix, suffixes)):
        found = {file.suffix for kind in SUFFIXES for file in files_of(paths, kind)}
        suffixes = {suffix for suffix in found if _kind_of_suffix(suffix)} or found
    kinds = set(map(_kind_of_suffix, suffixes))
    if len(kinds) != 1 or None in kinds:
        raise CatalogError(
            f"{', '.join(map(str, paths))}: expected files of one kind, with names that end in .parquet, .csv, .tsv, "
            f".json, .jsonl or .npy; got {', '.join(map(repr, sorted(suffixes)))}."
        )
    return str(kinds.pop())


def _kind_of_suffix(suffix: str) -> str | None:
    return next((kind for kind, suffixes in SUFFIXES.items() if suffix in suffixes), None)
