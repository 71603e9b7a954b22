"""Functions that the Triton kernels share: bounds of logits, keys of candidates, numbers of bits.

A key is an int64. Its upper half is a candidate's score as an integer of the same order, its lower half the candidate's
number, inverted. So keys are distinct, and the larger key is the better candidate.
"""

# Triton's language is typed at compile time, which type checkers cannot follow.
# pyright: basic, reportArgumentType=false, reportAttributeAccessIssue=false, reportGeneralTypeIssues=false
# ruff: noqa: N803

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from hedgerow.decode.kernels.array import INF as INFINITY
from hedgerow.decode.kernels.array import LARGEST as LARGEST_LOGIT

INF = tl.constexpr(INFINITY)
LARGEST = tl.constexpr(LARGEST_LOGIT)
LARGEST_INT = tl.constexpr(2**31 - 1)
LOW_BITS = tl.constexpr(2**32 - 1)


@triton.jit
def after_previous_kernel(EARLY: tl.constexpr):
    """If kernels start early, let the next one start, and wait until all results of the previous one are written.

    The next kernel waits here until this one has ended, so it never overwrites what this one still reads.
    """
    if EARLY:
        gdc_launch_dependents()
        gdc_wait()


@triton.jit
def bounded(logits):
    """Logits as `array.bounded` returns them: NaN as -inf, finite values and +inf clipped to +-LARGEST."""
    wide = logits.to(tl.float32)
    return tl.where(wide > -INF, tl.minimum(tl.maximum(wide, -LARGEST), LARGEST), -INF)


@triton.jit
def ordered(score):
    """Float32 scores as int32 of the same order."""
    bits = score.to(tl.int32, bitcast=True)
    return bits ^ ((bits >> 31) & LARGEST_INT)


@triton.jit
def key_of(score, number):
    """Keys of candidates, from their scores and their numbers in the request."""
    return (ordered(score).to(tl.int64) << 32) | (number.to(tl.int64) ^ LOW_BITS)


@triton.jit
def score_of(key):
    """Scores of keys."""
    bits = (key >> 32).to(tl.int32)
    return (bits ^ ((bits >> 31) & LARGEST_INT)).to(tl.float32, bitcast=True)


@triton.jit
def number_of(key):
    """Numbers of keys."""
    return ((key & LOW_BITS) ^ LOW_BITS).to(tl.int32)


@triton.jit
def bits_set(words):
    """Count bits in pairs, then in nibbles, then in bytes: Triton has no popcount."""
    words = words - ((words >> 1) & 0x55555555)
    words = (words & 0x33333333) + ((words >> 2) & 0x33333333)
    words = (words + (words >> 4)) & 0x0F0F0F0F
    return (words * 0x01010101) >> 24
