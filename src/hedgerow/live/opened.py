"""open_searched(): a saved index or a live index, whichever a folder has."""

from __future__ import annotations

from pathlib import Path

from hedgerow.index.files import as_folder
from hedgerow.index.manifest import is_live
from hedgerow.indexes import load_index
from hedgerow.live.live import LiveIndex
from hedgerow.trie_index import TrieIndex


def open_searched(path: str | Path, *, mmap: bool = True, headroom: float | None = None) -> TrieIndex | LiveIndex:
    """Open a saved index or a live index.

    Args:
        path: the folder.
        mmap: as for `load_index`, of a saved index.
        headroom: as for `LiveIndex.open`, of a live index.

    Raises:
        HedgerowError: it cannot be loaded, or is a URL.
    """
    folder = as_folder(path)
    return LiveIndex.open(folder, headroom=headroom) if is_live(folder) else load_index(folder, mmap=mmap)
