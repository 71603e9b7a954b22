"""An index on disk: a folder of one manifest, the trie (safetensors) and the items (Parquet); see docs/format.md.

The data files are named by their checksums and the manifest is put in place last, by an atomic rename. So whoever
reads the folder sees the old index or the new one, whatever happens to the writer.
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
from hedgerow.index.fanout import count_children, kinds
from hedgerow.index.level import ARRAYS, Level, words_of
from hedgerow.index.tensors import read_tensors, write_tensors
from hedgerow.index.trie import Trie, leaf_arrays

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = "hedgerow"
VERSION = 1
MANIFEST = "manifest.json"
# The manifest of a live index, which a folder may hold instead: see live/manifest.py.
LIVE = "current.json"
LOCK = ".lock"
OURS = re.compile(r"(trie|items)-([0-9a-f]{16}\.(safetensors|parquet)|new)|manifest-new|\.lock|manifest\.json")
DATA = re.compile(r"(trie|items)-[0-9a-f]{16}\.(safetensors|parquet)")


def save_trie(index: Trie, path: str | Path, *, write_items: Callable[[Path], None] | None = None) -> None:
    """Writes `index` to the folder `path`: `Trie.save`.

    Args:
        index: what to write.
        path: the folder.
        write_items: writes the items as Parquet to the path it is given, where they are too many to be one table.
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
        # Windows keeps a file that a reader has mapped; the next save removes it. A folder is not ours.
        if OURS.fullmatch(name):
            with suppress(PermissionError, IsADirectoryError):
                os.unlink(folder / name)


def load_trie(path: str | Path, *, mmap: bool = False, verify: bool | None = None) -> Trie:
    """The trie saved in the folder `path`: see `hedgerow.load_index`."""
    folder = as_folder(path)
    check = not mmap if verify is None else verify
    try:
        while True:
            stamp = stamp_of(folder / MANIFEST)
            try:
                return _load(folder, read_manifest(folder), mmap, check)
            except FileNotFoundError as error:
                # If a writer replaced the index after its manifest was read, the new manifest names other files.
                if stamp_of(folder / MANIFEST) == stamp:
                    raise IndexFileError(f"{error.filename} is missing. Build and save the index again.") from error
    except OSError as error:
        raise IndexFileError(f"{folder} cannot be read: {error.strerror or error}.") from error


def stamp_of(path: Path) -> tuple[int, int] | None:
    """Returns what tells a file from the one that replaces it, be they of one content; None where there is none."""
    try:
        info = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return info.st_ino, info.st_mtime_ns


def as_folder(path: str | Path) -> Path:
    """Returns a path as a folder's, `~` being the user's home.

    Raises:
        ArgumentError: it is no path.
    """
    try:
        folder = Path(path).expanduser()
        bad = b"\0" in os.fsencode(folder)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ArgumentError(f"expected the path of a folder; got {path!r}: {error}.") from None
    if bad:
        raise ArgumentError(f"a path has no NUL in it; got {path!r}.")
    return folder


def read_manifest(folder: Path) -> dict[str, Any]:
    """Returns the manifest of the index in `folder`, its format and checksum compared. Errors as for `load_index`."""
    path = folder / MANIFEST
    if not path.is_file():
        if folder.is_file():
            raise IndexFileError(f"{folder} is a file; a saved index is a folder. Give the folder.")
        if (folder / LIVE).is_file():
            raise IndexFileError(_live(folder))
        what = "does not exist" if not folder.exists() else f"holds no {MANIFEST}, so it is not a saved index"
        raise IndexFileError(f"{folder} {what}. Write one with index.save(path), or: hedgerow build.")
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
            f"{folder} has format version {version}; this hedgerow reads up to {VERSION}. Upgrade it, or build anew."
        )
    if not complete or manifest.get("sha256") != digest_of(manifest):
        raise IndexFileError(f"{path} was altered or damaged: its checksum differs. Build and save the index again.")
    return manifest


def _live(folder: Path) -> str:
    """Returns what to open in place of a live index; its manifest is read as far as it can be."""
    said = f"{folder} is a live index, a folder of versions, and not a saved index."
    with suppress(OSError, ValueError, KeyError, TypeError, StopIteration):
        state = json.loads((folder / LIVE).read_bytes())
        served = next(entry for entry in state["versions"] if entry["number"] == state["current"])
        removed = ", with the items that were removed since" * (served["removed"] is not None)
        said += f" The index of version {state['current']}, which is served, is "
        said += f"{folder / 'versions' / str(served['index'])}{removed}."
    return f"{said} See hr.LiveIndex.open(path).version, or: hedgerow live status."


def _is_complete(manifest: dict[str, Any]) -> bool:
    """Whether every entry is there, of its type, and names no file outside the folder; raises where one is not."""
    numbers = [manifest["items"]]
    for level in manifest["levels"]:
        numbers += [level[name] for name in ("codebook_size", "max_branch", "nodes")]
    files = [manifest["files"][part] for part in ("trie", "items")]
    numbers += [entry["bytes"] for entry in files]
    names = all(DATA.fullmatch(entry["name"]) and isinstance(entry["sha256"], str) for entry in files)
    names = names and all(entry["bytes"] for entry in files)
    dense = all(isinstance(level["dense"], bool) for level in manifest["levels"])
    return (
        names
        and dense
        and all(type(number) is int and number >= 0 for number in numbers)
        and manifest["levels"] != []
        and _may_end(manifest)
    )


def _may_end(manifest: dict[str, Any]) -> bool:
    """Whether a manifest says of no SID that it may end early, or leaves room for the end codes."""
    below = manifest["levels"][1:]
    there = manifest.get("ragged") is True and below and all(level["codebook_size"] >= 2 for level in below)
    return bool(there) or "ragged" not in manifest


