"""A step whose logits are divided among ranks by their codes: the columns of a rank, and best_of()."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from hedgerow._arguments import is_whole, whole_number
from hedgerow.decode.beams import DEAD, MAX_BEAMS, Beams
from hedgerow.decode.device import DeviceIndex
from hedgerow.decode.kernels.array import INF, Normalize, best, continued
from hedgerow.decode.kernels.columns import Columns, Gather, gathered
from hedgerow.decode.kernels.nodes import codes_of
from hedgerow.decode.ops import BACKENDS, Array, Ops, ops_of
from hedgerow.errors import ArgumentError, BackendError

CodeRange = tuple[Any, Any]


def columns_of(
    index: DeviceIndex,
    level: int,
    logits: Array,
    normalize: Normalize,
    code_range: CodeRange | None,
    gather: Gather | None,
) -> Columns | None:
    """The columns that these arguments of `step` describe; None: all columns.

    Raises:
        ArgumentError: `code_range` is not a range of codes of the level, or `gather` is missing or has no use.
    """
    size = index.levels[level].codebook_size
    if code_range is None:
        if gather is not None:
            raise ArgumentError("gather needs code_range=(first, stop), the codes whose logits this rank has.")
        return None
    columns = _as_columns(index, size, logits, code_range, gather)
    if columns is None:
        raise ArgumentError(
            f"code_range must be (first, stop) with 0 <= first <= stop <= {size}, the codes of level {level}; got "
            f"{code_range!r}."
        )
    if gather is None and normalize is not None and (columns.first, columns.size) != (0, size):
        raise ArgumentError(
            f"normalize={normalize!r} needs the logits of all codes, and code_range={code_range!r} leaves some out. "
            "Pass gather=, which exchanges the normalizers of ranks; or log-probabilities, with normalize=None."
        )
    return columns


def _as_columns(
    index: DeviceIndex, codebook_size: int, logits: Array, code_range: CodeRange, gather: Gather | None
) -> Columns | None:
    if not isinstance(code_range, tuple | list) or len(code_range) != 2:
        return None
    first, stop = code_range
    if is_whole(first, 0, codebook_size) and is_whole(stop, int(first), codebook_size):
        return Columns(int(first), int(stop) - int(first), gather)
    # While JAX traces, the values are unknown, but not the shape of the logits.
    if index.backend == "jax" and isinstance(first, index._ops.array_type) and logits.ndim:
        return Columns(first, logits.shape[-1], gather)
    return None


def own_logits(index: DeviceIndex, level: int, logits: Array, columns: Columns) -> tuple[Array, Columns]:
    """Logits and columns as the array step takes them: at least one column, and -inf past the last code."""
    ops, xp = index._ops, index._ops.xp
    if columns.size == 0:
        # Every candidate of a rank without columns is banned.
        banned = xp.full((*logits.shape[:-1], 1), -INF, dtype=logits.dtype, device=ops.device_of(logits))
        return banned, columns._replace(size=1)
    if isinstance(columns.first, int):
        return logits, columns
    codes = columns.first + ops.arange(columns.size, logits, ndim=logits.ndim)
    return xp.where(codes < index.levels[level].codebook_size, logits, -INF), columns


def best_of(beams: Beams | Sequence[Beams], beam_width: int) -> Beams:
    """Merge the beams that ranks with different columns of a head have made: the best `beam_width` of all.

    The result of `step` with all columns is equal to the result of this function for the results of `step` with a
    `code_range` for each rank: bit for bit with `normalize=None` and the same log-probabilities.

    Args:
        beams: the beams of each rank, [B, M] after the same level; or those of all ranks side by side, [B, n].
        beam_width: M, at least 1. It may exceed the number of beams.

    Returns:
        Beams [B, M], best score first; equal scores in the order of SIDs; dead beams last. Without `code_scores`.

    Raises:
        ArgumentError: there are no beams, they are not of the same requests and level, or `beam_width` is not a
            positive integer.
        BackendError: the beams are not arrays of one backend.

    Examples:
        ```python
        import numpy as np
        import hedgerow as hr

        index = hr.build_index(hr.Catalog([[0, 1], [2, 0], [3, 2]]))
        start = hr.init_beams(index, batch_size=1)
        log_probs = np.log([[[0.1, 0.2, 0.3, 0.4]]])
        ranks = [
            hr.step(index, start, log_probs[..., low:high], beam_width=2, normalize=None, code_range=(low, high))
            for low, high in ((0, 2), (2, 4))
        ]
        assert hr.best_of(ranks, beam_width=2).codes.tolist() == [[[3], [2]]]
        ```
    """
    parts = [beams] if isinstance(beams, Beams) else list(beams)
    whole_number(beam_width, "beam_width", most=MAX_BEAMS)
    ops = _ops_of_parts(parts)
    codes, scores, states, parents = (
        ops.xp.concat([getattr(part, name) for part in parts], axis=1)
        for name in ("codes", "scores", "states", "parents")
    )
    top, positions, live = _best_beams(ops, scores, states, int(beam_width))
    codes = ops.take_rows(codes, positions)
    return Beams(
        codes=ops.xp.where(ops.xp.expand_dims(live, axis=-1), codes, DEAD),
        scores=top,
        states=ops.xp.where(live, ops.take_along(states, positions), DEAD),
        parents=ops.xp.where(live, ops.take_along(parents, positions), 0),
    )


def merged(index: DeviceIndex, before: Beams, found: Beams, gather: Gather) -> Beams:
    """The best beams of all ranks, on every rank, from the beams [B, M] that this rank found after `before`.

    12 bytes per beam travel: its score, parent and state, in one exchange. Its codes follow from the last two.
    """
    ops, level = index._ops, index.levels[before.level]
    xp = ops.xp
    if getattr(found.scores, "requires_grad", False):
        raise BackendError("gradients do not pass between ranks. Use torch.no_grad(), or detach the logits and beams.")
    of_ranks = gathered(gather, xp.stack([found.scores.view(xp.int32), found.parents, found.states]))
    batch, width = found.states.shape
    scores, parents, states = (
        xp.reshape(xp.permute_dims(of_ranks[:, field], (1, 0, 2)), (batch, of_ranks.shape[0] * width))
        for field in range(3)
    )
    top, positions, live = _best_beams(ops, scores.view(xp.float32), states, width)
    states, parents = ops.take_along(states, positions), ops.take_along(parents, positions)
    states, parents = xp.where(live, states, 0), xp.where(live, parents, 0)
    return continued(ops, before, top, live, parents, states, codes_of(ops, level, states))


def _best_beams(ops: Ops, scores: Array, states: Array, beam_width: int) -> tuple[Array, Array, Array]:
    """The best of beams [B, n], as `best` returns them. Nodes are in the order of SIDs, and no two beams share one."""
    return best(ops, ops.xp.expand_dims(scores, axis=-1), states, beam_width)


def _ops_of_parts(parts: Sequence[Beams]) -> Ops:
    """The operations of the backend of some beams, once they are checked to fit together."""
    for part in parts:
        if not isinstance(part, Beams):
            raise ArgumentError(f"best_of takes Beams, or a sequence of them; got {type(part).__name__}.")
    shapes = {(part.codes.shape[0], part.codes.shape[2]) for part in parts}
    if len(shapes) != 1:
        given = [tuple(part.codes.shape) for part in parts]
        raise ArgumentError(f"beams of ranks must have the same requests and level: codes [B, M, l]; got {given}.")
    for backend in BACKENDS:
        if backend in sys.modules:
            ops = ops_of(backend)
            if all(isinstance(part.scores, ops.array_type) for part in parts):
                return ops
    given = sorted({type(part.scores).__name__ for part in parts})
    raise BackendError(f"beams must be arrays of one backend, {', '.join(BACKENDS)}; got {', '.join(given)}.")
