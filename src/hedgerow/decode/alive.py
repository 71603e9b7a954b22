"""The upward pass on a device, over the array API standard: from the words of the leaves to those of every level."""

from __future__ import annotations

from hedgerow.decode.device import DeviceIndex, DeviceLevel, placer
from hedgerow.decode.kernels.nodes import children
from hedgerow.decode.ops import Array, Ops
from hedgerow.index.level import WORD_BITS
from hedgerow.index.trie import Trie


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


def leaves_on_device(index: DeviceIndex, host: Trie, mask: Array) -> Array:
    """Words [W] int32 of the leaves of the items for which a mask on the device of the index is true.

    Args:
        index: the trie on the device.
        host: the same trie on the host, which knows the items of each leaf.
        mask: [N] bool.
    """
    ops, xp, start, forks = index._ops, index._ops.xp, host.leaf_start, host.leaf_forks
    if start is not None or forks is not None:
        put = placer(index)
        start, forks = (None if array is None else put(array) for array in (start, forks))
        # The items are the children of the leaves.
        items = DeviceLevel(mask, start, forks, None, 0, max_branch=1)
        mask = _any_bit(ops, items, mask)
    missing = index.levels[-1].codes.shape[0] - mask.shape[0]
    if missing:
        mask = xp.concat([mask, xp.zeros((missing,), dtype=xp.bool, device=ops.device_of(mask))])
    return _packed(ops, mask)


def _any_child(ops: Ops, level: DeviceLevel, words: Array, num_nodes: int) -> Array:
    """Words of the parents, from those of their children."""
    return _packed(ops, _any_bit(ops, level, _unpacked(ops, words)[:num_nodes]))


def _any_bit(ops: Ops, level: DeviceLevel, bits: Array) -> Array:
    """Whether each parent is alive: the number of bits before its children grows across them."""
    xp = ops.xp
    before = xp.cumulative_sum(xp.astype(bits, xp.int32), dtype=xp.int32, include_initial=True)
    parents = ops.arange(level.num_parents, bits)
    start, count = children(ops, level, parents)
    return ops.take(before, start + count) > ops.take(before, start)


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
