"""What a batch's sets and exclusions take from a step's candidates, over the array API standard."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from weakref import WeakSet

from hedgerow.decode.beams import DEAD
from hedgerow.decode.device import DeviceLevel
from hedgerow.decode.ops import Array, Ops
from hedgerow.errors import BackendError, ConstraintError
from hedgerow.index.trie import WORD_BITS

WORD_SHIFT = WORD_BITS.bit_length() - 1


@dataclass(frozen=True, eq=False)
class LevelConstraints:
    """The sets and the exclusions of a batch of B requests, at one level; a pytree in JAX and PyTorch.

    Attributes:
        rows: [B] int32, which of the batch's sets binds each request; any where none does. None where there is no set.
        free: [B] int32, -1 (all bits set) where no set binds a request, else 0. None where there is no set.
        alive: [R, W] int32, the alive bits of R sets over the level's nodes; [R, P, W] over its codes where the level
            is dense. None where there is no set.
        dead_parents: [B, X] int32, ascending, filled up with 2^31 - 1: the parents of nodes whose items are all
            excluded. None where nothing is excluded.
        dead_slots: [B, X] int32: such a node's code where the level is dense, else its place among the children.
    """

    rows: Array | None
    free: Array | None
    alive: Array | None
    dead_parents: Array | None
    dead_slots: Array | None

    @property
    def arrays(self) -> tuple[Array | None, ...]:
        """The attributes, in their order."""
        return tuple(getattr(self, field.name) for field in fields(self))


@dataclass(frozen=True, eq=False)
class Constraints:
    """The sets and the exclusions of a batch on a device: what `constrain` gives; a pytree in JAX and PyTorch.

    Attributes:
        levels: L of them.
    """

    levels: tuple[LevelConstraints, ...]

    @property
    def batch_size(self) -> int:
        """B."""
        first = self.levels[0]
        array = first.dead_parents if first.rows is None else first.rows
        assert array is not None
        return array.shape[0]

    def copy(self) -> Constraints:
        """Returns the same in tensors of PyTorch of their own, which `refill` may write to.

        Raises:
            BackendError: these are not on PyTorch.
        """
        _check_torch(self)
        made = Constraints(
            tuple(
                LevelConstraints(*(None if array is None else array.clone() for array in level.arrays))
                for level in self.levels
            )
        )
        REFILLABLE.add(made)
        return made

    def refill(self, other: Constraints | None) -> None:
        """Puts other constraints of the same buckets in the place of these, which are a `copy`: into the same tensors,
        so that a captured CUDA graph goes on with them, as `DeviceIndex.refill` does with another index.

        Raises:
            BackendError: these are no copy; others share their memory with what the index remembers.
            ConstraintError: the others are of other buckets, or of an index of other sizes.
        """
        if self not in REFILLABLE:
            raise BackendError("only a copy is refilled: constraints.copy(), made before the graph is captured.")
        if other is not None:
            _check_torch(other)
        new = [] if other is None else [array for level in other.levels for array in level.arrays]
        mine = [array for level in self.levels for array in level.arrays]
        if list(map(_shape, mine)) != list(map(_shape, new)):
            raise ConstraintError(
                f"these constraints have room for {_buckets(self)}; the others are {_buckets(other)}. Give as many "
                "requests, distinct sets and excluded ids, to the next power of two, on an index of the same capacity."
            )
        for array, values in zip(mine, new, strict=True):
            if array is not None:
                array.copy_(values)


# Those whose tensors nothing else has.
REFILLABLE: WeakSet[Constraints] = WeakSet()


def _shape(array: Array | None) -> tuple[int, ...] | None:
    return None if array is None else tuple(array.shape)


def _check_torch(constraints: Constraints) -> None:
    if not all(array is None or hasattr(array, "clone") for array in constraints.levels[0].arrays):
        raise BackendError("only tensors of PyTorch are refilled; give a compiled step hr.constrain(...).")


def _buckets(constraints: Constraints | None) -> str:
    """Returns how large constraints are, in words."""
    if constraints is None:
        return "none at all"
    first, last = constraints.levels[0], constraints.levels[-1]
    alive = None if last.alive is None else last.alive.shape
    sets = "no set" if alive is None else f"{alive[0]} sets of {math.prod(alive[1:]):,} words"
    room = "no exclusion" if first.dead_slots is None else f"{first.dead_slots.shape[1]} excluded ids a request"
    return f"{constraints.batch_size} requests, {sets} at the last level and {room}"


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
