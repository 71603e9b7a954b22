"""The checks of the Triton step that need a GPU, or its interpreter: its answers, and how they come."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

import hedgerow as hr
from hedgerow.bench.cases import Case, logits_of, sids_of
from hedgerow.decode.device import DeviceIndex

WARMUP = 3
Row = dict[str, Any]


@dataclass
class Run:
    """What is run, on what, until when.

    Attributes:
        device: where tensors are.
        dry: whether this only shows that the script runs.
        deadline: when no further case is begun, by the monotonic clock.
        rows: one a measurement.
        checks: (what, whether it holds, detail).
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

    def check(self, what: str, test: Callable[[], object]) -> None:
        """Runs a test, and notes whether it raised."""
        try:
            test()
            self.checks.append((what, True, ""))
        except Exception as error:
            self.checks.append((what, False, " ".join(f"{type(error).__name__}: {error}".split())[:300]))
        print(f"{'ok    ' if self.checks[-1][1] else 'FAILED'}  {what}  {self.checks[-1][2]}", flush=True)


@dataclass(frozen=True)
class Problem:
    """A case with its index and its logits on the device."""

    case: Case
    index: hr.TrieIndex
    on_device: DeviceIndex
    logits: list[torch.Tensor]
    build_seconds: float


def problem_of(case: Case, device: torch.device) -> Problem:
    """Builds the catalog, the index and the logits of a case."""
    started = time.monotonic()
    index = hr.build_index(hr.Catalog(sids_of(case), codebook_sizes=case.codebook_sizes))
    seconds = time.monotonic() - started
    logits = [torch.from_numpy(level).to(device) for level in logits_of(case)]
    return Problem(case, index, index.to("torch", device=device), logits, seconds)


def captured(thunk: Callable[[], Any], copies: int = 1) -> tuple[torch.cuda.CUDAGraph, Any]:
    """Returns a CUDA graph of `copies` runs of a thunk, and what the last returned."""
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
    """Yields small catalogs that have levels of every representation, and a fat node."""
    rng = np.random.default_rng(0)
    items, beams = (300, 4) if run.dry else (200_000, 70)
    sizes = (8, 40, 300, 9) if run.dry else (64, 2048, 9000, 256)
    sids = np.stack([rng.integers(0, size, items) for size in sizes], axis=1)
    sids[: items // 5, :2] = sids[0, :2]
    catalog = hr.Catalog(sids, codebook_sizes=sizes)
    ways: dict[str, Any] = {"by rule": "auto", "all dense": range(4), "none dense": ()}
    for name, dense in ways.items():
        index = hr.build_index(catalog, dense_levels=dense)
        kinds = ", ".join(level.representation for level in index.levels)
        widths = (1, beams, beams, beams)
        made = [rng.normal(0, 3, (3, width, size)) for width, size in zip(widths, sizes, strict=True)]
        logits = [torch.from_numpy(level.astype(np.float32)).to(run.device) for level in made]
        case = Case(name, 3, beams, 4, max(sizes), items)
        yield f"{name} ({kinds})", Problem(case, index, index.to("torch", device=run.device), logits, 0.0)


def check_search(problem: Problem, dtype: torch.dtype, normalize: Any) -> None:
    """Every step by Triton has the definition's scores, and its codes, states and parents are what they say."""
    index, width = problem.on_device, problem.case.beam_width
    beams = hr.init_beams(index, problem.case.batch)
    for logits in (level.to(dtype) for level in problem.logits):
        options = {"beam_width": width, "normalize": normalize}
        expected = hr.step(index, beams, logits, kernel="array", **options)
        after = hr.step(index, beams, logits, kernel="triton", **options)
        torch.testing.assert_close(after.scores, expected.scores, rtol=1e-5, atol=1e-4)
        assert (after.num_valid == expected.num_valid).all(), "other beams are live"
        assert (after.scores[:, 1:] <= after.scores[:, :-1]).all(), "scores are not sorted"
        live = after.states >= 0
        history = torch.take_along_dim(beams.codes, after.parents.long()[..., None], 1)
        assert (after.codes[..., :-1] == history)[live].all(), "a history is not its parent's"
        assert (after.codes[~live] == -1).all(), "a dead beam has codes"
        for request in range(problem.case.batch):
            codes = [tuple(code) for code in after.codes[request][live[request]].tolist()]
            assert len(set(codes)) == len(codes), "a beam came twice"
        beams = after
    codes, states = beams.codes[beams.states >= 0].cpu().numpy(), beams.states[beams.states >= 0].cpu().numpy()
    assert (problem.index.find(codes) == states).all(), "a SID is not its leaf's"


def decode(problem: Problem, backend: Any, step: Callable = hr.step) -> hr.Beams:
    """Runs all levels."""
    beams = hr.init_beams(problem.on_device, problem.case.batch)
    for logits in problem.logits:
        beams = step(problem.on_device, beams, logits, beam_width=problem.case.beam_width, kernel=backend)
    return beams


def assert_same(beams: hr.Beams, expected: hr.Beams) -> None:
    """Two runs of the same kernels agree to the last bit."""
    for name in ("scores", "codes", "states", "parents"):
        assert torch.equal(getattr(beams, name), getattr(expected, name)), f"{name} differ"


def check_graph(problem: Problem) -> None:
    """A captured decode, replayed on other logits, equals an eager one on them."""
    graph, beams = captured(lambda: decode(problem, "triton"))
    for seed in range(5):
        torch.manual_seed(seed)
        for level in problem.logits:
            level.normal_()
        graph.replay()
        assert_same(beams, decode(problem, "triton"))


def check_compiled(problem: Problem) -> None:
    """torch.compile keeps the step as one graph, and its answer."""
    torch.compiler.reset()
    backend = "aot_eager" if problem.on_device.device.type == "cpu" else "inductor"
    step = torch.compile(hr.step, fullgraph=True, dynamic=False, backend=backend)
    assert_same(decode(problem, "triton", step), decode(problem, "triton"))


def check_no_sync(problem: Problem) -> None:
    """No step waits for the device."""
    decode(problem, "auto")
    torch.cuda.set_sync_debug_mode("error")
    try:
        decode(problem, "auto")
    finally:
        torch.cuda.set_sync_debug_mode("default")


def run_checks(run: Run) -> None:
    """Runs every check of the answers, and of how they come."""
    for name, problem in mixed_problems(run):
        for dtype in (torch.bfloat16,) if run.dry else (torch.float32, torch.bfloat16, torch.float16):
            for normalize in ("codes", "allowed", None):
                label = f"equals the definition: {name}, {str(dtype)[6:]}, normalize={normalize}"
                run.check(label, lambda p=problem, d=dtype, n=normalize: check_search(p, d, n))
        run.check(f"one graph under torch.compile: {name}", lambda p=problem: check_compiled(p))
        if run.device.type == "cuda":
            run.check(f"CUDA graph replays: {name}", lambda p=problem: check_graph(p))
            run.check(f"no host synchronisation: {name}", lambda p=problem: check_no_sync(p))
