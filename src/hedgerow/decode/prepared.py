"""PreparedConstraints: the rules of a batch as arrays on a device, per level."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from weakref import ReferenceType, WeakKeyDictionary, WeakSet

from hedgerow._read_only import ReadOnlyArrays
from hedgerow.decode.ops import Array
from hedgerow.errors import BackendError, ConstraintError
from hedgerow.index.trie import Trie


@dataclass(frozen=True, eq=False)
class LevelConstraints(ReadOnlyArrays):
    """The constraint sets and the exclusions of B requests at one level. A pytree in JAX and PyTorch.

    All attributes of sets are None if no request has a set, and those of dead nodes if no request excludes an item.

    Attributes:
        rows: [B] int32, the position in `alive` of each request's set; any position for a request without a set.
        free: [B] int32, -1 (all bits set) for a request without a set, otherwise 0.
        alive: the alive bits of the distinct sets: [sets, W] int32 over the nodes of the level, or [sets, P, W] over
            the codes of a dense level.
        dead_parents: [B, X] int32, ascending, filled up with 2^31 - 1: the parents of the nodes whose items are all
            excluded.
        dead_slots: [B, X] int32: the code of each such node if the level is dense, otherwise its position among the
            children of its parent.
    """

    rows: Array | None
    free: Array | None
    alive: Array | None
    dead_parents: Array | None
    dead_slots: Array | None

    @property
    def arrays(self) -> tuple[Array | None, ...]:
        """The attributes, in order."""
        return tuple(getattr(self, field.name) for field in fields(self))


@dataclass(frozen=True, eq=False)
class PreparedConstraints:
    """The constraint sets and the exclusions of a batch on a device. A pytree in JAX and PyTorch.

    `prepare_constraints` makes them; `step` and `beam_search` accept them as `constraints=`.

    Attributes:
        levels: L entries.

    Examples:
        ```python
        import hedgerow as hr

        index = hr.build_index(hr.Catalog([[0, 1], [2, 0]], item_ids=["a", "b"]))
        prepared = hr.prepare_constraints(index, batch_size=2, exclude=[["a"], None])
        assert prepared.batch_size == 2
        ```
    """

    levels: tuple[LevelConstraints, ...]

    @property
    def batch_size(self) -> int:
        """Number of requests, B."""
        first = self.levels[0]
        array = first.dead_parents if first.rows is None else first.rows
        assert array is not None
        return array.shape[0]

    def copy(self) -> PreparedConstraints:
        """Copy the constraints to new PyTorch tensors, which `refill` can write to.

        Raises:
            BackendError: the constraints are not on PyTorch.

        Examples:
            ```python
            import hedgerow as hr

            index = hr.build_index(hr.Catalog([[0, 1], [2, 0]], item_ids=["a", "b"])).to("torch")
            prepared = hr.prepare_constraints(index, batch_size=1, exclude=[["a"]])
            static = prepared.copy()
            static.refill(hr.prepare_constraints(index, batch_size=1, exclude=[["b"]]))
            ```
        """
        _check_torch(self)
        copied = PreparedConstraints(
            tuple(
                LevelConstraints(*(None if array is None else array.clone() for array in level.arrays))
                for level in self.levels
            )
        )
        REFILLABLE.add(copied)
        _take_owner(copied, self)
        return copied

    def refill(self, other: PreparedConstraints | None) -> None:
        """Copy other constraints into the tensors of these, so that a captured CUDA graph applies the other ones.

        `DeviceIndex.refill` does the same with an index.

        Args:
            other: constraints of the same sizes: as many requests, distinct sets and excluded ids, the last two
                rounded up to a power of two, of an index of the same capacity.

        Raises:
            BackendError: these constraints are not the result of `copy`. Others share memory with a cache.
            ConstraintError: the other constraints have other sizes.

        Examples:
            ```python
            import hedgerow as hr

            index = hr.build_index(hr.Catalog([[0, 1], [2, 0]], item_ids=["a", "b"])).to("torch")
            static = hr.prepare_constraints(index, batch_size=1, exclude=[["a"]]).copy()
            static.refill(hr.prepare_constraints(index, batch_size=1, exclude=[["b"]]))
            assert static.levels[0].dead_slots[0, 0] == 2
            ```
        """
        if self not in REFILLABLE:
            raise BackendError(
                "only a copy can be refilled. Make one before the graph is captured: prepared = prepared.copy()."
            )
        if other is not None:
            _check_torch(other)
        new_arrays = [] if other is None else [array for level in other.levels for array in level.arrays]
        arrays = [array for level in self.levels for array in level.arrays]
        if list(map(_shape, arrays)) != list(map(_shape, new_arrays)):
            raise ConstraintError(
                f"these constraints have room for {_sizes(self)}; the others have {_sizes(other)}. Prepare constraints "
                "with as many requests, distinct sets and excluded ids (each rounded up to a power of two), on an "
                "index of the same capacity."
            )
        for array, values in zip(arrays, new_arrays, strict=True):
            if array is not None:
                array.copy_(values)
        _take_owner(self, other)


# Results of PreparedConstraints.copy: nothing else uses their tensors.
REFILLABLE: WeakSet[PreparedConstraints] = WeakSet()
# The index on the host that constraints are prepared for, and which of its levels are dense on the device. Not an
# attribute: frameworks flatten and rebuild constraints, and another index must not be another type of pytree.
# Constraints that a framework rebuilt have no entry.
OWNERS: WeakKeyDictionary[PreparedConstraints, tuple[ReferenceType[Trie], tuple[bool, ...]]] = WeakKeyDictionary()


def _take_owner(constraints: PreparedConstraints, other: PreparedConstraints | None) -> None:
    """Set the owner of constraints whose values are those of other constraints."""
    owner = None if other is None else OWNERS.get(other)
    if owner is None:
        OWNERS.pop(constraints, None)
    else:
        OWNERS[constraints] = owner


def _shape(array: Array | None) -> tuple[int, ...] | None:
    return None if array is None else tuple(array.shape)


def _check_torch(constraints: PreparedConstraints) -> None:
    if not all(array is None or hasattr(array, "clone") for array in constraints.levels[0].arrays):
        raise BackendError(
            "copy and refill need PyTorch tensors, and these constraints are on another backend. Pass new constraints "
            "of hr.prepare_constraints(...) to the compiled step instead."
        )


def _sizes(constraints: PreparedConstraints | None) -> str:
    """The sizes of constraints, for a message."""
    if constraints is None:
        return "no constraints"
    first, last = constraints.levels[0], constraints.levels[-1]
    shape = None if last.alive is None else last.alive.shape
    sets = "no set" if shape is None else f"{shape[0]} sets of {math.prod(shape[1:]):,} words"
    exclusions = "no exclusion" if first.dead_slots is None else f"{first.dead_slots.shape[1]} excluded ids per request"
    return f"{constraints.batch_size} requests, {sets} at the last level and {exclusions}"
