"""The manifest of a saved index, which describes its trie and names its two other files."""

from __future__ import annotations

import hashlib
import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from hedgerow.errors import IndexFileError
from hedgerow.index.compact import CompactLevel, code_bits
from hedgerow.index.trie import Trie

FORMAT = "hedgerow"
VERSION = 3
# The format version of each layout.
VERSION_OF = {"plain": 2, "compact": 3}
MANIFEST = "manifest.json"
# The manifest of a live index, which a folder may contain instead: see live/manifest.py.
LIVE = "current.json"
# The names of the data files, by format version.
DATA = {
    1: {"trie": "trie-{}.safetensors", "items": "items-{}.parquet"},
    2: {"trie": "trie-{}.safetensors", "items": "items-{}.arrow"},
    3: {"trie": "trie-{}.safetensors", "items": "items-{}.arrow"},
}
REBUILD = "Build and save the index again."
MAX_LEVELS = 255
MAX_CODEBOOK_SIZE = 2**31


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read the manifest of the index in `folder`, and check its format and checksum.

    Raises:
        IndexFileError: as for `hedgerow.load_index`.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise IndexFileError(_no_manifest(folder))
    return parsed_manifest(path.read_bytes(), path)


def parsed_manifest(data: bytes, path: Any) -> dict[str, Any]:
    """Parse a manifest, and check its format and checksum.

    Args:
        data: the content of the file.
        path: the file, here or elsewhere, for messages.

    Raises:
        IndexFileError: as for `hedgerow.load_index`.
    """
    try:
        manifest = json.loads(data)
        if manifest["format"] != FORMAT:
            raise KeyError("format")
        version = manifest["version"]
        if type(version) is not int or version < 1:
            raise ValueError("version")
        intact = version > VERSION or (_is_complete(manifest) and manifest["sha256"] == digest_of(manifest))
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        raise IndexFileError(f"{path} is not the manifest of a hedgerow index, or it is damaged.") from None
    if version > VERSION:
        raise IndexFileError(
            f"{path} has format version {version}; this hedgerow reads up to {VERSION}. Upgrade hedgerow, or build "
            "the index again."
        )
    if not intact:
        raise IndexFileError(f"{path} was altered or damaged: its checksum differs. {REBUILD}")
    return manifest


def _no_manifest(folder: Path) -> str:
    """The error message for a folder without a manifest."""
    if folder.is_file():
        return f"{folder} is a file; a saved index is a folder. Pass the folder."
    if is_live(folder):
        return _live_index(folder)
    problem = "does not exist" if not folder.exists() else f"holds no {MANIFEST}, so it is not a saved index"
    return f"{folder} {problem}. Write an index with index.save(path) or hedgerow build."


def is_live(path: Path) -> bool:
    """Whether a path is the folder of a live index."""
    return (path / LIVE).is_file()


def _live_index(folder: Path) -> str:
    """The error message for a live index: names the index that it serves, if its manifest can be read."""
    message = f"{folder} is a live index, a folder of versions, and not a saved index."
    with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
        current = json.loads((folder / LIVE).read_bytes())["current"]
        removed = ", with the items that were removed since" * (current["removed"] is not None)
        index = folder / "versions" / str(current["index"])
        message += f" The index of version {current['number']}, which is served, is {index}{removed}."
    return f"{message} See hr.LiveIndex.open(path).version, or hedgerow live status."


def _is_complete(manifest: dict[str, Any]) -> bool:
    """Whether every entry has the right type and names no file outside the folder. Raises if an entry is missing."""
    numbers = [manifest["items"]]
    for level in manifest["levels"]:
        numbers += [level[name] for name in ("codebook_size", "max_branch", "nodes")]
    names = DATA[manifest["version"]]
    files = [manifest["files"][part] for part in names]
    numbers += [entry["bytes"] for entry in files]
    return (
        all(_is_name(manifest["files"][part]["name"], pattern) for part, pattern in names.items())
        and all(isinstance(entry["sha256"], str) for entry in files)
        and all(entry["bytes"] for entry in files)
        and all(isinstance(level["dense"], bool) for level in manifest["levels"])
        and all(type(number) is int and number >= 0 for number in numbers)
        and 1 <= len(manifest["levels"]) <= MAX_LEVELS
        and all(1 <= level["codebook_size"] <= MAX_CODEBOOK_SIZE for level in manifest["levels"])
        and _has_valid_ragged(manifest)
        and _has_valid_layout(manifest)
    )


def is_compact(manifest: dict[str, Any]) -> bool:
    """Whether a manifest describes an index in the compact layout."""
    return manifest["version"] == VERSION_OF["compact"]


def _is_name(name: str, pattern: str) -> bool:
    """Whether a name consists of a pattern of DATA and 16 hexadecimal digits."""
    return re.fullmatch(re.escape(pattern).replace(r"\{\}", "[0-9a-f]{16}"), name) is not None


def _has_valid_ragged(manifest: dict[str, Any]) -> bool:
    """Whether the key `ragged` is absent, or true with room for the end codes."""
    if "ragged" not in manifest:
        return True
    lower = manifest["levels"][1:]
    return bool(manifest["ragged"] is True and lower and all(level["codebook_size"] >= 2 for level in lower))


def _has_valid_layout(manifest: dict[str, Any]) -> bool:
    """Whether each level of a compact index has a possible number of packed bits. Raises if it has none."""
    if not is_compact(manifest):
        return True
    limits = [(level["low_bits"], code_bits(level["codebook_size"])) for level in manifest["levels"]]
    return manifest["layout"] == "compact" and all(type(bits) is int and 0 <= bits <= most for bits, most in limits)


def manifest_bytes(index: Trie, files: dict[str, Any]) -> bytes:
    """The manifest of an index, with the entries of its two data files, as JSON with its checksum."""
    manifest = {
        "format": FORMAT,
        "version": VERSION_OF[index.layout],
        "items": index.num_items,
        "levels": [
            {
                "codebook_size": level.codebook_size,
                "dense": level.allowed is not None,
                "max_branch": level.max_branch,
                "nodes": level.num_nodes,
            }
            | ({"low_bits": level.low_bits} if isinstance(level, CompactLevel) else {})
            for level in index.levels
        ],
        "files": files,
    }
    if index.layout == "compact":
        manifest["layout"] = "compact"
    if index.ragged:
        manifest["ragged"] = True
    return json.dumps(manifest | {"sha256": digest_of(manifest)}, indent=1, sort_keys=True).encode() + b"\n"


def digest_of(manifest: dict[str, Any]) -> str:
    """The checksum of a manifest, which is stored under its key sha256: see docs/reference/file-format.md."""
    rest = {key: value for key, value in manifest.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
