"""pulled.json: names the live index that the live index of a folder is a copy of."""

from __future__ import annotations

import json
from pathlib import Path

from hedgerow.errors import IndexFileError, VersionError
from hedgerow.index.files import replace_file

PULLED = "pulled.json"
NEW_PULLED = "pulled-new"
FORMAT = "hedgerow-live-pulled"


def source_of(folder: Path) -> str | None:
    """The URL of the live index that a folder is a copy of; None if it is no copy.

    Raises:
        IndexFileError: the file cannot be read.
    """
    path = folder / PULLED
    try:
        content = json.loads(path.read_bytes())
        if content["format"] != FORMAT or not isinstance(content["source"], str):
            raise KeyError("source")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise IndexFileError(f"{path} does not name the source of a copied live index: {error!r}.") from None
    return content["source"]


def write_source(folder: Path, source: str) -> None:
    """Make a folder a copy of the live index `source`."""
    content = json.dumps({"format": FORMAT, "source": source}, indent=1).encode() + b"\n"
    replace_file(folder / NEW_PULLED, folder / PULLED, content)


def check_own(folder: Path) -> None:
    """Check that versions of a live index may be written, because it is no copy.

    Raises:
        VersionError: it is a copy.
    """
    source = source_of(folder)
    if source is not None:
        raise VersionError(
            f"{folder} is a copy of {source}, and changes only by pulling. Change that live index, and pull again. To "
            f"make the copy a live index of its own, which pulls no more, delete {folder / PULLED}."
        )
