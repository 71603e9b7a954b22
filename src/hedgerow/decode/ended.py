"""Beams whose ragged SID has ended: they keep their score and continue with the end code at every further level."""

from __future__ import annotations

from hedgerow.decode.beams import Beams
from hedgerow.decode.device import DeviceIndex
from hedgerow.decode.kernels.columns import Columns
from hedgerow.decode.ops import Array

INF = float("inf")


def only_ends(index: DeviceIndex, beams: Beams, logits: Array, columns: Columns | None = None) -> Array:
    """Replace the logits of beams that have ended: 0 at the end code, and -inf at all other codes.

    The end code is the only child of such a beam, so its log-probability is 0 for every `normalize`. If SIDs are not
    ragged, and before level 2, no beam can have ended, and the logits are returned unchanged.

    Args:
        index: the trie on its device.
        beams: B requests of m beams, before level l.
        logits: [B, m, C], or the columns of a rank.
        columns: these columns; None: all of them.

    Returns:
        An array as the logits, in the dtype of the logits.
    """
    previous_end = index.levels[beams.level - 1].end if beams.level else None
    if previous_end is None:
        return logits
    xp, level = index._ops.xp, index.levels[beams.level]
    size = level.codebook_size if columns is None else columns.size
    codes = index._ops.arange(size, logits, ndim=3) + (0 if columns is None else columns.first)
    end_row = xp.astype(xp.where(codes == level.end, 0.0, -INF), logits.dtype)
    has_ended = xp.expand_dims(beams.codes[..., -1] == previous_end, axis=-1)
    return xp.where(has_ended, end_row, logits)
