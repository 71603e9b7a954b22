"""Measure candidate lists: the time per request from lists of ids to an index that can be searched, and of the steps.

    python benchmarks/candidates.py            500 candidates per request at 1M and 10M items, about 2 minutes
    python benchmarks/candidates.py --quick    100,000 items, a few seconds

Runs use other lists in turn, so that no result is cached. A search of the candidates must equal a search of the whole
index with constraint sets of the same items. The floor of the lists is one access of memory per candidate and level.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

import hedgerow as hr
from hedgerow.bench.arrays import arrays_of
from hedgerow.bench.machine import conditions, set_threads
from hedgerow.bench.records import Report
from hedgerow.bench.tables import console_for_tables, show_footer, show_rows
from hedgerow.bench.timing import Budget, measure

RESULTS = Path(__file__).parent / "results"
LEVELS, CODES, BATCH, BEAM_WIDTH, CANDIDATES, LISTS = 8, 2048, 32, 50, 500, 16
HEADINGS = {"items": "items", "ids": "ids", "what": "what", "request_ms": "ms/request"}
HEADINGS |= {"median_ms": "batch median ms", "p10_ms": "p10", "p90_ms": "p90", "runs": "runs"}


def index_of(items: int, ids: str) -> hr.TrieIndex:
    """An index of random SIDs whose ids are in an order of their own."""
    rng = np.random.default_rng(7)
    numbers: Any = rng.permutation(items)
    names = numbers if ids == "int64" else np.char.mod("item-%09d", numbers)
    sids = rng.integers(0, CODES, (items, LEVELS), dtype=np.uint16)
    return hr.build_index(hr.Catalog(sids, codebook_sizes=CODES, item_ids=names))


def logits_fn(beams: hr.Beams) -> np.ndarray:
    """Logits that depend on the prefix of a beam."""
    last = beams.codes[..., -1:] if beams.level else np.zeros((*beams.states.shape, 1))
    return np.sin(np.arange(CODES, dtype=np.float32) * 0.7 + last + beams.level).astype(np.float32)


def check(index: hr.TrieIndex, lists: list[list[Any]]) -> None:
    """Compare a search of the candidates with one of the whole index with sets of the same items."""
    options: dict[str, Any] = {"batch_size": len(lists), "beam_width": BEAM_WIDTH}
    candidates = index.candidates(lists)
    found = candidates.results(hr.beam_search(candidates.to("numpy"), logits_fn, **options))
    sets = [index.constraint(ids=ids) for ids in lists]
    beams = hr.beam_search(index.to("numpy"), logits_fn, constraints=sets, **options)
    expected = index.results(beams, constraints=sets)
    for mine, theirs in zip(found, expected, strict=True):
        if mine.item_ids != theirs.item_ids or not np.array_equal(mine.scores, theirs.scores):
            sys.exit("the results with candidates differ from those with sets; nothing was timed.")


def rows_of(items: int, ids: str, budget: Budget) -> list[dict[str, Any]]:
    """Measure one index."""
    index, torch = index_of(items, ids), arrays_of("torch", "cpu")
    rng, names = np.random.default_rng(8), index.item_ids
    batches = [[names.take(rng.integers(0, items, CANDIDATES)).to_pylist() for _ in range(BATCH)] for _ in range(LISTS)]
    check(index, batches[0][:4])
    logits = torch.put(np.random.default_rng(9).normal(size=(BATCH, BEAM_WIDTH, CODES)).astype(np.float32))

    def decode(device_index: hr.DeviceIndex) -> object:
        beams = hr.init_beams(device_index, BATCH)
        for _ in range(LEVELS):
            beams = hr.step(device_index, beams, logits[:, : beams.states.shape[1]], beam_width=BEAM_WIDTH)
        return beams.scores

    lists, whole = cycle(batches), index.to("torch")
    kept = index.candidates(batches[0]).to("torch")
    thunks: dict[str, Callable[[], object]] = {
        f"{CANDIDATES} candidates to an index": lambda: index.candidates(next(lists)).to("torch"),
        f"{CANDIDATES} candidates, steps": lambda: decode(kept),
        "no candidates, steps": lambda: decode(whole),
    }
    with torch.inference():
        times = measure(thunks, budget)
    rows = []
    for what, samples in times.items():
        summary = samples.summary()
        rows.append({"items": items, "ids": ids, "what": what, "request_ms": summary["median_ms"] / BATCH, **summary})
    return rows


def main() -> None:
    """Run the measurement, print the table and save the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--threads", type=int, help="number of threads (default: all cores)")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    set_threads(arguments.threads)
    sizes = (100_000,) if arguments.quick else (1_000_000, 10_000_000)
    budget = Budget(repeats=50, warmup=3, seconds=2.0 if arguments.quick else 15.0)
    rows = [row for items in sizes for ids in ("int64", "string") for row in rows_of(items, ids, budget)]
    shape = {"batch": BATCH, "beam_width": BEAM_WIDTH, "levels": LEVELS, "codebook_size": CODES}
    report = Report("candidates", conditions() | {"quick": arguments.quick, **shape}, rows)
    console = console_for_tables()
    show_rows(f"{BATCH} requests, {CANDIDATES} candidates each, {BEAM_WIDTH} beams", HEADINGS, rows, console)
    show_footer(report, console)
    for path in report.save(arguments.out):
        print(f"wrote {path}", file=sys.stderr)


if __name__ == "__main__":
    main()
