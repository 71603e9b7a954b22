"""masked_probability(): the probability that the mask of a step removes from each beam."""

from __future__ import annotations

from typing import Any

from hedgerow.constraints.requests import Exclusions, Sets
from hedgerow.decode.beams import DEAD, Beams
from hedgerow.decode.device import DeviceIndex, as_device_index
from hedgerow.decode.ended import only_ends
from hedgerow.decode.kernels.array import Normalize, bounded, log_softmax
from hedgerow.decode.kernels.walk import candidates
from hedgerow.decode.prepare import as_prepared
from hedgerow.decode.prepared import PreparedConstraints
from hedgerow.decode.step import check_step, tempered
from hedgerow.index.trie import Trie


def masked_probability(
    index: DeviceIndex | Trie,
    beams: Beams,
    logits: Any,
    *,
    normalize: Normalize = "codes",
    temperature: float = 1.0,
    constraints: PreparedConstraints | Sets = None,
    exclude: Exclusions = None,
) -> Any:
    """Compute how much probability the mask of a step removes from each beam.

    This is the probability that the model assigns at this level to codes that match no item, or no item that the
    constraints allow. It is low for a model that knows its catalog. `step` does not compute it. To measure constraints
    alone, subtract the result without constraints from the result with them.

    Args:
        index: the trie, on the device of `beams` and `logits`.
        beams: B requests of m beams, before level l.
        logits: [B, m, C], as for `step`.
        normalize: "codes" or "allowed": probabilities are the softmax over all C codes, before masking. None: the
            logits are log-probabilities; the probabilities of the level's codes can add up to less than 1.
        temperature: as for `step`.
        constraints: as for `step`.
        exclude: as for `step`.

    Returns:
        [B, m] float32 of the backend, 0 to 1; 0 for dead beams. Errors as for `step`.

    Examples:
        ```python
        import numpy as np
        import hedgerow as hr

        index = hr.build_index(hr.Catalog([[0], [2]], codebook_sizes=4))
        beams = hr.init_beams(index, batch_size=1)
        removed = hr.masked_probability(index, beams, np.zeros((1, 1, 4)))
        assert np.allclose(removed, 0.5)  # codes 1 and 3 match no item
        ```
    """
    index = as_device_index(index)
    check_step(index, beams, logits, 1, normalize)
    ops, level = index._ops, index.levels[beams.level]
    xp = ops.xp
    prepared = as_prepared(index, logits.shape[0], constraints, exclude)
    limits = None if prepared is None else prepared.levels[beams.level]
    log_probs = bounded(ops, only_ends(index, beams, tempered(index, logits, temperature, normalize)))
    if normalize is not None:
        log_probs = log_softmax(ops, log_probs)
    codes, valid, _ = candidates(ops, level, beams.states, limits)
    allowed = xp.where(valid, xp.exp(ops.take_along(log_probs, codes)), 0.0)
    removed = xp.sum(xp.exp(log_probs), axis=-1) - xp.sum(allowed, axis=-1)
    return xp.where(beams.states > DEAD, ops.clip(removed, 0.0, 1.0), 0.0)
