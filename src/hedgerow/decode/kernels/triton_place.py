"""The last Triton kernel of a step: it ranks the listed candidates of a request and writes the new beams.

It does not sort: the position of a candidate among the new beams is the number of candidates with a larger key.
"""

# Triton's language is typed at compile time, which type checkers cannot follow.
# pyright: basic, reportArgumentType=false, reportAttributeAccessIssue=false, reportGeneralTypeIssues=false
# ruff: noqa: N803

from __future__ import annotations

import triton
import triton.language as tl

from hedgerow.decode.kernels.triton_common import INF, after_previous_kernel, bits_set, number_of, score_of
from hedgerow.decode.kernels.triton_compact import codes_of

SMALLEST_KEY = tl.constexpr(-(2**63))


@triton.jit
def _codes_below(allowed, state, code, mask, WORDS: tl.constexpr, BLOCK: tl.constexpr):
    """Number of allowed codes of each state below a code."""
    rank = tl.zeros_like(code)
    for start in range(0, WORDS, BLOCK):
        word = start + tl.arange(0, BLOCK)
        address = allowed + state.to(tl.int64)[:, None] * WORDS + word[None, :]
        words = tl.load(address, mask=mask[:, None] & (word < WORDS)[None, :], other=0)
        below = tl.minimum(tl.maximum(code[:, None] - word[None, :] * 32, 0), 32)
        # A shift by 32 is not defined, so 32 bits are handled separately.
        low = tl.where(below == 32, -1, (1 << (below & 31)) - 1)
        rank += tl.sum(bits_set(words & low), axis=1)
    return rank


@triton.jit
def _rank(keys, size, own_keys, beam_width, TILE: tl.constexpr):
    """Number of keys larger than each of `own_keys`. It stops counting once all of them have `beam_width` or more."""
    larger = tl.zeros([own_keys.shape[0], TILE], tl.int32)
    rank = tl.zeros([own_keys.shape[0]], tl.int32)
    best_rank = tl.min(rank)
    start = tl.full([], 0, tl.int32)
    while (start < size) & (best_rank < beam_width):
        position = start + tl.arange(0, TILE)
        tile_keys = tl.load(keys + position, mask=position < size, other=SMALLEST_KEY)
        larger += (tile_keys[None, :] > own_keys[:, None]).to(tl.int32)
        rank = tl.sum(larger, axis=1)
        best_rank = tl.min(rank)
        start += TILE
    return rank


@triton.jit(do_not_specialize=["capacity", "width", "span", "beam_width", "depth", "num_blocks"])
def place(
    keys, sizes, capacity, firsts, states, codes, allowed, history, order,
    new_codes, new_scores, new_states, new_parents, width, span, beam_width, depth, high, ones_before, num_blocks,
    COUNTED: tl.constexpr, SCAN: tl.constexpr, SIZE: tl.constexpr, WORDS: tl.constexpr, WORD_BLOCK: tl.constexpr,
    LOW_BITS: tl.constexpr, HIGH_BITS: tl.constexpr, DEPTH_BLOCK: tl.constexpr,
    OWN: tl.constexpr, TILE: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """Rank OWN candidates per program and pass among all of the request, and write those that are new beams."""
    after_previous_kernel(EARLY)
    request = tl.program_id(0).to(tl.int64)
    keys += request * capacity
    size = capacity
    if COUNTED:
        size = tl.load(sizes + request)
    for start in range(tl.program_id(1) * OWN, tl.maximum(size, beam_width), tl.num_programs(1) * OWN):
        position = start + tl.arange(0, OWN)
        listed = position < size
        own_keys = tl.load(keys + position, mask=listed, other=SMALLEST_KEY)
        score = tl.where(listed, score_of(own_keys), -INF)
        live = score > -INF
        number = number_of(own_keys)
        beam_place = tl.where(live, number // span, 0)
        child = number - beam_place * span
        parent = tl.load(order + request * width + beam_place, mask=live, other=0)
        # All loads start before the ranks are known, so that none has to be waited for afterwards.
        parent_row = request * width + parent
        node = tl.load(firsts + parent_row, mask=live, other=0)
        if SCAN:
            code = child
            state = tl.load(states + parent_row, mask=live, other=0)
            node += _codes_below(allowed, state, code, live, WORDS, WORD_BLOCK)
        else:
            node += child
            code = codes_of(codes, high, ones_before, num_blocks, node, live, SIZE, LOW_BITS, HIGH_BITS)
        if DEPTH_BLOCK > 0:
            level = tl.arange(0, DEPTH_BLOCK)[None, :]
            entry = history + parent_row[:, None] * depth + level
            old_codes = tl.load(entry, mask=live[:, None] & (level < depth), other=-1)
        # Positions from `size` on have no candidate; they become dead beams.
        rank = tl.where(listed, _rank(keys, size, own_keys, beam_width, TILE), position)
        kept = rank < beam_width
        beam = request * beam_width + rank
        tl.store(new_scores + beam, score, mask=kept)
        tl.store(new_states + beam, tl.where(live, node, -1), mask=kept)
        tl.store(new_parents + beam, parent, mask=kept)
        tl.store(new_codes + beam * (depth + 1) + depth, tl.where(live, code, -1), mask=kept)
        if DEPTH_BLOCK > 0:
            entry = new_codes + beam[:, None] * (depth + 1) + level
            tl.store(entry, old_codes, mask=kept[:, None] & (level < depth))
