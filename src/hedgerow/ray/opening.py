"""What processes of a cluster open: a model and an index, by their paths."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hedgerow.errors import ArgumentError, VersionError
from hedgerow.index.manifest import LIVE
from hedgerow.indexes import build_index, load_index
from hedgerow.live.live import LiveIndex
from hedgerow.live.version import Version
from hedgerow.trie_index import TrieIndex

if TYPE_CHECKING:
    from hedgerow.hf import Retriever

# Versions of a live index may grow by this factor before anything is compiled again.
HEADROOM = 1.5


@dataclass(frozen=True)
class Opening:
    """A model and an index. It is pickled for each process.

    Attributes:
        model: a folder or a hub name; None: the model of the films demo.
        index: the folder of a saved or a live index; None: the films of the demo.
        version: the number of a version of a live index. None: the current one.
        options: further arguments of `hedgerow.hf.loading.load_retriever`.
    """

    model: str | None = None
    index: Path | None = None
    version: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, model: Any, index: Any, version: int | None = None, options: Mapping[str, Any] = {}) -> Opening:
        """With paths that do not depend on the folder of a process.

        Raises:
            ArgumentError: one of the paths is given, and the other is not.
        """
        if (model is None) != (index is None):
            raise ArgumentError("pass both a model and an index, or neither for the films demo.")
        folder = None if model is None else Path(model).expanduser()
        name = str(folder.absolute()) if folder is not None and folder.is_dir() else model
        return cls(name, None if index is None else Path(index).expanduser().absolute(), version, dict(options))

    @property
    def is_live(self) -> bool:
        """Whether the index is live."""
        return self.index is not None and (self.index / LIVE).is_file()

    def live(self) -> LiveIndex:
        """Open the live index."""
        assert self.index is not None
        return LiveIndex.open(self.index, headroom=HEADROOM)

    def searched(self) -> TrieIndex | Version:
        """Open the index or the version.

        Raises:
            IndexFileError: the index cannot be loaded.
            VersionError: the version cannot be loaded, or the index is not live.
        """
        if self.is_live:
            live = self.live()
            return live.version if self.version is None else live.load_version(self.version)
        if self.version is not None:
            raise VersionError(f"{self.index} is not a live index: it has no version {self.version}.")
        if self.index is not None:
            return load_index(self.index, mmap=True)
        from hedgerow.demo.films import load_catalog

        return build_index(load_catalog())

    def retriever(self, searched: TrieIndex | Version | LiveIndex | None = None) -> Retriever:
        """Load the model, and create a retriever.

        Args:
            searched: the index, if it is open. Default: as for `searched`.

        Raises:
            HedgerowError: the model or the index cannot be loaded.
        """
        from hedgerow.demo.films import DATA
        from hedgerow.hf.loading import load_retriever

        return load_retriever(self.model or DATA, self.searched() if searched is None else searched, **self.options)
