"""A step as a function of plain arrays, which torch.export and jax.export write to files that run without hedgerow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any

from hedgerow._arguments import whole_number
from hedgerow.decode.beams import Beams
from hedgerow.decode.device import DEVICE_ARRAYS, DeviceIndex
from hedgerow.decode.kernels.array import Normalize
from hedgerow.decode.ops import Array
from hedgerow.decode.prepared import LevelConstraints, PreparedConstraints
from hedgerow.decode.step import step
from hedgerow.errors import ArgumentError

__all__ = ["plain_step", "step_arrays"]

LIMITS = tuple(field.name for field in fields(LevelConstraints))
PlainStep = Callable[..., tuple[Array, Array, Array, Array]]


def plain_step(
    index: DeviceIndex,
    level: int,
    *,
    beam_width: int,
    normalize: Normalize = "codes",
    temperature: float = 1.0,
) -> PlainStep:
    """Make the step of one level as a function of arrays alone, to export it.

    The arrays of the index and of the constraints are arguments, not constants of the program. A program that is
    exported for an index with a capacity runs on every index that fits into it; see `Capacity`. It runs the array
    kernel, which needs no code of hedgerow. A step with constraints takes their arrays, too.

    Args:
        index: the trie, on PyTorch or JAX.
        level: l, the level that the step decides, from 0.
        beam_width: M.
        normalize: as for `step`.
        temperature: as for `step`.

    Returns:
        A function `(arrays, logits, codes, scores, states, parents)` -> `(codes, scores, states, parents)`: the arrays
        of `step_arrays`, the logits [B, m, C], and the fields of the beams before the step -> those after it.

    Raises:
        ArgumentError: `index` is not a device index, or has no such level. The function raises errors as
            `step` does, when it is traced.

    Examples:
        ```python
        import torch
        import hedgerow as hr
        from hedgerow.export import plain_step, step_arrays

        index = hr.build_index(hr.Catalog([[0, 1], [2, 0], [2, 2]])).to("torch")
        step, arrays = plain_step(index, 0, beam_width=4), step_arrays(index, 0)
        start = hr.init_beams(index, batch_size=1)
        beams = (start.codes, start.scores, start.states, start.parents)
        codes, scores, states, parents = step(arrays, torch.zeros(1, 1, 3), *beams)
        assert codes.tolist() == [[[0], [2], [-1], [-1]]]
        ```
    """
    _check_level(index, level)

    def exported(
        arrays: Mapping[str, Array], logits: Array, codes: Array, scores: Array, states: Array, parents: Array
    ) -> tuple[Array, Array, Array, Array]:
        if codes.shape[-1] != level:
            raise ArgumentError(f"this is the step of level {level}; the beams have {codes.shape[-1]} codes.")
        own = replace(index.levels[level], **{name: arrays[name] for name in DEVICE_ARRAYS if name in arrays})
        beams = step(
            replace(index, levels=(*index.levels[:level], own, *index.levels[level + 1 :])),
            Beams(codes, scores, states, parents),
            logits,
            beam_width=beam_width,
            normalize=normalize,
            temperature=temperature,
            kernel="array",
            constraints=_constraints_of(index, level, arrays),
        )
        return beams.codes, beams.scores, beams.states, beams.parents

    return exported


def step_arrays(index: DeviceIndex, level: int, constraints: PreparedConstraints | None = None) -> dict[str, Any]:
    """The arrays of one level, which a `plain_step` takes as its first argument.

    Args:
        index: the trie, on PyTorch or JAX.
        level: l, the level that the step decides, from 0.
        constraints: the constraints of a batch, if the step has constraints.

    Returns:
        Names, in alphabetical order, and arrays of the backend. Indexes of one capacity have the same names, shapes and
        dtypes; so have constraints of as many requests, and of as many distinct sets and excluded ids, rounded up to a
        power of two.

    Raises:
        ArgumentError: `index` is not a device index, or has no such level.

    Examples:
        ```python
        import hedgerow as hr
        from hedgerow.export import step_arrays

        index = hr.build_index(hr.Catalog([[0, 1], [2, 0]])).to("torch")
        assert step_arrays(index, 0)["codes"].tolist() == [0, 2]
        ```
    """
    _check_level(index, level)
    of_level = index.levels[level]
    arrays = {name: getattr(of_level, name) for name in DEVICE_ARRAYS}
    if constraints is not None:
        arrays |= {name: getattr(constraints.levels[level], name) for name in LIMITS}
    return {name: array for name, array in sorted(arrays.items()) if array is not None}


def _constraints_of(index: DeviceIndex, level: int, arrays: Mapping[str, Array]) -> PreparedConstraints | None:
    """The constraints whose arrays of one level are among `arrays`."""
    own = LevelConstraints(*(arrays.get(name) for name in LIMITS))
    if own.rows is None and own.dead_parents is None:
        return None
    # A step reads those of its own level only. Others have no words, because these fit one level.
    other = replace(own, alive=None)
    return PreparedConstraints(tuple(own if number == level else other for number in range(index.num_levels)))


def _check_level(index: DeviceIndex, level: int) -> None:
    if not isinstance(index, DeviceIndex) or index.backend == "numpy":
        given = f"one on {index.backend!r}" if isinstance(index, DeviceIndex) else type(index).__name__
        raise ArgumentError(f"expected an index on PyTorch or JAX: index.to('torch') or index.to('jax'); got {given}.")
    whole_number(level, "level", 0, index.num_levels - 1)
