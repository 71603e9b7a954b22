"""Compare several methods on one case: build them, check their results, and time them in turn."""

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
from hedgerow.bench.gate import Quality, check, exact_beams
from hedgerow.bench.methods import Methods
from hedgerow.bench.records import Row
from hedgerow.bench.timing import Budget, measure

OnStatus = Callable[[str], None]


@dataclass(frozen=True)
class Comparison:
    """Results of a case: rows to report, and (case, method, reason) for each method that was not run."""

    rows: list[Row]
    skipped: list[tuple[str, str, str]]


def problem_of(case: Case) -> Problem:
    """Build the index of a case's catalog."""
    return Problem(hr.build_index(hr.Catalog(sids_of(case), codebook_sizes=case.codebook_size)))


def compare(
    case: Case,
    methods: Methods,
    arrays: Arrays,
    *,
    budget: Budget,
    reference: Path | None = None,
    by_level: bool = True,
    on_status: OnStatus = lambda _: None,
) -> Comparison:
    """Build, check and then time methods on a case.

    Args:
        case: the sizes.
        methods: the methods; those that cannot run here are skipped, with the reason.
        arrays: the library and device.
        budget: number and time of the repetitions.
        reference: folder of the authors' code. None: import it, if it is installed.
        by_level: also time each level separately.
        on_status: called with a message at each stage.

    Raises:
        GateError: the results of a method are not what it promises; nothing is timed.
    """
    on_status(f"{case.name}: {case.items:,} items, building hedgerow's index")
    problem = problem_of(case)
    logits = logits_of(case)
    exact = exact_beams(problem, logits, case.beam_width)
    by_prefix = exact_beams(problem, logits, case.beam_width, by_prefix=True)[-1]
    placed = [arrays.put(level_logits) for level_logits in logits]
    skipped: list[tuple[str, str, str]] = []
    checked: list[tuple[Entry, Quality]] = []
    with arrays.inference():
        for method in (*methods, OriginalStatic):
            on_status(f"{case.name}: {case.items:,} items, checking {method.name}")
            try:
                entry = (
                    entry_of(method, problem, arrays, case, placed)
                    if issubclass(method, Baseline)
                    else original_entry(problem, arrays, case, placed, reference)
                )
            except Unavailable as reason:
                skipped.append(
                    (f"{case.name}, {case.items:,} items of {case.codebook_size:,} codes", method.name, str(reason))
                )
                continue
            checked.append((entry, check(entry, problem, exact, by_prefix)))
        on_status(f"{case.name}: {case.items:,} items, timing {len(checked)} methods")
        rows = _decode_rows(case, checked, arrays, budget)
        if by_level:
            rows += _level_rows(case, [entry for entry, _ in checked], arrays, budget)
    return Comparison(rows, skipped)


def _decode_rows(case: Case, checked: Sequence[tuple[Entry, Quality]], arrays: Arrays, budget: Budget) -> list[Row]:
    times = measure({entry.name: entry.decode for entry, _ in checked}, budget)
    summaries = {name: samples.summary() for name, samples in times.items()}
    free = summaries.get(Unconstrained.name)
    rows = []
    for entry, quality in checked:
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
            | asdict(quality)
            | {"floor_bytes": sum(map(case.logit_bytes, range(case.levels)))}
            | {"nbytes": entry.nbytes, "build_seconds": entry.build_seconds}
        )
    return rows


def _level_rows(case: Case, entries: Sequence[Entry], arrays: Arrays, budget: Budget) -> list[Row]:
    """Time each level separately, with a fifth of the time budget of a whole decode."""
    shorter, rows = replace(budget, seconds=budget.seconds / 5), []
    for level in range(case.levels):
        with_levels = {entry.name: entry for entry in entries if entry.levels}
        times = measure({name: entry.levels[level] for name, entry in with_levels.items()}, shorter)
        for name, samples in times.items():
            summary = samples.summary()
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
        "codebook_size": case.codebook_size,
        "levels": case.levels,
        "batch": case.batch,
        "beam_width": case.beam_width,
        "backend": arrays.name,
        "device": arrays.label,
    }
