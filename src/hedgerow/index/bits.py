"""Bits in words of 32: bit n % 32 of word n // 32 says whether member n is there. At least one word."""

from __future__ import annotations

import numpy as np

from hedgerow.index.level import WORD_BITS, words_of


def packed(bits: np.ndarray) -> np.ndarray:
    """Returns bool [n] as uint32 words, zero past the end."""
    words = np.zeros(max(1, words_of(len(bits))), "<u4")
    octets = np.packbits(bits, bitorder="little")
    words.view(np.uint8)[: len(octets)] = octets
    return words


def unpacked(words: np.ndarray, count: int) -> np.ndarray:
    """Returns the first `count` bits as bool [count]."""
    return np.unpackbits(words.view(np.uint8), count=count, bitorder="little").view(bool)


def bits_at(words: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Returns the bits at `places` [R], as bool."""
    shift = (places % WORD_BITS).astype(np.uint32)
    return ((words[places // WORD_BITS] >> shift) & np.uint32(1)).astype(bool)


def count_bits(words: np.ndarray) -> int:
    """Returns how many bits are set."""
    return int(np.bitwise_count(words).sum(dtype=np.int64))


def bits_before(words: np.ndarray) -> np.ndarray:
    """Returns, for each word and for the end [W + 1], how many bits are set before it."""
    before = np.zeros(len(words) + 1, np.int64)
    np.cumsum(np.bitwise_count(words), out=before[1:])
    return before


def rank_of(words: np.ndarray, before: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Returns how many bits are set below each of `places` [R], given what `bits_before` gives."""
    word, bit = np.divmod(places, WORD_BITS)
    low = (np.uint64(1) << bit.astype(np.uint64)) - np.uint64(1)
    last = words[np.minimum(word, len(words) - 1)] & low.astype(np.uint32)
    return before[word] + np.where(bit > 0, np.bitwise_count(last), 0)


def power_of_two(count: int) -> int:
    """The least power of two that is at least `count`, and at least 1."""
    return 1 << max(count - 1, 0).bit_length()
