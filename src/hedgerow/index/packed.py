"""Integers of a fixed number of bits, packed into 32-bit words: integer i takes the bits from i * bits on.

32 integers take `bits` words, so the position of an integer is computed without products that exceed 31 bits. One word
follows them, because an integer is read from two neighboring words.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hedgerow._compiled import native
from hedgerow.index.level import WORD_BITS

# A multiple of 32, so that blocks begin with whole words.
BLOCK = 2**20


def packed_words(count: int, bits: int) -> int:
    """The number of words of `count` integers."""
    return -(-count // WORD_BITS) * bits + 1


def pack(values: np.ndarray, bits: int, empty: Callable[..., np.ndarray] = np.empty) -> np.ndarray:
    """Pack integers.

    Args:
        values: [n] unsigned integers. Only their low `bits` bits are kept. They are read in blocks, because they may be
            memory-mapped.
        bits: 0 to 31.
        empty: allocates the result, as `numpy.empty` does.

    Returns:
        [packed_words(n, bits)] uint32.
    """
    words = empty(packed_words(len(values), bits), np.uint32)
    words[-1] = 0
    for begin in range(0, len(values) if bits else 0, BLOCK):
        block = np.ascontiguousarray(values[begin : begin + BLOCK])
        out = words[begin // WORD_BITS * bits :][: packed_words(len(block), bits) - 1]
        if native is not None:
            native.pack(block, bits, out)
        else:
            out[:] = _packed_block(block, bits)
    return words


def _packed_block(values: np.ndarray, bits: int) -> np.ndarray:
    rows = np.zeros((-(-len(values) // WORD_BITS), WORD_BITS), np.uint64)
    rows.reshape(-1)[: len(values)] = values
    rows &= np.uint64((1 << bits) - 1)
    words = np.zeros((len(rows), bits + 1), np.uint32)
    for lane in range(WORD_BITS):
        word, shift = divmod(lane * bits, WORD_BITS)
        shifted = rows[:, lane] << np.uint64(shift)
        words[:, word] |= shifted.astype(np.uint32)
        words[:, word + 1] |= (shifted >> np.uint64(WORD_BITS)).astype(np.uint32)
    return words[:, :bits].reshape(-1)


def unpack(words: np.ndarray, bits: int, count: int) -> np.ndarray:
    """The first `count` integers, uint32 [count]."""
    values = np.zeros(count, np.uint32)
    for begin in range(0, count if bits else 0, BLOCK):
        out = values[begin : begin + BLOCK]
        block = words[begin // WORD_BITS * bits :][: packed_words(len(out), bits)]
        if native is not None:
            native.unpack(np.ascontiguousarray(block), bits, out)
        else:
            out[:] = packed_at(block, bits, np.arange(len(out)))
    return values


def packed_at(words: np.ndarray, bits: int, places: np.ndarray) -> np.ndarray:
    """The integers at `places` [R] int64, as int64."""
    if not bits:
        return np.zeros(len(places), np.int64)
    offset = (places & (WORD_BITS - 1)) * bits
    word = (places >> 5) * bits + (offset >> 5)
    pair = words[word].astype(np.uint64) | words[word + 1].astype(np.uint64) << np.uint64(WORD_BITS)
    shifted = pair >> (offset & (WORD_BITS - 1)).astype(np.uint64)
    return (shifted & np.uint64((1 << bits) - 1)).astype(np.int64)
