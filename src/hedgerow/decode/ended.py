"""Beams that have ended: where SIDs are ragged, one keeps its score, and goes on as END after END."""

from __future__ import annotations

from hedgerow.decode.beams import Beams
from hedgerow.decode.device import DeviceIndex
from hedgerow.decode.ops import Array

INF = float("inf")


def only_ends(index: DeviceIndex, beams: Beams, logits: Array) -> Array:
    """Returns logits [B, m, C] with 0 at END and -inf elsewhere in the rows of beams that have ended.

    So END, which is the one child of such a beam, has the log-probability 0, however logits are normalised. Where SIDs
    are not ragged, and before level 2, no beam can have ended, and the logits are returned as they are.
    """
    before = index.levels[beams.level - 1].end if beams.level else None
    if before is None:
        return logits
    xp, level = index._ops.xp, index.levels[beams.level]
    codes = xp.arange(level.codebook_size, dtype=xp.int32, device=index._ops.device_of(logits))
    row = xp.astype(xp.where(codes == level.end, 0.0, -INF), logits.dtype)
    return xp.where(xp.expand_dims(beams.codes[..., -1] == before, axis=-1), row, logits)
