"""step(): one level of exact, constrained beam search."""

from __future__ import annotations

from typing import Any

import numpy as np

from hedgerow._arguments import check_choice, positive_number, whole_number
from hedgerow.constraints.requests import Exclusions, Sets
from hedgerow.decode.beams import MAX_BEAMS, Beams
from hedgerow.decode.device import DeviceIndex, as_device_index
from hedgerow.decode.divided import CodeRange, columns_of, merged, own_logits
from hedgerow.decode.ended import only_ends
from hedgerow.decode.kernels.array import LARGEST, Normalize, StepInput, clipped
from hedgerow.decode.kernels.columns import Columns, Gather
from hedgerow.decode.kernels.dispatch import KernelName, is_transformed, kernel_for, on_host
from hedgerow.decode.ops import Array
from hedgerow.decode.prepare import as_prepared
from hedgerow.decode.prepared import PreparedConstraints
from hedgerow.errors import ArgumentError, BackendError
from hedgerow.index.trie import Trie

# LARGEST times or divided by these is a normal float32.
MIN_TEMPERATURE, MAX_TEMPERATURE = 1e-8, 1e8


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
    code_range: CodeRange | None = None,
    gather: Gather | None = None,
) -> Beams:
    """Advance a beam search by one level: keep the best `beam_width` continuations of each request's beams.

    The search is exact (STATIC, section 4, without its pruning): it scores every allowed child of every live beam.

    Args:
        index: the trie, on the device of `beams` and `logits`.
        beams: B requests of m beams, before level l.
        logits: [B, m, C] float16, bfloat16, float32 or float64 over the codes of level l. -inf and NaN ban a code.
            +inf counts as 1e30, and finite values are clipped to +-1e30. Rows of dead beams are ignored. If SIDs are
            ragged, the last column is the end code, and rows of beams that have ended are ignored.
        beam_width: M, at least 1. It may exceed the number of candidates.
        normalize: "codes": log-softmax over all C logits, before masking, as in the paper. "allowed": log-softmax over
            the allowed children alone. None: the logits are log-probabilities already.
        temperature: divides the logits before they are normalized; a number from 1e-8 to 1e8. It must be 1 if
            `normalize` is None. Make it static in `jax.jit`.
        kernel: the implementation: "auto", "array", "native", "triton" or "pallas". All give the same result.
        constraints: one constraint set for all requests, or for each request its set or None; or the result of
            `prepare_constraints`, which is prepared once for all steps and can be traced.
        exclude: for each request the ids of items to exclude, a constraint set of them, or None; or one set for all
            requests. With prepared constraints, pass it to `prepare_constraints` instead.
        code_range: if the head of the model is divided among ranks by its columns: (first, stop), the codes of this
            level whose logits this rank has. `logits` is then [B, m, stop - first], and can be empty. The ranges of
            all ranks must contain each code once. In JAX, both can be traced; columns past the last code are ignored.
        gather: exchanges arrays between these ranks: maps an array of this rank to [ranks, ...], the arrays of all
            ranks stacked along a new first axis. `hedgerow.distributed.gather_over` makes one for PyTorch; in JAX it is
            `lambda x: jax.lax.all_gather(x, axis_name)`. All ranks must call the step with the same beams.

    Returns:
        Beams [B, M] at level l + 1. If a request has no allowed item, all of its beams are dead. With `code_range` and
        without `gather`: the best of this rank's codes, for `best_of`; it needs `normalize=None`. With `gather`: the
        best of all codes, the same on every rank.

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
    columns = check_step(index, beams, logits, beam_width, normalize, code_range, gather)
    logits = only_ends(index, beams, tempered(index, logits, temperature, normalize), columns)
    if columns is not None:
        logits, columns = own_logits(index, beams.level, logits, columns)
    compute = kernel_for(kernel, index, beams, logits, divided=columns is not None)
    prepared = as_prepared(index, logits.shape[0], constraints, exclude)
    limits = None if prepared is None else prepared.levels[beams.level]
    level = index.levels[beams.level]
    found = compute(StepInput(index._ops, level, beams, logits, int(beam_width), normalize, limits, columns))
    return found if gather is None else merged(index, beams, found, gather)


def tempered(index: DeviceIndex, logits: Array, temperature: float, normalize: Normalize) -> Array:
    """Divide logits by the temperature, in float32 or float64. A temperature of 1 returns them unchanged.

    Raises:
        ArgumentError: the temperature is not a number from 1e-8 to 1e8, or not 1 although `normalize` is None.
    """
    if isinstance(temperature, float) and temperature == 1.0:
        return logits
    temperature = positive_number(temperature, "temperature")
    if temperature == 1.0:
        return logits
    if not MIN_TEMPERATURE <= temperature <= MAX_TEMPERATURE:
        raise ArgumentError(
            f"temperature must be a number from {MIN_TEMPERATURE:g} to {MAX_TEMPERATURE:g}; got {temperature!r}."
        )
    if normalize is None:
        raise ArgumentError(
            f"temperature={temperature!r} needs normalize='codes' or normalize='allowed'. With normalize=None the "
            "logits are log-probabilities already: divide the logits by the temperature before normalizing them."
        )
    # Finite logits stay finite: a model can mask with the least finite float.
    return clipped(index._ops, logits, LARGEST * temperature) / temperature


def _check_beams(index: DeviceIndex, beams: Beams) -> None:
    """Check the shapes, and that no beam is at a node that this index does not have."""
    scores, states, parents, codes = beams.scores, beams.states, beams.parents, beams.codes
    shape = states.shape
    if len(shape) != 2 or not scores.shape == parents.shape == shape or codes.shape != (*shape, beams.level):
        given_shapes = {name: list(getattr(beams, name).shape) for name in ("codes", "scores", "states", "parents")}
        raise ArgumentError(
            f"beams must have codes [B, m, l], and scores, states and parents [B, m]; got {given_shapes}. Pass the "
            "beams that hr.init_beams or hr.step returned."
        )
    xp = index._ops.xp
    if scores.dtype != xp.float32 or not states.dtype == parents.dtype == codes.dtype == xp.int32:
        given_types = {name: str(getattr(beams, name).dtype) for name in ("scores", "states", "parents", "codes")}
        raise ArgumentError(
            f"beams must have scores of float32, and states, parents and codes of int32; got {given_types}. Pass the "
            "beams that hr.init_beams or hr.step returned."
        )
    if shape[1] == 0:
        raise ArgumentError(
            f"beams has no beams: m is 0, for {shape[0]} requests. A search starts with one beam per request: "
            "hr.init_beams(index, batch_size)."
        )
    # On the host only: reading the states of an accelerator would wait for it.
    if index.backend == "numpy" or (index.backend == "torch" and on_host(index) and not is_transformed(beams.states)):
        num_parents = index.levels[beams.level].num_parents
        if shape[0] and shape[1] and int(beams.states.max()) >= num_parents:
            raise ArgumentError(
                f"a beam is at state {int(beams.states.max())}, but this index has {num_parents} nodes before level "
                f"{beams.level}. The beams belong to another index; start with hr.init_beams(index, batch_size)."
            )


def check_step(
    index: DeviceIndex,
    beams: Beams,
    logits: Any,
    beam_width: int,
    normalize: Normalize,
    code_range: CodeRange | None = None,
    gather: Gather | None = None,
) -> Columns | None:
    """Check these arguments of `step`, which documents them and the errors. Returns the columns of the logits."""
    if not isinstance(beams, Beams):
        raise ArgumentError(f"expected Beams, as hr.init_beams returns them; got {type(beams).__name__}.")
    if beams.level >= index.num_levels:
        raise ArgumentError(
            f"these beams are finished: they have all {index.num_levels} codes. Call index.results(beams)."
        )
    whole_number(beam_width, "beam_width", most=MAX_BEAMS)
    check_choice(normalize, "normalize", ("codes", "allowed", None))
    _check_array(index, beams, logits)
    columns = columns_of(index, beams.level, logits, normalize, code_range, gather)
    _check_shape(index, beams, logits, columns)
    _check_beams(index, beams)
    return columns


def _check_array(index: DeviceIndex, beams: Beams, logits: Any) -> None:
    """Check the backend, the device and the dtype of logits."""
    if logits is None:
        raise ArgumentError("logits must be an array [B, m, C]; got None. Check that the model returns its logits.")
    for what, array in (("logits", logits), ("beams", beams.states)):
        if not isinstance(array, index._ops.array_type):
            raise BackendError(
                f"the index is on the backend {index.backend!r}, but the {what} are {type(array).__name__}. Pass "
                "arrays of one backend, or move the index with index.to(...)."
            )
    # Also without masked entries: the logarithms of NumPy would mask some.
    if isinstance(logits, np.ma.MaskedArray):
        raise ArgumentError(
            "logits must be a plain array, because masks are not read; got a MaskedArray. Ban the masked codes with "
            "logits.filled(-np.inf)."
        )
    if not index._ops.is_dense(logits):
        raise ArgumentError(
            f"logits must be a dense tensor; got a {'nested' if logits.is_nested else logits.layout} one. Use "
            "logits.to_dense(), or logits.to_padded_tensor(-inf) for a nested tensor."
        )
    if not index._ops.is_float(logits.dtype):
        raise ArgumentError(f"logits must have a floating-point dtype; got {logits.dtype}. Convert them to float32.")
    if index.backend == "torch" and logits.device != index.device:
        raise BackendError(
            f"the index is on {index.device}, but the logits are on {logits.device}. Move one of them to the other "
            "device."
        )


def _check_shape(index: DeviceIndex, beams: Beams, logits: Any, columns: Columns | None) -> None:
    level = index.levels[beams.level]
    expected = (*beams.states.shape, level.codebook_size if columns is None else columns.size)
    if tuple(logits.shape) == expected:
        return
    if columns is not None:
        raise ArgumentError(
            f"logits of level {beams.level} must be [B, m, stop - first] = {list(expected)}: requests, beams and the "
            f"codes of code_range; got {list(logits.shape)}."
        )
    hint = "If the model has more codes than the catalog uses, pass codebook_sizes to hr.Catalog."
    if level.end is not None:
        hint = f"The last column, code {level.end}, is the logit of the end of the SID. {hint}"
    raise ArgumentError(
        f"logits of level {beams.level} must be [B, m, C] = {list(expected)}: requests, beams and codes of the "
        f"level; got {list(logits.shape)}. {hint}"
    )
