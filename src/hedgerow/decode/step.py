"""step(): one level of exact, constrained beam search."""

from __future__ import annotations

from typing import Any

import numpy as np

from hedgerow.decode.array import Normalize
from hedgerow.decode.beams import Beams
from hedgerow.decode.constrain import Exclusions, Sets, constrain
from hedgerow.decode.constrained import Constraints
from hedgerow.decode.device import DeviceIndex, as_device_index
from hedgerow.decode.ended import only_ends
from hedgerow.decode.kernels import Backend, kernel_for, on_host
from hedgerow.errors import ArgumentError, BackendError, ConstraintError
from hedgerow.index.trie import TrieIndex, words_of


def step(
    index: DeviceIndex | TrieIndex,
    beams: Beams,
    logits: Any,
    *,
    beam_width: int,
    normalize: Normalize = "codes",
    backend: Backend = "auto",
    constraints: Constraints | Sets = None,
    exclude: Exclusions = None,
) -> Beams:
    """Returns the best `beam_width` continuations of `beams` by one code, for each request.

    Args:
        index: the trie, on the device of `beams` and `logits`.
        beams: B requests of m beams, before level l.
        logits: [B, m, C] float16, bfloat16, float32 or float64 over the codes of level l. -inf and NaN ban a code;
            +inf, and what is finite but beyond +-1e30, counts as +-1e30. The rows of dead beams are not used. Where
            SIDs are ragged, the last column is that of the end, and rows of beams that have ended are not used.
        beam_width: M, at least 1; more than there are candidates is fine.
        normalize: "codes": log-softmax over all C logits, before any masking, as in the paper; "allowed": over the
            allowed children alone; None: the logits are log-probabilities already.
        backend: which kernel does the work, "auto", "array", "numba" or "triton"; all give the same answer.
        constraints: one set of items for all requests, or for each its set or None; or what `constrain` made of
            them, which saves making it at every step, and is what traces. "allowed" counts what they allow.
        exclude: for each request the ids of items that it is not to be shown, or None; with `constrain`, given there.

    Returns:
        Beams of [B, M], at level l + 1. Where a request's set is empty, or all of it excluded, all its beams are dead.

    Raises:
        ArgumentError: the shapes do not fit, the beams are finished, or another argument is out of range.
        ConstraintError: as for `constrain`.
        BackendError: the logits are not arrays of the index's framework, or the kernel asked for cannot run.
    """
    index = as_device_index(index)
    check_step(index, beams, logits, beam_width, normalize)
    logits = only_ends(index, beams, logits)
    kernel = kernel_for(backend, index, logits)
    prepared = prepare(index, logits.shape[0], constraints, exclude)
    bound = None if prepared is None else prepared.levels[beams.level]
    return kernel(index.ops, index.levels[beams.level], beams, logits, int(beam_width), normalize, bound)


def prepare(
    index: DeviceIndex | TrieIndex, batch_size: int, constraints: Constraints | Sets, exclude: Exclusions
) -> Constraints | None:
    """Returns the constraints of a batch as `constrain` makes them, or as they are where it has made them.

    Raises:
        ConstraintError: prepared constraints do not fit, or as for `constrain`.
    """
    if constraints is None and exclude is None:
        return None
    if not isinstance(constraints, Constraints):
        return constrain(index, batch_size, constraints=constraints, exclude=exclude)
    if exclude is not None:
        raise ConstraintError("these constraints are prepared; give exclude to hr.constrain too, not beside it.")
    levels = as_device_index(index).levels
    if (constraints.batch_size, len(constraints.levels)) != (batch_size, len(levels)):
        raise ConstraintError(
            f"the constraints are prepared for {constraints.batch_size} requests and {len(constraints.levels)} levels; "
            f"here are {batch_size} and {len(levels)}."
        )
    for level, bound in zip(levels, constraints.levels, strict=True):
        words = (words_of(len(level.codes)),) if level.allowed is None else tuple(level.allowed.shape)
        if bound.alive is not None and tuple(bound.alive.shape[1:]) != words:
            raise ConstraintError(
                "the constraints are prepared for another index; hr.constrain makes them for this one."
            )
    return constraints


def is_count(number: Any) -> bool:
    """Whether an argument is a whole number from 1 on, of Python or of NumPy."""
    return isinstance(number, int | np.integer) and not isinstance(number, bool) and int(number) >= 1


def _check_beams(index: DeviceIndex, beams: Beams) -> None:
    """Makes sure that hand-made beams, or those of another index, lead nowhere outside this one."""
    shape = tuple(beams.states.shape)
    shapes = {"scores": shape, "parents": shape, "codes": (*shape, beams.level)}
    for name, expected in shapes.items():
        if tuple(getattr(beams, name).shape) != expected or len(shape) != 2:
            got = {name: list(getattr(beams, name).shape) for name in ("codes", "scores", "states", "parents")}
            raise ArgumentError(f"beams must be codes [B, m, l], and scores, states and parents [B, m]; got {got}.")
    # Only on the host: on an accelerator a look at the states would stop it.
    if index.ops.name == "numpy" or (index.ops.name == "torch" and on_host(index)):
        level = index.levels[beams.level]
        if shape[0] and shape[1] and int(beams.states.max()) >= level.num_parents:
            raise ArgumentError(
                f"a beam is at state {int(beams.states.max())}, but level {beams.level} of this index follows "
                f"{level.num_parents} nodes: the beams are those of another index."
            )


def check_step(index: DeviceIndex, beams: Beams, logits: Any, beam_width: int, normalize: Normalize) -> None:
    """Raises what `step` does of these arguments; what they mean is said there."""
    if not isinstance(beams, Beams):
        raise ArgumentError(f"expected Beams, as hr.start gives them; got {type(beams).__name__}.")
    if beams.level >= index.num_levels:
        raise ArgumentError(
            f"these beams are finished: they have all {index.num_levels} codes; call index.items(beams)."
        )
    if not is_count(beam_width):
        raise ArgumentError(f"beam_width must be a positive integer; got {beam_width!r}.")
    if normalize not in ("codes", "allowed", None):
        raise ArgumentError(f"normalize must be 'codes', 'allowed' or None; got {normalize!r}.")
    if logits is None:
        raise ArgumentError("there are no logits: the model returned None.")
    for what, array in (("logits", logits), ("beams", beams.states)):
        if not isinstance(array, index.ops.array_type):
            raise BackendError(
                f"the index is on the backend {index.ops.name!r}, but the {what} are {type(array).__name__}; "
                "give arrays of one backend, or take the index there: index.to(...)."
            )
    level = index.levels[beams.level]
    expected = (*beams.states.shape, level.codebook_size)
    if tuple(logits.shape) != expected:
        hint = "If the model has more codes than the catalog uses, give codebook_sizes."
        if level.end is not None:
            hint = f"The last column, code {level.end}, is the logit for ending there. {hint}"
        raise ArgumentError(
            f"logits of level {beams.level} must be [B, m, C] = {list(expected)}: requests, beams and codes of the "
            f"level; got {list(logits.shape)}. {hint}"
        )
    if not index.ops.is_float(logits.dtype):
        raise ArgumentError(f"logits must be floating point; got {logits.dtype}.")
    _check_beams(index, beams)
    if index.ops.name == "torch" and logits.device != index.device:
        raise BackendError(f"the index is on {index.device}, but the logits are on {logits.device}; move one.")
