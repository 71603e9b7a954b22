"""Measure `prefix=`: prompts of 256 shared and 64 own tokens, with and without the keys and values of the shared ones.

    python benchmarks/prefix.py            a model with random weights, 8 requests, about 1 minute
    python benchmarks/prefix.py --quick    a small model, a few seconds

Both searches must find the same SIDs, with scores within 1e-4. The floor is the search of prompts without the shared
tokens.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

import numpy as np
from hf_generate import QUICK, RESULTS, TOLERANCE, Setting, problem_of

from hedgerow.bench.machine import conditions, set_threads
from hedgerow.bench.records import Report
from hedgerow.bench.tables import console_for_tables, show_footer, show_rows
from hedgerow.bench.timing import Budget, measure
from hedgerow.hf import Retriever

SHARED, OWN = 256, 64
HEADINGS = {"what": "what", "median_ms": "median ms", "p10_ms": "p10", "p90_ms": "p90", "runs": "runs"}


def main() -> None:
    """Run the measurement, print the table and save the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--threads", type=int, help="number of threads of PyTorch (default: all cores)")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    if arguments.threads:
        set_threads(arguments.threads)
    setting = dataclasses.replace(QUICK if arguments.quick else Setting(), requests=8, prompt=SHARED + OWN)
    problem = problem_of(setting)
    prompts = problem.prompts.clone()
    prompts[:, :SHARED] = prompts[0, :SHARED]
    parts = problem.model, problem.index, problem.tokens
    whole, kept = Retriever(*parts), Retriever(*parts, prefix=prompts[0, :SHARED].tolist())
    own = prompts[:, SHARED:]
    pairs = zip(*(each.retrieve(prompts, beam_width=setting.beams, k=None) for each in (whole, kept)), strict=True)
    for first, second in pairs:
        if not np.array_equal(np.sort(first.sids, axis=0), np.sort(second.sids, axis=0)):
            sys.exit("the SIDs differ; nothing was timed.")
        if not np.allclose(first.scores, second.scores, atol=TOLERANCE):
            sys.exit("the scores differ; nothing was timed.")
    samples = measure(
        {
            f"{SHARED} + {OWN} tokens, without prefix": lambda: whole.retrieve(prompts, beam_width=setting.beams),
            f"{SHARED} + {OWN} tokens, with prefix": lambda: kept.retrieve(prompts, beam_width=setting.beams),
            f"{OWN} tokens alone, the floor": lambda: whole.retrieve(own, beam_width=setting.beams),
        },
        Budget(repeats=30, warmup=2, seconds=3.0 if arguments.quick else 20.0),
    )
    rows = [{"what": name} | times.summary() for name, times in samples.items()]
    report = Report("prefix", conditions() | {"quick": arguments.quick, **dataclasses.asdict(setting)}, rows)
    console = console_for_tables()
    show_rows(f"{setting.requests} requests, {setting.beams} beams", HEADINGS, rows, console)
    show_footer(report, console)
    for path in report.save(arguments.out):
        print(f"wrote {path}", file=sys.stderr)


if __name__ == "__main__":
    main()
