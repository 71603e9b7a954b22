"""One case, several methods: build, hold to their promises, time side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import hedgerow as hr
from hedgerow.bench.arrays import Arrays
from hedgerow.bench.baselines.base import Baseline, Problem, Unavailable
from hedgerow.bench.baselines.original import OriginalStatic
from hedgerow.bench.baselines.unconstrained import Unconstrained
from hedgerow.bench.cases import Case, logits_of, sids_of
from hedgerow.bench.entries import Entry, entry_of, original_entry
from hedgerow.bench.gate import Checked, check, exact_beams
from hedgerow.bench.methods import Methods
from hedgerow.bench.records import Row
from hedgerow.bench.timing import Budget, measure

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Comparison:
    """What a case showed: rows to report, and (case, method, why) of what was not run."""

    rows: list[Row]
    skipped: list[tuple[str, str, str]]


def problem_of(case: Case) -> Problem:
    """Returns the case's catalog, indexed."""
    return Problem(hr.build_index(hr.Catalog(sids_of(case), codebook_sizes=case.codebook)))


def compare(
    case: Case,
    methods: Methods,
    arrays: Arrays,
    *,
    budget: Budget,
    reference: Path | None = None,
    by_level: bool = True,
    tell: Tell = lambda _: None,
) -> Comparison:
    """Builds, checks, then times the methods on a case.

    Args:
        case: the shape.
        methods: what to run; what cannot run here is skipped, with its reason.
        arrays: the library and device.
        budget: how much to measure.
        reference: folder of the authors' code; None tries to import it.
        by_level: also time every level by itself.
        tell: called with what is going on.

    Raises:
        GateError: a method broke its promise; nothing is timed.
    """
    tell(f"{case.name}: {case.items:,} items, building hedgerow's index")
    problem = problem_of(case)
    logits = logits_of(case)
    exact = exact_beams(problem, logits, case.beam_width)
    by_prefix = exact_beams(problem, logits, case.beam_width, by_prefix=True)[-1]
    placed = [arrays.put(level_logits) for level_logits in logits]
    skipped: list[tuple[str, str, str]] = []
    checked: list[tuple[Entry, Checked]] = []
    with arrays.inference():
        for method in (*methods, OriginalStatic):
            tell(f"{case.name}: {case.items:,} items, checking {method.name}")
            try:
                entry = (
                    entry_of(method, problem, arrays, case, placed)
                    if issubclass(method, Baseline)
                    else original_entry(problem, arrays, case, placed, reference)
                )
            except Unavailable as reason:
                skipped.append(
                    (f"{case.name}, {case.items:,} items of {case.codebook:,} codes", method.name, str(reason))
                )
                continue
            checked.append((entry, check(entry, problem, exact, by_prefix)))
        tell(f"{case.name}: {case.items:,} items, timing {len(checked)} methods")
        rows = _decode_rows(case, checked, arrays, budget)
        if by_level:
            rows += _level_rows(case, [entry for entry, _ in checked], arrays, budget)
    return Comparison(rows, skipped)


def _decode_rows(case: Case, checked: Sequence[tuple[Entry, Checked]], arrays: Arrays, budget: Budget) -> list[Row]:
    samples = measure({entry.name: entry.decode for entry, _ in checked}, budget)
    summaries = {name: taken.summary() for name, taken in samples.items()}
    free = summaries.get(Unconstrained.name)
    rows = []
    for entry, worth in checked:
        summary = summaries[entry.name]
        per_step = {"step_ms": summary["median_ms"] / case.levels}
        if free is not None:
            per_step["added_ms_per_step"] = (summary["median_ms"] - free["median_ms"]) / case.levels
            per_step["added_mean_ms_per_step"] = (summary["mean_ms"] - free["mean_ms"]) / case.levels
            per_step["added_sd_ms_per_step"] = (summary["sd_ms"] ** 2 + free["sd_ms"] ** 2) ** 0.5 / case.levels
        rows.append(
            _case_columns(case, arrays, entry, "decode")
            | per_step
            | summary
            | asdict(worth)
            | {"floor_bytes": sum(map(case.logit_bytes, range(case.levels)))}
            | {"nbytes": entry.nbytes, "build_seconds": entry.build_seconds}
        )
    return rows


def _level_rows(case: Case, entries: Sequence[Entry], arrays: Arrays, budget: Budget) -> list[Row]:
    """Times every level by itself; a fifth of the time that the whole decode had."""
    shorter, rows = replace(budget, seconds=budget.seconds / 5), []
    for level in range(case.levels):
        with_levels = {entry.name: entry for entry in entries if entry.levels}
        samples = measure({name: entry.levels[level] for name, entry in with_levels.items()}, shorter)
        for name, taken in samples.items():
            summary = taken.summary()
            rows.append(
                _case_columns(case, arrays, with_levels[name], f"level {level}")
                | {"step_ms": summary["median_ms"]}
                | summary
                | {"floor_bytes": case.logit_bytes(level)}
            )
    return rows


def _case_columns(case: Case, arrays: Arrays, entry: Entry, scope: str) -> dict[str, Any]:
    return {
        "case": case.name,
        "method": entry.name,
        "promise": str(entry.promise),
        "scope": scope,
        "items": case.items,
        "codebook": case.codebook,
        "levels": case.levels,
        "batch": case.batch,
        "beam_width": case.beam_width,
        "backend": arrays.name,
        "device": arrays.label,
    }
