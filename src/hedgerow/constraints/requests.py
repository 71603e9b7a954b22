"""The rules of a batch: the constraint set and the excluded items of each request, checked once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hedgerow.constraints.sets import ConstraintSet
from hedgerow.errors import ConstraintError
from hedgerow.index.lookup import rows_of_ids
from hedgerow.index.trie import Trie

Sets = ConstraintSet | Sequence[ConstraintSet | None] | None
Exclusions = Sequence[Any] | None
# How many ids an error lists.
LISTED_IDS = 3


@dataclass(frozen=True, eq=False)
class BatchRules:
    """The rules of B requests over one index. Made by `batch_rules`, which checks them; `take` checks nothing again.

    Attributes:
        index: the index whose items the rules are about.
        batch_size: B.
        sets: the set of each request or None; None if no request has a set.
        excluded: the excluded rows [R] int64 of each request; None if no request excludes an item.
    """

    index: Trie
    batch_size: int
    sets: tuple[ConstraintSet | None, ...] | None
    excluded: tuple[np.ndarray, ...] | None

    def take(self, requests: Sequence[int]) -> BatchRules:
        """The rules of some of the requests, in the given order."""
        sets = tuple(self.set_of(request) for request in requests)
        excluded = tuple(self.excluded_by(request) for request in requests)
        return _rules(self.index, sets, excluded)

    def set_of(self, request: int) -> ConstraintSet | None:
        """The set of one request."""
        return None if self.sets is None else self.sets[request]

    def excluded_by(self, request: int) -> np.ndarray:
        """The excluded rows [R] int64 of one request."""
        return np.zeros(0, np.int64) if self.excluded is None else self.excluded[request]


def batch_rules(index: Trie, batch_size: int, constraints: Sets, exclude: Exclusions) -> BatchRules:
    """Checks the rules of a batch, and looks up the excluded ids.

    Args:
        index: the index that is searched.
        batch_size: B.
        constraints: one set for all requests, or for each request its set or None.
        exclude: for each request the ids of items to exclude, or None. Ids that no item has are ignored.

    Raises:
        ConstraintError: a set belongs to another index, the lists do not fit the batch, or ids are not of the type of
            the index's ids.
    """
    return _rules(index, _checked_sets(index, batch_size, constraints), _excluded_rows(index, batch_size, exclude))


def _rules(index: Trie, sets: tuple[ConstraintSet | None, ...], excluded: tuple[np.ndarray, ...]) -> BatchRules:
    """Rules with None in place of sets or exclusions that no request has."""
    bound = any(items is not None for items in sets)
    return BatchRules(index, len(sets), sets if bound else None, excluded if any(map(len, excluded)) else None)


def _checked_sets(index: Trie, batch_size: int, constraints: Any) -> tuple[ConstraintSet | None, ...]:
    if constraints is None or isinstance(constraints, ConstraintSet):
        constraints = [constraints] * batch_size
    if isinstance(constraints, str | bytes | np.ndarray) or not isinstance(constraints, Sequence):
        raise ConstraintError(
            "constraints must be one set, or a list with a set or None for each request; "
            f"got {type(constraints).__name__}. Make a set: index.constraint(mask), index.where(SQL)."
        )
    if len(constraints) != batch_size:
        raise ConstraintError(f"there are {batch_size} requests, but constraints for {len(constraints)}.")
    for request, items in enumerate(constraints):
        if items is None:
            continue
        if not isinstance(items, ConstraintSet):
            raise ConstraintError(
                f"constraints of request {request} must be a set of index.constraint(...), or None; "
                f"got {type(items).__name__}."
            )
        if items.index is not index:
            raise ConstraintError(
                f"{items!r}, of request {request}, is a set of another index object (a file that is loaded twice gives "
                "two); make it from this one."
            )
    return tuple(constraints)


def _excluded_rows(index: Trie, batch_size: int, exclude: Any) -> tuple[np.ndarray, ...]:
    if exclude is None:
        return (np.zeros(0, np.int64),) * batch_size
    if isinstance(exclude, str | bytes) or not hasattr(exclude, "__len__"):
        raise ConstraintError(
            f"exclude must have a list of item ids for each request; got {exclude!r}. For one request: [[{exclude!r}]]."
        )
    if any(_is_id(ids) for ids in exclude):
        few = _few(list(exclude))
        raise ConstraintError(
            f"exclude must have a list of item ids for each request; got ids alone, {few}. For one request: [{few}]."
        )
    if len(exclude) != batch_size:
        raise ConstraintError(
            f"there are {batch_size} requests, but exclude has {len(exclude)} entries; give a list of ids, or None, "
            "for each request."
        )
    excluded = []
    for request, ids in enumerate(exclude):
        rows = rows_of_ids(index, [] if ids is None else ids, f"exclude of request {request}")
        excluded.append(rows[rows >= 0])
    return tuple(excluded)


def _is_id(ids: Any) -> bool:
    return ids is not None and (isinstance(ids, str | bytes) or not hasattr(ids, "__len__"))


def _few(ids: list[Any]) -> str:
    return repr(ids) if len(ids) <= LISTED_IDS else f"[{', '.join(map(repr, ids[:LISTED_IDS]))}, ...]"
