"""log_probs(): the log-probabilities of given SIDs under a constrained model, for training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hedgerow.catalog.ragged import ENDED
from hedgerow.catalog.sids import as_sids
from hedgerow.constraints.requests import Exclusions, Sets
from hedgerow.decode.beams import DEAD, Beams
from hedgerow.decode.device import DeviceIndex, as_device_index, placer
from hedgerow.decode.ended import only_ends
from hedgerow.decode.kernels.array import LARGEST, Normalize, clipped, minus_normalizer
from hedgerow.decode.kernels.walk import candidates, child_by_code
from hedgerow.decode.ops import Array
from hedgerow.decode.prepare import as_prepared
from hedgerow.decode.prepared import LevelConstraints, PreparedConstraints
from hedgerow.decode.search import init_beams
from hedgerow.decode.step import check_step, tempered
from hedgerow.errors import ArgumentError
from hedgerow.index.trie import Trie

INF = float("inf")
MAX_INT32 = 2**31 - 1


def log_probs(
    index: DeviceIndex | Trie,
    logits: Sequence[Any],
    sids: Any,
    *,
    normalize: Normalize = "allowed",
    temperature: float = 1.0,
    constraints: PreparedConstraints | Sets = None,
    exclude: Exclusions = None,
) -> Any:
    """Compute the log-probability of each code of given SIDs, as a search or constrained sampling assigns it.

    The sum over the levels is the log-probability of the SID. With ``normalize="allowed"``, it is that of the policy
    that `CatalogLogitsProcessor` samples from: the probabilities of all SIDs of the index add up to 1. The result has
    gradients with respect to the logits, in PyTorch and JAX.

    A SID that no item has, or none that the constraints allow, has probability 0: its log-probabilities are -inf from
    the first code on that no such item continues with, and their gradient is 0.

    Args:
        index: the trie, on the device of the logits.
        logits: L arrays [B, C], of float16, bfloat16, float32 or float64: for each level the model's logits over its
            codes, given the prompt and the codes of the SID before. `TokenMap.code_logits` takes them from logits over
            a vocabulary. Values are treated as by `step`.
        sids: integers [B, L]: one SID per request. For ragged SIDs, -1 or the end codes after the end of a SID.
        normalize: "allowed": log-softmax over the allowed children alone, as sampling under a mask does. "codes": over
            all codes of the level, as in a beam search. None: the logits are log-probabilities already.
        temperature: as for `step`.
        constraints: as for `step`.
        exclude: as for `step`.

    Returns:
        [B, L] of the backend: float64 for logits in float64, otherwise float32. After the end of a ragged SID: 0.

    Raises:
        ArgumentError: the number of logits, or a shape, does not fit; or as for `step`.
        CatalogError: `sids` is not a matrix of integers.
        ConstraintError: as for `step`.
        BackendError: the logits are not arrays of the index's backend.

    Examples:
        ```python
        import torch
        import hedgerow as hr

        index = hr.build_index(hr.Catalog([[0, 1], [2, 0], [2, 2]])).to("torch")
        logits = [torch.zeros(1, 3, requires_grad=True) for _ in range(2)]
        found = hr.log_probs(index, logits, [[2, 0]])
        assert torch.allclose(found.exp(), torch.tensor([[0.5, 0.5]]))  # two codes may follow each prefix
        found.sum().backward()
        assert logits[0].grad.tolist() == [[-0.5, 0.0, 0.5]]
        ```
    """
    index = as_device_index(index)
    logits = list(logits) if isinstance(logits, (list, tuple)) else [logits]
    if len(logits) != index.num_levels:
        raise ArgumentError(
            f"logits must be a list of {index.num_levels} arrays [B, C], one for each level; got {len(logits)}."
        )
    codes = _codes(index, sids)
    beams = init_beams(index, codes.shape[0])
    prepared = as_prepared(index, codes.shape[0], constraints, exclude)
    columns = []
    for level, own in enumerate(logits):
        own = own[:, None] if isinstance(own, index._ops.array_type) and own.ndim else own
        check_step(index, beams, own, 1, normalize)
        own = clipped(index._ops, only_ends(index, beams, tempered(index, own, temperature, normalize)), LARGEST)
        limits = None if prepared is None else prepared.levels[level]
        column, beams = _advanced(index, beams, own, codes[:, level], normalize, limits)
        columns.append(column)
    return index._ops.xp.stack(columns, axis=-1)


def _codes(index: DeviceIndex, sids: Any) -> Array:
    """SIDs as int32 [B, L] on the device of the index."""
    ops, xp = index._ops, index._ops.xp
    if not isinstance(sids, ops.array_type) or isinstance(sids, np.ndarray):
        matrix = as_sids(sids, min_code=ENDED)
        wide = np.minimum(matrix.astype(f"{matrix.dtype.kind}8"), MAX_INT32).astype(np.int64)
        sids = placer(index)(np.maximum(wide, ENDED).astype(np.int32))
    elif ops.is_float(sids.dtype):
        raise ArgumentError(f"sids must be integers [B, L]; got {sids.dtype}.")
    if len(sids.shape) != 2 or sids.shape[1] != index.num_levels:
        raise ArgumentError(f"sids must be [B, {index.num_levels}], with one code per level; got {list(sids.shape)}.")
    return xp.astype(ops.clip(xp.astype(sids, ops.index_dtype), ENDED, MAX_INT32), xp.int32)


def _advanced(
    index: DeviceIndex,
    beams: Beams,
    logits: Array,
    codes: Array,
    normalize: Normalize,
    limits: LevelConstraints | None,
) -> tuple[Array, Beams]:
    """The log-probabilities [B] of the codes [B] of a level, and the beams [B, 1] that continue with them.

    Args:
        index: the trie.
        beams: [B, 1], before the level.
        logits: [B, 1, C], clipped.
        codes: [B] int32.
        normalize: as for `log_probs`.
        limits: the constraints at the level.
    """
    ops, xp, level = index._ops, index._ops.xp, index.levels[beams.level]
    codes = xp.expand_dims(codes, axis=-1)
    if level.end is not None:
        codes = xp.where(codes == ENDED, level.end, codes)
    options, valid, _ = candidates(ops, level, beams.states, limits)
    is_allowed = xp.any(valid & (options == xp.expand_dims(codes, axis=-1)), axis=-1)
    column = xp.expand_dims(ops.clip(codes, 0, level.codebook_size - 1), axis=-1)
    chosen = ops.take_along(logits, column)
    if normalize == "codes":
        chosen = minus_normalizer(ops, chosen, logits)
    elif normalize == "allowed":
        chosen = minus_normalizer(ops, chosen, xp.where(valid, ops.take_along(logits, options), -INF))
    found = xp.where(is_allowed, chosen[..., 0], -INF)
    states = child_by_code(ops, level, beams.states[:, 0], codes[:, 0])
    states = xp.where(is_allowed, xp.expand_dims(states, axis=-1), DEAD)
    history = xp.expand_dims(codes, axis=-1)
    if beams.level:
        history = xp.concat([beams.codes, history], axis=-1)
    return found[:, 0], Beams(history, beams.scores, states, beams.parents)
