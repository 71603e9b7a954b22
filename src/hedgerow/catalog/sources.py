"""The files of a source: a file, a folder, a glob pattern, a list of these, or an open binary file."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias
from urllib.parse import unquote

import numpy as np

from hedgerow.errors import CatalogError

if TYPE_CHECKING:
    import pyarrow as pa

Source: TypeAlias = str | Path | BinaryIO | Sequence[str | Path]
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
        content: the path, or an open binary file.
        partitions: the columns that the names of folders hold, as in year=2020.
    """

    content: Path | BinaryIO
    partitions: Mapping[str, str | None] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name of the file in messages."""
        return str(self.content if isinstance(self.content, Path) else getattr(self.content, "name", "the open file"))

    @property
    def suffix(self) -> str:
        """The end of the name, without that of a compression."""
        return suffix_of(Path(self.name))

    @cached_property
    def _bytes(self) -> bytes:
        """The content of an open file, which stays open."""
        assert not isinstance(self.content, Path)
        if self.content.seekable():
            self.content.seek(0)
        return self.content.read()

    @contextmanager
    def opened(self) -> Iterator[Any]:
        """The file, open for reading by Arrow."""
        import pyarrow as pa

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
        source: a path, a glob pattern, a folder, a list of these, or an open binary file. Of a folder, files and
            folders whose names start with "_" or "." are skipped, as well as files of another kind.
        kind: one of SUFFIXES.

    Raises:
        CatalogError: there is no such file.
    """
    if hasattr(source, "read"):
        return [File(source)]
    if isinstance(source, (str, os.PathLike)):
        return _files_of_path(Path(os.fspath(source)), kind)
    if not isinstance(source, Iterable) or isinstance(source, (Mapping, bytes)):
        raise CatalogError(f"expected a path, a list of paths, or an open file; got {type(source).__name__}.")
    paths = list(source)
    for path in paths:
        if not isinstance(path, (str, os.PathLike)):
            raise CatalogError(f"expected a list of paths; it contains {path!r}.")
    if not paths:
        raise CatalogError("the list of paths is empty.")
    files = [file for path in paths for file in _files_of_path(Path(path), kind)]
    if len(paths) == 1 or any(file.partitions for file in files):
        return files
    root = Path(os.path.commonpath([Path(file.name).absolute().parent for file in files]))
    return [_file(Path(file.name), root) for file in files]


def _files_of_path(path: Path, kind: str) -> list[File]:
    path = path.expanduser()
    if path.is_dir():
        return _files_of_folder(path, path, kind)
    if path.exists():
        return [File(path)]
    if not GLOB.search(str(path)):
        raise CatalogError(f"{path} does not exist.")
    matches = sorted(map(Path, glob.glob(str(path), recursive=True)))
    root = Path(*_until_glob(path.parts))
    files = [
        file
        for match in matches
        for file in (_files_of_folder(match, root, kind) if match.is_dir() else [_file(match, root)])
    ]
    if not files:
        raise CatalogError(f"{path} matches no files.")
    return list({file.name: file for file in files}.values())


def _until_glob(parts: Sequence[str]) -> Iterator[str]:
    for part in parts[:-1]:
        if GLOB.search(part):
            return
        yield part


def _files_of_folder(folder: Path, root: Path, kind: str) -> list[File]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not _is_hidden(path.relative_to(folder))]
    files = [path for path in files if suffix_of(path) in SUFFIXES[kind]] or files
    if not files:
        raise CatalogError(f"the folder {folder} contains no files.")
    return [_file(path, root) for path in files]


def _is_hidden(path: Path) -> bool:
    return any(part.startswith((".", "_")) for part in path.parts)


def _file(path: Path, root: Path) -> File:
    """A file with the partitions of the folders below `root`."""
    folders = Path(os.path.relpath(path, root)).parts[:-1]
    pairs = (folder.partition("=") for folder in folders if "=" in folder)
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
