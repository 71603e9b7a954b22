"""Paths: the scores along the beams of a search that has run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hedgerow.decode.beams import Beams
from hedgerow.decode.ops import Ops

INF = float("inf")


def with_code_scores(ops: Ops, history: Sequence[Beams]) -> Beams:
    """The beams [B, M] after the last level, with the log-probability of each of their codes.

    Args:
        ops: the operations of the backend.
        history: the beams after every level.
    """
    xp, last = ops.xp, history[-1]
    live, ancestors = last.scores > -INF, last.parents
    differences, after = [], xp.where(live, last.scores, 0.0)
    for beams in reversed(history[:-1]):
        # The parent of a dead beam is 0, which can be dead as well.
        before = xp.where(live, ops.take_along(beams.scores, ancestors), 0.0)
        differences.append(after - before)
        ancestors, after = ops.take_along(beams.parents, ancestors), before
    code_scores = xp.stack([after, *differences[::-1]], axis=-1)
    return replace(last, code_scores=xp.where(xp.expand_dims(live, axis=-1), code_scores, -INF))
