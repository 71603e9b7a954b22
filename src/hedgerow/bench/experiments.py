"""The experiments on the step: `paper`, `scale`, `branch` and `peers`."""

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
    BRANCHES,
    BRANCHES_QUICK,
    CODEBOOKS,
    CODEBOOKS_QUICK,
    ONEREC,
    PAPER,
    SCALE_ITEMS,
    SCALE_ITEMS_QUICK,
    Case,
)
from hedgerow.bench.compare import Tell, compare
from hedgerow.bench.machine import conditions, set_threads
from hedgerow.bench.methods import OURS, Methods
from hedgerow.bench.methods import PAPER as PAPER_METHODS
from hedgerow.bench.methods import PEERS as PEER_METHODS
from hedgerow.bench.records import Report, Row
from hedgerow.bench.timing import FULL, QUICK, Budget

BRANCH_METHODS: Methods = (Unconstrained, *OURS, StaticPublished, PpvCarried)
# Slow or large builders are left out of sweeps over sizes when quick.
SWEEP_QUICK: Methods = tuple(method for method in PAPER_METHODS if method.name not in ("CPU trie", "PPV exact"))


@dataclass(frozen=True)
class Options:
    """What a benchmark is asked for.

    Attributes:
        quick: small sizes and few repeats, under a minute.
        items: N, in place of the benchmark's own sizes.
        backend: "numpy", "torch" or "jax".
        device: in the backend's terms.
        reference: folder of the authors' code.
        threads: of PyTorch and Numba; None is their own default.
        tell: called with what is going on.
    """

    quick: bool = False
    items: int | None = None
    backend: str = "torch"
    device: str | None = None
    reference: Path | None = None
    threads: int | None = None
    tell: Tell = lambda _: None

    @property
    def budget(self) -> Budget:
        """How much measuring."""
        return QUICK if self.quick else FULL


def paper(options: Options, case: Case = PAPER) -> Report:
    """Table 1: added milliseconds a step over unconstrained, whole and by level; of another case, the same."""
    default = min(case.items, 100_000) if options.quick else case.items
    return _run(case.name, [case.of(items=options.items or default)], PAPER_METHODS, options, by_level=True)


def scale(options: Options) -> Report:
    """Table 4, first half, and figure 2: against the number of items."""
    sizes = SCALE_ITEMS_QUICK if options.quick else SCALE_ITEMS
    cases = [PAPER.of(items=items) for items in sizes if items <= (options.items or sizes[-1])]
    return _run("scale", cases, SWEEP_QUICK if options.quick else PAPER_METHODS, options)


def branch(options: Options) -> Report:
    """Table 4, second half, against the codebook; and figure 4, two rows against the branch factor."""
    items = options.items or (100_000 if options.quick else 10_000_000)
    codebooks = CODEBOOKS_QUICK if options.quick else CODEBOOKS
    cases = [replace(PAPER, name="codebook").of(codebook=codebook, items=items) for codebook in codebooks]
    swept = _run("branch", cases, SWEEP_QUICK if options.quick else PAPER_METHODS, options)
    items = min(items, BRANCH.items)
    branches = BRANCHES_QUICK if options.quick else BRANCHES
    budget = replace(options.budget, seconds=options.budget.seconds / 4)
    cases = [BRANCH.of(codebook=size, items=items) for size in branches]
    two_rows = _run("branch", cases, BRANCH_METHODS, options, by_level=True, budget=budget)
    return replace(swept, rows=[*swept.rows, *two_rows.rows], skipped=[*swept.skipped, *two_rows.skipped])


def widest_levels(rows: Sequence[Row]) -> list[Row]:
    """Returns, of the rows by level, the slowest of every method and codebook: what figure 4 draws."""
    worst: dict[tuple[str, int], Row] = {}
    for row in rows:
        key = row["method"], row["codebook"]
        if row["case"] == BRANCH.name and row["scope"] != "decode":
            worst[key] = max(row, worst.get(key, row), key=lambda row: row["step_ms"])
    return list(worst.values())


def peers(options: Options) -> Report:
    """Grammar engines, tries and Hugging Face's hook, at the sizes that they manage."""
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
        found = compare(
            case,
            methods,
            arrays,
            budget=budget,
            reference=options.reference,
            by_level=by_level,
            tell=options.tell,
        )
        rows += found.rows
        skipped += found.skipped
    measured: dict[str, Any] = {"backend": arrays.name, "device": arrays.label, "quick": options.quick}
    return Report(name, conditions(arrays.label) | measured | {"budget": asdict(budget)}, rows, skipped)
