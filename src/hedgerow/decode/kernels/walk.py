"""Walking the trie on a device: from codes that are known to the node they lead to, and what may follow it."""

from __future__ import annotations

from hedgerow.decode.beams import DEAD
from hedgerow.decode.device import DeviceLevel
from hedgerow.decode.kernels.array import children, codes_of, ranked_children
from hedgerow.decode.kernels.masking import alive_nodes, allowed_words, not_excluded
from hedgerow.decode.ops import Array, Ops
from hedgerow.decode.prepared import LevelConstraints
from hedgerow.index.level import WORD_BITS


def child_by_code(ops: Ops, level: DeviceLevel, states: Array, codes: Array) -> Array:
    """Returns the child [R] int32 of each of `states` [R] by each of `codes` [R] int32; dead (-1) where there is none.

    A dead state has no child. Shapes depend on R and the level alone, and nothing is read back to the host.
    """
    if level.max_branch == 0:
        return states * 0 + DEAD
    if level.allowed is not None:
        return _by_bitmap(ops, level, states, codes)
    return _by_search(ops, level, states, codes)


def allowed_children(
    ops: Ops, level: DeviceLevel, states: Array, bound: LevelConstraints | None = None
) -> tuple[Array, Array]:
    """Returns the codes [B, m, K] that may follow each of `states` [B, m], and which of them do, as bool [B, m, K].

    Where a state has fewer children than others, its first stands again, as valid as it is there.
    """
    codes, valid, there = candidates(ops, level, states, bound)
    return codes, valid if there is None else ops.xp.where(there, valid, valid[..., :1])


def candidates(
    ops: Ops, level: DeviceLevel, states: Array, bound: LevelConstraints | None = None
) -> tuple[Array, Array, Array | None]:
    """Returns what `allowed_children` does, but no code is valid twice, and which places [B, m, K] have a child.

    The places are None where the level is dense, and each code has its own.
    """
    xp = ops.xp
    if level.allowed is not None:
        words = allowed_words(ops, level, states, bound)
        code = xp.arange(level.codebook_size, dtype=xp.int32, device=ops.device_of(states))
        at = xp.broadcast_to(code // WORD_BITS, (*states.shape, len(code)))
        valid = ((ops.take_along(words, at) >> (code % WORD_BITS)) & 1) != 0
        valid = not_excluded(ops, bound, states, valid & xp.expand_dims(states > DEAD, axis=-1))
        return xp.broadcast_to(code, valid.shape), valid, None
    first, count = children(ops, level, states)
    at = xp.arange(max(level.max_branch, 1), dtype=xp.int32, device=ops.device_of(states))
    there = at < xp.expand_dims(count, axis=-1)
    nodes = xp.expand_dims(first, axis=-1) + xp.where(there, at, 0)
    valid = not_excluded(ops, bound, states, alive_nodes(ops, bound, nodes, there))
    return codes_of(ops, level, nodes), valid, there


def _by_bitmap(ops: Ops, level: DeviceLevel, states: Array, codes: Array) -> Array:
    xp = ops.xp
    known = (codes >= 0) & (codes < level.codebook_size) & (states > DEAD)
    parents, code = xp.where(known, states, 0), xp.where(known, codes, 0)
    word = ops.take_along(ops.take(level.allowed, parents), xp.expand_dims(code // WORD_BITS, axis=-1))[..., 0]
    found = known & (((word >> (code % WORD_BITS)) & 1) != 0)
    return xp.where(found, ranked_children(ops, level, parents, code), DEAD)


def _by_search(ops: Ops, level: DeviceLevel, states: Array, codes: Array) -> Array:
    """Halves the span of a node's children, which are in the order of their codes, until one is left."""
    xp = ops.xp
    low, count = children(ops, level, states)
    high = low + count
    last = len(level.codes) - 1
    end = high
    for _ in range(level.max_branch.bit_length()):
        middle = (low + high) // 2
        right = (low < high) & (codes_of(ops, level, xp.clip(middle, 0, last)) < codes)
        low, high = xp.where(right, middle + 1, low), xp.where(right, high, middle)
    found = (low < end) & (codes_of(ops, level, xp.clip(low, 0, last)) == codes)
    return xp.where(found, low, DEAD)
