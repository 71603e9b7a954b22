"""Capacity: the sizes that the arrays of an index are padded to on a device, so that later versions have equal shapes.

A step is compiled for the shapes of the trie's arrays and for the branch factor of each level. All versions that fit
into a capacity have the same shapes and branch factors, so a compiled step or a captured graph runs on each of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hedgerow._arguments import positive_number
from hedgerow.constraints.alive import over_codes, over_nodes
from hedgerow.errors import ArgumentError
from hedgerow.index.build import bitmap
from hedgerow.index.compact import FANS, AnyLevel, Coding, CompactLevel, bit_vector, code_bits, is_possible
from hedgerow.index.fanout import as_forks, as_start
from hedgerow.index.level import Level, words_of
from hedgerow.index.packed import pack
from hedgerow.index.trie import Trie, plain_levels

# Sizes are rounded up to a power of 2**(1/4), so that similar indexes have the same capacity.
STEPS_PER_DOUBLING = 4
# A level without forks has room for this many, because the next version can have some.
MIN_FORKS = 64
# A parent that does not exist; it fills lists of forks.
NO_PARENT = np.iinfo(np.int32).max


@dataclass(frozen=True)
class LevelCapacity:
    """The sizes of one level.

    Attributes:
        codebook_size: C; an index that fits has the same.
        parents: the largest P.
        nodes: the largest E.
        forks: the largest number of forks (nodes that are not the first child of their parent). None if the level has
            row pointers instead.
        dense: whether the level has a bitmap.
        max_branch: the largest K.
        end: the code that ends a ragged SID, or None; an index that fits has the same.
        coding: of the compact layout, how the nodes are stored; None for the plain layout.
    """

    codebook_size: int
    parents: int
    nodes: int
    forks: int | None
    dense: bool
    max_branch: int
    end: int | None
    coding: Coding | None = None

    def holds(self, level: AnyLevel) -> bool:
        """Whether a level of an index fits."""
        num_parents, num_nodes = level.num_parents, level.num_nodes
        fits = num_parents <= self.parents and num_nodes <= self.nodes and level.max_branch <= self.max_branch
        same_codes = (level.codebook_size, level.end) == (self.codebook_size, self.end)
        return fits and same_codes and (self.forks is None or num_nodes - num_parents <= self.forks)


@dataclass(frozen=True)
class Capacity:
    """The sizes that an index is padded to on a device, for `TrieIndex.to(..., capacity=)`.

    All indexes that fit have the same shapes on the device. A step that is compiled for one runs on each of them.

    Attributes:
        levels: L entries, the sizes of each level.

    Examples:
        ```python
        import hedgerow as hr

        monday = hr.build_index(hr.Catalog([[0, 1], [2, 0]], codebook_sizes=3))
        tuesday = hr.build_index(hr.Catalog([[0, 1], [1, 1], [2, 0]], codebook_sizes=3))
        capacity = hr.Capacity.of(monday, headroom=1.5)
        assert capacity.holds(tuesday)
        shapes = [
            [level.codes.shape for level in index.to("numpy", capacity=capacity).levels]
            for index in (monday, tuesday)
        ]
        assert shapes[0] == shapes[1]
        ```
    """

    levels: tuple[LevelCapacity, ...]

    @classmethod
    def of(cls, index: Trie, headroom: float = 1.25) -> Capacity:
        """Compute a capacity with room for `index` and for larger versions of it.

        The numbers of nodes, the branch factors, and the numbers of forks (nodes that are not the first child of their
        parent) of levels where most parents have one child can each grow by the factor `headroom`; such a level has
        room for at least 64 forks. Sizes are rounded up. Codebook sizes cannot change.

        Args:
            index: the version to start from.
            headroom: the factor by which sizes can grow, 1 or more.

        Raises:
            ArgumentError: `headroom` is not a finite number of at least 1.

        Examples:
            ```python
            import hedgerow as hr

            index = hr.build_index(hr.Catalog([[0, 1], [2, 0]]))
            device_index = index.to("numpy", capacity=hr.Capacity.of(index, headroom=1.5))
            assert device_index.capacity.holds(index)
            ```
        """
        if positive_number(headroom, "headroom") < 1:
            raise ArgumentError(f"headroom must be a number of at least 1; got {headroom!r}.")
        levels, num_parents = [], index.levels[0].num_parents
        for level in index.levels:
            size, num_forks = level.codebook_size, None
            max_branch = min(size, _rounded_up(headroom * max(level.max_branch, 2)))
            num_nodes = min(_rounded_up(headroom * level.num_nodes), num_parents * size)
            coding = _coding(level)
            # Not for level 0: the root of an empty index has no first child.
            if levels and (level.child_start is None if coding is None else coding.fan == "forked"):
                num_forks = _rounded_up(max(headroom * (level.num_nodes - level.num_parents), MIN_FORKS))
                num_nodes = num_parents + num_forks
            dense = level.allowed is not None
            if coding is not None and (num_forks is None and not is_possible(num_parents, num_nodes, size, coding)):
                coding = Coding("sparse", code_bits(size))
            sizes = LevelCapacity(size, num_parents, num_nodes, num_forks, dense, max_branch, level.end, coding)
            levels.append(sizes)
            num_parents = num_nodes
        return cls(tuple(levels))

    def holds(self, index: Trie) -> bool:
        """Whether an index fits.

        Examples:
            ```python
            import hedgerow as hr

            index = hr.build_index(hr.Catalog([[0, 1], [2, 0]], codebook_sizes=3))
            assert hr.Capacity.of(index).holds(index)
            assert not hr.Capacity.of(index).holds(hr.build_index(hr.Catalog([[0, 1]], codebook_sizes=9)))
            ```
        """
        return len(self.levels) == index.num_levels and all(
            sizes.holds(level) for sizes, level in zip(self.levels, index.levels, strict=True)
        )


def _coding(level: AnyLevel) -> Coding | None:
    """The coding of a capacity for a level: unary levels can have forks later."""
    if not isinstance(level, CompactLevel):
        return None
    fan = next((fan for fan, name in FANS.items() if name in level.arrays), "forked")
    return Coding(fan, level.low_bits)


def padded_levels(capacity: Capacity, index: Trie) -> tuple[AnyLevel, ...]:
    """The levels of an index, with arrays of the capacity's sizes, in the layout of the capacity.

    Raises:
        ArgumentError: the index does not fit.
    """
    if not capacity.holds(index):
        raise ArgumentError(
            f"{index!r} does not fit into this capacity. Make a larger one: hr.Capacity.of(index, headroom=...)."
        )
    return tuple(_padded_level(sizes, level) for sizes, level in zip(capacity.levels, plain_levels(index), strict=True))


def padded_alive(capacity: Capacity, index: Trie, words: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
    """The words of L levels that `constraints.alive.alive_levels` computed, padded as the levels are."""
    levels = zip(capacity.levels, plain_levels(index), words, strict=True)
    return tuple(_padded_alive_level(sizes, level, level_words) for sizes, level, level_words in levels)


def padded_leaves(capacity: Capacity, words: np.ndarray) -> np.ndarray:
    """The words of the leaves, padded to the size of the last level."""
    return _filled(words, words_of(capacity.levels[-1].nodes), 0)


def _padded_level(sizes: LevelCapacity, level: Level) -> AnyLevel:
    """A level with the arrays of the capacity. No parent has a child among the nodes that are added."""
    coding = sizes.coding
    has_vector = coding is not None and coding.fan == "elias-fano"
    codes = _filled(level.codes, sizes.nodes, 0)
    start, forks, allowed = None, None, None
    if has_vector:
        pass
    elif sizes.forks is None:
        start = as_start(level.child_start, level.forks, level.num_parents)
        start = _filled(start, sizes.parents + 1, level.num_nodes)
    else:
        forks = _filled(as_forks(level.child_start, level.forks), sizes.forks, NO_PARENT)
    if sizes.dense:
        allowed = _filled_rows(bitmap(level) if level.allowed is None else level.allowed, sizes)
    limits = sizes.codebook_size, sizes.max_branch, sizes.end
    if coding is None:
        return Level(codes, start, forks, allowed, *limits)
    vector = bit_vector(level, coding, sizes.parents, sizes.nodes) if has_vector else None
    packed = pack(codes, coding.low_bits)
    return CompactLevel(packed, coding.low_bits, vector, start, forks, allowed, sizes.nodes, sizes.parents, *limits)


def _padded_alive_level(sizes: LevelCapacity, level: Level, words: np.ndarray) -> np.ndarray:
    """[ceil(E / 32)] uint32, or [P, ceil(C / 32)] if the capacity has a bitmap."""
    if not sizes.dense:
        words = words if level.allowed is None else over_nodes(level.allowed, words)
        return _filled(words, words_of(sizes.nodes), 0)
    return _filled_rows(over_codes(bitmap(level), words, level.num_nodes) if level.allowed is None else words, sizes)


def _filled_rows(words: np.ndarray, sizes: LevelCapacity) -> np.ndarray:
    padded = np.zeros((sizes.parents, words_of(sizes.codebook_size)), np.uint32)
    padded[: len(words)] = words
    return padded


def _rounded_up(size: float) -> int:
    """The smallest size of a capacity that is at least `size`."""
    wanted = max(1, math.ceil(size))
    step = math.floor(math.log2(wanted) * STEPS_PER_DOUBLING)
    while (rounded := math.ceil(2 ** (step / STEPS_PER_DOUBLING))) < wanted:
        step += 1
    return rounded


def _filled(array: np.ndarray, length: int, value: int) -> np.ndarray:
    padded = np.full(length, value, array.dtype)
    padded[: len(array)] = array
    return padded
