"""CompactLevel: a level of the trie in few bytes more than its entropy.

The codes of a level, each with its parent in front, ascend: parent * 2**w + code, where w is the number of bits of a
code. Elias-Fano coding stores such a sequence. The low bits of each code are packed one after the other. The rest is a
number of a bucket, parent * 2**(w - l) + code // 2**l, and a bit vector has for each bucket a zero and then a one for
each node in it. One zero follows the last bucket. So the zeros give the children of a node, and the ones give the
parent and the high bits of a code. With l = w, a bucket is a parent, and the codes are read without the bit vector.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from hedgerow.index.fanout import as_forks, as_start, child_spans, is_forked, parents_of
from hedgerow.index.level import Level, StoredLevel
from hedgerow.index.packed import pack, packed_at, packed_words, unpack
from hedgerow.index.select import BLOCK_WORDS, MAX_BITS, BitVector, blocks_of

Layout = Literal["plain", "compact"]
LAYOUTS = ("plain", "compact")
# The arrays of a bit vector, in addition to those of `Level`.
VECTOR_ARRAYS = ("high", "zeros_before", "ones_before")
# The array that each fan-out but "unary" has: see `Coding`.
FANS = {"sparse": "child_start", "forked": "forks", "elias-fano": "high"}
# The dtype and shape of arrays, by name.
Shapes = dict[str, tuple[np.dtype, tuple[int, ...]]]
# Splitting the codes is slower, so it must save one byte of so many.
WORTH_SPLITTING = 16
BLOCK = 2**20


class Coding(NamedTuple):
    """How the nodes of a compact level are stored.

    Attributes:
        fan: what gives the children of a parent: "unary" (nothing: each has one child), "forked" (forks), "sparse" (row
            pointers), or "elias-fano" (the bit vector).
        low_bits: l, the number of packed bits of each code.
    """

    fan: str
    low_bits: int


def code_bits(codebook_size: int) -> int:
    """w, the number of bits of a code."""
    return (codebook_size - 1).bit_length()


def bits_of(parents: int, nodes: int, high_bits: int) -> int:
    """The length of the bit vector of a level."""
    return nodes + (parents << high_bits) + 1


def coding_of(parents: int, nodes: int, codebook_size: int) -> Coding:
    """The coding of a level that takes the fewest bytes. It depends on these numbers only."""
    width = code_bits(codebook_size)
    if nodes in (parents, 0):
        return Coding("unary" if nodes == parents else "sparse", width)
    fans = ["sparse"] + ["forked"] * is_forked(parents, nodes)
    whole = [Coding(fan, width) for fan in [*fans, "elias-fano"]]
    split = [Coding("elias-fano", low_bits) for low_bits in range(width)]
    possible = [coding for coding in whole + split if is_possible(parents, nodes, codebook_size, coding)]
    sizes = {coding: nbytes_of(parents, nodes, codebook_size, coding) for coding in possible}
    best = min((coding for coding in whole if coding in sizes), key=sizes.__getitem__)
    other = min(sizes, key=sizes.__getitem__)
    return other if (sizes[best] - sizes[other]) * WORTH_SPLITTING > sizes[best] else best


def shapes_of(parents: int, nodes: int, codebook_size: int, coding: Coding) -> Shapes:
    """The dtype and shape of each array of a level with a coding, without a bitmap."""
    high_bits = code_bits(codebook_size) - coding.low_bits
    words, numbers = np.dtype(np.uint32), np.dtype(np.int32)
    shapes: Shapes = {"codes": (words, (packed_words(nodes, coding.low_bits),))}
    if coding.fan == "forked":
        shapes["forks"] = numbers, (nodes - parents,)
    elif coding.fan == "sparse":
        shapes["child_start"] = numbers, (parents + 1,)
    elif coding.fan == "elias-fano":
        blocks = blocks_of(bits_of(parents, nodes, high_bits))
        shapes["high"] = words, (blocks, BLOCK_WORDS)
        shapes |= dict.fromkeys(VECTOR_ARRAYS[1 : 2 + (high_bits > 0)], (numbers, (blocks,)))
    return shapes


def is_possible(parents: int, nodes: int, codebook_size: int, coding: Coding) -> bool:
    """Whether a level can have a coding."""
    high_bits = code_bits(codebook_size) - coding.low_bits
    return {
        "unary": nodes == parents and not high_bits,
        "forked": nodes > parents and not high_bits,
        "sparse": not high_bits,
        "elias-fano": bits_of(parents, nodes, high_bits) <= MAX_BITS,
    }[coding.fan]


def nbytes_of(parents: int, nodes: int, codebook_size: int, coding: Coding) -> int:
    """The bytes that a level takes with a coding, without a bitmap."""
    shapes = shapes_of(parents, nodes, codebook_size, coding).values()
    return sum(dtype.itemsize * math.prod(shape) for dtype, shape in shapes)


@dataclass(frozen=True, eq=False)
class CompactLevel(StoredLevel):
    """One level of the trie, with the methods of `Level`, in the compact layout.

    Attributes:
        packed: [ceil(E / 32) * l + 1] uint32, the low bits of the codes: see `packed`.
        low_bits: l.
        bits: the bit vector of P * 2**(w - l) + E + 1 bits; None if the level has another fan-out.
        stored_start: [P + 1] int32, row pointers as in `Level`; None if they are not stored.
        stored_forks: [E - P] int32, forks as in `Level`; None if they are not stored.
        allowed: as in `Level`.
        num_nodes: E.
        num_parents: P.
        codebook_size: C.
        max_branch: K.
        end: the end code, or None.
    """

    packed: np.ndarray
    low_bits: int
    bits: BitVector | None
    stored_start: np.ndarray | None
    stored_forks: np.ndarray | None
    allowed: np.ndarray | None
    num_nodes: int
    num_parents: int
    codebook_size: int
    max_branch: int
    end: int | None = None

    @property
    def high_bits(self) -> int:
        """w - l, the number of bits of each code that are in the bit vector."""
        return code_bits(self.codebook_size) - self.low_bits

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """The stored arrays, by name."""
        arrays = {"codes": self.packed, "child_start": self.stored_start, "forks": self.stored_forks}
        arrays["allowed"] = self.allowed
        if self.bits is not None:
            vector = self.bits.words, self.bits.zeros_before, self.bits.ones_before
            arrays |= dict(zip(VECTOR_ARRAYS, vector, strict=True))
        return {name: array for name, array in arrays.items() if array is not None}

    @property
    def representation(self) -> str:
        """'unary', 'forked', 'sparse' or 'dense' as for `Level`, with packed codes; or 'elias-fano'."""
        if self.allowed is not None:
            return "dense"
        if self.bits is not None:
            return "elias-fano"
        if self.stored_start is not None:
            return "sparse"
        return "unary" if self.stored_forks is None else "forked"

    @property
    def codes(self) -> np.ndarray:
        """[E] uint8, uint16 or uint32, the code of each node. Decoded at each call."""
        codes = unpack(self.packed, self.low_bits, self.num_nodes)
        if self.bits is not None and self.high_bits:
            for begin, buckets in self._buckets(self.bits):
                high = (buckets & ((1 << self.high_bits) - 1)).astype(np.uint32)
                codes[begin : begin + len(high)] |= high << np.uint32(self.low_bits)
        return codes.astype(np.min_scalar_type(self.codebook_size - 1), copy=False)

    @property
    def child_start(self) -> np.ndarray | None:
        """Row pointers as in `Level`. Decoded at each call."""
        if self.bits is None:
            return self.stored_start
        return None if is_forked(self.num_parents, self.num_nodes) else self._start(self.bits)

    @property
    def forks(self) -> np.ndarray | None:
        """Forks as in `Level`. Decoded at each call."""
        if self.bits is None or not is_forked(self.num_parents, self.num_nodes):
            return self.stored_forks
        parts = [(buckets >> self.high_bits).astype(np.int32) for _, buckets in self._buckets(self.bits)]
        parents = np.concatenate(parts)
        return parents[1:][parents[1:] == parents[:-1]]

    def plain(self) -> Level:
        """The same level in the plain layout."""
        return Level(
            self.codes, self.child_start, self.forks, self.allowed, self.codebook_size, self.max_branch, self.end
        )

    def codes_of(self, nodes: np.ndarray) -> np.ndarray:
        """The codes of `nodes` [R], int64."""
        nodes = np.asarray(nodes, np.int64)
        low = packed_at(self.packed, self.low_bits, nodes)
        if self.bits is None or not self.high_bits:
            return low
        buckets = self.bits.ones(nodes) - nodes - 1
        return (buckets & ((1 << self.high_bits) - 1)) << self.low_bits | low

    def children(self, parents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The first child of each of `parents` [R], and the node after its last child."""
        if self.bits is None:
            return child_spans(self.stored_start, self.stored_forks, parents)
        first = np.asarray(parents, np.int64) << self.high_bits
        stop = first + (1 << self.high_bits)
        return self.bits.zeros(first) - first, self.bits.zeros(stop) - stop

    def parents(self, nodes: np.ndarray) -> np.ndarray:
        """The parent of each of `nodes` [R]."""
        if self.bits is None:
            return parents_of(self.stored_start, self.stored_forks, nodes)
        nodes = np.asarray(nodes, np.int64)
        return (self.bits.ones(nodes) - nodes - 1) >> self.high_bits

    def _buckets(self, bits: BitVector) -> Iterator[tuple[int, np.ndarray]]:
        """The bucket of each node, int64, in parts, each with the number of its first node."""
        node = 0
        for begin, chunk in bits.chunks():
            ones = np.flatnonzero(chunk)
            if len(ones):
                yield node, ones + (begin - 1) - np.arange(node, node + len(ones))
            node += len(ones)

    def _start(self, bits: BitVector) -> np.ndarray:
        start = np.empty(self.num_parents + 1, np.int32)
        zero, step = 0, 1 << self.high_bits
        for begin, chunk in bits.chunks():
            zeros = np.flatnonzero(~chunk)
            first = -zero % step
            parent = (zero + first) >> self.high_bits
            values = (zeros[first::step] + begin)[: self.num_parents + 1 - parent]
            numbers = np.arange(parent, parent + len(values))
            start[parent : parent + len(values)] = values - (numbers << self.high_bits)
            zero += len(zeros)
        return start


