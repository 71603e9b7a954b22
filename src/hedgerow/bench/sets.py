"""`hedgerow bench sets`: a constraint set from a mask, its bytes, and what sets and exclusions add to a step."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
from rich.console import Console

import hedgerow as hr
from hedgerow.bench.arrays import Arrays, arrays_of
from hedgerow.bench.baselines.ours import KERNELS, LABELS
from hedgerow.bench.cases import PAPER, Case, logits_after, logits_of, sids_of
from hedgerow.bench.experiments import Options
from hedgerow.bench.gate import TOLERANCE, GateError
from hedgerow.bench.machine import conditions, set_threads
from hedgerow.bench.records import Report, Row
from hedgerow.bench.tables import show_footer, show_rows
from hedgerow.bench.timing import measure

SHARES = (0.5, 0.05)
EXCLUDED = 1000
MASKS = 7


def sets(options: Options) -> Report:
    """Builds sets from masks, holds every kernel to an index of the subset alone, then times steps side by side.

    Raises:
        GateError: a search with a set is not that of the subset's own index; nothing is timed.
    """
    case = PAPER.of(items=options.items or (100_000 if options.quick else 10_000_000))
    arrays = arrays_of(options.backend, options.device)
    set_threads(options.threads)
    options.tell(f"{case.items:,} items, building the index")
    catalog = hr.Catalog(sids_of(case), codebook_sizes=case.codebook)
    index = hr.build_index(catalog)
    rng = np.random.default_rng((case.seed, 2))
    masks = [rng.random(case.items) < share for share in SHARES]
    options.tell("making sets from masks")
    made = [index.constraint(mask) for mask in masks]
    rows = [_made_row(case, index, share, mask) for share, mask in zip(SHARES, masks, strict=True)]
    excluded = [rng.integers(0, case.items, EXCLUDED).tolist() for _ in range(case.batch)]
    rules: dict[str, dict[str, Any]] = {
        "no set": {},
        "one set for all": {"constraints": made[0]},
        "a set for each": {"constraints": [made[0], made[1]]},
        "a set, and none": {"constraints": [made[0], None]},
        f"{EXCLUDED:,} excluded": {"exclude": excluded},
        f"a set for each, {EXCLUDED:,} excluded": {"constraints": [made[0], made[1]], "exclude": excluded},
    }
    options.tell("holding the kernels to an index of the subset alone")
    wanted = _alone(case, catalog, index, masks[0])
    skipped: list[tuple[str, str, str]] = []
    with arrays.inference():
        for kernel in KERNELS[arrays.name]:
            options.tell(f"timing {LABELS[kernel]}")
            try:
                _check(case, index, arrays, kernel, made[0], wanted)
            except hr.BackendError as reason:
                skipped.append((case.name, LABELS[kernel], str(reason)))
                continue
            rows += _step_rows(case, index, arrays, kernel, rules, options)
    measured = {"backend": arrays.name, "device": arrays.label, "quick": options.quick}
    facts = conditions(arrays.label) | measured | {"budget": asdict(options.budget)}
    return Report("sets", facts, rows, skipped)


def show(report: Report, console: Console) -> None:
    """Prints the sets, then the steps."""
    first = report.rows[0]
    title = f"a set from a mask, {first['items']:,} items, {first['levels']} x {first['codebook']:,}"
    headings = {"rule": "share of items", "median_ms": "median ms", "least_ms": "least ms", "nbytes": "bytes"}
    headings |= {"bits_per_node": "bits a node"}
    show_rows(title, headings, [row for row in report.rows if row["scope"] == "set"], console)
    headings = {"rule": "rule", "method": "method", "step_ms": "ms/step", "times": "x no set", "times_p10": "x, of p10"}
    headings |= {"p10_ms": "decode p10", "p90_ms": "decode p90"}
    steps = [row for row in report.rows if row["scope"] == "decode"]
    show_rows(f"a step, B={PAPER.batch}, M={PAPER.beam_width}", headings, steps, console)
    show_footer(report, console)


def _made_row(case: Case, index: hr.TrieIndex, share: float, mask: np.ndarray) -> Row:
    """Times what a user does: mask in, alive bits of every level out; each time another mask, so none is remembered."""
    taken, items = [], index.constraint(mask)
    for turn in range(MASKS):
        turned = np.roll(mask, turn + 1)
        started = time.perf_counter()
        items = index.constraint(turned)
        _ = items._alive
        taken.append(1e3 * (time.perf_counter() - started))
    return {
        "scope": "set",
        "rule": f"{share:.0%}",
        **_case_columns(case),
        "median_ms": float(np.median(taken)),
        "least_ms": min(taken),
        "runs": len(taken),
        "nbytes": items.nbytes,
        "bits_per_node": 8 * items.nbytes / sum(index.nodes_per_level),
    }


def _alone(case: Case, catalog: hr.Catalog, index: hr.TrieIndex, mask: np.ndarray) -> hr.Beams:
    """Returns the search over an index of the subset alone, with logits that follow a beam's prefix."""
    rows = np.asarray(index.item_ids)
    kept = np.zeros(case.items, bool)
    kept[rows[mask]] = True
    logits = logits_of(case)
    return hr.beam_search(
        hr.build_index(catalog.filter(kept)),
        lambda beams: logits_after(beams.codes, logits[beams.level]),
        batch_size=case.batch,
        beam_width=case.beam_width,
        kernel="array",
    )


