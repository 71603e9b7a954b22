"""A saved index: a folder of a manifest, the trie (safetensors) and the items (Arrow IPC).

docs/reference/file-format.md specifies the format. Data files are named by their checksums, and an atomic rename puts
the manifest in place last. A reader therefore sees the old index or the new one, even if a writer is interrupted.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from hedgerow._arguments import check_choice
from hedgerow._urls import local_path, url_of
from hedgerow.errors import ArgumentError, IndexFileError
from hedgerow.index.compact import FANS, VECTOR_ARRAYS, Coding, CompactLevel, is_possible, shapes_of
from hedgerow.index.fanout import count_children, expected_arrays
from hedgerow.index.items import ParquetItems, read_arrow, read_buffer, write_items
from hedgerow.index.lazy import made
from hedgerow.index.level import ARRAYS, Level, words_of
from hedgerow.index.locks import LOCK, LOCK_TIMEOUT, locked
from hedgerow.index.manifest import (
    DATA,
    FORMAT,
    MANIFEST,
    REBUILD,
    VERSION_OF,
    is_compact,
    manifest_bytes,
    read_manifest,
)
from hedgerow.index.select import BitVector
from hedgerow.index.structure import structure_fault
from hedgerow.index.tensors import Written, read_tensors, write_tensors
from hedgerow.index.trie import Trie, leaf_arrays

# The arrays of a level.
NAMES = (*ARRAYS, *VECTOR_ARRAYS)
OURS = re.compile(r"(trie|items)-([0-9a-f]{16}\.(safetensors|parquet|arrow)|new)|manifest-new|\.lock|manifest\.json")
ORDER = "id_order"
VERIFY = ("full", "structure", "none")
Verify = Literal["full", "structure", "none"]


def save_trie(
    index: Trie,
    path: str | Path,
    *,
    items: Callable[[Path], str] | None = None,
    written: Written = lambda *_: None,
    lock_timeout: float = LOCK_TIMEOUT,
) -> None:
    """Write an index to the folder `path`. `hedgerow.TrieIndex.save` documents the errors.

    Args:
        index: the index.
        path: the folder.
        items: writes the items to a path and returns the SHA-256 of the file, if they are too many for one table.
            Default: writes `index.items_table`.
        written: called with the name of each array of the trie, and the array, after it has been written.
        lock_timeout: the seconds to wait for another process that writes to the folder.
    """
    folder = as_folder(path)
    with index_file_errors(folder):
        claim_folder(folder)
        with locked(folder, lock_timeout):
            _write(index, folder, items or partial(write_items, index.items_table), written)


@contextmanager
def index_file_errors(folder: Path) -> Iterator[None]:
    """Raise an OSError in the block as an IndexFileError: the index cannot be saved to `folder`."""
    try:
        yield
    except OSError as error:
        raise IndexFileError(f"the index cannot be saved to {folder}: {error.strerror or error}.") from error


def _write(index: Trie, folder: Path, write: Callable[[Path], str], written: Written) -> None:
    trie, items, manifest = (folder / f"{part}-new" for part in ("trie", "items", "manifest"))
    for stale in (trie, items, manifest):
        stale.unlink(missing_ok=True)
    names = DATA[VERSION_OF[index.layout]]
    try:
        sha256 = {"trie": write_tensors(_tensors(index), trie, written), "items": write(items)}
        files = {part: _sealed(folder / f"{part}-new", name, sha256[part]) for part, name in names.items()}
        replace_file(manifest, folder / MANIFEST, manifest_bytes(index, files))
    finally:
        for new in (trie, items, manifest):
            new.unlink(missing_ok=True)
    kept = {MANIFEST, LOCK, *(entry["name"] for entry in files.values())}
    for name in set(os.listdir(folder)) - kept:
        # Windows keeps a file that a reader has mapped; the next save removes it. Folders are never removed.
        if OURS.fullmatch(name):
            with suppress(PermissionError, IsADirectoryError):
                os.unlink(folder / name)


def load_trie(
    path: str | Path, *, mmap: bool = False, verify: Verify | None = None, sha256: str | None = None
) -> tuple[Trie, str]:
    """Load the trie in the folder `path`, and return it with the checksum of its manifest.

    `hedgerow.load_index` documents the other arguments and the errors.

    Args:
        path: the folder.
        mmap: whether to map the files.
        verify: the checks.
        sha256: the checksum that the manifest must have. Default: any.
    """
    folder = as_folder(path)
    check_choice(verify, "verify", (*VERIFY, None))
    check = verify or ("structure" if mmap else "full")
    try:
        while True:
            stamp = stamp_of(folder / MANIFEST)
            try:
                manifest = read_manifest(folder)
                if sha256 not in (None, manifest["sha256"]):
                    raise IndexFileError(
                        f"{folder} contains another index than the one that was pickled, which was mapped from there. "
                        "Load the index again, or pickle one that was loaded with mmap=False, which contains its items."
                    )
                return _load(folder, manifest, mmap=mmap, verify=check), manifest["sha256"]
            except FileNotFoundError as error:
                # If a writer has replaced the index since its manifest was read, the new manifest names other files.
                if stamp_of(folder / MANIFEST) == stamp:
                    raise IndexFileError(f"{error.filename} is missing. {REBUILD}") from error
    except OSError as error:
        raise IndexFileError(f"{folder} cannot be read: {error.strerror or error}.") from error


def stamp_of(path: Path) -> tuple[int, int, int] | None:
    """The inode and the times of a file, which differ from those of its replacement; None if it is missing.

    A restored copy can have the inode and the modification time of the file that it replaces, but not its change time.
    """
    try:
        info = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return info.st_ino, info.st_mtime_ns, info.st_ctime_ns


def as_folder(path: str | Path) -> Path:
    """Convert a path, or a file:// URL, to that of a folder, with `~` expanded.

    Raises:
        ArgumentError: `path` is not a path.
        IndexFileError: `path` is another URL.
    """
    try:
        folder = local_path(path)
        has_nul = b"\0" in os.fsencode(folder or "")
    except (TypeError, ValueError, RuntimeError) as error:
        raise ArgumentError(f"expected the path of a folder; got {path!r}: {error}.") from None
    if folder is None:
        raise IndexFileError(
            f"{url_of(path)} is not on this machine. An index is a local folder, whose files are mapped into memory. "
            "Copy it here first; a live index with hr.LiveIndex.pull(url, folder), or hedgerow live pull."
        )
    if has_nul:
        raise ArgumentError(f"a path cannot contain a NUL character; got {path!r}.")
    return folder


def _load(folder: Path, manifest: dict[str, Any], *, mmap: bool, verify: Verify) -> Trie:
    read = partial(_read, folder, manifest, mmap=mmap, verify=verify)
    (trie, data), (items, content) = map(read, ("trie", "items"))
    tensors = read_tensors(data, trie)
    levels = []
    parents = 1
    for number, entry in enumerate(manifest["levels"]):
        end = entry["codebook_size"] - 1 if number and "ragged" in manifest else None
        of_level = {name: tensors.pop(key) for name in NAMES if (key := f"{name}.{number}") in tensors}
        read_level = _compact_level if is_compact(manifest) else _level
        if (level := read_level(of_level, entry, parents, end)) is None:
            raise IndexFileError(f"{trie}: the arrays of level {number} do not match the manifest. {REBUILD}")
        levels.append(level)
        parents = entry["nodes"]
    leaf_start, leaf_forks, order = (tensors.pop(name, None) for name in ("leaf_start", "leaf_forks", ORDER))
    expected = (*expected_arrays(parents, manifest["items"]), _kind_of_order(manifest))
    matches = not tensors and tuple(map(_kind, (leaf_start, leaf_forks, order))) == expected
    if not matches or count_children(leaf_start, leaf_forks, parents) != manifest["items"]:
        raise IndexFileError(f"{trie} does not contain the arrays that the manifest describes. {REBUILD}")
    if order is None:
        load_items = ParquetItems(items, content, manifest["items"])
    else:
        load_items = made(read_arrow(items, content, manifest["items"], validate=verify != "none"))
    load_order = None if order is None else made(order)
    index = Trie(tuple(levels), leaf_start, leaf_forks, load_items, _load_order=load_order)
    if verify != "none" and (fault := structure_fault(index)):
        raise IndexFileError(f"{trie} was altered, damaged or written incorrectly: {fault}. {REBUILD}")
    return index


def _kind_of_order(manifest: dict[str, Any]) -> tuple[np.dtype, tuple[int, ...]] | None:
    return None if manifest["version"] == 1 else (np.dtype(np.int32), (manifest["items"],))


def _read(folder: Path, manifest: dict[str, Any], part: str, *, mmap: bool, verify: Verify) -> tuple[Path, Any]:
    """Read or map a data file, and compare its size, and with "full" its checksum, with its entry in the manifest.

    Returns:
        The path; and the content as an array, or of an Arrow file as an Arrow buffer.
    """
    entry = manifest["files"][part]
    path = folder / entry["name"]
    size = path.stat().st_size
    data: Any = b""
    # The size is checked first, because reading a FIFO would wait, and an empty file cannot be mapped.
    if size == entry["bytes"]:
        data = read_buffer(path, mmap=mmap) if path.suffix == ".arrow" else _bytes_of(path, mmap=mmap)
    if len(data) != entry["bytes"]:
        raise IndexFileError(
            f"{path} has {size:,} bytes, but should have {entry['bytes']:,}: it was cut short or altered. {REBUILD}"
        )
    if verify == "full" and hashlib.sha256(memoryview(data)).hexdigest() != entry["sha256"]:
        raise IndexFileError(f"{path} was altered or damaged: its checksum differs. {REBUILD}")
    return path, data


def _bytes_of(path: Path, *, mmap: bool) -> np.ndarray:
    # A plain ndarray, because np.memmap runs Python code for every slice.
    data = (np.memmap(path, np.uint8, "r") if mmap else np.fromfile(path, np.uint8)).view(np.ndarray)
    data.setflags(write=False)
    return data


def _level(arrays: dict[str, np.ndarray], entry: dict[str, Any], parents: int, end: int | None) -> Level | None:
    """A level of its arrays by name, or None if they do not match its entry in the manifest."""
    codes, child_start, forks, allowed = map(arrays.get, ARRAYS)
    size, nodes = entry["codebook_size"], entry["nodes"]
    expected = (
        (np.min_scalar_type(size - 1), (nodes,)),
        *expected_arrays(parents, nodes),
        (np.dtype(np.uint32), (parents, words_of(size))) if entry["dense"] else None,
    )
    known = len(arrays) == sum(kind is not None for kind in expected)
    if not known or tuple(map(_kind, (codes, child_start, forks, allowed))) != expected or codes is None:
        return None
    return Level(codes, child_start, forks, allowed, size, entry["max_branch"], end)


def _compact_level(
    arrays: dict[str, np.ndarray], entry: dict[str, Any], parents: int, end: int | None
) -> CompactLevel | None:
    """The same as `_level`, for the compact layout."""
    size, nodes, low_bits = entry["codebook_size"], entry["nodes"], entry["low_bits"]
    fan = next((fan for fan, name in FANS.items() if name in arrays), "unary")
    coding = Coding(fan, low_bits)
    if not is_possible(parents, nodes, size, coding):
        return None
    expected = shapes_of(parents, nodes, size, coding)
    if entry["dense"]:
        expected["allowed"] = np.dtype(np.uint32), (parents, words_of(size))
    if {name: _kind(array) for name, array in arrays.items()} != expected:
        return None
    vector = None
    if fan == "elias-fano":
        vector = BitVector(arrays["high"], arrays["zeros_before"], arrays.get("ones_before"))
    start, forks, allowed = map(arrays.get, ("child_start", "forks", "allowed"))
    return CompactLevel(
        arrays["codes"], low_bits, vector, start, forks, allowed, nodes, parents, size, entry["max_branch"], end
    )


def _kind(array: np.ndarray | None) -> tuple[np.dtype, tuple[int, ...]] | None:
    return None if array is None else (array.dtype, array.shape)


def _tensors(index: Trie) -> dict[str, np.ndarray]:
    levels = enumerate(index.levels)
    tensors = {f"{name}.{number}": array for number, level in levels for name, array in level.arrays.items()}
    return tensors | leaf_arrays(index) | {ORDER: index._id_order}


def claim_folder(folder: Path) -> None:
    """Create the folder, or check that it contains only files of an index. The errors are those of `check_folder`."""
    check_folder(folder)
    if not folder.exists():
        folder.mkdir(parents=True, exist_ok=True)


def check_folder(folder: Path) -> None:
    """Check that the folder does not exist, or contains only files of an index.

    Raises:
        IndexFileError: the path is a file, or the folder contains another program's file.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise IndexFileError(f"{folder} is a file; an index is saved as a folder. Choose another path.")
    names = os.listdir(folder)
    foreign = sorted(name for name in names if not OURS.fullmatch(name) or _is_special(folder / name))
    if MANIFEST in names and not foreign and _is_foreign((folder / MANIFEST).read_bytes(), alone=len(names) == 1):
        foreign = [MANIFEST]
    if LOCK in names and not foreign and (folder / LOCK).stat().st_size:
        foreign = [LOCK]
    if foreign:
        raise IndexFileError(f"{folder} holds {foreign[0]!r}, which is not part of an index. Choose another path.")


def _is_special(path: Path) -> bool:
    """Whether a path is a FIFO, a socket or a device, which may block whoever opens it."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _is_foreign(manifest: bytes, *, alone: bool) -> bool:
    """Whether a manifest.json belongs to another program. A damaged one belongs to an index unless it is `alone`."""
    if f'"format": "{FORMAT}"'.encode() in manifest:
        return False
    try:
        json.loads(manifest)
    except (ValueError, RecursionError):
        return alone
    return True


def _sealed(path: Path, pattern: str, sha256: str) -> dict[str, Any]:
    """Flush a new file to disk, rename it by its checksum, and return its entry in the manifest."""
    sync(path)
    entry = {"bytes": path.stat().st_size, "name": pattern.format(sha256[:16]), "sha256": sha256}
    os.replace(path, path.with_name(entry["name"]))
    return entry


def replace_file(new: Path, path: Path, content: bytes) -> None:
    """Write `content` to the file `path` atomically, by renaming the temporary file `new` in the same folder."""
    before = stamp_of(path)
    # Not opened, because it may be a link or a FIFO.
    new.unlink(missing_ok=True)
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
