"""The manifest of a live index: its versions, and the current one. docs/reference/file-format.md specifies it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hedgerow.errors import IndexFileError
from hedgerow.index.manifest import LIVE, digest_of

FORMAT = "hedgerow-live"
FORMAT_VERSION = 1
MANIFEST = LIVE


@dataclass(frozen=True)
class RemovedFile:
    """Size and checksum of `removed.npy`, the file of the rows that were removed from an index."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class VersionInfo:
    """The entry of one version in the manifest.

    Attributes:
        number: the number of the version, at least 1. Numbers are not reused.
        index: the number of the version whose folder contains the index: this version, or an earlier one.
        removed: the file of the items that were removed from that index; None if none were.
        parent: the number of the version that it was made from, which may have been pruned; None for the first version.
        items: the number of items.
        created: the time of creation, ISO 8601 in UTC.
    """

    number: int
    index: int
    removed: RemovedFile | None
    parent: int | None
    items: int
    created: str


@dataclass(frozen=True)
class State:
    """The content of the manifest.

    Attributes:
        current: the number of the version that is served.
        next: the number of the next version.
        versions: the versions that are kept, by ascending number.
    """

    current: int
    next: int
    versions: tuple[VersionInfo, ...]

    def find(self, number: int | None) -> VersionInfo | None:
        """The version with that number, or None."""
        return next((version for version in self.versions if version.number == number), None)

    @property
    def served(self) -> VersionInfo:
        """The current version."""
        version = self.find(self.current)
        assert version is not None
        return version

    def to_bytes(self) -> bytes:
        """The manifest as JSON, with its checksum."""
        content = {"format": FORMAT, "version": FORMAT_VERSION, **asdict(self)}
        return json.dumps(content | {"sha256": digest_of(content)}, indent=1, sort_keys=True).encode() + b"\n"


def read_state(path: Path) -> State:
    """Read the manifest from a file.

    Raises:
        FileNotFoundError: the file does not exist.
        IndexFileError: the file is not a manifest, damaged, or of a newer format.
    """
    data = path.read_bytes()
    try:
        content = json.loads(data)
        if content["format"] != FORMAT or type(content["version"]) is not int:
            raise KeyError("format")
        if content["version"] > FORMAT_VERSION:
            raise IndexFileError(
                f"{path} has format version {content['version']}; this hedgerow reads up to {FORMAT_VERSION}. Upgrade "
                "hedgerow."
            )
        state = _state_of(content)
        is_whole = content["sha256"] == digest_of(content) and state.find(state.current) is not None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise IndexFileError(
            f"{path} is not the manifest of a live index, or it is damaged. Restore it from a copy."
        ) from None
    if not is_whole:
        raise IndexFileError(f"{path} was altered or damaged: its checksum differs. Restore it from a copy.")
    return state


def _state_of(content: dict[str, Any]) -> State:
    versions = []
    for entry in content["versions"]:
        removed = entry["removed"]
        versions.append(VersionInfo(**entry | {"removed": None if removed is None else RemovedFile(**removed)}))
    return State(content["current"], content["next"], tuple(versions))
