"""prepare_constraints(): the rules of a batch as arrays on the device of the index, ready for the steps of a search."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from weakref import ref

import numpy as np

from hedgerow._arguments import whole_number
from hedgerow._read_only import set_read_only
from hedgerow.constraints.cache import cache_of
from hedgerow.constraints.device_sets import DeviceSet
from hedgerow.constraints.exclude import dead_nodes
from hedgerow.constraints.requests import BatchRules, Exclusions, Sets, batch_rules
from hedgerow.constraints.sets import ConstraintSet
from hedgerow.decode.alive import alive_on_device, leaves_on_device
from hedgerow.decode.capacity import padded_alive, padded_leaves
from hedgerow.decode.device import DeviceIndex, as_device_index, host_of, is_accelerated, placer
from hedgerow.decode.ops import Array
from hedgerow.decode.prepared import OWNERS, LevelConstraints, PreparedConstraints
from hedgerow.errors import ConstraintError
from hedgerow.index.bits import power_of_two
from hedgerow.index.forest import Forest
from hedgerow.index.level import words_of
from hedgerow.index.trie import Trie

# Lists of dead nodes have this length, or twice, four times, ... as much: each length compiles once.
MIN_DEAD_NODES = 16
# A parent that does not exist; it fills lists of dead nodes.
NO_PARENT = 2**31 - 1
OTHER_INDEX = (
    "the constraints are prepared for another index. Prepare them for this one: "
    "hr.prepare_constraints(index, batch_size, ...). After DeviceIndex.refill, prepare them again, too."
)
Put = Callable[[np.ndarray], Array]


def prepare_constraints(
    index: DeviceIndex | Trie, batch_size: int, *, constraints: Sets = None, exclude: Exclusions = None
) -> PreparedConstraints | None:
    """Prepare the constraint sets and exclusions of a batch for the steps of a search, on the index's device.

    `step` and `beam_search` accept the result as `constraints=`. Prepare once per search, outside of traced code.
    Changing constraints does not trigger recompilation by `jax.jit` or `torch.compile` as long as the number of
    distinct sets in the batch and the largest number of excluded ids, each rounded up to a power of two, stay the same.
    If the index has a capacity, this also holds for every other index that fits into it.

    Args:
        index: the trie, on the device of the search.
        batch_size: B.
        constraints: one constraint set for all requests, or for each request its set or None.
        exclude: for each request the ids of items to exclude, a constraint set of them, or None; or one set for all
            requests. Ids that no item has are ignored. A SID stays allowed as long as one of its items in the request's
            set is not excluded. Each set takes a pass over the nodes, on the device if its mask is there.

    Returns:
        The prepared constraints, or None if no request has a set or excludes an item.

    Raises:
        ArgumentError: `batch_size` is not a positive integer, or `index` is not an index.
        ConstraintError: a set belongs to another index, the lists do not fit the batch, or ids are not of the type of
            the index's ids.

    Examples:
        ```python
        import numpy as np
        import hedgerow as hr

        index = hr.build_index(hr.Catalog([[0, 1], [2, 0], [2, 2]], item_ids=["a", "b", "c"]))
        prepared = hr.prepare_constraints(
            index, batch_size=2, constraints=[index.constraint(ids=["a", "b"]), None], exclude=[None, ["c"]]
        )
        beams = hr.beam_search(
            index,
            lambda beams: np.zeros((*beams.states.shape, 3)),
            batch_size=2,
            beam_width=4,
            constraints=prepared,
        )
        assert beams.num_valid.tolist() == [2, 2]
        ```
    """
    device_index = as_device_index(index)
    if device_index.backend == "torch" and _is_compiling():
        from hedgerow.decode.traced import refuse_sets

        refuse_sets()
    whole_number(batch_size, "batch_size")
    if isinstance(constraints, PreparedConstraints):
        raise ConstraintError(
            "these constraints are prepared already. Pass them to hr.step or hr.beam_search, or pass the constraint "
            "sets that they were made from."
        )
    return prepared(device_index, batch_rules(_host(device_index), batch_size, constraints, exclude))


@dataclass(frozen=True)
class Room:
    """The least sizes of prepared constraints, so that batches of different rules have equal shapes.

    Attributes:
        sets: the number of distinct sets in a batch that has any.
        excluded: the number of excluded items per request in a batch that has any.
    """

    sets: int = 1
    excluded: int = MIN_DEAD_NODES


def prepared(index: DeviceIndex, rules: BatchRules, room: Room = Room()) -> PreparedConstraints | None:
    """Prepare rules that are checked already. None if no request has a rule."""
    if rules.sets is None and rules.excluded is None:
        return None
    put, num_levels = placer(index), len(index.levels)
    requests, alive = (None, None), (None,) * num_levels
    dead: Any = [(None, None)] * num_levels
    if rules.sets is not None:
        requests, alive = _stacked(index, rules, room.sets, put)
    if rules.excluded is not None:
        dead = _dead_lists(index, rules, room.excluded, put)
    constraints = PreparedConstraints(
        tuple(LevelConstraints(*requests, words, *lists) for words, lists in zip(alive, dead, strict=True))
    )
    set_read_only([level.arrays for level in constraints.levels])
    OWNERS[constraints] = ref(rules.index), _dense_levels(index)
    return constraints


def as_prepared(
    index: DeviceIndex, batch_size: int, constraints: PreparedConstraints | Sets, exclude: Exclusions
) -> PreparedConstraints | None:
    """Prepare the constraints of a batch, or check those that are prepared already.

    Raises:
        ConstraintError: prepared constraints do not fit the index or the batch, or as for `prepare_constraints`.
    """
    if constraints is None and exclude is None:
        return None
    if not isinstance(constraints, PreparedConstraints):
        return prepare_constraints(index, batch_size, constraints=constraints, exclude=exclude)
    if exclude is not None:
        raise ConstraintError(
            "the constraints are prepared already, so exclude has no effect here. Pass exclude to "
            "hr.prepare_constraints."
        )
    if (constraints.batch_size, len(constraints.levels)) != (batch_size, len(index.levels)):
        raise ConstraintError(
            f"the constraints are prepared for {constraints.batch_size} requests and {len(constraints.levels)} levels; "
            f"this search has {batch_size} requests and {len(index.levels)} levels. Prepare them for this search: "
            "hr.prepare_constraints(index, batch_size, ...)."
        )
    _check_arrays(index, constraints)
    if not (index.backend == "torch" and _is_compiling()):
        _check_owner(index, constraints)
    for level, limits in zip(index.levels, constraints.levels, strict=True):
        words = (words_of(level.num_nodes),) if level.allowed is None else tuple(level.allowed.shape)
        if limits.alive is not None and tuple(limits.alive.shape[1:]) != words:
            raise ConstraintError(OTHER_INDEX)
    return constraints


def _check_arrays(index: DeviceIndex, constraints: PreparedConstraints) -> None:
    """Check that prepared constraints are on the backend and, on PyTorch, on the device of the index."""
    first = constraints.levels[0]
    array = first.dead_parents if first.rows is None else first.rows
    assert array is not None
    if not isinstance(array, index._ops.array_type):
        raise ConstraintError(
            f"the constraints are prepared as {type(array).__module__} arrays, but the index is on the backend "
            f"{index.backend!r}. Prepare them for this index: hr.prepare_constraints(index, batch_size, ...)."
        )
    if index.backend == "torch" and array.device != index.device:
        raise ConstraintError(
            f"the constraints are on {array.device}, but the index is on {index.device}. Prepare them for this index: "
            "hr.prepare_constraints(index, batch_size, ...)."
        )


def _check_owner(index: DeviceIndex, constraints: PreparedConstraints) -> None:
    """Check that the constraints are prepared for the index, if neither was rebuilt by a framework."""
    host, owner = host_of(index), OWNERS.get(constraints)
    if host is None or owner is None:
        return
    trie, dense = owner
    if trie() is not host or dense != _dense_levels(index):
        raise ConstraintError(OTHER_INDEX)


def _is_compiling() -> bool:
    import torch

    return torch.compiler.is_compiling()


def _dense_levels(index: DeviceIndex) -> tuple[bool, ...]:
    return tuple(level.allowed is not None for level in index.levels)


def _host(index: DeviceIndex) -> Trie:
    host = host_of(index)
    if host is None:
        raise ConstraintError(
            "inside traced code such as jax.jit the index has no copy on the host, which constraint sets need. Prepare "
            "the constraints outside: hr.prepare_constraints(device_index, batch_size, constraints=..., exclude=...)."
        )
    if isinstance(host, Forest):
        raise ConstraintError(
            "a CandidateIndex takes no constraints and no exclusions. Pass them with the candidates: "
            "index.candidates(lists, constraints=..., exclude=...)."
        )
    return host


def _stacked(
    index: DeviceIndex, rules: BatchRules, room: int, put: Put
) -> tuple[tuple[Array, Array], tuple[Array, ...]]:
    """`rows` and `free` of `LevelConstraints`, and per level the words of all sets of the batch."""
    assert rules.sets is not None
    # Sorted, so that the same sets in another order share one stack.
    by_key = {items._stack_key: items for items in rules.sets if items is not None}
    distinct = [by_key[key] for key in sorted(by_key)]
    # Filled up to a power of two with copies of the first set.
    stacked = distinct + distinct[:1] * (power_of_two(max(len(distinct), room)) - len(distinct))
    keys = tuple(items._stack_key for items in stacked)
    stack_keys, words = cache_of(rules.index).stack(_device_key(index), keys, lambda: _stack(index, stacked, put))
    rows = np.asarray([0 if items is None else stack_keys.index(items._stack_key) for items in rules.sets], np.int32)
    free = np.asarray([-1 if items is None else 0 for items in rules.sets], np.int32)
    return (put(rows), put(free)), words


def _device_key(index: DeviceIndex) -> tuple[Any, ...]:
    """Identifies the device and the layout of words there."""
    return index.backend, index.device, index.capacity


def _stack(index: DeviceIndex, sets: list[ConstraintSet], put: Put) -> tuple[Array, ...]:
    xp = index._ops.xp
    placed = [_placed(index, items, put) for items in sets]
    stacks: dict[tuple[int, ...], Array] = {}
    levels = []
    for words in zip(*placed, strict=True):
        # Levels that share their words share the stack.
        identity = tuple(map(id, words))
        if identity not in stacks:
            stacks[identity] = xp.expand_dims(words[0], axis=0) if len(words) == 1 else xp.stack(words)
        levels.append(stacks[identity])
    return tuple(levels)


def _placed(index: DeviceIndex, items: ConstraintSet, put: Put) -> tuple[Array, ...]:
    """The words of a set on the device of the index, copied or computed there once."""
    capacity, key = index.capacity, _device_key(index)
    if isinstance(items, DeviceSet) and _is_beside(index, items):
        if key not in items.placed:
            items.placed[key] = alive_on_device(index, leaves_on_device(index, items.index, items.device_mask))
        return items.placed[key]
    alive = items._alive
    if key not in alive.placed:
        if is_accelerated(index):
            leaves = alive.leaves if capacity is None else padded_leaves(capacity, alive.leaves)
            words = alive_on_device(index, put(leaves.view(np.int32)))
        else:
            levels = alive.levels if capacity is None else padded_alive(capacity, items.index, alive.levels)
            copies = {id(array): put(array.view(np.int32)) for array in levels}
            words = tuple(copies[id(array)] for array in levels)
        alive.placed[key] = words
    return alive.placed[key]


def _is_beside(index: DeviceIndex, items: DeviceSet) -> bool:
    """Whether the mask of a set is on the device of the index."""
    mask = items.device_mask
    if not isinstance(mask, index._ops.array_type) or not is_accelerated(index):
        return False
    array = index.levels[0].codes
    return mask.device == array.device


def _dead_lists(index: DeviceIndex, rules: BatchRules, room: int, put: Put) -> list[tuple[Array, Array]]:
    """Per level `dead_parents` and `dead_slots` [B, X] of `LevelConstraints`."""
    assert rules.excluded is not None
    length = power_of_two(max(room, *map(len, rules.excluded)))
    levels = []
    for dead in dead_nodes(rules, _dense_levels(index)):
        parents = np.full((rules.batch_size, length), NO_PARENT, np.int32)
        slots = np.zeros((rules.batch_size, length), np.int32)
        positions = np.arange(len(dead.requests)) - np.searchsorted(dead.requests, dead.requests)
        parents[dead.requests, positions] = dead.parents
        slots[dead.requests, positions] = dead.slots
        levels.append((put(parents), put(slots)))
    return levels
