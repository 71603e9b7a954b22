"""The children and codes of levels in the Triton kernels, also of compact ones: see `hedgerow.index.compact`."""

# Triton's language is typed at compile time, which type checkers cannot follow.
# pyright: basic, reportArgumentType=false, reportAttributeAccessIssue=false, reportGeneralTypeIssues=false
# pyright: reportOperatorIssue=false
# ruff: noqa: N803

from __future__ import annotations

import triton
import triton.language as tl

from hedgerow.decode.kernels.triton_common import LARGEST_INT, bits_set
from hedgerow.decode.kernels.triton_limits import ranks
from hedgerow.index.select import BLOCK_BITS as BITS
from hedgerow.index.select import BLOCK_WORDS as WORDS

BLOCK_BITS, BLOCK_WORDS = tl.constexpr(BITS), tl.constexpr(WORDS)


@triton.jit
def _one_in_word(word, number):
    """Position of the one with a number in each word."""
    place = number * 0
    for step in tl.static_range(5):
        below = bits_set(word & ((1 << (16 >> step)) - 1))
        above = number >= below
        number = tl.where(above, number - below, number)
        place = tl.where(above, place + (16 >> step), place)
        word = tl.where(above, word >> (16 >> step), word)
    return place


@triton.jit
def _zero_position(high, zeros_before, num_blocks, number, STEPS: tl.constexpr, PIVOTS: tl.constexpr):
    """Position of the zero with a number, int64. The words of its block are loaded at once."""
    _, through = ranks(zeros_before, num_blocks, number, STEPS, PIVOTS)
    block = through - 1
    rest = (number - tl.load(zeros_before + block)).to(tl.int32)
    lane = tl.arange(0, BLOCK_WORDS)
    words = ~tl.load(high + block * BLOCK_WORDS + lane)
    counts = bits_set(words)
    own = tl.sum((tl.cumsum(counts, 0) <= rest).to(tl.int32))
    rest -= tl.sum(tl.where(lane < own, counts, 0))
    word = tl.sum(tl.where(lane == own, words, 0))
    return block * BLOCK_BITS + own * 32 + _one_in_word(word, rest)


@triton.jit
def vector_children(
    high, zeros_before, num_blocks, parent, HIGH_BITS: tl.constexpr, STEPS: tl.constexpr, PIVOTS: tl.constexpr
):
    """First child of a parent, and the node after its last child, int32. `parent` is int64."""
    first = parent << HIGH_BITS
    stop = first + (1 << HIGH_BITS)
    start = _zero_position(high, zeros_before, num_blocks, first, STEPS, PIVOTS) - first
    end = _zero_position(high, zeros_before, num_blocks, stop, STEPS, PIVOTS) - stop
    return start.to(tl.int32), end.to(tl.int32)


@triton.jit
def _one_positions(high, ones_before, num_blocks, numbers, mask):
    """Position of the one with each number: a binary search for its block, then its word, then its bit."""
    low = numbers * 0
    above = low + num_blocks
    while tl.max(above - low) > 1:
        middle = (low + above) >> 1
        before = tl.load(ones_before + middle, mask=mask, other=0)
        low = tl.where(before <= numbers, middle, low)
        above = tl.where(before <= numbers, above, middle)
    rest = numbers - tl.load(ones_before + low, mask=mask, other=0)
    first_word = low.to(tl.int64) * BLOCK_WORDS
    word, number, place = numbers * 0, numbers * 0, numbers * 0
    for own in tl.static_range(BLOCK_WORDS):
        words = tl.load(high + first_word + own, mask=mask, other=0)
        count = bits_set(words)
        here = (rest >= 0) & (rest < count)
        word = tl.where(here, words, word)
        number = tl.where(here, rest, number)
        place = tl.where(here, own * 32, place)
        rest -= count
    return low * BLOCK_BITS + place + _one_in_word(word, number)


@triton.jit
def _packed_codes(codes, high, ones_before, num_blocks, nodes, mask, LOW_BITS: tl.constexpr, HIGH_BITS: tl.constexpr):
    """Codes of nodes of a compact level, int32."""
    code = nodes * 0
    if LOW_BITS > 0:
        # 32 nodes take LOW_BITS words, so no product exceeds 31 bits.
        offset = (nodes & 31) * LOW_BITS
        address = codes + ((nodes >> 5).to(tl.int64) * LOW_BITS + (offset >> 5))
        shift = offset & 31
        first = tl.load(address, mask=mask, other=0)
        second = tl.load(address + 1, mask=mask, other=0)
        # The shift of a negative word fills it up with ones, which are removed.
        kept = LARGEST_INT >> tl.maximum(shift - 1, 0)
        code = ((first >> shift) & kept) | ((second << 1) << (31 - shift))
        code = code & ((1 << LOW_BITS) - 1)
    if HIGH_BITS > 0:
        bucket = _one_positions(high, ones_before, num_blocks, nodes, mask) - nodes - 1
        code = code | ((bucket & ((1 << HIGH_BITS) - 1)) << LOW_BITS)
    return code


@triton.jit
def codes_of(
    codes, high, ones_before, num_blocks, nodes, mask,
    SIZE: tl.constexpr, LOW_BITS: tl.constexpr, HIGH_BITS: tl.constexpr,
):  # fmt: skip
    """Codes of nodes, int32. LOW_BITS is -1 unless the level is compact."""
    if LOW_BITS < 0:
        code = tl.load(codes + nodes.to(tl.int64), mask=mask, other=0).to(tl.int32)
        # PyTorch holds 16-bit codes as signed integers.
        if SIZE <= 65536:
            code = code & 65535
    else:
        code = _packed_codes(codes, high, ones_before, num_blocks, nodes, mask, LOW_BITS, HIGH_BITS)
    return code
