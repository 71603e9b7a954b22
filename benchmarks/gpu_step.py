"""Check and time the Triton kernel on one GPU, with the array kernel, STATIC as published and no constraint.

CUDA events time steps inside a CUDA graph, many steps per replay, so that the host and the resolution of the clock do
not matter. Each time has a lower bound: the bytes that any step must read, and the launches, at their measured cost.
The results are written after every row.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gpu_rivals
import numpy as np
import torch
from gpu_checks import Problem, check_early, check_search, decode, early_start, problem_of, run_checks
from gpu_run import Row, Run, cold_microseconds, eager_microseconds, microseconds, options_of, run_of, write

import hedgerow as hr
from hedgerow.bench.cases import CASES, PAPER, Case

OURS, EARLY = "hedgerow, Triton", "hedgerow, Triton, early start"
TINY = Case("tiny", batch=2, beam_width=3, levels=3, codebook_size=16, items=400)
# No method is compiled if less than COMPILING seconds are left.
COMPILING = 60
# The expected time of a larger build, relative to a time proportional to the items.
MARGIN = 1.5
# Levels of the paper's case that are unlike the others: root, bitmap, row pointers, forks, one child per node.
UNLIKE = (0, 1, 2, 3, 4)


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


Step = Callable[[Any, torch.Tensor, int], Any]


def unconstrained(beams: hr.Beams, logits: torch.Tensor, beam_width: int) -> hr.Beams:
    """Run a step without a constraint: log-softmax, then the best M of all M x C candidates."""
    batch, _, size = logits.shape
    scores = beams.scores[..., None] + torch.log_softmax(logits.float(), -1)
    best, positions = torch.topk(scores.reshape(batch, -1), min(beam_width, scores[0].numel()))
    parents, codes = positions // size, (positions % size).int()
    history = torch.take_along_dim(beams.codes, parents[..., None], 1)
    return hr.Beams(torch.cat([history, codes[..., None]], -1), best, codes, parents.int())


def methods_of(run: Run, problem: Problem, *, compiled: bool) -> Iterator[tuple[str, Any, Step]]:
    """The name, the state at the root and the step of every method; with `compiled`, also compiled steps."""
    index, start = problem.on_device, hr.init_beams(problem.on_device, problem.case.batch)

    def step_of(kernel: Any) -> Step:
        return lambda beams, logits, width: hr.step(index, beams, logits, beam_width=width, kernel=kernel)

    def early(beams: hr.Beams, logits: torch.Tensor, width: int) -> hr.Beams:
        with early_start():
            return step_of("triton")(beams, logits, width)

    yield OURS, start, step_of("triton")
    if run.device.type == "cuda" and torch.cuda.get_device_capability() >= (9, 0):
        yield EARLY, start, early
    others = [("unconstrained", start, unconstrained), *gpu_rivals.published(problem)]
    yield from others
    yield "hedgerow, array", start, step_of("array")
    if compiled:
        for name, state, step in others:
            torch.compiler.reset()
            yield f"{name}, compiled", state, torch.compile(step, fullgraph=True, dynamic=False)


def time_method(run: Run, problem: Problem, costs: Costs, name: str, start: Any, step: Step) -> None:
    """Time the levels of a method from the state of the method's own search, and the whole decode.

    A compiled step is timed at the first three levels alone: each is compiled anew, for seconds.
    """
    case = problem.case
    ours, compiled = name in (OURS, EARLY), name.endswith("compiled")

    def whole() -> Any:
        state = start
        for logits in problem.logits:
            state = step(state, logits, case.beam_width)
        return state

    state, total_bytes, total_launches = start, 0, 0
    for level, logits in enumerate(problem.logits[:3] if compiled else problem.logits):
        launches = launches_of(problem, level) if ours else 1
        kind, floor = problem.index.levels[level].representation, (logits.nbytes, launches)
        total_bytes, total_launches = total_bytes + logits.nbytes, total_launches + launches
        if level in UNLIKE:
            thunk = lambda s=state, x=logits: step(s, x, case.beam_width)  # noqa: E731
            add_row(run, problem, name, f"level {level}", kind, microseconds(run, thunk), costs, *floor)
            if ours or name == "unconstrained":
                add_row(run, problem, name, f"level {level}, cold", kind, cold_microseconds(run, thunk), costs, *floor)
        state = step(state, logits, case.beam_width)
    if not compiled:
        floor = (total_bytes, total_launches)
        add_row(run, problem, name, "decode", "", microseconds(run, whole), costs, *floor)
        if ours or name == "unconstrained":
            add_row(run, problem, name, "decode, no graph", "", eager_microseconds(run, whole), costs, *floor)


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
    run.add({**shape, "method": name, "scope": scope, "representation": kind, **dict(quantiles), **floor})
    print(f"  {case.name} {case.items:>11,}  {name:32} {scope:16} {np.median(samples):10.1f} us", flush=True)


def run_timings(run: Run, costs: Costs, static: Path | None) -> None:
    """Time every case. A size that may not be built before the deadline is skipped with a message."""
    last: Problem | None = None
    for case in timed_cases(run):
        expected = MARGIN * last.build_seconds * case.items / last.case.items if last else 0.0
        if expected > run.left:
            print(f"  {case.name} with {case.items:,} items is skipped: {run.left:.0f} s are left", flush=True)
            continue
        last = problem_of(case, run.device)
        print(f"{last.index!r}, built in {last.build_seconds:.1f} s; {run.left:.0f} s are left", flush=True)
        time_case(run, last, costs, static)


def time_case(run: Run, problem: Problem, costs: Costs, static: Path | None) -> None:
    """Check a case and time every method; at the size of the paper, also compiled steps and the code of others."""
    case = problem.case
    label, is_paper = f"{case.name}, {case.items:,} items", case in (PAPER, TINY)
    run.check(f"equals the array kernel: {label}", lambda: check_search(problem, torch.float32, "codes"))
    for name, start, step in methods_of(run, problem, compiled=is_paper and not run.dry):
        thunk = lambda n=name, s=start, f=step: time_method(run, problem, costs, n, s, f)  # noqa: E731
        if name == OURS:
            run.check(f"runs: {label}", thunk)
        elif name.endswith("compiled") and run.left < COMPILING:
            print(f"  {name} is skipped: {run.left:.0f} s are left", flush=True)
        else:
            if name == EARLY and is_paper:
                run.check(f"kernels that start early: {label}", lambda: check_early(problem))
            run.attempt(name, thunk)
    if is_paper:
        for name, samples in gpu_rivals.whole_decodes(run, problem, static):
            nbytes = sum(logits.nbytes for logits in problem.logits)
            add_row(run, problem, name, "decode", "", samples, costs, nbytes, 1)


def timed_cases(run: Run) -> list[Case]:
    """The cases in the order of their importance: a run that ends early has the first ones."""
    if run.dry:
        return [TINY, TINY.of(items=800)]
    wide = [CASES[name] for name in ("onerec-1x256", "onerec-8x256", "onerec-8x512", "onerec-1x50")]
    return [PAPER, *wide, *(PAPER.of(items=items) for items in (100_000, 1_000_000, 100_000_000))]


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
    key = "device_time_total" if run.device.type == "cuda" else "cpu_time_total"
    path.write_text(profiled.key_averages().table(sort_by=key, row_limit=25) + "\n")


def flatness(run: Run) -> list[Row]:
    """For each size of the paper's case, the time of the decode relative to that of the smallest catalog."""
    whole = [row for row in run.rows if row["scope"] == "decode" and row["method"] == OURS]
    sizes = [row for row in whole if row["case"] == whole[0]["case"]] if whole else []
    sizes.sort(key=lambda row: row["items"])
    ratios = ({"over_smallest": row["median_us"] / sizes[0]["median_us"]} for row in sizes)
    shown = ("case", "items", "median_us", "p10_us", "p90_us")
    return [{key: row[key] for key in shown} | ratio for row, ratio in zip(sizes, ratios, strict=True)]


def main() -> int:
    """Run all checks and timings. Returns the exit code: 1 if a check fails, 2 if there is no GPU."""
    options = options_of(__doc__)
    run = run_of(options, "steps")
    costs = costs_of(run)
    run.costs = {"read_gb_per_second": round(costs.gb_per_second), "launch_us": round(costs.launch_us, 3)}
    print(f"reads {costs.gb_per_second:.0f} GB/s; a launch in a graph takes {costs.launch_us:.2f} us", flush=True)
    run_checks(run)
    run_timings(run, costs, options.static)
    write(options.out / "flatness.csv", flatness(run), run.costs)
    run.attempt("the profile", lambda: profile(run, options.out / "profile.txt"))
    return run.finish(options.out)


if __name__ == "__main__":
    sys.exit(main())
