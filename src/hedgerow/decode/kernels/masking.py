"""Masks of the constraint sets and exclusions of a batch over the candidates of a step, over the array API standard."""

from __future__ import annotations

from hedgerow.decode.beams import DEAD
from hedgerow.decode.device import DeviceLevel
from hedgerow.decode.ops import Array, Ops
from hedgerow.decode.prepared import LevelConstraints
from hedgerow.index.level import WORD_BITS

WORD_SHIFT = WORD_BITS.bit_length() - 1


def allowed_words(ops: Ops, level: DeviceLevel, states: Array, limits: LevelConstraints | None) -> Array:
    """Words [B, m, W] of the codes of a dense level that follow each state [B, m] in the trie and the request's set."""
    xp = ops.xp
    parents = xp.where(states > DEAD, states, 0)
    words = ops.take(level.allowed, parents)
    if limits is None or limits.alive is None:
        return words
    position = (xp.astype(xp.expand_dims(limits.rows, axis=-1), ops.index_dtype), xp.astype(parents, ops.index_dtype))
    return words & (limits.alive[position] | xp.reshape(limits.free, (-1, 1, 1)))


def alive_nodes(ops: Ops, limits: LevelConstraints | None, nodes: Array, valid: Array) -> Array:
    """Bool [B, m, K]: which of the valid candidates are in the set of their request.

    Args:
        ops: the operations of the backend.
        limits: the constraints of the batch at a level that is not dense.
        nodes: [B, m, K] the candidates.
        valid: [B, m, K] whether each of them is a candidate.
    """
    if limits is None or limits.alive is None:
        return valid
    xp = ops.xp
    position = (
        xp.astype(xp.reshape(limits.rows, (-1, 1, 1)), ops.index_dtype),
        xp.astype(nodes >> WORD_SHIFT, ops.index_dtype),
    )
    words = limits.alive[position] | xp.reshape(limits.free, (-1, 1, 1))
    return valid & xp.astype((words >> (nodes & (WORD_BITS - 1))) & 1, xp.bool)


def not_excluded(
    ops: Ops, limits: LevelConstraints | None, states: Array, valid: Array, skipped: Array | None = None
) -> Array:
    """Bool, which of the valid candidates are not excluded: [B, m, C] on a dense level, [B, m, K] on others.

    The last axis counts as `LevelConstraints.dead_slots` does. Each dead node finds the beam at its parent and clears
    its own slot there, so the work grows with the exclusions and not with the candidates. The live states of a request
    must be distinct, as those of a search are. `skipped` [B, m] is the slot of the first entry of each beam; None: 0.
    """
    if limits is None or limits.dead_parents is None:
        return valid
    xp = ops.xp
    batch, width, size = valid.shape
    order = xp.argsort(states, axis=-1)
    ascending = ops.take_along(states, order)
    rank = ops.rank_rows(ascending, limits.dead_parents)
    rank = xp.where(rank < width, rank, width - 1)
    has_beam = ops.take_along(ascending, rank) == limits.dead_parents
    beam, slot = ops.take_along(order, rank), limits.dead_slots
    if skipped is not None:
        slot = slot - ops.take_along(skipped, beam)
        has_beam = has_beam & (slot >= 0) & (slot < size)
    slot = beam * size + slot
    # Dead nodes below no beam clear a spare slot past the end.
    slot = xp.where(has_beam, slot, width * size)
    flat = xp.reshape(valid, (batch, width * size))
    spare = xp.ones((batch, 1), dtype=xp.bool, device=ops.device_of(valid))
    struck = ops.strike(xp.concat([flat, spare], axis=-1), slot)
    return xp.reshape(struck[:, : width * size], valid.shape)
