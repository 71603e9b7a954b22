"""The oracle: exact beam search by enumeration. Slow, obvious, and what right means for every backend."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

Prefix = tuple[int, ...]
LARGEST = 1e30


def oracle_step(
    sids: Iterable[Prefix],
    beams: Sequence[tuple[Prefix, float]],
    logits_of: Callable[[Prefix], Sequence[float]],
    beam_width: int,
    normalize: Literal["codes", "allowed"] | None = "codes",
) -> list[tuple[Prefix, float]]:
    """Returns the best `beam_width` continuations of the live `beams` of one request, best first.

    Args:
        sids: the SIDs of the catalog, in any order, repeated or not.
        beams: the live beams, as (prefix, score).
        logits_of: prefix -> the logits over the codes of the next level.
        beam_width: M.
        normalize: as for `step`.
    """
    sids = set(sids)
    candidates = []
    for prefix, score in beams:
        depth = len(prefix)
        allowed = sorted({sid[depth] for sid in sids if sid[:depth] == prefix})
        logits = [_bounded(logit) for logit in logits_of(prefix)]
        over = {"codes": logits, "allowed": [logits[code] for code in allowed], None: []}[normalize]
        top, log_sum = _normalizer(over)
        for code in allowed:
            if logits[code] > -math.inf:
                candidates.append(((*prefix, code), score + (logits[code] - top - log_sum)))
    return sorted(candidates, key=lambda candidate: -candidate[1])[:beam_width]


def oracle_search(
    sids: Iterable[Prefix],
    logits_of: Callable[[Prefix], Sequence[float]],
    num_levels: int,
    beam_width: int,
    normalize: Literal["codes", "allowed"] | None = "codes",
    shown: Iterable[bool] | None = None,
) -> list[tuple[Prefix, float]]:
    """Returns the live beams of one request after the last level, best first, as (SID, score).

    `shown`: for each of `sids`, those of the items, whether this request may be shown the item; None for all.
    """
    if shown is not None:
        sids = [sid for sid, is_shown in zip(sids, shown, strict=True) if is_shown]
    beams: list[tuple[Prefix, float]] = [((), 0.0)]
    for _ in range(num_levels):
        beams = oracle_step(sids, beams, logits_of, beam_width, normalize)
    return beams


def _bounded(logit: float) -> float:
    return -math.inf if math.isnan(logit) or logit == -math.inf else min(max(logit, -LARGEST), LARGEST)


def _normalizer(logits: Sequence[float]) -> tuple[float, float]:
    """Returns the largest logit and the log of the sum of exponentials above it: apart, because one may be huge."""
    top = max(logits, default=-math.inf)
    if top == -math.inf:
        return 0.0, 0.0
    return top, math.log(math.fsum(math.exp(logit - top) for logit in logits))
