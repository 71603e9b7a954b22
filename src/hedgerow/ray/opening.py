"""What processes of a cluster open: a model and an index, by their paths."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hedgerow.errors import ArgumentError, VersionError
from hedgerow.indexes import build_index
from hedgerow.live.live import LiveIndex
from hedgerow.live.opened import open_searched
from hedgerow.live.version import Version
from hedgerow.serve.settings import HEADROOM
from hedgerow.trie_index import TrieIndex

if TYPE_CHECKING:
    from hedgerow.hf import Retriever


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
        if model is None:
            return cls(version=version, options=dict(options))
        folder = Path(model).expanduser()
        name = folder.absolute() if folder.is_dir() else model
        return cls(str(name), Path(index).expanduser().absolute(), version, dict(options))

    def open(self) -> TrieIndex | LiveIndex:
        """Open the saved or the live index.

        Raises:
            HedgerowError: it cannot be loaded.
        """
        if self.index is not None:
            return open_searched(self.index, headroom=HEADROOM)
        from hedgerow.demo.films import load_catalog

        return build_index(load_catalog())

    def searched(self) -> TrieIndex | Version:
        """Open the saved index, or the version of the live one.

        Raises:
            HedgerowError: it cannot be loaded, or the index is not live and has no version.
        """
        opened = self.open()
        if isinstance(opened, LiveIndex):
            return opened.version if self.version is None else opened.load_version(self.version)
        if self.version is not None:
            raise VersionError(f"{self.index} is not a live index: it has no version {self.version}.")
        return opened

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
