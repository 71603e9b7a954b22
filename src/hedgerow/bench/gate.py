"""The gate: the results of every method are checked against its promise before it is timed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

import hedgerow as hr
from hedgerow.bench.baselines.base import MaskBaseline, Problem, Promise, SearchResult
from hedgerow.bench.cases import logits_after
from hedgerow.bench.entries import Entry
from hedgerow.errors import HedgerowError

TOLERANCE = 1e-3
PREFIXES_PROBED = 64


class GateError(HedgerowError, RuntimeError):
    """The results of a method are not what it promises, so nothing was timed."""


@dataclass(frozen=True)
class Quality:
    """The measured quality of a method's results.

    Attributes:
        live: the share of the B x M beams that are live.
        valid: the share of the live beams whose SID is in the catalog.
        recall: the share of the SIDs of exact search that the method found.
        false_positives: the share of the forbidden codes that its mask allows; None for methods without such errors.
    """

    live: float
    valid: float
    recall: float
    false_positives: float | None = None


def exact_beams(
    problem: Problem, logits: Sequence[np.ndarray], beam_width: int, *, by_prefix: bool = False
) -> list[hr.Beams]:
    """Run hedgerow's search on NumPy and return the beams after every level.

    Args:
        problem: the catalog.
        logits: [B, m, C] for each level.
        beam_width: M.
        by_prefix: select the rows of the logits by the prefix of a beam, not by its rank.
    """
    index = problem.index.to("numpy")
    beams, history = hr.init_beams(index, batch_size=logits[0].shape[0]), []
    for level_logits in logits:
        logits_of_beams = logits_after(beams.codes, level_logits) if by_prefix else level_logits
        beams = hr.step(index, beams, logits_of_beams, beam_width=beam_width)
        history.append(beams)
    return history


def check(entry: Entry, problem: Problem, exact: Sequence[hr.Beams], exact_by_prefix: hr.Beams) -> Quality:
    """Measure the quality of a method's results.

    Args:
        entry: the method.
        problem: the catalog.
        exact: the beams of exact search after every level.
        exact_by_prefix: the finished beams of exact search with logits by prefix. The scores of exact methods must
            equal theirs.

    Raises:
        GateError: the results are not what the method promises.
    """
    result, last = entry.search(), exact[-1]
    live = result.live
    valid = np.zeros(live.shape, bool)
    valid[live] = problem.index.contains(result.codes[live].astype(np.int64))
    quality = Quality(
        live=float(live.mean()),
        valid=float(valid[live].mean()) if live.any() else 1.0,
        recall=_recall(result, last),
        false_positives=_false_positives(entry, problem, exact),
    )
    if entry.promise in (Promise.EXACT, Promise.VALID) and entry.method is not None and quality.valid < 1:
        raise GateError(
            f"{entry.name} promises valid SIDs, but {1 - quality.valid:.2%} of its live beams match no item."
        )
    if entry.promise is Promise.EXACT and entry.search_by_prefix is not None:
        _check_scores(entry.name, entry.search_by_prefix(), exact_by_prefix)
    return quality


def _check_scores(name: str, result: SearchResult, last: hr.Beams) -> None:
    if result.scores is None or not np.allclose(result.scores, last.scores, rtol=0, atol=TOLERANCE):
        raise GateError(f"{name} promises exact beams, but its scores differ from those of hedgerow's step on NumPy.")


def _recall(result: SearchResult, last: hr.Beams) -> float:
    shares = []
    for codes, live, exact_codes, exact_live in zip(
        result.codes, result.live, last.codes, last.states >= 0, strict=True
    ):
        sids, exact_sids = ({tuple(sid) for sid in rows.tolist()} for rows in (codes[live], exact_codes[exact_live]))
        shares.append(len(sids & exact_sids) / len(exact_sids) if exact_sids else 1.0)
    return float(np.mean(shares))


def _false_positives(entry: Entry, problem: Problem, exact: Sequence[hr.Beams]) -> float | None:
    """Test the mask of an approximate method with all C codes after prefixes of the catalog, at every level."""
    method = entry.method
    if entry.promise is not Promise.APPROXIMATE or not isinstance(method, MaskBaseline):
        return None
    allowed_wrongly = probed = 0
    for level in range(problem.index.num_levels):
        prefixes = np.zeros((1, 0), np.int32) if level == 0 else exact[level - 1].codes[0][:PREFIXES_PROBED]
        prefixes = prefixes[(prefixes >= 0).all(axis=1)]
        size = problem.index.codebook_sizes[level]
        search = method.start(1)._replace(codes=method.arrays.put(prefixes[None]))
        mask = method.arrays.get(method.mask(method.tables, search, size))[0]
        for prefix, row in zip(prefixes.tolist(), mask, strict=True):
            allowed = problem.index.allowed_codes(prefix)
            probed += size - len(allowed)
            allowed_wrongly += int(row.sum() - row[allowed].sum())
    return allowed_wrongly / probed if probed else 0.0
