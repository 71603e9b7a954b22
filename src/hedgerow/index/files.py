"""A saved index: a folder of a manifest, the trie (safetensors) and the items (Parquet).

docs/reference/file-format.md specifies the format. Data files are named by their checksums, and an atomic rename puts
the manifest in place last. A reader therefore sees the old index or the new one, even if a writer is interrupted.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hedgerow.catalog.catalog import ITEM_ID
from hedgerow.errors import ArgumentError, IndexFileError
from hedgerow.index.fanout import count_children, expected_arrays
from hedgerow.index.level import ARRAYS, Level, words_of
from hedgerow.index.tensors import read_tensors, write_tensors
from hedgerow.index.trie import Trie, leaf_arrays

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = "hedgerow"
VERSION = 1
MANIFEST = "manifest.json"
# The manifest of a live index, which a folder may contain instead: see live/manifest.py.
LIVE = "current.json"
LOCK = ".lock"
OURS = re.compile(r"(trie|items)-([0-9a-f]{16}\.(safetensors|parquet)|new)|manifest-new|\.lock|manifest\.json")
DATA = re.compile(r"(trie|items)-[0-9a-f]{16}\.(safetensors|parquet)")
REBUILD = "Build and save the index again."


def save_trie(index: Trie, path: str | Path, *, write_items: Callable[[Path], None] | None = None) -> None:
    """Write an index to the folder `path`. `hedgerow.TrieIndex.save` documents the errors.

    Args:
        index: the index.
        path: the folder.
        write_items: writes the items as Parquet to a path, if they are too many for one table. Default: writes
            `index.items_table`.
    """
    folder = as_folder(path)
    try:
        claim_folder(folder)
        with locked(folder):
            _write(index, folder, write_items or partial(_write_items, index.items_table))
    except OSError as error:
        raise IndexFileError(f"the index cannot be saved to {folder}: {error.strerror or error}.") from error


def _write(index: Trie, folder: Path, write_items: Callable[[Path], None]) -> None:
    trie, items, manifest = (folder / f"{part}-new" for part in ("trie", "items", "manifest"))
    for stale in (trie, items, manifest):
        stale.unlink(missing_ok=True)
    try:
        write_tensors(_tensors(index), trie)
        write_items(items)
        files = {"trie": _sealed(trie, "trie-{}.safetensors"), "items": _sealed(items, "items-{}.parquet")}
        replace_file(manifest, folder / MANIFEST, _manifest_bytes(index, files))
    finally:
        for new in (trie, items, manifest):
            new.unlink(missing_ok=True)
    kept = {MANIFEST, LOCK, *(entry["name"] for entry in files.values())}
    for name in set(os.listdir(folder)) - kept:
        # Windows keeps a file that a reader has mapped; the next save removes it. Folders are never removed.
        if OURS.fullmatch(name):
            with suppress(PermissionError, IsADirectoryError):
                os.unlink(folder / name)


def load_trie(path: str | Path, *, mmap: bool = False, verify: bool | None = None) -> Trie:
    """Load the trie in the folder `path`. `hedgerow.load_index` documents the arguments and errors."""
    folder = as_folder(path)
    check = not mmap if verify is None else verify
    try:
        while True:
            stamp = stamp_of(folder / MANIFEST)
            try:
                return _load(folder, read_manifest(folder), mmap=mmap, verify=check)
            except FileNotFoundError as error:
                # If a writer has replaced the index since its manifest was read, the new manifest names other files.
                if stamp_of(folder / MANIFEST) == stamp:
                    raise IndexFileError(f"{error.filename} is missing. {REBUILD}") from error
    except OSError as error:
        raise IndexFileError(f"{folder} cannot be read: {error.strerror or error}.") from error


def stamp_of(path: Path) -> tuple[int, int] | None:
    """The inode and modification time of a file, which differ from those of its replacement; None if it is missing."""
    try:
        info = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return info.st_ino, info.st_mtime_ns


def as_folder(path: str | Path) -> Path:
    """Convert a path to that of a folder, with `~` expanded.

    Raises:
        ArgumentError: `path` is not a path.
    """
    try:
        folder = Path(path).expanduser()
        has_nul = b"\0" in os.fsencode(folder)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ArgumentError(f"expected the path of a folder; got {path!r}: {error}.") from None
    if has_nul:
        raise ArgumentError(f"a path cannot contain a NUL character; got {path!r}.")
    return folder


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read the manifest of the index in `folder`, and check its format and checksum.

    Raises:
        IndexFileError: as for `hedgerow.load_index`.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise IndexFileError(_no_manifest(folder))
    try:
        manifest = json.loads(path.read_bytes())
        if manifest["format"] != FORMAT:
            raise KeyError("format")
        version = manifest["version"]
        if type(version) is not int or version < 1:
            raise ValueError("version")
        complete = version > VERSION or _is_complete(manifest)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        raise IndexFileError(f"{path} is not the manifest of a hedgerow index, or it is damaged.") from None
    if version > VERSION:
        raise IndexFileError(
            f"{folder} has format version {version}; this hedgerow reads up to {VERSION}. Upgrade hedgerow, or build "
            "the index again."
        )
    if not complete or manifest.get("sha256") != digest_of(manifest):
        raise IndexFileError(f"{path} was altered or damaged: its checksum differs. {REBUILD}")
    return manifest


def _no_manifest(folder: Path) -> str:
    """The error message for a folder without a manifest."""
    if folder.is_file():
        return f"{folder} is a file; a saved index is a folder. Pass the folder."
    if (folder / LIVE).is_file():
        return _live_index(folder)
    problem = "does not exist" if not folder.exists() else f"holds no {MANIFEST}, so it is not a saved index"
    return f"{folder} {problem}. Write an index with index.save(path) or hedgerow build."


def _live_index(folder: Path) -> str:
    """The error message for a live index: names the index that it serves, if its manifest can be read."""
    message = f"{folder} is a live index, a folder of versions, and not a saved index."
    with suppress(OSError, ValueError, KeyError, TypeError, StopIteration):
        state = json.loads((folder / LIVE).read_bytes())
        served = next(entry for entry in state["versions"] if entry["number"] == state["current"])
        removed = ", with the items that were removed since" * (served["removed"] is not None)
        index = folder / "versions" / str(served["index"])
        message += f" The index of version {state['current']}, which is served, is {index}{removed}."
    return f"{message} See hr.LiveIndex.open(path).version, or hedgerow live status."


def _is_complete(manifest: dict[str, Any]) -> bool:
    """Whether every entry has the right type and names no file outside the folder. Raises if an entry is missing."""
    numbers = [manifest["items"]]
    for level in manifest["levels"]:
        numbers += [level[name] for name in ("codebook_size", "max_branch", "nodes")]
    files = [manifest["files"][part] for part in ("trie", "items")]
    numbers += [entry["bytes"] for entry in files]
    valid_names = all(DATA.fullmatch(entry["name"]) and isinstance(entry["sha256"], str) for entry in files)
    return (
        valid_names
        and all(entry["bytes"] for entry in files)
        and all(isinstance(level["dense"], bool) for level in manifest["levels"])
        and all(type(number) is int and number >= 0 for number in numbers)
        and manifest["levels"] != []
        and _has_valid_ragged(manifest)
    )


def _has_valid_ragged(manifest: dict[str, Any]) -> bool:
    """Whether the key `ragged` is absent, or true with room for the end codes."""
    if "ragged" not in manifest:
        return True
    lower = manifest["levels"][1:]
    return bool(manifest["ragged"] is True and lower and all(level["codebook_size"] >= 2 for level in lower))


def _load(folder: Path, manifest: dict[str, Any], *, mmap: bool, verify: bool) -> Trie:
    trie, items = (folder / manifest["files"][part]["name"] for part in ("trie", "items"))
    for part, path in (("trie", trie), ("items", items)):
        _check_file(path, manifest["files"][part], verify=verify)
    tensors = read_tensors(trie, mmap=mmap)
    levels = []
    parents = 1
    for number, entry in enumerate(manifest["levels"]):
        end = entry["codebook_size"] - 1 if number and "ragged" in manifest else None
        levels.append(_level(trie, tensors, number, entry, parents, end))
        parents = entry["nodes"]
    leaf_start, leaf_forks = (tensors.pop(name, None) for name in ("leaf_start", "leaf_forks"))
    matches = not tensors and (_kind(leaf_start), _kind(leaf_forks)) == expected_arrays(parents, manifest["items"])
    if not matches or count_children(leaf_start, leaf_forks, parents) != manifest["items"]:
        raise IndexFileError(f"{trie} does not contain the arrays that the manifest describes. {REBUILD}")
    # Mapped now, so that items read later belong to this index even if a writer has replaced it.
    data = np.memmap(items, np.uint8, "r")
    return Trie(tuple(levels), leaf_start, leaf_forks, partial(_read_items, items, data, manifest["items"]))


def _check_file(path: Path, entry: dict[str, Any], *, verify: bool) -> None:
    """Compare the size of a data file, and its checksum if `verify`, with its entry in the manifest."""
    if (size := path.stat().st_size) != entry["bytes"]:
        raise IndexFileError(
            f"{path} has {size:,} bytes, but should have {entry['bytes']:,}: it was cut short or altered. {REBUILD}"
        )
    if verify and digest(path) != entry["sha256"]:
        raise IndexFileError(f"{path} was altered or damaged: its checksum differs. {REBUILD}")


def _level(
    path: Path, tensors: dict[str, np.ndarray], number: int, entry: dict[str, Any], parents: int, end: int | None
) -> Level:
    codes, child_start, forks, allowed = (tensors.pop(f"{name}.{number}", None) for name in ARRAYS)
    size, nodes = entry["codebook_size"], entry["nodes"]
    expected = (
        (np.min_scalar_type(size - 1), (nodes,)),
        *expected_arrays(parents, nodes),
        (np.dtype(np.uint32), (parents, words_of(size))) if entry["dense"] else None,
    )
    if tuple(map(_kind, (codes, child_start, forks, allowed))) != expected or codes is None:
        raise IndexFileError(f"{path}: the arrays of level {number} do not match the manifest. {REBUILD}")
    return Level(codes, child_start, forks, allowed, size, entry["max_branch"], end)


def _kind(array: np.ndarray | None) -> tuple[np.dtype, tuple[int, ...]] | None:
    return None if array is None else (array.dtype, array.shape)


def _tensors(index: Trie) -> dict[str, np.ndarray]:
    levels = enumerate(index.levels)
    tensors = {f"{name}.{number}": array for number, level in levels for name, array in level.arrays.items()}
    return tensors | leaf_arrays(index)


def _manifest_bytes(index: Trie, files: dict[str, Any]) -> bytes:
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "items": index.num_items,
        "levels": [
            {
                "codebook_size": level.codebook_size,
                "dense": level.allowed is not None,
                "max_branch": level.max_branch,
                "nodes": level.num_nodes,
            }
            for level in index.levels
        ],
        "files": files,
    }
    if index.ragged:
        manifest["ragged"] = True
    return json.dumps(manifest | {"sha256": digest_of(manifest)}, indent=1, sort_keys=True).encode() + b"\n"


def digest_of(manifest: dict[str, Any]) -> str:
    """The checksum of a manifest, which is stored under its key sha256: see docs/reference/file-format.md."""
    rest = {key: value for key, value in manifest.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def digest(path: Path) -> str:
    """The SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def claim_folder(folder: Path) -> None:
    """Create the folder, or check that it contains only files of an index.

    Raises:
        IndexFileError: the path is a file, or the folder contains another program's file.
    """
    if folder.exists() and not folder.is_dir():
        raise IndexFileError(f"{folder} is a file; an index is saved as a folder. Choose another path.")
    folder.mkdir(parents=True, exist_ok=True)
    names = os.listdir(folder)
    foreign = sorted(name for name in names if not OURS.fullmatch(name))
    if MANIFEST in names and _is_foreign((folder / MANIFEST).read_bytes(), alone=len(names) == 1):
        foreign = [MANIFEST]
    if LOCK in names and (folder / LOCK).stat().st_size:
        foreign = [LOCK]
    if foreign:
        raise IndexFileError(f"{folder} holds {foreign[0]!r}, which is not part of an index. Choose another path.")


