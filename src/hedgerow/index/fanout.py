"""Fan-out: which of E children, numbered in order, belong to each of P parents. Every parent has at least one child.

The smallest of three representations is stored: nothing, if every parent has one child; `forks`, if nearly every parent
has one child; otherwise row pointers, `start`.

    start: [P + 1] int32: the children of parent p are start[p] to start[p + 1] - 1.
    forks: [E - P] int32, ascending: for each child that is not the first child of its parent, that parent.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

# Forks are stored if there are at most an eighth as many forks as parents.
FORKED_SHARE = 8
# Fewer children than this share of the forks are searched without an array that is as long as the forks.
FEW_CHILDREN = 32
BLOCK = 2**22


def is_forked(parents: int, children: int) -> bool:
    """Whether the fan-out of so many parents and children is stored as forks."""
    return 0 < children - parents <= parents // FORKED_SHARE


def fan_out(
    is_first: np.ndarray, parents: int, empty: Callable[..., np.ndarray] = np.empty
) -> tuple[np.ndarray | None, np.ndarray | None, int]:
    """Make the representation of a fan-out.

    Args:
        is_first: [E] bool, whether each child is the first child of its parent. It is read in blocks, because it may
            be memory-mapped.
        parents: P. It differs from the number of first children only if there are no children.
        empty: allocates the returned array, as `numpy.empty` does.

    Returns:
        start and forks, of which at least one is None, and the largest number of children of one parent.
    """
    children = len(is_first)
    if children == parents:
        return None, None, min(1, children)
    if children == 0:
        return np.zeros(parents + 1, np.int32), None, 0
    forked = is_forked(parents, children)
    out = empty(children - parents if forked else parents + 1, np.int32)
    written, largest, last = 0, 0, -1
    for begin in range(0, children, BLOCK):
        block = is_first[begin : begin + BLOCK]
        first = np.flatnonzero(block) + begin
        largest = max(largest, int(np.diff(first, prepend=max(last, 0)).max(initial=0)))
        last = int(first[-1]) if len(first) else last
        values = first
        if forked:
            others = np.flatnonzero(~block) + begin
            values = others - np.arange(written + 1, written + 1 + len(others))
        out[written : written + len(values)] = values
        written += len(values)
    if not forked:
        out[parents] = children
    return None if forked else out, out if forked else None, max(largest, children - last)


def child_spans(
    start: np.ndarray | None, forks: np.ndarray | None, parents: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The first child of each of `parents` [R], and the child after its last."""
    if start is not None:
        return start[parents], start[parents + 1]
    if forks is None:
        return parents, parents + 1
    # With another dtype, NumPy would convert all of `forks`.
    before, through = (np.searchsorted(forks, np.asarray(parents, forks.dtype), side) for side in ("left", "right"))
    return parents + before, parents + 1 + through


def parents_of(start: np.ndarray | None, forks: np.ndarray | None, children: np.ndarray) -> np.ndarray:
    """The parent of each of `children` [R]."""
    if start is not None:
        # With another dtype, NumPy would convert all of `start`.
        return np.searchsorted(start, np.asarray(children, start.dtype), side="right") - 1
    if forks is None:
        return children
    if len(children) * FEW_CHILDREN < len(forks):
        return children - _later_children_through(forks, children)
    later_children = forks + np.arange(1, len(forks) + 1)
    return children - np.searchsorted(later_children, children, side="right")


def _later_children_through(forks: np.ndarray, children: np.ndarray) -> np.ndarray:
    """The number of children up to each of `children` [R] that are not the first of their parent: a binary search."""
    low, high = np.zeros(len(children), np.int64), np.full(len(children), len(forks), np.int64)
    for _ in range(len(forks).bit_length()):
        middle = (low + high) // 2
        right = (low < high) & (forks[np.minimum(middle, len(forks) - 1)] + middle < children)
        low, high = np.where(right, middle + 1, low), np.where(right, high, middle)
    return low


def count_parents(start: np.ndarray | None, forks: np.ndarray | None, children: int) -> int:
    """P, the number of parents of E children."""
    if start is not None:
        return len(start) - 1
    return children if forks is None else children - len(forks)


def count_children(start: np.ndarray | None, forks: np.ndarray | None, parents: int) -> int:
    """E, the number of children of P parents."""
    if start is not None:
        return int(start[-1])
    return parents if forks is None else parents + len(forks)


def expected_arrays(parents: int, children: int) -> tuple[tuple | None, tuple | None]:
    """Dtype and shape of start and of forks for so many parents and children; None for an array that is not stored."""
    if children == parents:
        return None, None
    if is_forked(parents, children):
        return None, (np.dtype(np.int32), (children - parents,))
    return (np.dtype(np.int32), (parents + 1,)), None


def first_flags(start: np.ndarray | None, forks: np.ndarray | None, children: int) -> np.ndarray:
    """Whether each child is the first of its parent, bool [E], as `fan_out` takes it. There must be children."""
    if start is not None:
        is_first = np.zeros(children, bool)
        is_first[start[:-1]] = True
        return is_first
    is_first = np.ones(children, bool)
    if forks is not None:
        is_first[forks + np.arange(1, len(forks) + 1)] = False
    return is_first


def first_children(start: np.ndarray | None, forks: np.ndarray | None, parents: np.ndarray) -> np.ndarray:
    """The first child of each of `parents` [R]. A parent may also be P, which gives E."""
    if start is not None:
        return start[parents].astype(np.int64)
    return parents if forks is None else parents + np.searchsorted(forks, np.asarray(parents, forks.dtype), "left")


def as_start(start: np.ndarray | None, forks: np.ndarray | None, parents: int) -> np.ndarray:
    """Row pointers [P + 1] int32, from any representation."""
    if start is not None:
        return start
    counts = np.ones(parents, np.int32)
    if forks is not None:
        counts += np.bincount(forks, minlength=parents).astype(np.int32)
    return np.concatenate((np.zeros(1, np.int32), np.cumsum(counts, dtype=np.int32)))


def as_forks(start: np.ndarray | None, forks: np.ndarray | None) -> np.ndarray:
    """Forks [E - P] int32, from any representation. Every parent must have a child."""
    if start is not None:
        return np.repeat(np.arange(len(start) - 1, dtype=np.int32), np.diff(start) - 1)
    return np.zeros(0, np.int32) if forks is None else forks
