"""The manifest of a live index, which contains the current version, and the entries of all versions.

The entry of a version is in its own folder, so that a change of the live index does not depend on how many versions
there are. docs/reference/file-format.md specifies both files.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hedgerow._arguments import is_whole
from hedgerow.errors import IndexFileError
from hedgerow.index.manifest import LIVE, digest_of

FORMAT = "hedgerow-live"
ENTRY_FORMAT = "hedgerow-live-version"
FORMAT_VERSION = 2
MANIFEST = LIVE
ENTRY = "version.json"
RESTORE = "Restore it from a copy."
RECOVER = "Roll back to a correct version: hr.LiveIndex.open(path, recover=True), or hedgerow live rollback."


class DamagedError(IndexFileError):
    """A file of a live index is missing or damaged. It is not a file of a newer hedgerow."""


@dataclass(frozen=True)
class RemovedFile:
    """Size and checksum of `removed.npy`, the file of the rows that were removed from an index."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class VersionInfo:
    """The entry of one version.

    Attributes:
        number: the number of the version, at least 1. Numbers are not reused.
        index: the number of the version whose folder contains the index: this version, or an earlier one.
        removed: the file of the items that were removed from that index; None if none were.
        parent: the number of the version that it was made from, which may have been pruned; None for the first version.
        items: the number of items.
        created: the time of creation, ISO 8601 in UTC.
        index_sha256: the checksum in the manifest of that index; None if an earlier hedgerow wrote the entry.
    """

    number: int
    index: int
    removed: RemovedFile | None
    parent: int | None
    items: int
    created: str
    index_sha256: str | None = None

    def to_bytes(self) -> bytes:
        """The file of the entry."""
        return _sealed(ENTRY_FORMAT, asdict(self))


@dataclass(frozen=True)
class State:
    """The content of the manifest.

    Attributes:
        current: the version that is served.
        next: the number of the next version.
    """

    current: VersionInfo
    next: int

    def to_bytes(self) -> bytes:
        """The manifest as JSON, with its checksum."""
        return _sealed(FORMAT, asdict(self))


def read_state(path: Path) -> State:
    """Read the manifest from a file.

    Raises:
        FileNotFoundError: the file does not exist.
        IndexFileError: the file is not a manifest, damaged, or of another format version.
    """
    return state_of(_read(path, RECOVER), path)


def state_of(data: bytes, path: Any) -> State:
    """Parse the manifest.

    Args:
        data: the content of the file.
        path: the file, here or elsewhere, for messages.

    Raises:
        IndexFileError: as for `read_state`.
    """
    content = _opened(data, path, FORMAT, "the manifest of a live index", RECOVER)
    state = State(_info_of(content.get("current"), path, RECOVER), content.get("next"))  # pyright: ignore[reportArgumentType]
    if not is_whole(state.next, state.current.number + 1):
        raise _altered(path, RECOVER)
    return state


def read_entry(path: Path, number: int) -> VersionInfo:
    """Read the entry of version `number` from a file.

    Raises:
        FileNotFoundError: the file does not exist.
        IndexFileError: the file is not that entry, damaged, or of another format version.
    """
    return entry_of(_read(path, RESTORE), path, number)


def entry_of(data: bytes, path: Any, number: int) -> VersionInfo:
    """Parse the entry of version `number`.

    Args:
        data: the content of the file.
        path: the file, here or elsewhere, for messages.
        number: the number of the version.

    Raises:
        IndexFileError: as for `read_entry`.
    """
    content = _opened(data, path, ENTRY_FORMAT, "the entry of a version of a live index", RESTORE)
    info = _info_of(content, path, RESTORE)
    if info.number != number:
        raise _altered(path, RESTORE)
    return info


def _sealed(kind: str, content: dict[str, Any]) -> bytes:
    whole = {"format": kind, "version": FORMAT_VERSION, **content}
    return json.dumps(whole | {"sha256": digest_of(whole)}, indent=1, sort_keys=True).encode() + b"\n"


def _read(path: Path, advice: str) -> bytes:
    if path.exists() and not path.is_file():
        # Reading a FIFO would wait.
        raise DamagedError(f"{path} is not a file. {advice}")
    return path.read_bytes()


def _opened(data: bytes, path: Any, kind: str, what: str, advice: str) -> dict[str, Any]:
    """The content of a file after its format and its checksum have been checked."""
    try:
        content = json.loads(data)
        version = content["version"]
        if content["format"] != kind or not is_whole(version):
            raise KeyError("format")
        intact = content["sha256"] == digest_of(content)
        if version > FORMAT_VERSION and not intact:
            raise KeyError("version")
    except (ValueError, KeyError, TypeError, RecursionError):
        raise DamagedError(f"{path} is not {what}, or it is damaged. {advice}") from None
    if version > FORMAT_VERSION:
        raise IndexFileError(
            f"{path} has format version {version}; this hedgerow reads version {FORMAT_VERSION}. Upgrade hedgerow."
        )
    if version < FORMAT_VERSION:
        raise IndexFileError(
            f"{path} has format version {version}; this hedgerow reads version {FORMAT_VERSION}. Create the live index "
            "again from one of the indexes in its folder versions, which hr.load_index reads."
        )
    if not intact:
        raise _altered(path, advice)
    return content


def _info_of(content: Any, path: Any, advice: str) -> VersionInfo:
    try:
        removed = content["removed"]
        file = None if removed is None else RemovedFile(removed["bytes"], removed["sha256"])
        entry = (content[name] for name in ("parent", "items", "created"))
        info = VersionInfo(content["number"], content["index"], file, *entry, index_sha256=content.get("index_sha256"))
    except (KeyError, TypeError):
        raise _altered(path, advice) from None
    if not _is_valid(info):
        raise _altered(path, advice)
    return info


def _is_valid(info: VersionInfo) -> bool:
    removed = info.removed is None or (is_whole(info.removed.bytes) and isinstance(info.removed.sha256, str))
    return (
        removed
        and is_whole(info.number)
        and is_whole(info.index, 1, info.number)
        and (info.parent is None or is_whole(info.parent))
        and is_whole(info.items, 0)
        and isinstance(info.created, str)
        and (info.index_sha256 is None or isinstance(info.index_sha256, str))
    )


def _altered(path: Any, advice: str) -> DamagedError:
    return DamagedError(f"{path} was altered or damaged: its checksum differs. {advice}")
