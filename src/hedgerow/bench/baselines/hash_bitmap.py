"""Hash bitmap: one bit per hashed prefix of the catalog, as in the comparison of the paper."""

from __future__ import annotations

from typing import Any

import numpy as np

from hedgerow.bench.arrays import Array, Arrays
from hedgerow.bench.baselines.base import MaskBaseline, Problem, Promise, Search

BITS = 30
MASK = (1 << BITS) - 1
CHUNK = 1 << 22


class HashBitmap(MaskBaseline):
    """A table of 2^30 bits (128 MB) over the hashed prefixes of every length, similar to a Bloom filter.

    All prefixes of items are allowed. Another prefix is allowed if its bit is set, with a probability of about the
    share of set bits, which grows with the catalog. The search can therefore return invalid SIDs.
    """

    name = "hash bitmap"
    promise = Promise.APPROXIMATE

    def __init__(self, problem: Problem, arrays: Arrays) -> None:
        super().__init__(problem, arrays)
        words = np.zeros(1 << (BITS - 5), np.uint32)
        for start in range(0, len(problem.sids), CHUNK):
            codes = problem.sids[start : start + CHUNK]
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
        """Hash the prefix of each beam with each of the C codes, and look up the bits."""
        arrays, history = self.arrays, search.codes
        rolling = arrays.full(history.shape[:2], 0, arrays.xp.int32)
        for level in range(history.shape[-1]):
            rolling = _roll(rolling, history[..., level])
        slots = _slot(_roll(rolling[..., None], arrays.arange(size)))
        return (arrays.take(tables, slots >> 5) >> (slots & 31)) & 1 == 1


def _roll(rolling: Any, codes: Any) -> Any:
    """The rolling hash with one more code, in int32 with wrap-around, which is the same in all three libraries."""
    return (rolling ^ (codes + 1)) * 0x01000193 + 0x3C6EF35F


def _slot(rolling: Any) -> Any:
    """The bit of a hash. The hash is mixed, so that codes that differ only in high bits have different bits."""
    mixed = rolling & 0x7FFFFFFF
    mixed = ((mixed ^ (mixed >> 15)) * 0x2C1B3C6D) & 0x7FFFFFFF
    mixed = ((mixed ^ (mixed >> 12)) * 0x297A2D39) & 0x7FFFFFFF
    return (mixed ^ (mixed >> 15)) & MASK
