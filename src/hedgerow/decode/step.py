"""step(): one level of exact, constrained beam search."""

from __future__ import annotations

from typing import Any

from hedgerow.decode.array import Normalize
from hedgerow.decode.beams import Beams
from hedgerow.decode.device import DeviceIndex, as_device_index
from hedgerow.decode.kernels import Backend, kernel_for
from hedgerow.errors import ArgumentError, BackendError
from hedgerow.index.trie import TrieIndex


def step(
    index: DeviceIndex | TrieIndex,
    beams: Beams,
    logits: Any,
    *,
    beam_width: int,
    normalize: Normalize = "codes",
    backend: Backend = "auto",
) -> Beams:
    """Returns the best `beam_width` continuations of `beams` by one code, for each request.

    Args:
        index: the trie, on the device of `beams` and `logits`.
        beams: B requests of m beams, before level l.
        logits: [B, m, C] float16, bfloat16, float32 or float64 over the codes of level l. -inf and NaN ban a code;
            +inf, and what is finite but beyond +-1e30, counts as +-1e30. The rows of dead beams are not used.
        beam_width: M, at least 1; more than there are candidates is fine.
        normalize: "codes": log-softmax over all C logits, before any masking, as in the paper; "allowed": over the
            allowed children alone; None: the logits are log-probabilities already.
        backend: which kernel does the work, "auto", "array", "numba" or "triton"; all give the same answer.

    Returns:
        Beams of [B, M], at level l + 1.

    Raises:
        ArgumentError: the shapes do not fit, the beams are finished, or another argument is out of range.
        BackendError: the logits are not arrays of the index's framework, or the kernel asked for cannot run.
    """
    index = as_device_index(index)
    _check(index, beams, logits, beam_width, normalize)
    kernel = kernel_for(backend, index, logits)
    return kernel(index.ops, index.levels[beams.level], beams, logits, beam_width, normalize)


def _check(index: DeviceIndex, beams: Beams, logits: Any, beam_width: int, normalize: Normalize) -> None:
    if beams.level >= index.num_levels:
        raise ArgumentError(
            f"these beams are finished: they have all {index.num_levels} codes; call index.items(beams)."
        )
    if isinstance(beam_width, bool) or not isinstance(beam_width, int) or beam_width < 1:
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
    expected = (*beams.states.shape, index.levels[beams.level].codebook_size)
    if tuple(logits.shape) != expected:
        raise ArgumentError(
            f"logits of level {beams.level} must be [B, m, C] = {list(expected)}: requests, beams and codes of the "
            f"level; got {list(logits.shape)}. If the model has more codes than the catalog uses, give codebook_sizes."
        )
    if not index.ops.is_float(logits.dtype):
        raise ArgumentError(f"logits must be floating point; got {logits.dtype}.")
    if index.ops.name == "torch" and logits.device != index.device:
        raise BackendError(f"the index is on {index.device}, but the logits are on {logits.device}; move one.")
