"""BatchRules: the constraint set, the excluded items and the candidates of each request of a batch, checked once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hedgerow.constraints.device_sets import DeviceSet
from hedgerow.constraints.sets import ConstraintSet
from hedgerow.errors import ConstraintError
from hedgerow.index.lookup import rows_of_lists
from hedgerow.index.trie import Trie

Sets = ConstraintSet | Sequence[ConstraintSet | None] | None
Exclusions = ConstraintSet | Sequence[Any] | None
Candidates = Sequence[Any] | None
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
        candidates: for each request the rows [R] int64 of its candidates, or None for all items. None if no request has
            candidates.
    """

    index: Trie
    batch_size: int
    sets: tuple[ConstraintSet | None, ...] | None
    excluded: tuple[np.ndarray, ...] | None
    candidates: tuple[np.ndarray | None, ...] | None = None

    def take(self, requests: Sequence[int]) -> BatchRules:
        """Rules of some of the requests, in the given order."""
        sets = tuple(self.set_of(request) for request in requests)
        excluded = tuple(self.excluded_by(request) for request in requests)
        return rules_of_rows(self.index, sets, excluded, tuple(self.candidates_of(request) for request in requests))

    def set_of(self, request: int) -> ConstraintSet | None:
        """Constraint set of one request, or None."""
        return None if self.sets is None else self.sets[request]

    def excluded_by(self, request: int) -> np.ndarray:
        """Excluded rows [R] int64 of one request."""
        return NO_ROWS if self.excluded is None else self.excluded[request]

    def candidates_of(self, request: int) -> np.ndarray | None:
        """Rows [R] int64 of the candidates of one request, or None for all items."""
        return None if self.candidates is None else self.candidates[request]


def batch_rules(
    index: Trie, batch_size: int, constraints: Sets, exclude: Exclusions, candidates: Candidates = None
) -> BatchRules:
    """Check the rules of a batch, and look up the excluded ids and the candidates.

    Args:
        index: the index that is searched.
        batch_size: B.
        constraints: one constraint set for all requests, or for each request its set or None.
        exclude: for each request the ids of items to exclude, a constraint set of them, or None; or one set for all
            requests. Ids that no item has are ignored.
        candidates: for each request the ids of the items that it may return, or None for all items. Ids that no item
            has are ignored.

    Raises:
        ConstraintError: a set belongs to another index, the lists do not fit the batch, or ids are not of the type of
            the index's ids.
    """
    sets, (of_sets, exclude) = _checked_sets(index, batch_size, constraints), _sets_apart(exclude, batch_size)
    if any(items is not None for items in of_sets):
        excluded_sets = _checked_sets(index, batch_size, of_sets, "exclude")
        sets = tuple(map(_without, sets, excluded_sets))
    excluded = _listed_rows(index, batch_size, exclude, "exclude")
    listed = _listed_rows(index, batch_size, candidates, "candidates")
    wanted = [None] * batch_size if candidates is None else candidates
    return rules_of_rows(
        index, sets, excluded, tuple(None if ids is None else rows for ids, rows in zip(wanted, listed, strict=True))
    )


def of_one_request(lists: Any, batch_size: int) -> Any:
    """Lists of ids, one per request. If there is one request, one list of ids is its list.

    Args:
        lists: one list of item ids per request; or of one request its list; or None.
        batch_size: B.
    """
    is_set = isinstance(lists, ConstraintSet)
    if batch_size != 1 or lists is None or is_set or _is_id(lists) or hasattr(type(lists), "columns"):
        return lists
    return [lists] if all(ids is not None and _is_id(ids) for ids in lists) else lists


def joined_rules(rules: Sequence[BatchRules]) -> BatchRules:
    """The rules of several batches over one index as those of one batch."""
    each = [(batch, request) for batch in rules for request in range(batch.batch_size)]
    return rules_of_rows(
        rules[0].index,
        tuple(batch.set_of(request) for batch, request in each),
        tuple(batch.excluded_by(request) for batch, request in each),
        tuple(batch.candidates_of(request) for batch, request in each),
    )