AnyLevel = Level | CompactLevel


def compact_level(
    level: Level, coding: Coding | None = None, empty: Callable[..., np.ndarray] = np.empty
) -> CompactLevel:
    """Encode a level. Its bitmap is kept.

    Args:
        level: the level. Its arrays are read in blocks, because they may be memory-mapped.
        coding: how; default: `coding_of`.
        empty: allocates the large arrays, as `numpy.empty` does.
    """
    parents, nodes, size = level.num_parents, level.num_nodes, level.codebook_size
    fan, low_bits = coding or coding_of(parents, nodes, size)
    packed = pack(level.codes, low_bits, empty)
    bits, start, forks = None, None, None
    if fan == "elias-fano":
        bits = bit_vector(level, Coding(fan, low_bits), parents, nodes, empty)
    elif fan == "sparse":
        start = as_start(level.child_start, level.forks, parents)
    elif fan == "forked":
        forks = as_forks(level.child_start, level.forks)
    return CompactLevel(
        packed, low_bits, bits, start, forks, level.allowed, nodes, parents, size, level.max_branch, level.end
    )


def bit_vector(
    level: Level, coding: Coding, parents: int, nodes: int, empty: Callable[..., np.ndarray] = np.empty
) -> BitVector:
    """The bit vector of a level, with room for so many parents and nodes."""
    high_bits = code_bits(level.codebook_size) - coding.low_bits
    ones = _ones(level, coding.low_bits, high_bits)
    return BitVector.of(ones, bits_of(parents, nodes, high_bits), has_ones=high_bits > 0, empty=empty)


def _ones(level: Level, low_bits: int, high_bits: int) -> Iterator[np.ndarray]:
    """The positions of the ones of the bit vector of a level, in parts."""
    for begin in range(0, level.num_nodes, BLOCK):
        stop = min(begin + BLOCK, level.num_nodes)
        buckets = parents_of_range(level, begin, stop) << high_bits
        if high_bits:
            buckets |= level.codes[begin:stop].astype(np.int64) >> low_bits
        yield buckets + np.arange(begin + 1, stop + 1)


def parents_of_range(level: Level, begin: int, stop: int) -> np.ndarray:
    """The parents of the nodes `begin` to `stop` - 1, int64."""
    start = level.child_start
    if start is None:
        return level.parents(np.arange(begin, stop)).astype(np.int64)
    first, last = level.parents(np.asarray([begin, stop - 1]))
    counts = np.diff(np.clip(start[first : last + 2], begin, stop))
    return np.repeat(np.arange(first, last + 1), counts)
