"""The index of a path: a saved index, or what a live index serves."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated

import typer

import hedgerow as hr
from hedgerow.cli.common import is_live
from hedgerow.index.files import as_folder

ServedPath = Annotated[
    Path,
    typer.Argument(
        metavar="INDEX",
        help="A saved index, or a live index, of which the current version is used: a folder.",
        show_default=False,
    ),
]


@dataclass(frozen=True)
class Served:
    """A saved index, or the current version of a live index.

    Attributes:
        path: the folder of the files of the index.
        version: the version; None of a saved index.
    """

    path: Path
    version: hr.Version | None

    @classmethod
    def of(cls, path: Path) -> Served:
        """Open a path.

        Raises:
            IndexFileError: it is a live index whose current version cannot be loaded.
        """
        if not is_live(path):
            return cls(path, None)
        from hedgerow.live.store import Store

        version = hr.LiveIndex.open(path).version
        return cls(Store(as_folder(path)).folder(version.info.index), version)

    @cached_property
    def index(self) -> hr.TrieIndex:
        """The index, without items that were removed from the live index.

        Raises:
            IndexFileError: it cannot be loaded.
        """
        if self.version is None:
            return hr.load_index(self.path, mmap=True)
        items = self.version.live_items
        return self.version.index if items is None else self.version.index.filter(items)

    @property
    def note(self) -> str:
        """Which version this is; empty for a saved index."""
        if self.version is None:
            return ""
        removed = len(self.version.removed_rows)
        items = "1 removed item" if removed == 1 else f"{removed:,} removed items"
        return f"version {self.version.number} of a live index" + f", without {items}" * bool(removed)
