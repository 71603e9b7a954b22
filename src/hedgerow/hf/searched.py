"""The kinds of index that a model searches: a `TrieIndex`, a `Version` or a `LiveIndex`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hedgerow.errors import ArgumentError
from hedgerow.live.live import LiveIndex
from hedgerow.live.version import Version
from hedgerow.tokens import TokenMap
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
        advice = " Load a saved index with hr.load_index(path)." if isinstance(index, str | Path) else ""
        raise ArgumentError(
            f"index must be a LiveIndex, a TrieIndex, or the Version of a LiveIndex; got {given}.{advice}"
        )
    return index, None


def check_token_map(tokens: Any) -> None:
    """Check that the tokens of the codes are a token map.

    Raises:
        ArgumentError: they are not.
    """
    if not isinstance(tokens, TokenMap):
        raise ArgumentError(f"tokens must be a TokenMap; got {type(tokens).__name__}.")
