"""Check and time the Triton kernel on one GPU, with the array kernel, STATIC as published and no constraint.

CUDA events time steps inside a CUDA graph, COPIES steps per replay, so that the host and the resolution of the clock
do not matter. Each time has a lower bound: the bytes that any step must read, and the launches, at their measured cost.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if "--dry-run" in sys.argv:
    # Triton reads this variable when it is imported.
    os.environ["TRITON_INTERPRET"] = "1"

import numpy as np
import torch
from gpu_checks import WARMUP, Problem, Row, Run, captured, check_search, decode, problem_of, run_checks

import hedgerow as hr
from hedgerow.bench.cases import CASES, PAPER, Case
from hedgerow.bench.machine import conditions

OURS = "hedgerow, Triton"
RESULTS = Path(__file__).parent / "results" / "gpu"
TINY = Case("tiny", batch=2, beam_width=3, levels=3, codebook_size=16, items=400)
# A replay runs COPIES steps. The number of replays is REPLAYS, or those that fit in SECONDS_EACH, at least MIN_REPLAYS.
COPIES, REPLAYS, MIN_REPLAYS, SECONDS_EACH = 20, 100, 10, 0.3
# No case starts after SECONDS, and no method is compiled if less than COMPILING seconds are left.
SECONDS, COMPILING = 330, 150
# The expected time of a larger build, relative to a time proportional to the items.
MARGIN = 1.5


def microseconds(run: Run, thunk: Callable[[], Any]) -> np.ndarray:
    """Times of a function inside a CUDA graph in microseconds, one sample per replay."""
    if run.dry:
        started = time.perf_counter()
        thunk()
        return np.asarray([time.perf_counter() - started]) * 1e6
    graph, _ = captured(thunk, COPIES)
    for _ in range(WARMUP):
        graph.replay()
    torch.cuda.synchronize()
    started = time.perf_counter()
    graph.replay()
    torch.cuda.synchronize()
    replays = int(SECONDS_EACH / (time.perf_counter() - started))
    replays = min(max(replays, MIN_REPLAYS), REPLAYS)
    events = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(replays)]
    for before, after in events:
        before.record()
        graph.replay()
        after.record()
    torch.cuda.synchronize()
    return np.asarray([before.elapsed_time(after) for before, after in events]) * 1e3 / COPIES


@dataclass(frozen=True)
class Costs:
    """The measured cost of reading memory and of a launch, for the lower bounds."""

    gb_per_second: float
    launch_us: float

    def floor_us(self, nbytes: int, launches: int) -> float:
        """The lower bound of the time to read `nbytes` with this number of launches, in microseconds."""
        return nbytes / self.gb_per_second / 1e3 + launches * self.launch_us


def costs_of(run: Run) -> Costs:
    """Measure the bandwidth with a sum over 1 GiB, and the launch time with an addition to one number."""
    block = torch.ones(2**10 if run.dry else 2**28, device=run.device)
    one = torch.ones(1, device=run.device)
    reading = float(np.median(microseconds(run, block.sum)))
    return Costs(block.nbytes / reading / 1e3, float(np.median(microseconds(run, lambda: one.add_(1)))))


def unconstrained(beams: hr.Beams, logits: torch.Tensor, beam_width: int) -> hr.Beams:
    """Run a step without a constraint: log-softmax, then the best M of all M x C candidates."""
    batch, _, size = logits.shape
    scores = beams.scores[..., None] + torch.log_softmax(logits.float(), -1)
    best, positions = torch.topk(scores.reshape(batch, -1), min(beam_width, scores[0].numel()))
    parents, codes = positions // size, (positions % size).int()
    history = torch.take_along_dim(beams.codes, parents[..., None], 1)
    return hr.Beams(torch.cat([history, codes[..., None]], -1), best, codes, parents.int())


Step = Callable[[Any, torch.Tensor, int], Any]


def methods_of(problem: Problem, *, compiled: bool) -> Iterator[tuple[str, Any, Step]]:
    """The name, the state at the root and the step of every method; with `compiled`, also compiled steps."""
    index, start = problem.on_device, hr.init_beams(problem.on_device, problem.case.batch)

    def step_of(kernel: Any) -> Step:
        return lambda beams, logits, width: hr.step(index, beams, logits, beam_width=width, kernel=kernel)

    yield OURS, start, step_of("triton")
    others = [
        ("hedgerow, array", start, step_of("array")),
        ("unconstrained", start, unconstrained),
        *published(problem),
    ]
    yield from others
    if compiled:
        for name, state, step in others:
            torch.compiler.reset()
            yield f"{name}, compiled", state, torch.compile(step, fullgraph=True, dynamic=False)


def published(problem: Problem) -> list[tuple[str, Any, Step]]:
    """STATIC as published, if it is available and supports the size."""
    try:
        from hedgerow.bench.arrays import arrays_of
        from hedgerow.bench.baselines.base import Problem as Sids
        from hedgerow.bench.baselines.static_published import StaticPublished

        if problem.case.items > (StaticPublished.max_items or problem.case.items):
            return []
        static = StaticPublished(Sids(problem.index), arrays_of("torch", str(problem.on_device.device)))
    except Exception as error:
        print(f"  STATIC as published is skipped: {error}", flush=True)
        return []
    start = static.start(problem.case.batch)
    return [(static.name, start, lambda state, logits, width: static.step(static.tables, state, logits, width))]


def time_method(run: Run, problem: Problem, costs: Costs, name: str, start: Any, step: Step) -> None:
    """Time each level of a method from the state of the method's own search, and the whole decode."""
    case = problem.case
    ours = name == OURS

    def whole() -> Any:
        state = start
        for logits in problem.logits:
            state = step(state, logits, case.beam_width)
        return state

    state, total_bytes, total_launches = start, 0, 0
    for level, logits in enumerate(problem.logits):
        launches = launches_of(problem, level) if ours else 1
        kind = problem.index.levels[level].representation
        samples = microseconds(run, lambda s=state, x=logits: step(s, x, case.beam_width))
        add_row(run, problem, name, f"level {level}", kind, samples, costs, logits.nbytes, launches)
        state = step(state, logits, case.beam_width)
        total_bytes, total_launches = total_bytes + logits.nbytes, total_launches + launches
    add_row(run, problem, name, "decode", "", microseconds(run, whole), costs, total_bytes, total_launches)


