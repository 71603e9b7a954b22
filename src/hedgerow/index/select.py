"""Positions of the zeros and ones of a long bit vector, found through a directory of the zeros before each block."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from hedgerow._read_only import ReadOnlyArrays
from hedgerow.index.level import WORD_BITS

BLOCK_WORDS = 8
BLOCK_BITS = BLOCK_WORDS * WORD_BITS
# Blocks that are unpacked at a time.
CHUNK = 2**12
# Positions are 32-bit integers on devices.
MAX_BITS = 2**31 - 1


def blocks_of(bits: int) -> int:
    """The number of blocks of so many bits."""
    return -(-bits // BLOCK_BITS)


@dataclass(frozen=True, eq=False)
class BitVector(ReadOnlyArrays):
    """A bit vector that finds the position of a zero or a one by its number.

    Attributes:
        words: [blocks, BLOCK_WORDS] uint32, the bits, filled up with zeros: bit n % 32 of word n // 32.
        zeros_before: [blocks] int32, the number of zeros before each block.
        ones_before: [blocks] int32, the number of ones before each block; None if they are not stored.
    """

    words: np.ndarray
    zeros_before: np.ndarray
    ones_before: np.ndarray | None

    @classmethod
    def of(
        cls, ones: Iterator[np.ndarray], bits: int, *, has_ones: bool, empty: Callable[..., np.ndarray] = np.empty
    ) -> BitVector:
        """Make a bit vector.

        Args:
            ones: the positions of the ones, int64, ascending, in parts.
            bits: the number of bits.
            has_ones: whether `ones_before` is stored.
            empty: allocates the words, as `numpy.empty` does.
        """
        words = empty((blocks_of(bits), BLOCK_WORDS), np.uint32)
        words[:] = 0
        octets = words.reshape(-1).view(np.uint8)
        for part in ones:
            first, stop = int(part[0]) // 8, int(part[-1]) // 8 + 1
            flags = np.zeros((stop - first) * 8, bool)
            flags[part - first * 8] = True
            # The last octet of a part can be the first of the next one.
            octets[first:stop] |= np.packbits(flags, bitorder="little")
        zeros_before, ones_before = directory_of(words)
        return cls(words, zeros_before, ones_before if has_ones else None)

    def zeros(self, numbers: np.ndarray) -> np.ndarray:
        """The positions of the zeros with `numbers` [R] int64, from 0 on, as int64."""
        block = np.searchsorted(self.zeros_before, numbers.astype(np.int32), side="right") - 1
        return block * BLOCK_BITS + _select(~self.words[block], numbers - self.zeros_before[block])

    def ones(self, numbers: np.ndarray) -> np.ndarray:
        """The positions of the ones with `numbers` [R] int64, from 0 on, as int64."""
        before = _ones_before(self.zeros_before) if self.ones_before is None else self.ones_before
        block = np.searchsorted(before, numbers.astype(np.int32), side="right") - 1
        return block * BLOCK_BITS + _select(self.words[block], numbers - before[block])

    def chunks(self) -> Iterator[tuple[int, np.ndarray]]:
        """The bits as bool, in parts, each with the position of its first bit."""
        for begin in range(0, len(self.words), CHUNK):
            words = np.ascontiguousarray(self.words[begin : begin + CHUNK])
            bits = np.unpackbits(words.reshape(-1).view(np.uint8), bitorder="little").view(bool)
            yield begin * BLOCK_BITS, bits


def directory_of(words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of zeros and of ones before each block of `words` [blocks, BLOCK_WORDS], int32 [blocks] each."""
    counts = BLOCK_BITS - np.bitwise_count(words).sum(axis=1, dtype=np.int64)
    zeros_before = (np.cumsum(counts) - counts).astype(np.int32)
    return zeros_before, _ones_before(zeros_before)


def _ones_before(before: np.ndarray) -> np.ndarray:
    return np.arange(len(before), dtype=np.int32) * np.int32(BLOCK_BITS) - before


def _select(words: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """The position of a one in each row of `words` [R, BLOCK_WORDS], by its number among them [R]."""
    counts = np.bitwise_count(words).astype(np.int64)
    through = np.cumsum(counts, axis=1)
    word = np.minimum((through <= numbers[:, None]).sum(axis=1), BLOCK_WORDS - 1)
    rows = np.arange(len(words))
    rest = numbers - (through[rows, word] - counts[rows, word])
    bits, place = words[rows, word], np.zeros(len(words), np.int64)
    for width in (16, 8, 4, 2, 1):
        low = np.bitwise_count(bits & np.uint32((1 << width) - 1)).astype(np.int64)
        above = rest >= low
        rest, place = rest - low * above, place + width * above
        bits = np.where(above, bits >> np.uint32(width), bits)
    return word * WORD_BITS + place
