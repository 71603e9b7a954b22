"""The kinds of index that a model is searched on: a `TrieIndex`, a `Version` or a `LiveIndex`."""

from __future__ import annotations

from hedgerow.errors import ArgumentError
from hedgerow.live.live import LiveIndex
from hedgerow.live.version import Version
from hedgerow.trie_index import TrieIndex

Searched = TrieIndex | Version | LiveIndex


def trie_of(index: Searched) -> tuple[TrieIndex, Version | None]:
    """The index to search and, if it is live, the version that tells which of its items were removed.

    Raises:
        ArgumentError: `index` is none of these.
    """
    if isinstance(index, LiveIndex):
        index = index.refresh()
    if isinstance(index, Version):
        return index.index, index
    if not isinstance(index, TrieIndex):
        raise ArgumentError(f"expected a TrieIndex, or the Version of a LiveIndex; got {type(index).__name__}.")
    return index, None