def launches_of(problem: Problem, level: int) -> int:
    """Number of kernels that the Triton step launches at a level."""
    from hedgerow.decode.kernels.triton import plan_step

    case, shape = problem.case, problem.index.levels[level]
    plan = plan_step(
        batch=case.batch,
        width=1 if level == 0 else case.beam_width,
        beam_width=case.beam_width,
        depth=level,
        codebook_size=shape.codebook_size,
        max_branch=shape.max_branch,
        sparse=shape.child_start is not None,
        forks=0 if shape.forks is None else len(shape.forks),
        dense=shape.allowed is not None,
        normalize="codes",
    )
    return len(plan.kernels)


def add_row(
    run: Run, problem: Problem, name: str, scope: str, kind: str, samples: np.ndarray, costs: Costs, nbytes: int, n: int
) -> None:
    """Record a measurement with its lower bound."""
    case = problem.case
    shape = {"case": case.name, "batch": case.batch, "beam_width": case.beam_width, "items": case.items}
    quantiles = zip(("median_us", "p10_us", "p90_us"), np.percentile(samples, (50, 10, 90)).tolist(), strict=True)
    floor = {"logit_bytes": nbytes, "launches": n, "floor_us": costs.floor_us(nbytes, n)}
    run.rows.append({**shape, "method": name, "scope": scope, "representation": kind, **dict(quantiles), **floor})
    print(f"  {case.name} {case.items:>11,}  {name:32} {scope:8} {np.median(samples):10.1f} us", flush=True)


def run_timings(run: Run, costs: Costs) -> None:
    """Time every case. A size that may not be built before the deadline is skipped with a message."""
    last: Problem | None = None
    for case in timed_cases(run):
        expected = MARGIN * last.build_seconds * case.items / last.case.items if last else 0.0
        if expected > run.left:
            print(f"  {case.name} with {case.items:,} items is skipped: {run.left:.0f} s are left", flush=True)
            continue
        last = problem_of(case, run.device)
        print(f"{last.index!r}, built in {last.build_seconds:.1f} s", flush=True)
        label = f"{case.name}, {case.items:,} items"
        run.check(f"equals the array kernel: {label}", lambda p=last: check_search(p, torch.float32, "codes"))
        for name, start, step in methods_of(last, compiled=case.items == 20_000_000):
            if run.left < (COMPILING if name.endswith("compiled") else 0):
                print(f"  {name} is skipped: {run.left:.0f} s are left", flush=True)
                continue
            if name == OURS:
                run.check(f"runs: {label}", lambda p=last, s=start, f=step: time_method(run, p, costs, OURS, s, f))
                continue
            try:
                time_method(run, last, costs, name, start, step)
            except Exception as error:
                print(f"  {name} is skipped: {type(error).__name__}: {str(error)[:200]}", flush=True)


