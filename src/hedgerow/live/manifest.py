"""The manifest of a live index: which versions there are, and which is current; see docs/format.md."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hedgerow.errors import IndexFileError
from hedgerow.index.files import LIVE, digest_of

FORMAT = "hedgerow-live"
FORMAT_VERSION = 1
MANIFEST = LIVE


@dataclass(frozen=True)
class RemovedFile:
    """The file that says which items of an index a version has not: `removed.npy`."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class VersionInfo:
    """What the manifest says of one version.

    Attributes:
        number: 1 or more; never used again.
        index: the number of the version whose folder holds its index: its own, or that of an earlier one.
        removed: the items of that index that it has not; None where it has all.
        parent: the version it was made from, which may be gone; None for the first.
        items: how many items it has.
        created: when, in UTC, as ISO 8601 has it.
    """

    number: int
    index: int
    removed: RemovedFile | None
    parent: int | None
    items: int
    created: str


@dataclass(frozen=True)
class State:
    """The manifest.

    Attributes:
        current: the number of the version that is served.
        next: the number that the next version gets.
        versions: all that are kept, by number, rising.
    """

    current: int
    next: int
    versions: tuple[VersionInfo, ...]

    def find(self, number: int | None) -> VersionInfo | None:
        """Returns the version of that number, or None."""
        return next((version for version in self.versions if version.number == number), None)

    @property
    def served(self) -> VersionInfo:
        """The version that is current."""
        version = self.find(self.current)
        assert version is not None
        return version

    def to_bytes(self) -> bytes:
        """Returns the manifest as JSON, with its checksum."""
        content = {"format": FORMAT, "version": FORMAT_VERSION, **asdict(self)}
        return json.dumps(content | {"sha256": digest_of(content)}, indent=1, sort_keys=True).encode() + b"\n"


def read_state(path: Path) -> State:
    """Returns the manifest in the file `path`.

    Raises:
        FileNotFoundError: there is none.
        IndexFileError: it is another program's, damaged, or of a newer format.
    """
    data = path.read_bytes()
    try:
        content = json.loads(data)
        if content["format"] != FORMAT or type(content["version"]) is not int:
            raise KeyError("format")
        if content["version"] > FORMAT_VERSION:
            raise IndexFileError(
                f"{path} has format version {content['version']}; this hedgerow reads up to {FORMAT_VERSION}. "
                "Upgrade it."
            )
        state = _state_of(content)
        whole = content["sha256"] == digest_of(content) and state.find(state.current) is not None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise IndexFileError(f"{path} is not the manifest of a live index, or it is damaged.") from None
    if not whole:
        raise IndexFileError(f"{path} was altered or damaged: its checksum differs. Restore it from a copy.")
    return state


def _state_of(content: dict[str, Any]) -> State:
    versions = []
    for entry in content["versions"]:
        removed = entry["removed"]
        versions.append(VersionInfo(**entry | {"removed": None if removed is None else RemovedFile(**removed)}))
    return State(content["current"], content["next"], tuple(versions))
