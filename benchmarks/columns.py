"""Measure one rank's share of a step whose logits are divided among ranks, beside the step over all logits.

    python benchmarks/columns.py                 8 requests, 256 beams, 1.5M items of 3 x 8192 codes, 1, 2 and 4 ranks
    python benchmarks/columns.py --quick         small sizes, seconds

One rank computes; the others are copies of it, so the exchange itself takes no time. `--backend torch --device cuda`
measures a GPU.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import hedgerow as hr
from hedgerow.bench.arrays import Arrays, arrays_of
from hedgerow.bench.machine import conditions
from hedgerow.bench.records import Report, Row
from hedgerow.bench.tables import console_for_tables, show_rows
from hedgerow.bench.timing import FULL, QUICK, measure

RESULTS = Path(__file__).parent / "results"
LEVELS, RANKS = 3, (1, 2, 4)
HEADINGS = {
    "level": "level",
    "method": "step",
    "median_ms": "median ms",
    "p10_ms": "p10",
    "kb": "exchanged KB",
    "runs": "runs",
}


def rank_step(index: Any, beams: hr.Beams, logits: Any, ranks: int, width: int, arrays: Arrays) -> hr.Beams:
    """The step of rank 0. The others have as many candidates."""
    return hr.step(
        index,
        beams,
        logits,
        beam_width=width,
        code_range=(0, logits.shape[-1]),
        gather=lambda x: arrays.xp.stack([x] * ranks),
    )


def rows_of_level(index: Any, beams: hr.Beams, size: int, width: int, arrays: Arrays, *, quick: bool) -> list[Row]:
    """Time the steps of one level."""
    shape = (*beams.states.shape, size)
    whole = arrays.put(np.random.default_rng(beams.level).normal(size=shape).astype(np.float32))
    steps: dict[str, Callable[[], hr.Beams]] = {
        f"all logits, kernel {kernel}": partial(hr.step, index, beams, whole, beam_width=width, kernel=kernel)
        for kernel in ("auto", "array")
    }
    exchanged = dict.fromkeys(steps, whole.nbytes / 1e3)
    for ranks in RANKS:
        name, columns = f"one of {ranks} ranks", whole[..., : size // ranks]
        steps[name] = partial(rank_step, index, beams, columns, ranks, width, arrays)
        exchanged[name] = ranks * shape[0] * (8 * shape[1] + 12 * width) / 1e3

    def timed(step: Callable[[], hr.Beams]) -> None:
        with arrays.inference():
            arrays.sync(step().scores)

    samples = measure({name: partial(timed, step) for name, step in steps.items()}, QUICK if quick else FULL)
    level = {"level": beams.level}
    return [level | {"method": name, "kb": exchanged[name]} | found.summary() for name, found in samples.items()]


def main() -> None:
    """Measure, print a table, and write it to `benchmarks/results`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="torch", choices=("numpy", "torch"))
    parser.add_argument("--device", default=None)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    batch, width, size, items = (2, 20, 256, 5_000) if options.quick else (8, 256, 8192, 1_500_000)
    arrays = arrays_of(options.backend, options.device)
    sids = np.random.default_rng(0).integers(0, size, (items, LEVELS), dtype=np.int32)
    index = hr.build_index(hr.Catalog(sids, codebook_sizes=size)).to(options.backend, device=arrays.device)
    beams, rows = hr.init_beams(index, batch), []
    for level in range(LEVELS):
        rows += rows_of_level(index, beams, size, width, arrays, quick=options.quick)
        logits = np.random.default_rng(level).normal(size=(*beams.states.shape, size)).astype(np.float32)
        beams = hr.step(index, beams, arrays.put(logits), beam_width=width)
    details = {"backend": options.backend, "device": arrays.label, "quick": options.quick}
    report = Report("columns", conditions(options.device) | details, rows)
    title = f"{batch} requests, {width} beams, {items:,} items of {LEVELS} x {size} codes"
    show_rows(title, HEADINGS, rows, console_for_tables())
    report.save(options.out)


if __name__ == "__main__":
    main()
