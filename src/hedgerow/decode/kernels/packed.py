"""Compact levels over the array API standard: see `hedgerow.index.compact`."""

from __future__ import annotations

from hedgerow.decode.device import DeviceLevel
from hedgerow.decode.ops import Array, Ops
from hedgerow.index.level import WORD_BITS
from hedgerow.index.select import BLOCK_BITS, BLOCK_WORDS

WORD_SHIFT = WORD_BITS.bit_length() - 1
LARGEST_INT = 2**31 - 1


def packed_children(ops: Ops, level: DeviceLevel, parents: Array) -> tuple[Array, Array]:
    """First child of each parent of a level with a bit vector, and the node after its last child."""
    first = parents << level.high_bits
    stop = first + (1 << level.high_bits)
    return _zeros(ops, level, first) - first, _zeros(ops, level, stop) - stop


def packed_codes(ops: Ops, level: DeviceLevel, nodes: Array) -> Array:
    """Codes of nodes of a compact level, int32 in the shape of `nodes`."""
    nodes = ops.xp.astype(nodes, ops.xp.int32, copy=False)
    low = _low_bits(ops, level, nodes)
    if not level.high_bits:
        return low
    bucket = _ones(ops, level, nodes) - nodes - 1
    return (bucket & ((1 << level.high_bits) - 1)) << level.low_bits | low


def _low_bits(ops: Ops, level: DeviceLevel, nodes: Array) -> Array:
    """The packed bits of each node. They lie in two neighboring words."""
    bits = level.low_bits
    if not bits:
        return nodes * 0
    # 32 nodes take `bits` words, so no product exceeds 31 bits.
    offset = (nodes & (WORD_BITS - 1)) * bits
    word, shift = (nodes >> WORD_SHIFT) * bits + (offset >> WORD_SHIFT), offset & (WORD_BITS - 1)
    first, second = ops.take(level.codes, word), ops.take(level.codes, word + 1)
    # The shift of a negative word fills it up with ones, which are removed.
    kept = LARGEST_INT >> ops.clip(shift - 1, 0, WORD_BITS)
    return (((first >> shift) & kept) | ((second << 1) << (WORD_BITS - 1 - shift))) & ((1 << bits) - 1)


def _zeros(ops: Ops, level: DeviceLevel, numbers: Array) -> Array:
    """The position of each zero of the bit vector by its number."""
    return _positions(ops, level.high, level.zeros_before, numbers, of_ones=False)


def _ones(ops: Ops, level: DeviceLevel, numbers: Array) -> Array:
    """The position of each one of the bit vector by its number."""
    return _positions(ops, level.high, level.ones_before, numbers, of_ones=True)


def _positions(ops: Ops, vector: Array, before: Array, numbers: Array, *, of_ones: bool) -> Array:
    """The position of each zero or one of `vector` [blocks, BLOCK_WORDS]: its block, then its word, then its bit."""
    xp = ops.xp
    block = ops.rank(before, numbers + 1) - 1
    words, rest = ops.take(vector, block), numbers - ops.take(before, block)
    words = words if of_ones else ~words
    counts = xp.astype(ops.popcount(words), xp.int32)
    word = passed = through = rest * 0
    # Not a cumulative sum: Dynamo warns of that of array-api-compat.
    for number in range(BLOCK_WORDS - 1):
        through = through + counts[..., number]
        is_passed = through <= rest
        word, passed = word + xp.astype(is_passed, xp.int32), xp.where(is_passed, through, passed)
    rest = rest - passed
    bits = ops.take_along(words, xp.expand_dims(word, axis=-1))[..., 0]
    position = block * BLOCK_BITS + word * WORD_BITS
    for width in (16, 8, 4, 2, 1):
        below = xp.astype(ops.popcount(bits & ((1 << width) - 1)), xp.int32)
        above = rest >= below
        rest, position = xp.where(above, rest - below, rest), xp.where(above, position + width, position)
        bits = xp.where(above, bits >> width, bits)
    return position
