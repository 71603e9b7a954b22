"""The upward pass on a device, over the array API standard: from the words of the leaves to those of every level."""

from __future__ import annotations

from hedgerow.decode.device import DeviceIndex, DeviceLevel
from hedgerow.decode.kernels.array import children
from hedgerow.decode.ops import Array, Ops
from hedgerow.index.level import WORD_BITS


def alive_on_device(index: DeviceIndex, leaves: Array) -> tuple[Array, ...]:
    """Returns what `index.alive.alive_levels` gives, computed where the index is, and padded as it is.

    Args:
        index: the trie.
        leaves: [W] int32, the words of the leaves; where the index has a capacity, padded to it.
    """
    ops, words, levels = index._ops, leaves, []
    for level in reversed(index.levels):
        nodes = level.codes.shape[0]
        levels.append(words if level.allowed is None else _over_codes(ops, level, words, nodes))
        if level.child_start is not None or level.forks is not None:
            words = _parents_alive(ops, level, words, nodes)
    return tuple(reversed(levels))


def _parents_alive(ops: Ops, level: DeviceLevel, words: Array, nodes: int) -> Array:
    """A parent is alive where more bits are set before its last child than before its first."""
    xp = ops.xp
    bits = xp.astype(_unpacked(ops, words)[:nodes], xp.int32)
    before = xp.cumulative_sum(bits, dtype=xp.int32, include_initial=True)
    first, count = children(ops, level, xp.arange(level.num_parents, dtype=xp.int32, device=ops.device_of(words)))
    return _packed(ops, ops.take(before, first + count) > ops.take(before, first))


def _over_codes(ops: Ops, level: DeviceLevel, words: Array, nodes: int) -> Array:
    """The bit of the k-th node in the place of the k-th bit that is set in the bitmap."""
    xp = ops.xp
    assert level.allowed is not None
    there = _unpacked(ops, xp.reshape(level.allowed, (-1,)))
    rank = xp.cumulative_sum(xp.astype(there, xp.int32), dtype=xp.int32) - 1
    alive = ops.take(_unpacked(ops, words)[:nodes], xp.clip(rank, 0, nodes - 1))
    return xp.reshape(_packed(ops, there & alive), level.allowed.shape)


def _unpacked(ops: Ops, words: Array) -> Array:
    xp = ops.xp
    bit = xp.arange(WORD_BITS, dtype=xp.int32, device=ops.device_of(words))
    return xp.reshape((xp.expand_dims(words, axis=-1) >> bit) & 1, (-1,)) != 0


def _packed(ops: Ops, bits: Array) -> Array:
    xp = ops.xp
    missing = -bits.shape[0] % WORD_BITS
    if missing:
        bits = xp.concat([bits, xp.zeros((missing,), dtype=xp.bool, device=ops.device_of(bits))])
    bit = xp.arange(WORD_BITS, dtype=xp.int32, device=ops.device_of(bits))
    rows = xp.astype(xp.reshape(bits, (-1, WORD_BITS)), xp.int32) << bit
    return xp.sum(rows, axis=-1, dtype=xp.int32)
