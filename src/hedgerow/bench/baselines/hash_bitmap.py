"""Hash bitmap: one bit for every hashed prefix of the catalog, as in the paper's comparison."""

from __future__ import annotations

from typing import Any

import numpy as np

from hedgerow.bench.arrays import Array, Arrays
from hedgerow.bench.baselines.base import MaskBaseline, Problem, Promise, Search

BITS = 30
MASK = (1 << BITS) - 1
CHUNK = 1 << 22


class HashBitmap(MaskBaseline):
    """A Bloom-like table of 2^30 bits (128 MB) over hashed prefixes of every length.

    Every prefix of an item is let through. One that belongs to none is let through when its hash is taken: about as
    often as bits are set, which grows with the catalog. So invalid SIDs can be returned.
    """

    name = "hash bitmap"
    promise = Promise.APPROXIMATE

    def __init__(self, problem: Problem, arrays: Arrays) -> None:
        super().__init__(problem, arrays)
        words = np.zeros(1 << (BITS - 5), np.uint32)
        for first in range(0, len(problem.sids), CHUNK):
            codes = problem.sids[first : first + CHUNK]
            rolling = np.zeros(len(codes), np.int32)
            for level in range(self.num_levels):
                rolling = _roll(rolling, codes[:, level].astype(np.int32))
                slots = _slot(rolling)
                np.bitwise_or.at(words, slots >> 5, np.uint32(1) << (slots & 31).astype(np.uint32))
        self.load = float(np.bitwise_count(words).sum()) / (1 << BITS)
        self.tables = arrays.put(words.view(np.int32))

    @property
    def nbytes(self) -> int:
        """Bytes of the table."""
        return (1 << BITS) // 8

    def mask(self, tables: Any, search: Search, size: int) -> Array:
        """Hashes each beam's prefix with each of the C codes, and looks the bits up."""
        arrays, history = self.arrays, search.codes
        rolling = arrays.full(history.shape[:2], 0, arrays.xp.int32)
        for level in range(history.shape[-1]):
            rolling = _roll(rolling, history[..., level])
        slots = _slot(_roll(rolling[..., None], arrays.arange(size)))
        return (arrays.take(tables, slots >> 5) >> (slots & 31)) & 1 == 1


def _roll(rolling: Any, codes: Any) -> Any:
    """Returns the rolling hash with one more code; int32 that wraps, which all three libraries do alike."""
    return (rolling ^ (codes + 1)) * 0x01000193 + 0x3C6EF35F


def _slot(rolling: Any) -> Any:
    """Returns the bit of a hash: mixed, so that codes that differ in high bits alone do not meet."""
    mixed = rolling & 0x7FFFFFFF
    mixed = ((mixed ^ (mixed >> 15)) * 0x2C1B3C6D) & 0x7FFFFFFF
    mixed = ((mixed ^ (mixed >> 12)) * 0x297A2D39) & 0x7FFFFFFF
    return (mixed ^ (mixed >> 15)) & MASK