def _is_foreign(manifest: bytes, *, alone: bool) -> bool:
    """Whether a manifest.json belongs to another program. A damaged one belongs to an index unless it is `alone`."""
    if f'"format": "{FORMAT}"'.encode() in manifest:
        return False
    try:
        json.loads(manifest)
    except (ValueError, RecursionError):
        return alone
    return True


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's exclusive lock, so that one process at a time writes. The lock ends with the process."""
    # Symbolic links are not followed, and an existing file is not truncated.
    handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o644)
    with open(handle, "wb") as lock:
        try:
            import fcntl
        except ModuleNotFoundError:
            # Windows has no such lock: there, the callers must ensure that only one process writes to a folder.
            yield
            return
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _write_items(table: pa.Table, path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # An open file, because Arrow interprets paths such as "~" and "a:b" differently than Python.
        with open(path, "wb") as file:
            pq.write_table(table, file, compression="zstd")
    except pa.ArrowException as error:
        raise IndexFileError(f"the attributes cannot be written as Parquet: {error}") from error


def _read_items(path: Path, data: np.ndarray, num_items: int) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # Not read_table, which imports pandas if it is installed; the import takes a third of a second.
        table = pq.ParquetFile(pa.BufferReader(pa.py_buffer(data))).read()
    except (OSError, pa.ArrowException) as error:
        raise IndexFileError(f"{path} cannot be read: {error}. {REBUILD}") from error
    if table.num_rows != num_items or table.column_names[:1] != [ITEM_ID]:
        raise IndexFileError(f"{path} does not contain the {num_items:,} items of the manifest. {REBUILD}")
    return table


def _sealed(path: Path, pattern: str) -> dict[str, Any]:
    """Flush a new file to disk, rename it by its checksum, and return its entry in the manifest."""
    sync(path)
    entry = {"bytes": path.stat().st_size, "sha256": digest(path)}
    entry["name"] = pattern.format(entry["sha256"][:16])
    os.replace(path, path.with_name(entry["name"]))
    return entry


def replace_file(new: Path, path: Path, content: bytes) -> None:
    """Write `content` to the file `path` atomically, by renaming the temporary file `new` in the same folder."""
    before = stamp_of(path)
    new.write_bytes(content)
    if before is not None:
        # A later modification time than that of the old file, because the new file may reuse its inode: `stamp_of`.
        date = max(before[1] + 1, new.stat().st_mtime_ns)
        os.utime(new, ns=(date, date))
    sync(new)
    sync(path.parent)
    os.replace(new, path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Flush a file or a folder to disk."""
    if os.name == "nt" and path.is_dir():
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
