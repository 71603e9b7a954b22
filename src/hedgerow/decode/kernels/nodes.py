"""Nodes of a level over the array API standard: the children of a state, and the codes of nodes."""

from __future__ import annotations

from hedgerow.decode.beams import DEAD
from hedgerow.decode.device import DeviceLevel
from hedgerow.decode.kernels.packed import packed_children, packed_codes
from hedgerow.decode.ops import Array, Ops
from hedgerow.index.level import WORD_BITS


def children(ops: Ops, level: DeviceLevel, states: Array) -> tuple[Array, Array]:
    """First child and number of children of each state, int32 in the shape of `states`. A dead state has none."""
    xp = ops.xp
    live = states > DEAD
    parents = xp.where(live, states, 0)
    if level.max_branch == 0:
        return parents * 0, parents * 0
    if level.high is not None:
        start, stop = packed_children(ops, level, parents)
    elif level.child_start is not None:
        start = ops.take(level.child_start, parents)
        stop = ops.take(level.child_start, parents + 1)
    elif level.forks is not None:
        bounds = xp.stack([parents, parents + 1])
        bounds = bounds + ops.rank(level.forks, bounds)
        start, stop = bounds[0], bounds[1]
    else:
        start, stop = parents, parents + 1
    return start, xp.where(live, stop - start, 0)


def lower_bound(ops: Ops, level: DeviceLevel, start: Array, stop: Array, codes: Array | int) -> Array:
    """First of the nodes `start` to `stop` - 1, which ascend by code, whose code is not below `codes`; or `stop`."""
    xp = ops.xp
    low, high, last = start, stop, level.num_nodes - 1
    for _ in range(level.max_branch.bit_length()):
        middle = (low + high) // 2
        right = (low < high) & (codes_of(ops, level, ops.clip(middle, 0, last)) < codes)
        low, high = xp.where(right, middle + 1, low), xp.where(right, high, middle)
    return low


def codes_of(ops: Ops, level: DeviceLevel, nodes: Array) -> Array:
    """Codes of nodes of a level, int32 in the shape of `nodes`."""
    if level.low_bits is not None:
        return packed_codes(ops, level, nodes)
    codes = ops.xp.astype(ops.take(level.codes, nodes), ops.xp.int32)
    # PyTorch holds 16-bit codes as signed integers.
    return codes & 0xFFFF if level.codebook_size <= 2**16 else codes


def ranked_children(ops: Ops, level: DeviceLevel, states: Array, codes: Array) -> Array:
    """Child of each state by a code of a dense level: the first child plus the number of allowed codes below the code.

    Args:
        ops: the operations of the backend.
        level: a dense level.
        states: nodes of the level before, in any shape. A dead state counts as node 0.
        codes: int32 in the same shape, an allowed code of each state.
    """
    xp = ops.xp
    states = xp.where(states > DEAD, states, 0)
    words = ops.take(level.allowed, states)
    word = ops.arange(words.shape[-1], words, ndim=words.ndim)
    # The number of bits of each word below the code: 32 for earlier words, 0 for later ones.
    below = ops.clip(xp.expand_dims(codes, axis=-1) - word * WORD_BITS, 0, WORD_BITS)
    # A shift by 32 is not defined, so 32 bits are handled separately.
    low_bits = xp.where(below == WORD_BITS, -1, (1 << (below % WORD_BITS)) - 1)
    rank = xp.sum(xp.astype(ops.popcount(words & low_bits), xp.int32), axis=-1, dtype=xp.int32)
    start, _ = children(ops, level, states)
    return start + rank
