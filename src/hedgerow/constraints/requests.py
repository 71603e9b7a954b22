"""BatchRules: the constraint set and the excluded items of each request of a batch, checked once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hedgerow.constraints.sets import ConstraintSet
from hedgerow.errors import ConstraintError
from hedgerow.index.lookup import rows_of_lists
from hedgerow.index.trie import Trie

Sets = ConstraintSet | Sequence[ConstraintSet | None] | None
Exclusions = Sequence[Any] | None
MAX_LISTED_IDS = 3
NO_ROWS = np.zeros(0, np.int64)
NO_ROWS.setflags(write=False)


@dataclass(frozen=True, eq=False)
class BatchRules:
    """The rules of B requests over one index. `batch_rules` makes and checks them; nothing checks them again.

    Attributes:
        index: the index that the rules apply to.
        batch_size: B.
        sets: for each request its constraint set or None. None if no request has a set.
        excluded: for each request the excluded rows [R] int64. None if no request excludes an item.
    """

    index: Trie
    batch_size: int
    sets: tuple[ConstraintSet | None, ...] | None
    excluded: tuple[np.ndarray, ...] | None

    def take(self, requests: Sequence[int]) -> BatchRules:
        """Rules of some of the requests, in the given order."""
        sets = tuple(self.set_of(request) for request in requests)
        excluded = tuple(self.excluded_by(request) for request in requests)
        return _rules(self.index, sets, excluded)

    def set_of(self, request: int) -> ConstraintSet | None:
        """Constraint set of one request, or None."""
        return None if self.sets is None else self.sets[request]

    def excluded_by(self, request: int) -> np.ndarray:
        """Excluded rows [R] int64 of one request."""
        return NO_ROWS if self.excluded is None else self.excluded[request]


def batch_rules(index: Trie, batch_size: int, constraints: Sets, exclude: Exclusions) -> BatchRules:
    """Check the rules of a batch, and look up the excluded ids.

    Args:
        index: the index that is searched.
        batch_size: B.
        constraints: one constraint set for all requests, or for each request its set or None.
        exclude: for each request the ids of items to exclude, or None. Ids that no item has are ignored.

    Raises:
        ConstraintError: a set belongs to another index, the lists do not fit the batch, or ids are not of the type of
            the index's ids.
    """
    return _rules(index, _checked_sets(index, batch_size, constraints), _excluded_rows(index, batch_size, exclude))


def _rules(index: Trie, sets: tuple[ConstraintSet | None, ...], excluded: tuple[np.ndarray, ...]) -> BatchRules:
    """Build the rules, with None for the sets or the exclusions if no request has any."""
    has_sets = any(constraint_set is not None for constraint_set in sets)
    return BatchRules(index, len(sets), sets if has_sets else None, excluded if any(map(len, excluded)) else None)


def _checked_sets(index: Trie, batch_size: int, constraints: Any) -> tuple[ConstraintSet | None, ...]:
    if constraints is None or isinstance(constraints, ConstraintSet):
        constraints = [constraints] * batch_size
    if isinstance(constraints, str | bytes | np.ndarray) or not isinstance(constraints, Sequence):
        raise ConstraintError(
            "constraints must be one constraint set for all requests, or a list with a set or None for each request; "
            f"got {type(constraints).__name__}. Make a set with index.constraint(...), index.where(...) or "
            "index.newest(...)."
        )
    if len(constraints) != batch_size:
        raise ConstraintError(
            f"there are {batch_size} requests, but constraints for {len(constraints)}. Pass one set for all requests, "
            "or a list with a set or None for each request."
        )
    for request, constraint_set in enumerate(constraints):
        if constraint_set is None:
            continue
        if not isinstance(constraint_set, ConstraintSet):
            raise ConstraintError(
                f"constraints of request {request} must be a constraint set or None; got "
                f"{type(constraint_set).__name__}. Make a set with index.constraint(...)."
            )
        if constraint_set.index is not index:
            raise ConstraintError(
                f"constraints of request {request}: {constraint_set!r} is a set of another index object. Make it from "
                "the index that is searched. Two loads of one file give two index objects."
            )
    return tuple(constraints)


def _excluded_rows(index: Trie, batch_size: int, exclude: Any) -> tuple[np.ndarray, ...]:
    if exclude is None:
        return (NO_ROWS,) * batch_size
    if _is_id(exclude):
        raise ConstraintError(
            f"exclude must contain one list of item ids per request; got {exclude!r}. For one request: "
            f"exclude=[[{exclude!r}]]."
        )
    if any(ids is not None and _is_id(ids) for ids in exclude):
        ids = _abbreviated(exclude.tolist() if isinstance(exclude, np.ndarray) else list(exclude))
        raise ConstraintError(
            f"exclude must contain one list of item ids per request; got one list of ids, {ids}. For one request: "
            f"exclude=[{ids}]."
        )
    if len(exclude) != batch_size:
        raise ConstraintError(
            f"there are {batch_size} requests, but exclude has {len(exclude)} entries. Pass a list of item ids, or "
            "None, for each request."
        )
    return tuple(rows_of_lists(index, exclude, "exclude of request {}".format))


def _is_id(value: Any) -> bool:
    """Whether a value is one id, not a collection of ids."""
    return isinstance(value, str | bytes) or not hasattr(value, "__len__") or getattr(value, "ndim", 1) == 0


def _abbreviated(ids: list[Any]) -> str:
    return repr(ids) if len(ids) <= MAX_LISTED_IDS else f"[{', '.join(map(repr, ids[:MAX_LISTED_IDS]))}, ...]"
