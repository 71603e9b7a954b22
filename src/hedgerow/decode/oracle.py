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
    *,
    level: int = 0,
    end_logit_of: Callable[[Prefix], float] | None = None,
) -> list[tuple[Prefix, float]]:
    """Returns the best `beam_width` continuations of the live `beams` of one request, best first.

    Args:
        sids: the SIDs of the catalog, in any order, repeated or not.
        beams: the live beams, as (prefix, score); one shorter than `level` has ended.
        logits_of: prefix -> the logits over the codes of the next level.
        beam_width: M.
        normalize: as for `step`.
        level: l, the level that is decided.
        end_logit_of: where SIDs are ragged: prefix of one code or more -> the logit for ending there.
    """
    sids = set(sids)
    candidates = []
    for prefix, score in beams:
        if len(prefix) < level:
            candidates.append((prefix, score))
            continue
        logits: dict[Prefix, float] = {}
        for code, logit in enumerate(logits_of(prefix)):
            logits[*prefix, code] = _bounded(logit)
        allowed = {sid[: level + 1] for sid in sids if len(sid) > level and sid[:level] == prefix}
        if end_logit_of is not None and prefix:
            # To end is to stay the prefix that one is.
            logits[prefix] = _bounded(end_logit_of(prefix))
            allowed |= {prefix} & sids
        over = {"codes": logits, "allowed": allowed, None: ()}[normalize]
        top, log_sum = _normalizer([logits[after] for after in over])
        candidates += [
            (after, score + (logits[after] - top - log_sum)) for after in sorted(allowed) if logits[after] > -math.inf
        ]
    return sorted(candidates, key=lambda candidate: -candidate[1])[:beam_width]


def oracle_search(
    sids: Iterable[Prefix],
    logits_of: Callable[[Prefix], Sequence[float]],
    num_levels: int,
    beam_width: int,
    normalize: Literal["codes", "allowed"] | None = "codes",
    shown: Iterable[bool] | None = None,
    *,
    end_logit_of: Callable[[Prefix], float] | None = None,
) -> list[tuple[Prefix, float]]:
    """Returns the live beams of one request after the last level, best first, as (SID, score).

    `shown`: for each of `sids`, those of the items, whether this request may be shown the item; None for all.
    """
    if shown is not None:
        sids = [sid for sid, is_shown in zip(sids, shown, strict=True) if is_shown]
    sids = set(sids)
    beams: list[tuple[Prefix, float]] = [((), 0.0)]
    for level in range(num_levels):
        beams = oracle_step(sids, beams, logits_of, beam_width, normalize, level=level, end_logit_of=end_logit_of)
    return beams


def _bounded(logit: float) -> float:
    return -math.inf if math.isnan(logit) or logit == -math.inf else min(max(logit, -LARGEST), LARGEST)


def _normalizer(logits: Sequence[float]) -> tuple[float, float]:
    """Returns the largest logit and the log of the sum of exponentials above it: apart, because one may be huge."""
    top = max(logits, default=-math.inf)
    if top == -math.inf:
        return 0.0, 0.0
    return top, math.log(math.fsum(math.exp(logit - top) for logit in logits))
