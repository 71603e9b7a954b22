"""Join tries of ascending SIDs: their levels are written one after the other, in memory or on disk.

If the first SID of a trie shares a prefix with the last SID of the trie before, the shared nodes exist already.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

from hedgerow.catalog.ragged import EndCodes
from hedgerow.index.build import DenseRule, finished, pays_dense
from hedgerow.index.compact import AnyLevel, Layout
from hedgerow.index.fanout import fan_out, first_flags
from hedgerow.index.level import Level
from hedgerow.index.trie import Trie, codes_of_leaves

# The levels of a trie, and leaf_start and leaf_forks.
Finished = tuple[tuple[AnyLevel, ...], np.ndarray | None, np.ndarray | None]


@dataclass(frozen=True)
class Nodes:
    """The nodes of a trie with at least one item, in the form in which tries are joined.

    Attributes:
        codes: for each level the codes of its nodes [E].
        first: for each level whether each node is the first child of its parent, bool [E]; and last whether each item
            is the first of its leaf, bool [N].
        ends: [2, L] int64, the first and the last SID, with end codes.
    """

    codes: Sequence[np.ndarray]
    first: Sequence[np.ndarray]
    ends: np.ndarray

    @classmethod
    def of(cls, trie: Trie) -> Nodes:
        """The nodes of a trie."""
        first = [first_flags(level.child_start, level.forks, level.num_nodes) for level in trie.levels]
        first.append(first_flags(trie.leaf_start, trie.leaf_forks, trie.num_items))
        ends = codes_of_leaves(trie, [0, trie.num_sids - 1])
        return cls([level.codes for level in trie.levels], first, ends)

    def save(self, folder: Path) -> None:
        """Write the arrays to a folder."""
        np.save(folder / "ends.npy", self.ends)
        for number, codes in enumerate(self.codes):
            np.save(folder / f"codes-{number}.npy", codes)
        for number, first in enumerate(self.first):
            np.save(folder / f"first-{number}.npy", first)

    @classmethod
    def load(cls, folder: Path) -> Nodes:
        """Map the arrays that `save` wrote to a folder into memory."""
        ends = np.load(folder / "ends.npy")
        levels = range(ends.shape[1])
        codes = [np.load(folder / f"codes-{number}.npy", "r") for number in levels]
        return cls(codes, [np.load(folder / f"first-{number}.npy", "r") for number in (*levels, len(levels))], ends)


class Joined:
    """Tries of ascending SIDs as one.

    Args:
        codebook_sizes: those of each trie.
        end_codes: those of each trie.
        folder: a folder for the arrays, which are then memory-mapped. Default: they are in memory.
    """

    def __init__(self, codebook_sizes: Sequence[int], end_codes: EndCodes, folder: Path | None = None) -> None:
        self._sizes, self._ends, self._folder = codebook_sizes, end_codes, folder
        dtypes = [np.min_scalar_type(size - 1) for size in codebook_sizes]
        self._codes = [_Growing(dtype, self._path(f"codes-{number}")) for number, dtype in enumerate(dtypes)]
        self._first = [_Growing(bool, self._path(f"first-{number}")) for number in range(len(dtypes) + 1)]
        self._last: np.ndarray | None = None

    def add(self, nodes: Nodes) -> None:
        """Append a trie, whose first SID is after the last one."""
        start, stop = nodes.ends
        # The number of leading codes that the first SID shares with the last one; -1 for the first trie.
        shared = -1 if self._last is None else int(np.argmax(start != self._last))
        # Otherwise the SIDs are equal or descend.
        assert self._last is None or start[shared] > self._last[shared]
        for number, is_first in enumerate(nodes.first):
            # If the first SID shares its prefix at this level, the first node exists already. If it shares only the
            # prefix of the parent, the first node is not the first child of that parent.
            skipped = int(number < shared)
            if number < len(nodes.codes):
                self._codes[number].add(nodes.codes[number][skipped:])
            if number == shared:
                is_first = is_first.copy()
                is_first[0] = False
            self._first[number].add(is_first[skipped:])
        self._last = stop

    def finish(self, is_dense: DenseRule = lambda _, level: pays_dense(level), *, layout: Layout = "plain") -> Finished:
        """The levels, and the fan-out from the leaves to the items, after the last trie.

        Args:
            is_dense: the rule for dense levels: see `build.dense_rule`.
            layout: the layout of the levels.
        """
        levels: list[AnyLevel] = []
        parents = 1
        for number, (size, end) in enumerate(zip(self._sizes, self._ends, strict=True)):
            child_start, forks, max_branch = self._fan_out(number, parents)
            level = Level(self._codes[number].whole(), child_start, forks, None, size, max_branch, end)
            levels.append(finished(level, number, is_dense, layout, self._allocator(f"packed-{number}")))
            parents = level.num_nodes
        leaf_start, leaf_forks, _ = self._fan_out(len(levels), parents)
        return tuple(levels), leaf_start, leaf_forks

    def _fan_out(self, number: int, parents: int) -> tuple[np.ndarray | None, np.ndarray | None, int]:
        growing = self._first[number]
        found = fan_out(growing.whole(), parents, self._allocator(f"fan-{number}"))
        # One byte a node: a third of the space of all temporary files.
        growing.remove()
        return found

    def _allocator(self, name: str) -> Callable[..., np.ndarray]:
        """A function that allocates arrays as `numpy.empty` does: in memory, or in files of the folder."""
        folder = self._folder
        if folder is None:
            return np.empty
        numbers = count()

        def in_file(shape: int | tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
            shape = shape if isinstance(shape, tuple) else (shape,)
            return np.memmap(folder / f"{name}-{next(numbers)}", dtype, "w+", shape=shape)

        return in_file

    def _path(self, name: str) -> Path | None:
        return None if self._folder is None else self._folder / name


class _Growing:
    """An array that grows, in memory or in a file."""

    def __init__(self, dtype: DTypeLike, path: Path | None) -> None:
        self.dtype, self.path = np.dtype(dtype), path
        self.parts: list[np.ndarray] = []

    def add(self, array: np.ndarray) -> None:
        array = np.ascontiguousarray(array, self.dtype)
        if self.path is None:
            self.parts.append(array)
            return
        with self.path.open("ab") as file:
            file.write(array.data)

    def whole(self) -> np.ndarray:
        return np.concatenate(self.parts) if self.path is None else np.memmap(self.path, self.dtype, "r")

    def remove(self) -> None:
        self.parts.clear()
        if self.path is not None:
            self.path.unlink()
