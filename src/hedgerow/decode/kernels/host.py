"""The arrays of levels and of constraints as the Numba kernels read them: read-only NumPy arrays, without a copy."""

from __future__ import annotations

from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from hedgerow.decode.device import DeviceLevel
from hedgerow.decode.ops import to_numpy
from hedgerow.decode.prepared import LevelConstraints

# The kinds of a level, by its pointers.
UNARY, SPARSE, FORKED = 0, 1, 2
NOTHING, NO_WORDS, NO_LIST = np.zeros(1, np.int32), np.zeros((1, 0), np.uint32), np.zeros((1, 0), np.int32)


class HostLevel(NamedTuple):
    """The arrays of a level as read-only NumPy arrays, which share its memory.

    Attributes:
        kind: UNARY, SPARSE or FORKED.
        pointers: int32, the row pointers [P + 1] of a SPARSE level or the forks [X] of a FORKED one.
        codes: [E] uint8, uint16 or uint32.
        allowed: [P, W] uint32; [1, 0] if the level is not dense.
    """

    kind: int
    pointers: np.ndarray
    codes: np.ndarray
    allowed: np.ndarray


# Converted once per level: a conversion takes longer than a small step.
HOST_LEVELS: WeakKeyDictionary[DeviceLevel, HostLevel] = WeakKeyDictionary()


def host_level(level: DeviceLevel) -> HostLevel:
    """The arrays of a level on a CPU, converted on first use."""
    arrays = HOST_LEVELS.get(level)
    if arrays is None:
        kind, pointers = UNARY, NOTHING
        if level.child_start is not None:
            kind, pointers = SPARSE, to_numpy(level.child_start)
        elif level.forks is not None:
            kind, pointers = FORKED, to_numpy(level.forks)
        codes = to_numpy(level.codes).view(f"u{level.codes.itemsize}")
        allowed = NO_WORDS if level.allowed is None else to_numpy(level.allowed).view(np.uint32)
        arrays = HOST_LEVELS[level] = HostLevel(kind, *map(read_only, (pointers, codes, allowed)))
    return arrays


def limits_of(constraints: LevelConstraints | None) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
    """`sets` and `dead_lists` of `numba._measure_rows`; empty arrays for those that the batch does not have."""
    if constraints is None:
        return NO_LIMITS
    rows, free, alive, parents, slots = NO_LIST[0], NO_LIST[0], NO_WORDS, NO_LIST, NO_LIST
    if constraints.rows is not None:
        rows, free, alive = map(to_numpy, (constraints.rows, constraints.free, constraints.alive))
        alive = alive.view(np.uint32).reshape(len(alive), -1)
    if constraints.dead_parents is not None:
        parents, slots = to_numpy(constraints.dead_parents), to_numpy(constraints.dead_slots)
    return tuple(map(read_only, (rows, free, alive))), tuple(map(read_only, (parents, slots)))


def read_only(array: np.ndarray) -> np.ndarray:
    """A read-only view. Numba compiles a kernel again for arrays that are writable, so all inputs are read-only."""
    view = np.ascontiguousarray(array).view()
    view.setflags(write=False)
    return view


NO_LIMITS = tuple(map(read_only, (NO_LIST[0], NO_LIST[0], NO_WORDS))), (read_only(NO_LIST), read_only(NO_LIST))
