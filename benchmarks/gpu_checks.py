"""Checks of the Triton kernel that need a GPU, or the interpreter of Triton: its results, and how it runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

import hedgerow as hr
from hedgerow.bench.cases import Case, logits_of, sids_of

WARMUP = 3
Row = dict[str, Any]


@dataclass
class Run:
    """The state of a run.

    Attributes:
        device: the device of the tensors.
        dry: whether this is a dry run, at tiny sizes and without a GPU.
        deadline: time of the monotonic clock after which no further case starts.
        rows: one row per measurement.
        checks: (name, whether it passed, error) of each check.
    """

    device: torch.device
    dry: bool
    deadline: float
    rows: list[Row] = field(default_factory=list)
    checks: list[tuple[str, bool, str]] = field(default_factory=list)

    @property
    def left(self) -> float:
        """Seconds until the deadline."""
        return self.deadline - time.monotonic()

    def check(self, name: str, test: Callable[[], object]) -> None:
        """Run a test and record whether it raised."""
        try:
            test()
            self.checks.append((name, True, ""))
        except Exception as error:
            self.checks.append((name, False, " ".join(f"{type(error).__name__}: {error}".split())[:300]))
        print(f"{'ok    ' if self.checks[-1][1] else 'FAILED'}  {name}  {self.checks[-1][2]}", flush=True)


@dataclass(frozen=True)
class Problem:
    """A case with its index and its logits on the device."""

    case: Case
    index: hr.TrieIndex
    on_device: hr.DeviceIndex
    logits: list[torch.Tensor]
    build_seconds: float


def problem_of(case: Case, device: torch.device) -> Problem:
    """Build the catalog, the index and the logits of a case."""
    started = time.monotonic()
    index = hr.build_index(hr.Catalog(sids_of(case), codebook_sizes=case.codebook_sizes))
    seconds = time.monotonic() - started
    logits = [torch.from_numpy(level).to(device) for level in logits_of(case)]
    return Problem(case, index, index.to("torch", device=device), logits, seconds)


def captured(thunk: Callable[[], Any], copies: int = 1) -> tuple[torch.cuda.CUDAGraph, Any]:
    """Capture `copies` calls of a function in a CUDA graph. Returns the graph and the result of the last call."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARMUP):
            thunk()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    result = None
    with torch.cuda.graph(graph):
        for _ in range(copies):
            result = thunk()
    return graph, result


def mixed_problems(run: Run) -> Iterator[tuple[str, Problem]]:
    """Small catalogs with levels of every representation and a node with a large branch factor."""
    rng = np.random.default_rng(0)
    items, beams = (300, 4) if run.dry else (200_000, 70)
    sizes = (8, 40, 300, 9) if run.dry else (64, 2048, 9000, 256)
    sids = np.stack([rng.integers(0, size, items) for size in sizes], axis=1)
    sids[: items // 5, :2] = sids[0, :2]
    catalog = hr.Catalog(sids, codebook_sizes=sizes)
    dense_levels: dict[str, Any] = {"by rule": "auto", "all dense": range(4), "none dense": ()}
    for name, dense in dense_levels.items():
        index = hr.build_index(catalog, dense_levels=dense)
        kinds = ", ".join(level.representation for level in index.levels)
        widths = (1, beams, beams, beams)
        arrays = [rng.normal(0, 3, (3, width, size)) for width, size in zip(widths, sizes, strict=True)]
        logits = [torch.from_numpy(level.astype(np.float32)).to(run.device) for level in arrays]
        case = Case(name, 3, beams, 4, max(sizes), items)
        yield f"{name} ({kinds})", Problem(case, index, index.to("torch", device=run.device), logits, 0.0)


def check_search(problem: Problem, dtype: torch.dtype, normalize: Any) -> None:
    """The Triton kernel gives the scores of the array kernel, and consistent codes, states and parents."""
    index, width = problem.on_device, problem.case.beam_width
    beams = hr.init_beams(index, problem.case.batch)
    for logits in (level.to(dtype) for level in problem.logits):
        options = {"beam_width": width, "normalize": normalize}
        expected = hr.step(index, beams, logits, kernel="array", **options)
        after = hr.step(index, beams, logits, kernel="triton", **options)
        torch.testing.assert_close(after.scores, expected.scores, rtol=1e-5, atol=1e-4)
        assert (after.num_valid == expected.num_valid).all(), "different beams are live"
        assert (after.scores[:, 1:] <= after.scores[:, :-1]).all(), "scores are not sorted"
        live = after.states >= 0
        history = torch.take_along_dim(beams.codes, after.parents.long()[..., None], 1)
        assert (after.codes[..., :-1] == history)[live].all(), "the codes of a beam differ from those of its parent"
        assert (after.codes[~live] == -1).all(), "a dead beam has codes"
        for request in range(problem.case.batch):
            prefixes = [tuple(prefix) for prefix in after.codes[request][live[request]].tolist()]
            assert len(set(prefixes)) == len(prefixes), "a beam occurs twice"
        beams = after
    codes, states = beams.codes[beams.states >= 0].cpu().numpy(), beams.states[beams.states >= 0].cpu().numpy()
    assert (problem.index.find(codes) == states).all(), "a SID does not match its leaf"


def decode(problem: Problem, kernel: Any, step: Callable = hr.step) -> hr.Beams:
    """Run all levels."""
    beams = hr.init_beams(problem.on_device, problem.case.batch)
    for logits in problem.logits:
        beams = step(problem.on_device, beams, logits, beam_width=problem.case.beam_width, kernel=kernel)
    return beams


def assert_same(beams: hr.Beams, expected: hr.Beams) -> None:
    """Check that two runs of the same kernel agree to the last bit."""
    for name in ("scores", "codes", "states", "parents"):
        assert torch.equal(getattr(beams, name), getattr(expected, name)), f"{name} differ"


def check_graph(problem: Problem) -> None:
    """Check that a captured decode, replayed with other logits, equals an eager decode of these logits."""
    graph, beams = captured(lambda: decode(problem, "triton"))
    for seed in range(5):
        torch.manual_seed(seed)
        for level in problem.logits:
            level.normal_()
        graph.replay()
        assert_same(beams, decode(problem, "triton"))


def check_compiled(problem: Problem) -> None:
    """Check that torch.compile compiles the step as one graph, with the same result."""
    torch.compiler.reset()
    backend = "aot_eager" if problem.on_device.device.type == "cpu" else "inductor"
    step = torch.compile(hr.step, fullgraph=True, dynamic=False, backend=backend)
    assert_same(decode(problem, "triton", step), decode(problem, "triton"))


def check_no_sync(problem: Problem) -> None:
    """Check that no step waits for the device."""
    decode(problem, "auto")
    torch.cuda.set_sync_debug_mode("error")
    try:
        decode(problem, "auto")
    finally:
        torch.cuda.set_sync_debug_mode("default")


def run_checks(run: Run) -> None:
    """Run all checks."""
    for name, problem in mixed_problems(run):
        for dtype in (torch.bfloat16,) if run.dry else (torch.float32, torch.bfloat16, torch.float16):
            for normalize in ("codes", "allowed", None):
                label = f"equals the array kernel: {name}, {str(dtype)[6:]}, normalize={normalize}"
                run.check(label, lambda p=problem, d=dtype, n=normalize: check_search(p, d, n))
        run.check(f"one graph under torch.compile: {name}", lambda p=problem: check_compiled(p))
        if run.device.type == "cuda":
            run.check(f"CUDA graph replays: {name}", lambda p=problem: check_graph(p))
            run.check(f"no host synchronisation: {name}", lambda p=problem: check_no_sync(p))
