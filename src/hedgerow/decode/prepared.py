"""PreparedConstraints: the rules of a batch as arrays on a device, level by level."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from weakref import WeakSet

from hedgerow.decode.ops import Array
from hedgerow.errors import BackendError, ConstraintError


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
class PreparedConstraints:
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

    def copy(self) -> PreparedConstraints:
        """Returns the same in tensors of PyTorch of their own, which `refill` may write to.

        Raises:
            BackendError: these are not on PyTorch.
        """
        _check_torch(self)
        made = PreparedConstraints(
            tuple(
                LevelConstraints(*(None if array is None else array.clone() for array in level.arrays))
                for level in self.levels
            )
        )
        REFILLABLE.add(made)
        return made

    def refill(self, other: PreparedConstraints | None) -> None:
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
REFILLABLE: WeakSet[PreparedConstraints] = WeakSet()


def _shape(array: Array | None) -> tuple[int, ...] | None:
    return None if array is None else tuple(array.shape)


def _check_torch(constraints: PreparedConstraints) -> None:
    if not all(array is None or hasattr(array, "clone") for array in constraints.levels[0].arrays):
        raise BackendError("only tensors of PyTorch are refilled; give a compiled step hr.prepare_constraints(...).")


def _buckets(constraints: PreparedConstraints | None) -> str:
    """Returns how large constraints are, in words."""
    if constraints is None:
        return "none at all"
    first, last = constraints.levels[0], constraints.levels[-1]
    alive = None if last.alive is None else last.alive.shape
    sets = "no set" if alive is None else f"{alive[0]} sets of {math.prod(alive[1:]):,} words"
    room = "no exclusion" if first.dead_slots is None else f"{first.dead_slots.shape[1]} excluded ids a request"
    return f"{constraints.batch_size} requests, {sets} at the last level and {room}"
