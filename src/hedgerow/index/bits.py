"""Bitmaps in 32-bit words: bit n % 32 of word n // 32 is the entry of member n. A bitmap has at least one word."""

from __future__ import annotations

import numpy as np

from hedgerow.index.level import WORD_BITS, words_of


def packed(bits: np.ndarray) -> np.ndarray:
    """Pack bool [n] into uint32 words; the bits past the end are zero."""
    words = np.zeros(max(1, words_of(len(bits))), "<u4")
    octets = np.packbits(bits, bitorder="little")
    words.view(np.uint8)[: len(octets)] = octets
    return words


def unpacked(words: np.ndarray, count: int) -> np.ndarray:
    """Unpack the first `count` bits to bool [count]."""
    return np.unpackbits(words.view(np.uint8), count=count, bitorder="little").view(bool)


def bits_at(words: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The bits at the positions `places` [R], as bool [R]."""
    shift = (places % WORD_BITS).astype(np.uint32)
    return ((words[places // WORD_BITS] >> shift) & np.uint32(1)).astype(bool)


def count_bits(words: np.ndarray) -> int:
    """The number of set bits."""
    return int(np.bitwise_count(words).sum(dtype=np.int64))


def bits_before(words: np.ndarray) -> np.ndarray:
    """The number of set bits before each word, and in all words: int64 [words + 1]."""
    before = np.zeros(len(words) + 1, np.int64)
    np.cumsum(np.bitwise_count(words), out=before[1:])
    return before


def rank_of(words: np.ndarray, before: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The number of set bits below each of the positions `places` [R]. `before` comes from `bits_before`."""
    word, bit = np.divmod(places, WORD_BITS)
    low = (np.uint64(1) << bit.astype(np.uint64)) - np.uint64(1)
    last = words[np.minimum(word, len(words) - 1)] & low.astype(np.uint32)
    return before[word] + np.where(bit > 0, np.bitwise_count(last), 0)


def power_of_two(count: int) -> int:
    """The smallest power of two that is at least `count`, and at least 1."""
    return 1 << max(count - 1, 0).bit_length()
