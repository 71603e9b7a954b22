"""Fan-out: which of E neighbours, numbered in order, belong to each of P parents. Every parent has at least one.

Held as little as it takes: nothing where each parent has one child; `forks`, where nearly each has; else `start`.

    start: [P + 1] int32: the children of parent p are start[p] to start[p + 1] - 1.
    forks: [X] int32, ascending: for each child that is not its parent's first, that parent.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

# Forks are held where they are an eighth as many as parents, or fewer.
FORKED_SHARE = 8
BLOCK = 2**22


def is_forked(parents: int, children: int) -> bool:
    """Whether so many children under so many parents are held as forks."""
    return 0 < children - parents <= parents // FORKED_SHARE


def fan_out(
    is_first: np.ndarray, parents: int, empty: Callable[..., np.ndarray] = np.empty
) -> tuple[np.ndarray | None, np.ndarray | None, int]:
    """Returns start, forks (one of them at most) and the largest number of children of one parent.

    Args:
        is_first: [E] bool, whether each child is its parent's first; read a block at a time, since it may be mapped.
        parents: P. More than there are first children only where there is no child at all.
        empty: makes the array that is returned, as `numpy.empty` does.
    """
    children = len(is_first)
    if children == parents:
        return None, None, min(1, children)
    if children == 0:
        return np.zeros(parents + 1, np.int32), None, 0
    forked = is_forked(parents, children)
    held = empty(children - parents if forked else parents + 1, np.int32)
    done, largest, last = 0, 0, -1
    for begin in range(0, children, BLOCK):
        block = is_first[begin : begin + BLOCK]
        firsts = np.flatnonzero(block) + begin
        largest = max(largest, int(np.diff(firsts, prepend=max(last, 0)).max(initial=0)))
        last = int(firsts[-1]) if len(firsts) else last
        found = firsts
        if forked:
            others = np.flatnonzero(~block) + begin
            found = others - np.arange(done + 1, done + 1 + len(others))
        held[done : done + len(found)] = found
        done += len(found)
    if not forked:
        held[parents] = children
    return None if forked else held, held if forked else None, max(largest, children - last)


def spans(start: np.ndarray | None, forks: np.ndarray | None, parents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the first child of each of `parents` [R], and the child after its last."""
    if start is not None:
        return start[parents], start[parents + 1]
    if forks is None:
        return parents, parents + 1
    before, through = (np.searchsorted(forks, parents, side) for side in ("left", "right"))
    return parents + before, parents + 1 + through


def owners(start: np.ndarray | None, forks: np.ndarray | None, children: np.ndarray) -> np.ndarray:
    """Returns the parent of each of `children` [R]."""
    if start is not None:
        # Of one type, or NumPy would convert all of `start`.
        return np.searchsorted(start, np.asarray(children, start.dtype), side="right") - 1
    if forks is None:
        return children
    not_first = forks + np.arange(1, len(forks) + 1)
    return children - np.searchsorted(not_first, children, side="right")


def count_parents(start: np.ndarray | None, forks: np.ndarray | None, children: int) -> int:
    """Returns P, given E."""
    if start is not None:
        return len(start) - 1
    return children if forks is None else children - len(forks)


def count_children(start: np.ndarray | None, forks: np.ndarray | None, parents: int) -> int:
    """Returns E, given P."""
    if start is not None:
        return int(start[-1])
    return parents if forks is None else parents + len(forks)


def kinds(parents: int, children: int) -> tuple[tuple | None, tuple | None]:
    """Returns the dtype and shape that start and forks have for so many parents and children; None where not held."""
    if children == parents:
        return None, None
    if is_forked(parents, children):
        return None, (np.dtype(np.int32), (children - parents,))
    return (np.dtype(np.int32), (parents + 1,)), None


def is_whole(start: np.ndarray | None, forks: np.ndarray | None, parents: int, children: int) -> bool:
    """Whether each of `children` belongs to one of `parents`, in order, and each of those has one."""
    if start is not None:
        rises = bool((np.diff(start) >= min(1, children)).all())
        return rises and start[0] == 0 and start[-1] == children and len(start) == parents + 1
    if forks is None:
        return parents == children
    inside = bool(forks[0] >= 0 and forks[-1] < parents and (np.diff(forks) >= 0).all())
    return inside and parents + len(forks) == children


def first_children(start: np.ndarray | None, forks: np.ndarray | None, parents: np.ndarray) -> np.ndarray:
    """Returns the first child of each of `parents` [R], 0 to P: P children there are in all where a parent is P."""
    if start is not None:
        return start[parents].astype(np.int64)
    return parents if forks is None else parents + np.searchsorted(forks, parents, "left")


def as_start(start: np.ndarray | None, forks: np.ndarray | None, parents: int) -> np.ndarray:
    """Returns the row pointers [P + 1] int32, however the fan-out is held."""
    if start is not None:
        return start
    counts = np.ones(parents, np.int32)
    if forks is not None:
        counts += np.bincount(forks, minlength=parents).astype(np.int32)
    return np.concatenate((np.zeros(1, np.int32), np.cumsum(counts, dtype=np.int32)))


def as_forks(start: np.ndarray | None, forks: np.ndarray | None) -> np.ndarray:
    """Returns the forks [E - P] int32, however the fan-out is held; each parent has a child."""
    if start is not None:
        return np.repeat(np.arange(len(start) - 1, dtype=np.int32), np.diff(start) - 1)
    return np.zeros(0, np.int32) if forks is None else forks
