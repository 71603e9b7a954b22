"""What a batch's sets and exclusions take from the candidates of the kernels on a GPU."""

# pyright: basic, reportArgumentType=false, reportAttributeAccessIssue=false, reportGeneralTypeIssues=false
# ruff: noqa: N803

from __future__ import annotations

import triton
import triton.language as tl

LARGEST_INT = tl.constexpr(2**31 - 1)
# A list of dead nodes is short, and a warp searches it by itself.
DEAD_PIVOTS = tl.constexpr(32)


@triton.jit
def ranks(ascending, length, value, STEPS: tl.constexpr, PIVOTS: tl.constexpr):
    """How many entries of a list are below a value, and how many below the next one; int64.

    A search that looks at PIVOTS places at once: what takes time is the chain of loads, not their number.
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
    """Where the words of a request's set begin, and the bits that are set in all of them."""
    every = 0
    if SETS:
        alive += tl.load(set_rows + request).to(tl.int64) * set_words
        every = tl.load(free + request)
    return alive, every


@triton.jit
def dead_children(dead_parents, room, request, state, DEAD_STEPS: tl.constexpr):
    """Where the dead children of a state begin and end in its request's list, [1] each."""
    before = tl.zeros([1], tl.int32)
    through = tl.zeros([1], tl.int32)
    if DEAD_STEPS > 0:
        parent = tl.maximum(state, 0).to(tl.int64)
        below, up_to = ranks(dead_parents + request * room, room, parent, DEAD_STEPS, DEAD_PIVOTS)
        before += below.to(tl.int32)
        through += up_to.to(tl.int32)
    return before, through


@triton.jit
def shown(
    valid, state, first, at, code, alive, free, dead_slots, before, through,
    SETS: tl.constexpr, BITMAP_WORDS: tl.constexpr, DEAD_STEPS: tl.constexpr,
):  # fmt: skip
    """Which of the valid candidates are in the request's set, and not among the dead children of their state."""
    if SETS:
        place = first + at
        if BITMAP_WORDS > 0:
            alive += tl.maximum(state, 0).to(tl.int64) * BITMAP_WORDS
            place = code
        word = tl.load(alive + (place >> 5), mask=valid, other=0) | free
        valid = valid & (((word >> (place & 31)) & 1) != 0)
    if DEAD_STEPS > 0:
        # A state has few dead children, most often none.
        for dead in range(tl.max(through - before)):
            struck = tl.load(dead_slots + before + dead, mask=before + dead < through, other=-1)
            valid = valid & (code != struck) if BITMAP_WORDS > 0 else valid & (at != struck)
    return valid
