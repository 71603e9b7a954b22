"""Columns of a model's head that is divided among ranks: each rank has the logits of some codes of a level."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from hedgerow.decode.device import DeviceLevel
from hedgerow.decode.kernels.nodes import children, lower_bound
from hedgerow.decode.ops import Array, Ops
from hedgerow.errors import ArgumentError

# Maps an array of this rank to the arrays of all ranks, which have the same shape, stacked along a new first axis.
Gather = Callable[[Array], Array]


class Columns(NamedTuple):
    """The codes whose logits this rank has, if the columns of the model's head are divided among ranks.

    Attributes:
        first: the code of the first column. In JAX it can be traced, and columns can lie past the last code.
        size: the number of columns.
        gather: gathers the normalizers of all ranks. None: those of this rank's columns are used alone.
    """

    first: Array | int
    size: int
    gather: Gather | None


def gathered(gather: Gather, x: Array) -> Array:
    """The arrays of all ranks, [ranks, ...].

    Raises:
        ArgumentError: the function returns another shape.
    """
    of_ranks = gather(x)
    if tuple(of_ranks.shape[1:]) != tuple(x.shape):
        raise ArgumentError(
            f"gather must stack the arrays of all ranks along a new first axis: [ranks, {', '.join(map(str, x.shape))}]"
            f" for an array {list(x.shape)}; got {list(of_ranks.shape)}. In JAX: jax.lax.all_gather(x, axis_name)."
        )
    return of_ranks


def own_children(
    ops: Ops, level: DeviceLevel, states: Array, columns: Columns | None
) -> tuple[Array, Array, int, Array | None]:
    """The children of each state that can be by the codes of some columns.

    With fewer columns than a node can have children, the children by other codes are left out. A row of children
    ascends by code, so those by the codes of the columns are neighbors.

    Returns:
        First child and number of children, [B, m]; the largest possible number; and how many children of the state
        come before that first child, [B, m], or None if none do.
    """
    start, count = children(ops, level, states)
    if columns is None or level.max_branch <= columns.size:
        return start, count, max(level.max_branch, 1), None
    low = lower_bound(ops, level, start, start + count, columns.first)
    high = lower_bound(ops, level, low, start + count, columns.first + columns.size)
    # Where there are none, `low` can be past the last node.
    low, high = (ops.xp.where(high > low, x, start) for x in (low, high))
    return low, high - low, columns.size, low - start


def own_columns(ops: Ops, columns: Columns | None, codes: Array, valid: Array) -> tuple[Array, Array]:
    """The columns of the logits of candidates, and which of the valid candidates have one."""
    if columns is None:
        return codes, valid
    column = codes - columns.first
    own = (column >= 0) & (column < columns.size)
    return ops.xp.where(own, column, 0), valid & own
