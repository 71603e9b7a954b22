"""The oracle: exact beam search by enumeration, slow and simple. It defines the correct result of every kernel."""

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
    temperature: float = 1.0,
) -> list[tuple[Prefix, float]]:
    """Find the best `beam_width` continuations of the live beams of one request.

    Args:
        sids: the SIDs of the catalog, in any order; repetitions are ignored.
        beams: the live beams, as (prefix, score). A prefix shorter than `level` has ended.
        logits_of: maps a prefix to the logits over the codes of the next level.
        beam_width: M.
        normalize: as for `step`.
        level: l, the level that the step decides.
        end_logit_of: if SIDs are ragged: maps a prefix of at least one code to the logit of ending there.
        temperature: divides all logits.

    Returns:
        (prefix, score) of each continuation, best first.
    """
    sids = set(sids)
    candidates = []
    for prefix, score in beams:
        if len(prefix) < level:
            candidates.append((prefix, score))
            continue
        logits: dict[Prefix, float] = {}
        for code, logit in enumerate(logits_of(prefix)):
            logits[*prefix, code] = _bounded(logit / temperature)
        allowed = {sid[: level + 1] for sid in sids if len(sid) > level and sid[:level] == prefix}
        if end_logit_of is not None and prefix:
            # A beam that ends keeps its prefix.
            logits[prefix] = _bounded(end_logit_of(prefix) / temperature)
            allowed |= {prefix} & sids
        normalized = {"codes": logits, "allowed": allowed, None: ()}[normalize]
        top, log_sum = _normalizer([logits[continuation] for continuation in normalized])
        candidates += [
            (continuation, score + (logits[continuation] - top - log_sum))
            for continuation in sorted(allowed)
            if logits[continuation] > -math.inf
        ]
    # Equal scores come in the order of SIDs; a SID that has ended follows those that it is a prefix of.
    return sorted(candidates, key=lambda candidate: (-candidate[1], (*candidate[0], math.inf)))[:beam_width]


def oracle_search(
    sids: Iterable[Prefix],
    logits_of: Callable[[Prefix], Sequence[float]],
    num_levels: int,
    beam_width: int,
    normalize: Literal["codes", "allowed"] | None = "codes",
    allowed: Iterable[bool] | None = None,
    *,
    end_logit_of: Callable[[Prefix], float] | None = None,
    temperature: float = 1.0,
) -> list[tuple[Prefix, float]]:
    """Search for the best SIDs of one request.

    Args:
        sids: the SIDs of the N items.
        logits_of: as for `oracle_step`.
        num_levels: L.
        beam_width: M.
        normalize: as for `step`.
        allowed: for each of the N items, whether this request may return it. Default: all items.
        end_logit_of: as for `oracle_step`.
        temperature: as for `oracle_step`.

    Returns:
        (SID, score) of each live beam after the last level, best first.
    """
    if allowed is not None:
        sids = [sid for sid, is_allowed in zip(sids, allowed, strict=True) if is_allowed]
    sids = set(sids)
    beams: list[tuple[Prefix, float]] = [((), 0.0)]
    for level in range(num_levels):
        options = {"level": level, "end_logit_of": end_logit_of, "temperature": temperature}
        beams = oracle_step(sids, beams, logits_of, beam_width, normalize, **options)
    return beams


def _bounded(logit: float) -> float:
    return -math.inf if math.isnan(logit) or logit == -math.inf else min(max(logit, -LARGEST), LARGEST)


def _normalizer(logits: Sequence[float]) -> tuple[float, float]:
    """The largest logit, and the log of the sum of exponentials relative to it. Their sum could lose the second."""
    top = max(logits, default=-math.inf)
    if top == -math.inf:
        return 0.0, 0.0
    return top, math.log(math.fsum(math.exp(logit - top) for logit in logits))
