"""The kinds of index that a model searches: a `TrieIndex`, a `Version` or a `LiveIndex`."""

from __future__ import annotations

from hedgerow.errors import ArgumentError
from hedgerow.live.live import LiveIndex
from hedgerow.live.version import Version
from hedgerow.trie_index import TrieIndex

Searched = TrieIndex | Version | LiveIndex


def trie_of(index: Searched) -> tuple[TrieIndex, Version | None]:
    """Find the index to search and, if it is live, the version that lists the removed items.

    Raises:
        ArgumentError: `index` is of another type.
    """
    if isinstance(index, LiveIndex):
        index = index.refresh()
    if isinstance(index, Version):
        return index.index, index
    if not isinstance(index, TrieIndex):
        given = type(index).__name__
        raise ArgumentError(f"index must be a LiveIndex, a TrieIndex, or the Version of a LiveIndex; got {given}.")
    return index, None
