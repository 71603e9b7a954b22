"""Walks of the trie on a device: from a node and a code to a child, and from a node to the codes that can follow."""

from __future__ import annotations

from hedgerow.decode.beams import DEAD
from hedgerow.decode.device import DeviceLevel
from hedgerow.decode.kernels.masking import alive_nodes, allowed_words, not_excluded
from hedgerow.decode.kernels.nodes import children, codes_of, lower_bound, ranked_children
from hedgerow.decode.ops import Array, Ops
from hedgerow.decode.prepared import LevelConstraints
from hedgerow.index.level import WORD_BITS


def child_by_code(ops: Ops, level: DeviceLevel, states: Array, codes: Array) -> Array:
    """Find the child of each state by a code.

    Shapes depend on R and the level alone, and the host reads nothing back.

    Args:
        ops: the operations of the backend.
        level: the level of the children.
        states: [R] int32 nodes of the level before; -1 if dead.
        codes: [R] int32.

    Returns:
        [R] int32; -1 if the state is dead or has no such child.
    """
    if level.max_branch == 0:
        return states * 0 + DEAD
    if level.allowed is not None:
        return _by_bitmap(ops, level, states, codes)
    return _by_search(ops, level, states, codes)


def allowed_children(
    ops: Ops, level: DeviceLevel, states: Array, limits: LevelConstraints | None = None
) -> tuple[Array, Array]:
    """Codes that can follow each state.

    Args:
        ops: the operations of the backend.
        level: the level of the codes.
        states: [B, m] int32 nodes of the level before; -1 if dead.
        limits: the constraints of the batch at this level.

    Returns:
        codes, int32, and whether each of them is allowed, bool. Both are [B, m, C] if the level is dense, otherwise
        [B, m, K]. The entries of a state with fewer than K children are filled up with copies of its first entry.
    """
    codes, valid, is_child = candidates(ops, level, states, limits)
    return codes, valid if is_child is None else ops.xp.where(is_child, valid, valid[..., :1])


def candidates(
    ops: Ops, level: DeviceLevel, states: Array, limits: LevelConstraints | None = None
) -> tuple[Array, Array, Array | None]:
    """Codes that can follow each state, as for `allowed_children`, but each code is valid at most once.

    Returns:
        codes; whether each is allowed; and whether each entry is a child, bool [B, m, K], or None if the level is
        dense.
    """
    xp = ops.xp
    if level.allowed is not None:
        words = allowed_words(ops, level, states, limits)
        code = ops.arange(level.codebook_size, states, ndim=states.ndim + 1)
        word = xp.broadcast_to(code // WORD_BITS, (*states.shape, level.codebook_size))
        valid = ((ops.take_along(words, word) >> (code % WORD_BITS)) & 1) != 0
        valid = not_excluded(ops, limits, states, valid & xp.expand_dims(states > DEAD, axis=-1))
        return xp.broadcast_to(code, valid.shape), valid, None
    start, count = children(ops, level, states)
    child = ops.arange(max(level.max_branch, 1), states, ndim=states.ndim + 1)
    is_child = child < xp.expand_dims(count, axis=-1)
    nodes = xp.expand_dims(start, axis=-1) + xp.where(is_child, child, 0)
    valid = not_excluded(ops, limits, states, alive_nodes(ops, limits, nodes, is_child))
    return codes_of(ops, level, nodes), valid, is_child


def _by_bitmap(ops: Ops, level: DeviceLevel, states: Array, codes: Array) -> Array:
    xp = ops.xp
    in_range = (codes >= 0) & (codes < level.codebook_size) & (states > DEAD)
    parents, code = xp.where(in_range, states, 0), xp.where(in_range, codes, 0)
    word = ops.take_along(ops.take(level.allowed, parents), xp.expand_dims(code // WORD_BITS, axis=-1))[..., 0]
    found = in_range & (((word >> (code % WORD_BITS)) & 1) != 0)
    return xp.where(found, ranked_children(ops, level, parents, code), DEAD)


def _by_search(ops: Ops, level: DeviceLevel, states: Array, codes: Array) -> Array:
    """Bisect the children of each state, which are in the order of their codes."""
    xp = ops.xp
    start, count = children(ops, level, states)
    found = lower_bound(ops, level, start, start + count, codes)
    is_child = codes_of(ops, level, ops.clip(found, 0, level.num_nodes - 1)) == codes
    return xp.where((found < start + count) & is_child, found, DEAD)
