"""The upward pass on a device, over the array API standard: from the words of the leaves to those of every level."""

from __future__ import annotations

from hedgerow.decode.device import DeviceIndex, DeviceLevel
from hedgerow.decode.kernels.nodes import children
from hedgerow.decode.ops import Array, Ops
from hedgerow.index.level import WORD_BITS


def alive_on_device(index: DeviceIndex, leaves: Array) -> tuple[Array, ...]:
    """Words of every level, as `constraints.alive.alive_levels` computes them, in the index's sizes and on its device.

    Args:
        index: the trie.
        leaves: [W] int32, the words of the leaves, padded to the capacity of the index if it has one.

    Returns:
        L arrays int32: [W] over the nodes, or [P, W] over the codes of a dense level.
    """
    ops, words, levels = index._ops, leaves, []
    for level in reversed(index.levels):
        num_nodes = level.num_nodes
        levels.append(words if level.allowed is None else _over_codes(ops, level, words, num_nodes))
        if not level.is_unary:
            words = _any_child(ops, level, words, num_nodes)
    return tuple(reversed(levels))


def _any_child(ops: Ops, level: DeviceLevel, words: Array, num_nodes: int) -> Array:
    """Words of the parents. A parent is alive if the number of bits before its children grows across them."""
    xp = ops.xp
    bits = xp.astype(_unpacked(ops, words)[:num_nodes], xp.int32)
    before = xp.cumulative_sum(bits, dtype=xp.int32, include_initial=True)
    parents = ops.arange(level.num_parents, words)
    start, count = children(ops, level, parents)
    return _packed(ops, ops.take(before, start + count) > ops.take(before, start))


def _over_codes(ops: Ops, level: DeviceLevel, words: Array, num_nodes: int) -> Array:
    """Words [P, W] over the codes: the bit of node i goes to the position of the i-th bit set in the bitmap."""
    xp = ops.xp
    assert level.allowed is not None
    has_node = _unpacked(ops, xp.reshape(level.allowed, (-1,)))
    node = xp.cumulative_sum(xp.astype(has_node, xp.int32), dtype=xp.int32) - 1
    is_alive = ops.take(_unpacked(ops, words)[:num_nodes], ops.clip(node, 0, num_nodes - 1))
    return xp.reshape(_packed(ops, has_node & is_alive), level.allowed.shape)


def _unpacked(ops: Ops, words: Array) -> Array:
    xp = ops.xp
    bit = ops.arange(WORD_BITS, words, ndim=2)
    return xp.reshape((xp.expand_dims(words, axis=-1) >> bit) & 1, (-1,)) != 0


def _packed(ops: Ops, bits: Array) -> Array:
    xp = ops.xp
    missing = -bits.shape[0] % WORD_BITS
    if missing:
        bits = xp.concat([bits, xp.zeros((missing,), dtype=xp.bool, device=ops.device_of(bits))])
    bit = ops.arange(WORD_BITS, bits, ndim=2)
    rows = xp.astype(xp.reshape(bits, (-1, WORD_BITS)), xp.int32) << bit
    return xp.sum(rows, axis=-1, dtype=xp.int32)
