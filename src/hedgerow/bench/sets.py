"""`hedgerow bench sets`: the time to create a constraint set, its bytes, and the time that sets add to a step."""

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
from hedgerow.decode.alive import alive_on_device, leaves_on_device
from hedgerow.decode.device import is_accelerated

SHARES = (0.5, 0.05)
EXCLUDED = 1000
MASKS = 15


def sets(options: Options) -> Report:
    """Create sets from masks, check every kernel against an index of the subset, then time steps with sets.

    Raises:
        GateError: the scores of a search with a set differ from those of the subset's index; nothing is timed.
    """
    case = PAPER.of(items=options.items or (100_000 if options.quick else 10_000_000))
    arrays = arrays_of(options.backend, options.device)
    set_threads(options.threads)
    options.on_status(f"{case.items:,} items, building the index")
    catalog = hr.Catalog(sids_of(case), codebook_sizes=case.codebook_size)
    index = hr.build_index(catalog)
    rng = np.random.default_rng((case.seed, 2))
    masks = [rng.random(case.items) < share for share in SHARES]
    options.on_status("creating sets from masks")
    large, small = (index.constraint(mask, order="index") for mask in masks)
    rows = [_set_row(case, index, share, mask) for share, mask in zip(SHARES, masks, strict=True)]
    rows += _combined_rows(case, index, masks)
    if is_accelerated(device_index := index.to(arrays.name, arrays.device)):
        rows.append(_device_row(case, index, device_index, arrays, masks[0]))
    excluded = [rng.integers(0, case.items, EXCLUDED).tolist() for _ in range(case.batch)]
    rules: dict[str, dict[str, Any]] = {
        "no set": {},
        "one set for all": {"constraints": large},
        "a set for each": {"constraints": [large, small]},
        "a set, and none": {"constraints": [large, None]},
        f"{EXCLUDED:,} excluded": {"exclude": excluded},
        f"a set for each, {EXCLUDED:,} excluded": {"constraints": [large, small], "exclude": excluded},
    }
    options.on_status("checking the kernels against an index of the subset")
    expected = _subset_search(case, catalog, index, masks[0])
    skipped: list[tuple[str, str, str]] = []
    with arrays.inference():
        for kernel in KERNELS[arrays.name]:
            options.on_status(f"timing {LABELS[kernel]}")
            try:
                _check(case, index, arrays, kernel, large, expected)
            except hr.BackendError as reason:
                skipped.append((case.name, LABELS[kernel], str(reason)))
                continue
            rows += _step_rows(case, index, arrays, kernel, rules, options)
    facts = {"backend": arrays.name, "device": arrays.label, "quick": options.quick}
    return Report("sets", conditions(arrays.label) | facts | {"budget": asdict(options.budget)}, rows, skipped)


def show(report: Report, console: Console) -> None:
    """Print the sets, then the steps."""
    first = report.rows[0]
    title = f"set from a mask, {first['items']:,} items, {first['levels']} x {first['codebook_size']:,}"
    headings = {"rule": "share of items", "median_ms": "median ms", "least_ms": "min ms", "nbytes": "bytes"}
    headings |= {"bits_per_node": "bits per node"}
    show_rows(title, headings, [row for row in report.rows if row["scope"] == "set"], console)
    headings = {"rule": "rule", "method": "method", "step_ms": "ms/step", "times": "x no set", "times_p10": "x, of p10"}
    headings |= {"p10_ms": "decode p10", "p90_ms": "decode p90"}
    steps = [row for row in report.rows if row["scope"] == "decode"]
    show_rows(f"step, B={PAPER.batch}, M={PAPER.beam_width}", headings, steps, console)
    show_footer(report, console)


def _set_row(case: Case, index: hr.TrieIndex, share: float, mask: np.ndarray) -> Row:
    """Time the creation of a set, from the mask to the alive bits of every level.

    Each repetition uses a different mask, so that no result is cached.
    """
    times, constraints = [], index.constraint(mask, order="index")
    # The first set of an index also marks the last child of each parent.
    _ = constraints._alive
    for shift in range(1, MASKS + 1):
        shifted = np.roll(mask, shift)
        started = time.perf_counter()
        constraints = index.constraint(shifted, order="index")
        _ = constraints._alive
        times.append(1e3 * (time.perf_counter() - started))
    nbytes = {"nbytes": constraints.nbytes, "bits_per_node": 8 * constraints.nbytes / sum(index.nodes_per_level)}
    return _timed_row(case, f"{share:.0%}", times) | nbytes