def _load(folder: Path, manifest: dict[str, Any], mmap: bool, verify: bool) -> Trie:
    trie, items = (folder / manifest["files"][part]["name"] for part in ("trie", "items"))
    for part, path in (("trie", trie), ("items", items)):
        expected = manifest["files"][part]
        if (size := path.stat().st_size) != expected["bytes"]:
            raise IndexFileError(
                f"{path} has {size:,} bytes, but should have {expected['bytes']:,}: it was cut short or altered. "
                "Build and save the index again."
            )
        if verify and digest(path) != expected["sha256"]:
            raise IndexFileError(
                f"{path} was altered or damaged: its checksum differs. Build and save the index again."
            )
    tensors = read_tensors(trie, mmap=mmap)
    levels = []
    parents = 1
    for at, facts in enumerate(manifest["levels"]):
        end = facts["codebook_size"] - 1 if at and "ragged" in manifest else None
        levels.append(_level(trie, tensors, at, facts, parents, end))
        parents = facts["nodes"]
    leaf_start, leaf_forks = (tensors.pop(name, None) for name in ("leaf_start", "leaf_forks"))
    fits = not tensors and (_kind(leaf_start), _kind(leaf_forks)) == kinds(parents, manifest["items"])
    if not fits or count_children(leaf_start, leaf_forks, parents) != manifest["items"]:
        raise IndexFileError(f"{trie} does not hold the arrays that its manifest names. Build and save it again.")
    # Mapped now, so that items read later are those of this index, even if a writer has replaced it.
    data = np.memmap(items, np.uint8, "r")
    return Trie(tuple(levels), leaf_start, leaf_forks, partial(_read_items, items, data, manifest["items"]))


def _level(
    path: Path, tensors: dict[str, np.ndarray], at: int, facts: dict[str, Any], parents: int, end: int | None
) -> Level:
    codes, child_start, forks, allowed = (tensors.pop(f"{name}.{at}", None) for name in ARRAYS)
    size, nodes = facts["codebook_size"], facts["nodes"]
    expected = (
        (np.min_scalar_type(size - 1), (nodes,)),
        *kinds(parents, nodes),
        (np.dtype(np.uint32), (parents, words_of(size))) if facts["dense"] else None,
    )
    if tuple(map(_kind, (codes, child_start, forks, allowed))) != expected or codes is None:
        raise IndexFileError(f"{path}: the arrays of level {at} are not those that the manifest names. Build it again.")
    return Level(codes, child_start, forks, allowed, size, facts["max_branch"], end)


def _kind(array: np.ndarray | None) -> tuple[np.dtype, tuple[int, ...]] | None:
    return None if array is None else (array.dtype, array.shape)


def _tensors(index: Trie) -> dict[str, np.ndarray]:
    tensors = {f"{name}.{at}": array for at, level in enumerate(index.levels) for name, array in level.arrays.items()}
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
    """Returns the checksum of a manifest, which is its key sha256: see docs/format.md."""
    rest = {key: value for key, value in manifest.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def digest(path: Path) -> str:
    """Returns the SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def claim_folder(folder: Path) -> None:
    """Makes the folder, or makes sure that all in it is ours to replace."""
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
    """Whether a manifest is another program's: many call a file so. A damaged one beside our other files is ours."""
    if f'"format": "{FORMAT}"'.encode() in manifest:
        return False
    try:
        json.loads(manifest)
    except (ValueError, RecursionError):
        return alone
    return True


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lets one writer at a time into the folder; the lock goes with the process that holds it."""
    # Not through a link, and without cutting what is there.
    handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o644)
    with open(handle, "wb") as lock:
        try:
            import fcntl
        except ModuleNotFoundError:
            # No such locks on Windows: there, writers of one folder must take turns by themselves.
            yield
            return
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _write_items(table: pa.Table, path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # An open file, because Arrow reads paths its own way: "~" and "a:b" are not what they are to Python.
        with open(path, "wb") as file:
            pq.write_table(table, file, compression="zstd")
    except pa.ArrowException as error:
        raise IndexFileError(f"the attributes cannot be written as Parquet: {error}") from error


def _read_items(path: Path, data: np.ndarray, items: int) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # Not read_table, which loads pandas where it is installed: a third of a second.
        table = pq.ParquetFile(pa.BufferReader(pa.py_buffer(data))).read()
    except (OSError, pa.ArrowException) as error:
        raise IndexFileError(f"{path} cannot be read: {error}. Build and save the index again.") from error
    if table.num_rows != items or table.column_names[:1] != [ITEM_ID]:
        raise IndexFileError(f"{path} does not hold the {items:,} items that the manifest names. Build it again.")
    return table


def _sealed(path: Path, pattern: str) -> dict[str, Any]:
    """Flushes a new file to disk and names it by its checksum; returns its entry in the manifest."""
    sync(path)
    entry = {"bytes": path.stat().st_size, "sha256": digest(path)}
    entry["name"] = pattern.format(entry["sha256"][:16])
    os.replace(path, path.with_name(entry["name"]))
    return entry


def replace_file(new: Path, path: Path, content: bytes) -> None:
    """Writes the file `path` by way of `new`, beside it: whoever reads it sees what was there, or all of `content`."""
    before = stamp_of(path)
    new.write_bytes(content)
    if before is not None:
        # Never as old as the one before it, whose number on the disk it may come to have.
        date = max(before[1] + 1, new.stat().st_mtime_ns)
        os.utime(new, ns=(date, date))
    sync(new)
    sync(path.parent)
    os.replace(new, path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Flushes a file or a folder to disk."""
    if os.name == "nt" and path.is_dir():
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
