"""The sets and exclusions of several prompts, which batches put into another order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hedgerow.constraints import ConstraintSet
from hedgerow.decode.constrain import Exclusions, Sets, listed_rows, listed_sets
from hedgerow.errors import ArgumentError
from hedgerow.index.trie import TrieIndex
from hedgerow.live.live import LiveIndex
from hedgerow.live.version import Version

Searched = TrieIndex | Version | LiveIndex


def trie_of(index: Searched) -> tuple[TrieIndex, Version | None]:
    """Returns the trie that is searched, and the version that says which of its items were removed, if it is live's.

    Raises:
        ArgumentError: it is none of these.
    """
    if isinstance(index, LiveIndex):
        index = index.refresh()
    if isinstance(index, Version):
        return index.index, index
    if not isinstance(index, TrieIndex):
        raise ArgumentError(
            f"expected the index of a catalog, a TrieIndex, or the Version of a LiveIndex; got {type(index).__name__}."
        )
    return index, None


class Rules:
    """For each of some prompts its set and its excluded ids, or None.

    Raises:
        ConstraintError: as for `hedgerow.constrain`, before anything is searched.
    """

    def __init__(self, index: TrieIndex, prompts: int, constraints: Sets, exclude: Exclusions) -> None:
        self.index, self.batch_size = index, prompts
        self.constraints: Sequence[ConstraintSet | None] | None = listed_sets(index, prompts, constraints)
        self.exclude: Sequence[Any] | None = None if listed_rows(index, prompts, exclude) is None else exclude

    def of(self, prompts: Sequence[int]) -> Rules:
        """Returns the rules of some of the prompts, in their order."""
        constraints = None if self.constraints is None else [self.constraints[at] for at in prompts]
        exclude = None if self.exclude is None else [self.exclude[at] for at in prompts]
        return Rules(self.index, len(prompts), constraints, exclude)