def rules_of_rows(
    index: Trie,
    sets: Sequence[ConstraintSet | None],
    excluded: Sequence[np.ndarray],
    candidates: Sequence[np.ndarray | None],
) -> BatchRules:
    """Build the rules of requests from rows that were looked up; None for the rules of a kind if no request has any."""
    has_sets = any(constraint_set is not None for constraint_set in sets)
    has_candidates = any(rows is not None for rows in candidates)
    return BatchRules(
        index,
        len(sets),
        tuple(sets) if has_sets else None,
        tuple(excluded) if any(map(len, excluded)) else None,
        tuple(candidates) if has_candidates else None,
    )


def _sets_apart(exclude: Any, batch_size: int) -> tuple[list[ConstraintSet | None], Any]:
    """The constraint sets among exclusions, one entry per request, and the lists of ids."""
    if isinstance(exclude, ConstraintSet):
        return [exclude] * batch_size, None
    if not isinstance(exclude, list | tuple) or not any(isinstance(each, ConstraintSet) for each in exclude):
        return [None] * batch_size, exclude
    sets = [each if isinstance(each, ConstraintSet) else None for each in exclude]
    return sets, [None if isinstance(each, ConstraintSet) else each for each in exclude]


def _without(items: ConstraintSet | None, excluded: ConstraintSet | None) -> ConstraintSet | None:
    """The items of a request's set that another set does not have, on the device of that set if it has one."""
    if excluded is None:
        return items
    return ~excluded if items is None else DeviceSet.beside(items, excluded) & ~excluded


def _checked_sets(
    index: Trie, batch_size: int, constraints: Any, what: str = "constraints"
) -> tuple[ConstraintSet | None, ...]:
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
            f"there are {batch_size} requests, but {what} for {len(constraints)}. Pass one set for all requests, "
            "or a list with a set or None for each request."
        )
    for request, constraint_set in enumerate(constraints):
        if constraint_set is None:
            continue
        if not isinstance(constraint_set, ConstraintSet):
            raise ConstraintError(
                f"{what} of request {request} must be a constraint set or None; got "
                f"{type(constraint_set).__name__}. Make a set with index.constraint(...)."
            )
        if constraint_set.index is not index:
            raise ConstraintError(
                f"{what} of request {request}: {constraint_set!r} is a set of another index object. Make it from "
                "the index that is searched. Two loads of one file give two index objects."
            )
    return tuple(constraints)


def _listed_rows(index: Trie, batch_size: int, lists: Any, what: str) -> tuple[np.ndarray, ...]:
    """The rows of one list of item ids per request; no rows for None.

    Args:
        index: the index.
        batch_size: B.
        lists: B lists or None; or None.
        what: the name of the argument in messages.
    """
    if lists is None:
        return (NO_ROWS,) * batch_size
    if _is_id(lists):
        raise ConstraintError(
            f"{what} must contain one list of item ids per request; got {lists!r}. For one request: "
            f"{what}=[[{lists!r}]]."
        )
    if any(ids is not None and _is_id(ids) for ids in lists):
        ids = _abbreviated(lists.tolist() if isinstance(lists, np.ndarray) else list(lists))
        raise ConstraintError(
            f"{what} must contain one list of item ids per request; got one list of ids, {ids}. For one request: "
            f"{what}=[{ids}]."
        )
    if len(lists) != batch_size:
        raise ConstraintError(
            f"there are {batch_size} requests, but {what} has {len(lists)} entries. Pass a list of item ids, or None, "
            "for each request."
        )
    return tuple(rows_of_lists(index, lists, f"{what} of request {{}}".format))


def _is_id(value: Any) -> bool:
    """Whether a value is one id, not a collection of ids."""
    return isinstance(value, str | bytes) or not hasattr(value, "__len__") or getattr(value, "ndim", 1) == 0


def _abbreviated(ids: list[Any]) -> str:
    return repr(ids) if len(ids) <= MAX_LISTED_IDS else f"[{', '.join(map(repr, ids[:MAX_LISTED_IDS]))}, ...]"
