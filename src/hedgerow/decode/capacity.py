"""Capacity: room for an index to grow on a device, so that its next version has the shapes of this one.

A step is compiled for the shapes of the trie's arrays and for each level's largest branch factor. Padded to a capacity,
every version that fits has the same ones, and the compiled step, or the captured graph, goes on with it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hedgerow.constraints.alive import over_codes, over_nodes
from hedgerow.errors import ArgumentError
from hedgerow.index.build import bitmap
from hedgerow.index.fanout import as_forks, as_start
from hedgerow.index.level import Level, words_of
from hedgerow.index.trie import Trie

# Sizes are rounded up to a power of 2 to the 1/4, so that like indexes have like capacities.
STEPS = 4
# Forks that a level has room for, though it has none now: a unary level may come to have some.
FEWEST_FORKS = 64
BEYOND = np.iinfo(np.int32).max


@dataclass(frozen=True)
class LevelCapacity:
    """What one level has room for.

    Attributes:
        codebook_size: C, which does not change.
        parents: P.
        nodes: E.
        forks: how many nodes that are not their parent's first; None where row pointers are held in their place.
        dense: whether a bitmap is held.
        max_branch: K.
        end: the code that ends a ragged SID, which does not change.
    """

    codebook_size: int
    parents: int
    nodes: int
    forks: int | None
    dense: bool
    max_branch: int
    end: int | None

    def holds(self, level: Level) -> bool:
        """Whether a level fits in."""
        parents, nodes = level.num_parents, level.num_nodes
        fits = parents <= self.parents and nodes <= self.nodes and level.max_branch <= self.max_branch
        same_codes = (level.codebook_size, level.end) == (self.codebook_size, self.end)
        return fits and same_codes and (self.forks is None or nodes - parents <= self.forks)


@dataclass(frozen=True)
class Capacity:
    """What an index has room for on a device: `index.to("jax", capacity=capacity)`.

    Attributes:
        levels: L levels.
    """

    levels: tuple[LevelCapacity, ...]

    @classmethod
    def of(cls, index: Trie, headroom: float = 1.25) -> Capacity:
        """Returns room for `index` to grow `headroom` times, at least, in every way but two: codebooks stay as they
        are, and a level in which nearly every parent has one child may have an eighth more nodes than parents.

        Raises:
            ArgumentError: `headroom` is below 1.
        """
        if not headroom >= 1:
            raise ArgumentError(f"headroom is how many times the index may grow, 1 or more; got {headroom!r}.")
        levels, parents = [], 1
        for level in index.levels:
            size, forks = level.codebook_size, None
            most = min(size, _rounded(headroom * max(level.max_branch, 2)))
            nodes = min(_rounded(headroom * level.num_nodes), parents * size)
            # Not for the root: an index without items has no first child for it.
            if levels and level.child_start is None:
                forks = _rounded(max(headroom * (level.num_nodes - level.num_parents), FEWEST_FORKS))
                nodes = parents + forks
            levels.append(LevelCapacity(size, parents, nodes, forks, level.allowed is not None, most, level.end))
            parents = nodes
        return cls(tuple(levels))

    def holds(self, index: Trie) -> bool:
        """Whether an index fits in."""
        return len(self.levels) == index.num_levels and all(
            mine.holds(level) for mine, level in zip(self.levels, index.levels, strict=True)
        )


def padded_levels(capacity: Capacity, index: Trie) -> tuple[Level, ...]:
    """The levels of an index with arrays of the capacity's sizes.

    Raises:
        ArgumentError: the index does not fit.
    """
    if not capacity.holds(index):
        raise ArgumentError(f"{index!r} does not fit into this capacity. Make a larger one: hr.Capacity.of(index).")
    return tuple(_padded_level(room, level) for room, level in zip(capacity.levels, index.levels, strict=True))


def padded_alive(capacity: Capacity, index: Trie, words: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
    """The alive bits of an index that fits, as `alive_levels` computes them, padded as its levels are."""
    rooms = zip(capacity.levels, index.levels, words, strict=True)
    return tuple(_padded_alive_level(room, level, own) for room, level, own in rooms)


def padded_leaves(capacity: Capacity, words: np.ndarray) -> np.ndarray:
    """The words of an index's leaves, padded to those of the last level."""
    return _filled(words, words_of(capacity.levels[-1].nodes), 0)


def _padded_level(room: LevelCapacity, level: Level) -> Level:
    """No parent has a child among the nodes added."""
    codes = _filled(level.codes, room.nodes, 0)
    start, forks, allowed = None, None, None
    if room.forks is None:
        start = as_start(level.child_start, level.forks, level.num_parents)
        start = _filled(start, room.parents + 1, level.num_nodes)
    else:
        forks = _filled(as_forks(level.child_start, level.forks), room.forks, BEYOND)
    if room.dense:
        allowed = _filled_rows(bitmap(level) if level.allowed is None else level.allowed, room)
    return Level(codes, start, forks, allowed, room.codebook_size, room.max_branch, room.end)


def _padded_alive_level(room: LevelCapacity, level: Level, words: np.ndarray) -> np.ndarray:
    """[ceil(E / 32)] uint32, or [P, ceil(C / 32)] where the capacity holds a bitmap."""
    if not room.dense:
        words = words if level.allowed is None else over_nodes(level.allowed, words)
        return _filled(words, words_of(room.nodes), 0)
    return _filled_rows(over_codes(bitmap(level), words, level.num_nodes) if level.allowed is None else words, room)


def _filled_rows(words: np.ndarray, room: LevelCapacity) -> np.ndarray:
    padded = np.zeros((room.parents, words_of(room.codebook_size)), np.uint32)
    padded[: len(words)] = words
    return padded


def _rounded(size: float) -> int:
    """Returns the next size, of those that capacities have."""
    wanted = max(1, math.ceil(size))
    step = math.floor(math.log2(wanted) * STEPS)
    while (rounded := math.ceil(2 ** (step / STEPS))) < wanted:
        step += 1
    return rounded


def _filled(array: np.ndarray, length: int, value: int) -> np.ndarray:
    padded = np.full(length, value, array.dtype)
    padded[: len(array)] = array
    return padded