def _combined_rows(case: Case, index: hr.TrieIndex, masks: list[np.ndarray]) -> list[Row]:
    """Time `a & b` to the alive bits of every level, the first time and once more from sets that were made again."""
    times: tuple[list[float], list[float]] = ([], [])
    for shift in range(1, MASKS + 1):
        shifted = [np.roll(mask, 100 + shift) for mask in masks]
        for of_pass in times:
            left, right = (index.constraint(mask, order="index") for mask in shifted)
            # Sets that are kept, as those of a service are, have their digests.
            _ = left._key, right._key
            started = time.perf_counter()
            _ = (left & right)._alive
            of_pass.append(1e3 * (time.perf_counter() - started))
    return [_timed_row(case, rule, ms) for rule, ms in zip(("a & b, first", "a & b, again"), times, strict=True)]


def _device_row(case: Case, index: hr.TrieIndex, device_index: hr.DeviceIndex, arrays: Arrays, mask: np.ndarray) -> Row:
    """Time the alive bits of every level on the device, from a mask there."""
    times = []
    for shift in range(MASKS + 1):
        placed = arrays.put(np.roll(mask, shift))
        started = time.perf_counter()
        levels = alive_on_device(device_index, leaves_on_device(device_index, index, placed))
        arrays.sync(levels[0])
        times.append(1e3 * (time.perf_counter() - started))
    # Without the first, which compiles.
    return _timed_row(case, f"{SHARES[0]:.0%}, mask on {arrays.label}", times[1:])


def _timed_row(case: Case, rule: str, times: list[float]) -> Row:
    facts = {"median_ms": float(np.median(times)), "least_ms": min(times), "runs": len(times)}
    return {"scope": "set", "rule": rule, **_case_columns(case), **facts}


def _subset_search(case: Case, catalog: hr.Catalog, index: hr.TrieIndex, mask: np.ndarray) -> hr.Beams:
    """Search an index of the subset, with logits that depend on the prefix of a beam."""
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
    case: Case, index: hr.TrieIndex, arrays: Arrays, kernel: Any, constraints: hr.ConstraintSet, expected: hr.Beams
) -> None:
    logits = logits_of(case)
    beams = hr.beam_search(
        index.to(arrays.name, arrays.device),
        lambda beams: arrays.put(logits_after(arrays.get(beams.codes), logits[beams.level])),
        batch_size=case.batch,
        beam_width=case.beam_width,
        kernel=kernel,
        constraints=constraints,
    )
    if not np.allclose(arrays.get(beams.scores), expected.scores, rtol=0, atol=TOLERANCE):
        raise GateError(f"{LABELS[kernel]}: the scores with a set differ from those of an index of the subset.")


def _step_rows(
    case: Case, index: hr.TrieIndex, arrays: Arrays, kernel: Any, rules: dict[str, dict[str, Any]], options: Options
) -> list[Row]:
    device_index = index.to(arrays.name, arrays.device)
    logits = [arrays.put(level_logits) for level_logits in logits_of(case)]
    step = arrays.jit(hr.step, static_argnames=("beam_width", "kernel"))

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
    times = measure({name: decode(constraints) for name, constraints in prepared.items()}, options.budget)
    summaries = {name: samples.summary() for name, samples in times.items()}
    without_set = summaries["no set"]
    return [
        {
            "scope": "decode",
            "rule": name,
            "method": LABELS[kernel],
            **_case_columns(case),
            "backend": arrays.name,
            "device": arrays.label,
            "step_ms": summary["median_ms"] / case.levels,
            "times": summary["median_ms"] / without_set["median_ms"],
            "times_p10": summary["p10_ms"] / without_set["p10_ms"],
            **summary,
        }
        for name, summary in summaries.items()
    ]


def _case_columns(case: Case) -> dict[str, Any]:
    shape = {"items": case.items, "levels": case.levels, "codebook_size": case.codebook_size}
    return shape | {"batch": case.batch, "beam_width": case.beam_width}
