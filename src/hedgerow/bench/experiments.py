"""The benchmarks of the step: `paper`, `scale`, `branch` and `peers`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from hedgerow.bench.arrays import Arrays, arrays_of
from hedgerow.bench.baselines.ppv import PpvCarried
from hedgerow.bench.baselines.static_published import StaticPublished
from hedgerow.bench.baselines.unconstrained import Unconstrained
from hedgerow.bench.cases import (
    BRANCH,
    BRANCH_FACTORS,
    BRANCH_FACTORS_QUICK,
    CODEBOOK_SIZES,
    CODEBOOK_SIZES_QUICK,
    ONEREC,
    PAPER,
    SCALE_ITEMS,
    SCALE_ITEMS_QUICK,
    Case,
)
from hedgerow.bench.compare import OnStatus, compare
from hedgerow.bench.machine import conditions, set_threads
from hedgerow.bench.methods import OURS, Methods
from hedgerow.bench.methods import PAPER as PAPER_METHODS
from hedgerow.bench.methods import PEERS as PEER_METHODS
from hedgerow.bench.records import Report, Row
from hedgerow.bench.timing import FULL, QUICK, Budget

BRANCH_METHODS: Methods = (Unconstrained, *OURS, StaticPublished, PpvCarried)
# Quick sweeps over sizes omit the methods that are slow or large to build.
SWEEP_QUICK: Methods = tuple(method for method in PAPER_METHODS if method.name not in ("CPU trie", "PPV exact"))


@dataclass(frozen=True)
class Options:
    """The options of a benchmark.

    Attributes:
        quick: use small sizes and few repeats, under a minute.
        items: N, instead of the default sizes of the benchmark.
        backend: "numpy", "torch" or "jax".
        device: the device, as the backend names it. Default: the CPU for torch, the first device for jax.
        reference: folder of the authors' code. None: import it, if it is installed.
        threads: number of threads of PyTorch and the compiled kernel. None: their defaults.
        on_status: called with a message at each stage.
    """

    quick: bool = False
    items: int | None = None
    backend: str = "torch"
    device: str | None = None
    reference: Path | None = None
    threads: int | None = None
    on_status: OnStatus = lambda _: None

    @property
    def budget(self) -> Budget:
        """Number and time of the repetitions."""
        return QUICK if self.quick else FULL


def paper(options: Options, case: Case = PAPER) -> Report:
    """Run Table 1: milliseconds that a constraint adds per step, over a whole decode and per level.

    Args:
        options: the options.
        case: the sizes; another case than the paper's can be measured in the same way.
    """
    default = min(case.items, 100_000) if options.quick else case.items
    return _run(case.name, [case.of(items=options.items or default)], PAPER_METHODS, options, by_level=True)


def scale(options: Options) -> Report:
    """Run the first half of Table 4, and figure 2: time against the number of items."""
    sizes = SCALE_ITEMS_QUICK if options.quick else SCALE_ITEMS
    cases = [PAPER.of(items=items) for items in sizes if items <= (options.items or sizes[-1])]
    return _run("scale", cases, SWEEP_QUICK if options.quick else PAPER_METHODS, options)


def branch(options: Options) -> Report:
    """Run the second half of Table 4, against the codebook size, and figure 4, two rows against the branch factor."""
    items = options.items or (100_000 if options.quick else 10_000_000)
    sizes = CODEBOOK_SIZES_QUICK if options.quick else CODEBOOK_SIZES
    cases = [replace(PAPER, name="codebook").of(codebook_size=size, items=items) for size in sizes]
    swept = _run("branch", cases, SWEEP_QUICK if options.quick else PAPER_METHODS, options)
    items = min(items, BRANCH.items)
    branch_factors = BRANCH_FACTORS_QUICK if options.quick else BRANCH_FACTORS
    budget = replace(options.budget, seconds=options.budget.seconds / 4)
    cases = [BRANCH.of(codebook_size=size, items=items) for size in branch_factors]
    two_rows = _run("branch", cases, BRANCH_METHODS, options, by_level=True, budget=budget)
    return replace(swept, rows=[*swept.rows, *two_rows.rows], skipped=[*swept.skipped, *two_rows.skipped])


def widest_levels(rows: Sequence[Row]) -> list[Row]:
    """The row of the slowest level, for each method and codebook size: the data of figure 4."""
    slowest: dict[tuple[str, int], Row] = {}
    for row in rows:
        key = row["method"], row["codebook_size"]
        if row["case"] == BRANCH.name and row["scope"] != "decode":
            slowest[key] = max(row, slowest.get(key, row), key=lambda row: row["step_ms"])
    return list(slowest.values())


def peers(options: Options) -> Report:
    """Run grammar engines, tries and the prefix function of Hugging Face, at sizes that they can handle."""
    sizes = (500, 2_000) if options.quick else (10_000, 100_000, 1_000_000)
    if options.items:
        sizes = (options.items,)
    return _run("peers", [ONEREC.of(items=items) for items in sizes], PEER_METHODS, options)


def _run(
    name: str,
    cases: Sequence[Case],
    methods: Methods,
    options: Options,
    *,
    by_level: bool = False,
    budget: Budget | None = None,
) -> Report:
    arrays: Arrays = arrays_of(options.backend, options.device)
    set_threads(options.threads)
    budget = budget or options.budget
    rows: list[Row] = []
    skipped: list[tuple[str, str, str]] = []
    for case in cases:
        comparison = compare(
            case,
            methods,
            arrays,
            budget=budget,
            reference=options.reference,
            by_level=by_level,
            on_status=options.on_status,
        )
        rows += comparison.rows
        skipped += comparison.skipped
    facts: dict[str, Any] = {"backend": arrays.name, "device": arrays.label, "quick": options.quick}
    return Report(name, conditions(arrays.label) | facts | {"budget": asdict(budget)}, rows, skipped)
