"""constrain(): the sets and the exclusions of a batch, made ready for its steps, on the device of the index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hedgerow.constraints import ConstraintSet, memory_of
from hedgerow.decode.alive import alive_on_device
from hedgerow.decode.constrained import Constraints, LevelConstraints
from hedgerow.decode.device import DeviceIndex, as_device_index, host_of, is_accelerated, placer
from hedgerow.decode.exclude import DeadNodes, dead_nodes
from hedgerow.decode.ops import Array
from hedgerow.errors import ConstraintError
from hedgerow.index.trie import TrieIndex

Sets = ConstraintSet | Sequence[ConstraintSet | None] | None
Exclusions = Sequence[Any] | None
# Lists of dead nodes have room for this many, or twice, or four times ...: what compiles, compiles once for each.
LEAST_EXCLUDED = 16
NOWHERE = 2**31 - 1
# How many ids an error names.
FEW = 3


def constrain(
    index: DeviceIndex | TrieIndex, batch_size: int, *, constraints: Sets = None, exclude: Exclusions = None
) -> Constraints | None:
    """Makes the sets and the exclusions of a batch ready: once for a search, and outside of what is traced.

    What `step` and `beam_search` are given as `constraints=` is either what is given here, or what this returns.
    Programs that `jax.jit` and `torch.compile` made hold for any other sets, mixes and exclusions of the same buckets:
    the number of distinct sets in the batch, and the largest number of excluded ids, each rounded up to a power of two.
    Where the index has a capacity, they hold for those of every other index that fits in too.

    Args:
        index: the trie, on the device of the search.
        batch_size: B.
        constraints: one set for all requests, or for each its set or None.
        exclude: for each request the ids of items that it is not to be shown, or None; ids that no item has do no
            harm. A SID lives as long as any of its items in the request's set is left.

    Returns:
        The batch's constraints; None where nothing was given.

    Raises:
        ConstraintError: a set is another index's, the lists do not fit the batch, or ids are not of the index's type.
    """
    device_index = as_device_index(index)
    host = _host(index)
    sets = listed_sets(host, batch_size, constraints)
    rows = listed_rows(host, batch_size, exclude)
    if sets is None and rows is None:
        return None
    put = placer(device_index)
    nothing = (None, None), (None,) * host.num_levels
    binding, alive = nothing if sets is None else _stacked(device_index, host, sets, put)
    dead: Any = [(None, None)] * host.num_levels
    if rows is not None:
        dense = [level.allowed is not None for level in device_index.levels]
        dead = _dead_lists(host, sets or [None] * batch_size, rows, dense, put)
    return Constraints(
        tuple(LevelConstraints(*binding, words, *lists) for words, lists in zip(alive, dead, strict=True))
    )


def listed_sets(host: TrieIndex, batch_size: int, constraints: Sets) -> list[ConstraintSet | None] | None:
    """Returns the set of each request, or None where no request has one.

    Raises:
        ConstraintError: as for `constrain`.
    """
    if isinstance(constraints, ConstraintSet):
        constraints = [constraints] * batch_size
    if constraints is None:
        return None
    if isinstance(constraints, Constraints):
        raise ConstraintError("these constraints are prepared for a device; give the sets that they were made of.")
    if isinstance(constraints, str | bytes | np.ndarray) or not isinstance(constraints, Sequence):
        raise ConstraintError(
            "constraints must be one set, or a list of one set or None for each request; "
            f"got {type(constraints).__name__}. Make a set: index.constraint(mask), index.where(SQL)."
        )
    if len(constraints) != batch_size:
        raise ConstraintError(f"there are {batch_size} requests, but constraints for {len(constraints)}.")
    for at, items in enumerate(constraints):
        if items is None:
            continue
        if not isinstance(items, ConstraintSet):
            raise ConstraintError(
                f"constraints of request {at} must be a set of index.constraint(...), or None; "
                f"got {type(items).__name__}."
            )
        if items.index is not host:
            raise ConstraintError(
                f"{items!r}, of request {at}, is a set of another index object (a file that is loaded twice is two); "
                "make it of this one."
            )
    return list(constraints) if any(items is not None for items in constraints) else None


def listed_rows(host: TrieIndex, batch_size: int, exclude: Exclusions) -> list[np.ndarray] | None:
    """Returns the rows of the index that each request excludes, or None where none excludes any.

    Raises:
        ConstraintError: as for `constrain`.
    """
    if exclude is None:
        return None
    if isinstance(exclude, str | bytes) or not hasattr(exclude, "__len__"):
        raise ConstraintError(
            f"exclude must be a list of item ids for each request; got {exclude!r}. For one request: [[{exclude!r}]]."
        )
    if any(_is_id(ids) for ids in exclude):
        listed = list(exclude)
        raise ConstraintError(
            f"exclude must be a list of item ids for each request; got ids alone, {_few(listed)}. For one request: "
            f"[{_few(listed)}]."
        )
    if len(exclude) != batch_size:
        raise ConstraintError(
            f"there are {batch_size} requests, but exclude has {len(exclude)} entries; give a list of ids, or None, "
            "for each request."
        )
    found = []
    for at, ids in enumerate(exclude):
        rows = host.id_lookup.rows_of([] if ids is None else ids, f"exclude of request {at}")
        found.append(rows[rows >= 0])
    return found if any(ids is not None and len(ids) for ids in exclude) else None


def _is_id(ids: Any) -> bool:
    return ids is not None and (isinstance(ids, str | bytes) or not hasattr(ids, "__len__"))


def _few(ids: list[Any]) -> str:
    return repr(ids) if len(ids) <= FEW else f"[{', '.join(map(repr, ids[:FEW]))}, ...]"


def _host(index: DeviceIndex | TrieIndex) -> TrieIndex:
    if isinstance(index, TrieIndex):
        return index
    host = host_of(index)
    if host is None:
        raise ConstraintError(
            "here the index is not known on the host, as inside jax.jit; prepare the constraints outside: "
            "hr.constrain(device_index, batch_size, constraints=..., exclude=...)."
        )
    return host


def _stacked(
    index: DeviceIndex, host: TrieIndex, sets: list[ConstraintSet | None], put: Any
) -> tuple[tuple[Array, Array], tuple[Array, ...]]:
    """Returns which of the stacked sets binds each request, if any, and per level the words of all of them."""
    # In the order of their keys, so that the same sets in other places are the same stack.
    distinct = sorted({items for items in sets if items is not None}, key=lambda items: items.key)
    # Filled up with the first again, to a power of two.
    padded = distinct + distinct[:1] * (power_of_two(len(distinct)) - len(distinct))
    place, keys = (index.ops.name, index.device, index.capacity), tuple(items.key for items in padded)
    held, words = memory_of(host).stack(place, keys, lambda: _stack(index, host, padded, put))
    rows = np.asarray([0 if items is None else held.index(items.key) for items in sets], np.int32)
    free = np.asarray([-1 if items is None else 0 for items in sets], np.int32)
    return (put(rows), put(free)), words


def _stack(index: DeviceIndex, host: TrieIndex, sets: list[ConstraintSet], put: Any) -> tuple[Array, ...]:
    xp = index.ops.xp
    placed = [_placed(index, host, items, put) for items in sets]
    stacks: dict[tuple[int, ...], Array] = {}
    levels = []
    for words in zip(*placed, strict=True):
        # Levels that share their words share the stack.
        same = tuple(map(id, words))
        if same not in stacks:
            stacks[same] = xp.expand_dims(words[0], axis=0) if len(words) == 1 else xp.stack(words)
        levels.append(stacks[same])
    return tuple(levels)


def _placed(index: DeviceIndex, host: TrieIndex, items: ConstraintSet, put: Any) -> tuple[Array, ...]:
    """Returns a set's words on a device, where they are brought once."""
    alive, capacity = items.alive, index.capacity
    key = (index.ops.name, index.device, capacity)
    if key not in alive.placed:
        if is_accelerated(index):
            leaves = alive.leaves if capacity is None else capacity.padded_leaves(alive.leaves)
            words = alive_on_device(index, put(leaves.view(np.int32)))
        else:
            levels = alive.levels if capacity is None else capacity.padded_alive(host, alive.levels)
            brought = {id(array): put(array.view(np.int32)) for array in levels}
            words = tuple(brought[id(array)] for array in levels)
        alive.placed[key] = words
    return alive.placed[key]


def _dead_lists(
    host: TrieIndex, sets: Sequence[ConstraintSet | None], rows: list[np.ndarray], dense: Sequence[bool], put: Any
) -> list[tuple[Array, Array]]:
    room = max(LEAST_EXCLUDED, power_of_two(max(map(len, rows))))
    requests = [dead_nodes(host, items, excluded, dense) for items, excluded in zip(sets, rows, strict=True)]
    levels = []
    for nodes in zip(*requests, strict=True):
        parents, slots = np.full((len(rows), room), NOWHERE, np.int32), np.zeros((len(rows), room), np.int32)
        for at, dead in enumerate(nodes):
            _fill(parents[at], slots[at], dead)
        levels.append((put(parents), put(slots)))
    return levels


def _fill(parents: np.ndarray, slots: np.ndarray, dead: DeadNodes) -> None:
    parents[: len(dead.parents)], slots[: len(dead.slots)] = dead.parents, dead.slots


def power_of_two(n: int) -> int:
    """Returns the least power of two that is at least n, and 1."""
    return 1 << max(n - 1, 0).bit_length()
