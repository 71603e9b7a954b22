"""The gate: every method is held to its promise before it is timed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

import hedgerow as hr
from hedgerow.bench.baselines.base import Found, MaskBaseline, Problem, Promise
from hedgerow.bench.cases import logits_after
from hedgerow.bench.entries import Entry
from hedgerow.errors import HedgerowError

TOLERANCE = 1e-3
PREFIXES_PROBED = 64


class GateError(HedgerowError, RuntimeError):
    """A method broke its promise, so nothing was timed."""


@dataclass(frozen=True)
class Checked:
    """What a method's results are worth.

    Attributes:
        live: the share of B x M beams that it says are there.
        valid: of those, the share whose SID is in the catalog.
        recall: of the SIDs that exact search finds, the share that it found.
        false_positives: of codes that may not follow, the share that its mask lets through; None where it has none.
    """

    live: float
    valid: float
    recall: float
    false_positives: float | None = None


def exact_beams(
    problem: Problem, logits: Sequence[np.ndarray], beam_width: int, *, by_prefix: bool = False
) -> list[hr.Beams]:
    """Returns hedgerow's beams on NumPy after every level; `by_prefix`: with logits that follow a beam's prefix."""
    index = problem.index.to("numpy")
    beams, after = hr.init_beams(index, batch_size=logits[0].shape[0]), []
    for level_logits in logits:
        chosen = logits_after(beams.codes, level_logits) if by_prefix else level_logits
        beams = hr.step(index, beams, chosen, beam_width=beam_width)
        after.append(beams)
    return after


def check(entry: Entry, problem: Problem, exact: Sequence[hr.Beams], exact_by_prefix: hr.Beams) -> Checked:
    """Returns what a method's results are worth.

    Args:
        entry: the method.
        problem: the catalog.
        exact: the beams after every level, for what the method finds.
        exact_by_prefix: the finished beams where logits follow a prefix, which exact methods must equal in score.

    Raises:
        GateError: it promised more.
    """
    found, last = entry.found(), exact[-1]
    live = found.live
    valid = np.zeros(live.shape, bool)
    valid[live] = problem.index.contains(found.codes[live].astype(np.int64))
    checked = Checked(
        live=float(live.mean()),
        valid=float(valid[live].mean()) if live.any() else 1.0,
        recall=_recall(found, last),
        false_positives=_false_positives(entry, problem, exact),
    )
    if entry.promise in (Promise.EXACT, Promise.VALID) and entry.method is not None and checked.valid < 1:
        raise GateError(f"{entry.name} promises valid SIDs, but {1 - checked.valid:.2%} of its beams are not.")
    if entry.promise is Promise.EXACT and entry.found_by_prefix is not None:
        _check_scores(entry.name, entry.found_by_prefix(), exact_by_prefix)
    return checked


def _check_scores(name: str, found: Found, last: hr.Beams) -> None:
    if found.scores is None or not np.allclose(found.scores, last.scores, rtol=0, atol=TOLERANCE):
        raise GateError(f"{name} promises exact beams, but its scores are not those of hedgerow's step on NumPy.")


def _recall(found: Found, last: hr.Beams) -> float:
    shares = []
    for codes, live, best, alive in zip(found.codes, found.live, last.codes, last.states >= 0, strict=True):
        mine, wanted = ({tuple(sid) for sid in sids.tolist()} for sids in (codes[live], best[alive]))
        shares.append(len(mine & wanted) / len(wanted) if wanted else 1.0)
    return float(np.mean(shares))


def _false_positives(entry: Entry, problem: Problem, exact: Sequence[hr.Beams]) -> float | None:
    """Probes an approximate mask with all C codes after prefixes of the catalog, at every level."""
    method = entry.method
    if entry.promise is not Promise.APPROXIMATE or not isinstance(method, MaskBaseline):
        return None
    passed = probed = 0
    for level in range(problem.index.num_levels):
        prefixes = np.zeros((1, 0), np.int32) if level == 0 else exact[level - 1].codes[0][:PREFIXES_PROBED]
        prefixes = prefixes[(prefixes >= 0).all(axis=1)]
        size = problem.index.codebook_sizes[level]
        search = method.start(1)._replace(codes=method.arrays.put(prefixes[None]))
        mask = method.arrays.get(method.mask(method.tables, search, size))[0]
        for prefix, row in zip(prefixes.tolist(), mask, strict=True):
            allowed = problem.index.allowed_codes(prefix)
            probed += size - len(allowed)
            passed += int(row.sum() - row[allowed].sum())
    return passed / probed if probed else 0.0
