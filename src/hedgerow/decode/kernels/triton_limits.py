"""Constraint sets and exclusions of a batch in the Triton kernels."""

# Triton's language is typed at compile time, which type checkers cannot follow.
# pyright: basic, reportArgumentType=false, reportAttributeAccessIssue=false, reportGeneralTypeIssues=false
# ruff: noqa: N803

from __future__ import annotations

import triton
import triton.language as tl

from hedgerow.decode.kernels.triton_common import LARGEST_INT

# A list of dead nodes is short: 32 pivots, one per thread of a warp, are enough.
DEAD_PIVOTS = tl.constexpr(32)


@triton.jit
def ranks(ascending, length, value, STEPS: tl.constexpr, PIVOTS: tl.constexpr):
    """Number of entries of an ascending list below a value, and number up to and including it; int64.

    Each of STEPS steps loads PIVOTS entries at once, because the time depends on the chain of loads, not their number.
    """
    pivot = tl.arange(0, PIVOTS).to(tl.int64)
    before = value * 0
    through = value * 0
    for step in tl.static_range(STEPS):
        last = (pivot + 1) * (PIVOTS ** (STEPS - 1 - step)) - 1
        low = tl.load(ascending + (before + last), mask=before + last < length, other=LARGEST_INT)
        high = tl.load(ascending + (through + last), mask=through + last < length, other=LARGEST_INT)
        before += tl.sum((low < value).to(tl.int64)) * (PIVOTS ** (STEPS - 1 - step))
        through += tl.sum((high <= value).to(tl.int64)) * (PIVOTS ** (STEPS - 1 - step))
    return before, through


@triton.jit
def set_of(alive, set_rows, free, request, set_words, SETS: tl.constexpr):
    """Address of the words of a request's set, and the bits to set in all of them: -1 without a set, otherwise 0."""
    free_word = 0
    if SETS:
        alive += tl.load(set_rows + request).to(tl.int64) * set_words
        free_word = tl.load(free + request)
    return alive, free_word


@triton.jit
def dead_children(dead_parents, room, request, state, DEAD_STEPS: tl.constexpr):
    """Start and stop of the dead children of a state in the list of its request, [1] each."""
    before = tl.zeros([1], tl.int32)
    through = tl.zeros([1], tl.int32)
    if DEAD_STEPS > 0:
        parent = tl.maximum(state, 0).to(tl.int64)
        below, up_to = ranks(dead_parents + request * room, room, parent, DEAD_STEPS, DEAD_PIVOTS)
        before += below.to(tl.int32)
        through += up_to.to(tl.int32)
    return before, through


@triton.jit
def unmasked(
    valid, state, first, child, code, alive, free_word, dead_slots, dead_start, dead_stop,
    SETS: tl.constexpr, BITMAP_WORDS: tl.constexpr, DEAD_STEPS: tl.constexpr,
):  # fmt: skip
    """Which of the valid candidates are in the request's set, and are not among the dead children of their state."""
    if SETS:
        bit = first + child
        if BITMAP_WORDS > 0:
            alive += tl.maximum(state, 0).to(tl.int64) * BITMAP_WORDS
            bit = code
        word = tl.load(alive + (bit >> 5), mask=valid, other=0) | free_word
        valid = valid & (((word >> (bit & 31)) & 1) != 0)
    if DEAD_STEPS > 0:
        # Most states have no dead child.
        for dead in range(tl.max(dead_stop - dead_start)):
            slot = tl.load(dead_slots + dead_start + dead, mask=dead_start + dead < dead_stop, other=-1)
            valid = valid & (code != slot) if BITMAP_WORDS > 0 else valid & (child != slot)
    return valid
