"""Removes from the candidates of a step what a batch's sets and exclusions forbid, over the array API standard."""

from __future__ import annotations

from hedgerow.decode.beams import DEAD
from hedgerow.decode.device import DeviceLevel
from hedgerow.decode.ops import Array, Ops
from hedgerow.decode.prepared import LevelConstraints
from hedgerow.index.level import WORD_BITS

WORD_SHIFT = WORD_BITS.bit_length() - 1


def allowed_words(ops: Ops, level: DeviceLevel, states: Array, bound: LevelConstraints | None) -> Array:
    """Returns the words [B, m, W] of the codes that may follow each state [B, m] of a dense level, its set's alone."""
    xp = ops.xp
    parents = xp.where(states > DEAD, states, 0)
    words = ops.take(level.allowed, parents)
    if bound is None or bound.alive is None:
        return words
    at = (xp.astype(xp.expand_dims(bound.rows, axis=-1), ops.index_dtype), xp.astype(parents, ops.index_dtype))
    return words & (bound.alive[at] | xp.reshape(bound.free, (-1, 1, 1)))


def alive_nodes(ops: Ops, bound: LevelConstraints | None, nodes: Array, valid: Array) -> Array:
    """Returns which of the valid candidates, nodes [B, m, K] of a level that is not dense, their request's set has."""
    if bound is None or bound.alive is None:
        return valid
    xp = ops.xp
    at = (
        xp.astype(xp.reshape(bound.rows, (-1, 1, 1)), ops.index_dtype),
        xp.astype(nodes >> WORD_SHIFT, ops.index_dtype),
    )
    words = bound.alive[at] | xp.reshape(bound.free, (-1, 1, 1))
    return valid & xp.astype((words >> (nodes & (WORD_BITS - 1))) & 1, xp.bool)


def not_excluded(ops: Ops, bound: LevelConstraints | None, states: Array, valid: Array) -> Array:
    """Returns which of the valid candidates [B, m, K] are left, K counting what `LevelConstraints.dead_slots` counts.

    Each dead node looks for the beam at its parent, and strikes its own slot there: the work grows with the
    exclusions, not with the candidates. A request's states are distinct, as those of a search are.
    """
    if bound is None or bound.dead_parents is None:
        return valid
    xp = ops.xp
    batch, width, size = valid.shape
    order = xp.argsort(states, axis=-1)
    ascending = ops.take_along(states, order)
    place = ops.rank_rows(ascending, bound.dead_parents)
    place = xp.where(place < width, place, width - 1)
    hit = ops.take_along(ascending, place) == bound.dead_parents
    slot = ops.take_along(order, place) * size + bound.dead_slots
    # What is at no beam strikes a slot past the end.
    slot = xp.where(hit, slot, width * size)
    flat = xp.reshape(valid, (batch, width * size))
    spare = xp.ones((batch, 1), dtype=xp.bool, device=ops.device_of(valid))
    struck = ops.strike(xp.concat([flat, spare], axis=-1), slot)
    return xp.reshape(struck[:, : width * size], valid.shape)