def timed_cases(run: Run) -> list[Case]:
    """The cases in the order of the measurement: the largest index last."""
    if run.dry:
        return [TINY, TINY.of(items=800)]
    paper = [PAPER.of(items=items) for items in (100_000, 1_000_000, 20_000_000)]
    wide = [case for name, case in CASES.items() if name.startswith("onerec")]
    return [*paper, *wide, PAPER.of(items=100_000_000)]


def profile(run: Run, path: Path) -> None:
    """Write the profiler's table of the kernels of several decodes."""
    problem = problem_of(TINY if run.dry else PAPER.of(items=1_000_000), run.device)
    decode(problem, "triton")
    kinds = [torch.profiler.ProfilerActivity.CPU]
    if run.device.type == "cuda":
        kinds.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=kinds) as profiled:
        for _ in range(1 if run.dry else 20):
            decode(problem, "triton")
        if run.device.type == "cuda":
            torch.cuda.synchronize()
    key = "cuda_time_total" if run.device.type == "cuda" else "cpu_time_total"
    path.write_text(profiled.key_averages().table(sort_by=key, row_limit=25) + "\n")


def stamp_of(run: Run) -> Row:
    """The conditions of the measurement, for every line of a CSV file."""
    facts = conditions(str(run.device))
    versions = {name: facts["versions"].get(name) for name in ("torch", "triton")}
    stamp = {"gpu": facts["gpu"], "driver": driver(), "cuda": torch.version.cuda, **versions, "cpu": facts["cpu"]}
    return {**stamp, "commit": facts["commit"], "date": facts["date"]}


def driver() -> str | None:
    """The version of the GPU's driver."""
    try:
        command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        return None


def write(path: Path, rows: list[Row], stamp: Row) -> None:
    """Write rows as CSV, each with the stamp."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*dict.fromkeys(key for row in rows for key in row), *stamp], lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({key: f"{x:.5g}" if isinstance(x, float) else x for key, x in row.items()} | stamp)


def flatness(run: Run) -> list[Row]:
    """For each size of the paper's case, the time of the decode relative to that of the smallest catalog."""
    whole = [row for row in run.rows if row["scope"] == "decode" and row["method"] == OURS]
    sizes = [row for row in whole if row["case"] == whole[0]["case"]] if whole else []
    ratios = ({"over_smallest": row["median_us"] / sizes[0]["median_us"]} for row in sizes)
    shown = ("case", "items", "median_us", "p10_us", "p90_us")
    return [{key: row[key] for key in shown} | ratio for row, ratio in zip(sizes, ratios, strict=True)]


def main() -> int:
    """Run all checks and timings. Returns the exit code: 1 if a check fails, 2 if there is no GPU."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--dry-run", action="store_true", help="use tiny sizes and the interpreter of Triton, without a GPU"
    )
    parser.add_argument(
        "--out", type=Path, help=f"folder of the results (default: {RESULTS}; a new folder for a dry run)"
    )
    parser.add_argument("--seconds", type=float, default=SECONDS, help="start no case after this time")
    options = parser.parse_args()
    if not options.dry_run and not torch.cuda.is_available():
        print("There is no CUDA device. Use --dry-run to test the script without one.", file=sys.stderr)
        return 2
    device = torch.device("cpu" if options.dry_run else "cuda:0")
    run = Run(device, options.dry_run, time.monotonic() + options.seconds)
    out = options.out or (Path(tempfile.mkdtemp()) if options.dry_run else RESULTS)
    run_checks(run)
    costs = costs_of(run)
    print(f"reads {costs.gb_per_second:.0f} GB/s; a launch in a graph takes {costs.launch_us:.2f} us", flush=True)
    run_timings(run, costs)
    stamp = stamp_of(run) | {"read_gb_per_second": round(costs.gb_per_second), "launch_us": round(costs.launch_us, 3)}
    write(out / "steps.csv", run.rows, stamp)
    write(out / "flatness.csv", flatness(run), stamp)
    write(out / "checks.csv", [{"check": name, "holds": holds, "why": why} for name, holds, why in run.checks], stamp)
    profile(run, out / "profile.txt")
    failed = [name for name, holds, _ in run.checks if not holds]
    print(f"{len(run.checks) - len(failed)} checks passed, {len(failed)} failed; results are in {out}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
