"""step(): one level of exact, constrained beam search."""

from __future__ import annotations

from typing import Any

from hedgerow._arguments import check_choice, positive_number, whole_number
from hedgerow.constraints.requests import Exclusions, Sets
from hedgerow.decode.beams import Beams
from hedgerow.decode.device import DeviceIndex, as_device_index
from hedgerow.decode.ended import only_ends
from hedgerow.decode.kernels.array import Normalize, StepInput
from hedgerow.decode.kernels.dispatch import KernelName, kernel_for, on_host
from hedgerow.decode.ops import Array
from hedgerow.decode.prepare import as_prepared
from hedgerow.decode.prepared import PreparedConstraints
from hedgerow.errors import ArgumentError, BackendError
from hedgerow.index.trie import Trie


def step(
    index: DeviceIndex | Trie,
    beams: Beams,
    logits: Any,
    *,
    beam_width: int,
    normalize: Normalize = "codes",
    temperature: float = 1.0,
    kernel: KernelName = "auto",
    constraints: PreparedConstraints | Sets = None,
    exclude: Exclusions = None,
) -> Beams:
    """Advances a beam search by one level: the best `beam_width` continuations of `beams` for each request.

    The search is exact (STATIC, section 4, without its pruning): every allowed child of every live beam is scored, and
    the best of all of them are kept.

    Args:
        index: the trie, on the device of `beams` and `logits`.
        beams: B requests of m beams, before level l.
        logits: [B, m, C] float16, bfloat16, float32 or float64 over the codes of level l. -inf and NaN ban a code.
            +inf, and finite values beyond +-1e30, count as +-1e30. The rows of dead beams are ignored. If SIDs are
            ragged, the last column is the end code, and the rows of beams that have ended are ignored.
        beam_width: M, at least 1. It may exceed the number of candidates.
        normalize: "codes": log-softmax over all C logits, before masking, as in the paper. "allowed": log-softmax over
            the allowed children alone. None: the logits are log-probabilities already.
        temperature: divides the logits before they are normalized; a finite number above 0. Only 1 with
            normalize=None.
        kernel: the implementation, "auto", "array", "numba" or "triton". All give the same result.
        constraints: one constraint set for all requests, or for each request its set or None; or the result of
            `prepare_constraints`, which saves preparing them at every step and can be traced. With
            normalize="allowed", only codes that the constraints allow count.
        exclude: for each request the ids of items to exclude, or None. With prepared constraints, pass it to
            `prepare_constraints` instead.

    Returns:
        Beams [B, M] at level l + 1. If a request has no allowed item, all of its beams are dead.

    Raises:
        ArgumentError: shapes do not fit, the beams are finished, or another argument is out of range.
        ConstraintError: as for `prepare_constraints`.
        BackendError: the logits are not arrays of the index's backend, or the requested kernel cannot run.

    Examples:
        ```python
        import numpy as np
        import hedgerow as hr

        index = hr.build_index(hr.Catalog([[0, 1], [2, 0], [2, 2]]))
        beams = hr.init_beams(index, batch_size=1)
        beams = hr.step(index, beams, np.array([[[0.1, 0.7, 0.2]]]), beam_width=2)
        assert beams.codes.tolist() == [[[2], [0]]]
        ```
    """
    index = as_device_index(index)
    check_step(index, beams, logits, beam_width, normalize)
    logits = only_ends(index, beams, tempered(index, logits, temperature, normalize))
    compute = kernel_for(kernel, index, logits)
    prepared = as_prepared(index, logits.shape[0], constraints, exclude)
    own = None if prepared is None else prepared.levels[beams.level]
    return compute(StepInput(index._ops, index.levels[beams.level], beams, logits, int(beam_width), normalize, own))


def tempered(index: DeviceIndex, logits: Array, temperature: float, normalize: Normalize) -> Array:
    """Logits divided by the temperature, in float32 or float64; unchanged if it is 1.

    Raises:
        ArgumentError: the temperature is not a finite number above 0, or not 1 where nothing is normalized.
    """
    if temperature == 1.0:
        return logits
    temperature = positive_number(temperature, "temperature")
    if normalize is None:
        raise ArgumentError(
            f"temperature={temperature} needs normalize='codes' or 'allowed'; with normalize=None the logits are "
            "log-probabilities already. Divide the logits by it before you normalize them."
        )
    xp = index._ops.xp
    wide = logits if logits.dtype == xp.float64 else xp.astype(logits, xp.float32, copy=False)
    return wide / temperature


def _check_beams(index: DeviceIndex, beams: Beams) -> None:
    """Checks the shapes, and that no beam of another index is at a node that this index does not have."""
    shape = tuple(beams.states.shape)
    shapes = {"scores": shape, "parents": shape, "codes": (*shape, beams.level)}
    for name, expected in shapes.items():
        if tuple(getattr(beams, name).shape) != expected or len(shape) != 2:
            got = {name: list(getattr(beams, name).shape) for name in ("codes", "scores", "states", "parents")}
            raise ArgumentError(f"beams must be codes [B, m, l], and scores, states and parents [B, m]; got {got}.")
    # Only on the host: on an accelerator a look at the states would stop it.
    if index.backend == "numpy" or (index.backend == "torch" and on_host(index)):
        level = index.levels[beams.level]
        if shape[0] and shape[1] and int(beams.states.max()) >= level.num_parents:
            raise ArgumentError(
                f"a beam is at state {int(beams.states.max())}, but level {beams.level} of this index follows "
                f"{level.num_parents} nodes: the beams are those of another index."
            )


def check_step(index: DeviceIndex, beams: Beams, logits: Any, beam_width: int, normalize: Normalize) -> None:
    """Checks these arguments of `step`, which documents them and the errors."""
    if not isinstance(beams, Beams):
        raise ArgumentError(f"expected Beams, as hr.init_beams returns them; got {type(beams).__name__}.")
    if beams.level >= index.num_levels:
        raise ArgumentError(
            f"these beams are finished: they have all {index.num_levels} codes; call index.results(beams)."
        )
    whole_number(beam_width, "beam_width")
    check_choice(normalize, "normalize", ("codes", "allowed", None))
    if logits is None:
        raise ArgumentError("there are no logits: the model returned None.")
    for what, array in (("logits", logits), ("beams", beams.states)):
        if not isinstance(array, index._ops.array_type):
            raise BackendError(
                f"the index is on the backend {index.backend!r}, but the {what} are {type(array).__name__}; "
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
    if not index._ops.is_float(logits.dtype):
        raise ArgumentError(f"logits must be floating point; got {logits.dtype}.")
    _check_beams(index, beams)
    if index.backend == "torch" and logits.device != index.device:
        raise BackendError(f"the index is on {index.device}, but the logits are on {logits.device}; move one.")