def _check(
    case: Case, index: hr.TrieIndex, arrays: Arrays, kernel: Any, items: hr.ConstraintSet, wanted: hr.Beams
) -> None:
    logits = logits_of(case)
    found = hr.beam_search(
        index.to(arrays.name, arrays.device),
        lambda beams: arrays.put(logits_after(arrays.get(beams.codes), logits[beams.level])),
        batch_size=case.batch,
        beam_width=case.beam_width,
        kernel=kernel,
        constraints=items,
    )
    if not np.allclose(arrays.get(found.scores), wanted.scores, rtol=0, atol=TOLERANCE):
        raise GateError(f"{LABELS[kernel]}: a search with a set is not that of an index of the subset alone.")


def _step_rows(
    case: Case, index: hr.TrieIndex, arrays: Arrays, kernel: Any, rules: dict[str, dict[str, Any]], options: Options
) -> list[Row]:
    device_index = index.to(arrays.name, arrays.device)
    logits = [arrays.put(level_logits) for level_logits in logits_of(case)]
    step = arrays.jit(hr.step, static_argnames=("beam_width", "backend"))

    def decode(constraints: hr.PreparedConstraints | None) -> Callable[[], object]:
        def run() -> object:
            beams = hr.init_beams(device_index, case.batch)
            for level_logits in logits:
                beams = step(
                    device_index,
                    beams,
                    level_logits,
                    beam_width=case.beam_width,
                    kernel=kernel,
                    constraints=constraints,
                )
            return arrays.sync(beams.scores)

        return run

    prepared = {name: hr.prepare_constraints(device_index, case.batch, **rule) for name, rule in rules.items()}
    samples = measure({name: decode(constraints) for name, constraints in prepared.items()}, options.budget)
    summaries = {name: taken.summary() for name, taken in samples.items()}
    free = summaries["no set"]
    return [
        {
            "scope": "decode",
            "rule": name,
            "method": LABELS[kernel],
            **_case_columns(case),
            "backend": arrays.name,
            "device": arrays.label,
            "step_ms": summary["median_ms"] / case.levels,
            "times": summary["median_ms"] / free["median_ms"],
            "times_p10": summary["p10_ms"] / free["p10_ms"],
            **summary,
        }
        for name, summary in summaries.items()
    ]


def _case_columns(case: Case) -> dict[str, Any]:
    shape = {"items": case.items, "levels": case.levels, "codebook": case.codebook}
    return shape | {"batch": case.batch, "beam_width": case.beam_width}
