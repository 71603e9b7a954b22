"""Checks of the Triton kernel that need a GPU, or the interpreter of Triton: its results, and how it runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gpu_run import Run, captured

import hedgerow as hr
from hedgerow.bench.cases import Case, logits_of, sids_of


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


def mixed_problems(run: Run) -> Iterator[tuple[str, Problem]]:
    """Small catalogs with levels of every representation and a node with a large branch factor."""
    rng = np.random.default_rng(0)
    items, beams = (300, 4) if run.dry else (200_000, 70)
    sizes = (8, 40, 300, 9, 9) if run.dry else (64, 2048, 9000, 256, 256, 64)
    sids = np.stack([rng.integers(0, size, items) for size in sizes], axis=1)
    # Pairs that differ at the last two levels, so that there is a level with forks.
    sids[-items // 100 :, :-2] = sids[: items // 100, :-2]
    sids[-items // 100 :, -1] = 0
    sids[: items // 5, :2] = sids[0, :2]
    catalog = hr.Catalog(sids, codebook_sizes=sizes)
    dense_levels: dict[str, Any] = {"by rule": "auto", "all dense": range(len(sizes)), "none dense": ()}
    for name, dense in dense_levels.items():
        index = hr.build_index(catalog, dense_levels=dense)
        kinds = ", ".join(level.representation for level in index.levels)
        widths = (1, *[beams] * (len(sizes) - 1))
        arrays = [rng.normal(0, 3, (3, width, size)) for width, size in zip(widths, sizes, strict=True)]
        logits = [torch.from_numpy(level.astype(np.float32)).to(run.device) for level in arrays]
        case = Case(name, 3, beams, len(sizes), max(sizes), items)
        yield f"{name} ({kinds})", Problem(case, index, index.to("torch", device=run.device), logits, 0.0)


def check_search(problem: Problem, dtype: torch.dtype, normalize: Any, constraints: Any = None) -> None:
    """The Triton kernel gives the scores of the array kernel, and consistent codes, states and parents."""
    index, width = problem.on_device, problem.case.beam_width
    beams = hr.init_beams(index, problem.case.batch)
    for logits in (level.to(dtype) for level in problem.logits):
        options = {"beam_width": width, "normalize": normalize, "constraints": constraints}
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


def decode(
    problem: Problem, kernel: Any, step: Callable = hr.step, *, index: Any = None, constraints: Any = None
) -> hr.Beams:
    """Run all levels."""
    index = problem.on_device if index is None else index
    options = {"beam_width": problem.case.beam_width, "kernel": kernel, "constraints": constraints}
    beams = hr.init_beams(index, problem.case.batch)
    for logits in problem.logits:
        beams = step(index, beams, logits, **options)
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
    step = torch.compile(hr.step, fullgraph=True, dynamic=False, backend="aot_eager")
    assert_same(decode(problem, "triton", step), decode(problem, "triton"))


def check_no_sync(problem: Problem) -> None:
    """Check that no step waits for the device."""
    decode(problem, "auto")
    torch.cuda.set_sync_debug_mode("error")
    try:
        decode(problem, "auto")
    finally:
        torch.cuda.set_sync_debug_mode("default")


def rules_of(problem: Problem, index: hr.TrieIndex, seed: int) -> Any:
    """Sets and exclusions of a batch of 3: a third of the items without 500 of them, all but one, and only one item."""
    rng, ids = np.random.default_rng(seed), index.item_ids.to_numpy()
    sets = [index.constraint(rng.random(len(ids)) < 1 / 3, order="index"), None, index.constraint(ids=ids[:1])]
    return hr.prepare_constraints(problem.on_device, 3, constraints=sets, exclude=[ids[:500], ids[-1:], None])


def check_slices(problem: Problem) -> None:
    """Check that logits that are columns of a wider head, at no aligned address, give what their copy gives."""
    index, beams = problem.on_device, hr.init_beams(problem.on_device, problem.case.batch)
    options = {"beam_width": problem.case.beam_width, "kernel": "triton"}
    for logits in (level.bfloat16() for level in problem.logits):
        wide = logits.new_full((*logits.shape[:2], logits.shape[2] + 11), float("inf"))
        wide[..., 3:-8] = logits
        after = hr.step(index, beams, logits, **options)
        assert_same(hr.step(index, beams, wide[..., 3:-8], **options), after)
        beams = after


def check_candidates(problem: Problem) -> None:
    """Check that requests with candidates find the same as requests with a set of these."""
    index, ids = problem.index, problem.index.item_ids.to_numpy()
    lists = [ids[::7][:1000], ids[:0], ids[-5:]]
    candidates = index.candidates(lists).to("torch", device=problem.on_device.device)
    sets = [index.constraint(ids=given) for given in lists]
    found = decode(problem, "triton", index=candidates)
    expected = decode(problem, "triton", constraints=hr.prepare_constraints(problem.on_device, 3, constraints=sets))
    assert torch.equal(found.codes, expected.codes), "codes differ"
    torch.testing.assert_close(found.scores, expected.scores, rtol=1e-5, atol=1e-4)


def check_versions(problem: Problem) -> None:
    """Check that a captured decode with rules continues on the next version of the index, which is filled in place."""
    index, device = problem.index, problem.on_device.device
    removed = index.item_ids.to_numpy()[::10]
    following = hr.merge(index, removed=removed)
    on_device = index.to("torch", device=device, capacity=hr.Capacity.of(index, headroom=1.5))
    held = Problem(problem.case, index, on_device, problem.logits, 0.0)
    rules = rules_of(held, index, seed=2).copy()
    replay, beams = repeated(lambda: decode(held, "triton", constraints=rules))
    on_device.refill(following)
    rules.refill(rules_of(held, following, seed=3))
    beams = replay() or beams
    alone = Problem(problem.case, following, following.to("torch", device=device), problem.logits, 0.0)
    assert_same(beams, decode(alone, "triton", constraints=rules_of(alone, following, seed=3)))


def repeated(thunk: Callable[[], Any]) -> tuple[Callable[[], Any], Any]:
    """What runs a function again, and its result; on a GPU by a CUDA graph, which writes to the same result."""
    if not torch.cuda.is_available():
        return thunk, thunk()
    graph, result = captured(thunk)
    return graph.replay, result


@contextmanager
def early_start() -> Iterator[None]:
    """Within it, kernels start before the ones before them end."""
    from hedgerow.decode.kernels import triton

    triton.EARLY_START = True
    try:
        yield
    finally:
        triton.EARLY_START = False


def check_early(problem: Problem) -> None:
    """Check that kernels that start early give the same to the last bit, launched and in a graph."""
    expected = decode(problem, "triton")
    with early_start():
        assert_same(decode(problem, "triton"), expected)
        graph, beams = captured(lambda: decode(problem, "triton"), 4)
    for _ in range(20):
        graph.replay()
        assert_same(beams, expected)


def forms_of(number: int) -> list[tuple[torch.dtype, Any]]:
    """The dtypes and normalizations to check of a problem. Each is compiled anew, so only the first has all."""
    forms = [(torch.float32, "codes"), (torch.bfloat16, "codes"), (torch.float32, "allowed")]
    return [*forms, (torch.float16, "codes"), (torch.float32, None)] if number == 0 else forms[:2]


def run_checks(run: Run) -> None:
    """Run all checks."""
    for number, (name, problem) in enumerate(mixed_problems(run)):
        for dtype, normalize in forms_of(number):
            label = f"equals the array kernel: {name}, {str(dtype)[6:]}, normalize={normalize}"
            run.check(label, lambda p=problem, d=dtype, n=normalize: check_search(p, d, n))
        label = f"equals the array kernel: {name}, sets and exclusions"
        run.check(label, lambda p=problem: check_search(p, torch.float32, "codes", rules_of(p, p.index, seed=1)))
        checks = [("candidates", check_candidates), ("versions of an index", check_versions)]
        if number == 0:
            checks += [("logits that are columns", check_slices), ("one graph under torch.compile", check_compiled)]
        if run.device.type == "cuda":
            checks += [("CUDA graph replays", check_graph), ("no host synchronisation", check_no_sync)]
        if run.device.type == "cuda" and torch.cuda.get_device_capability() >= (9, 0):
            checks.append(("kernels that start early", check_early))
        for what, check in checks:
            run.check(f"{what}: {name}", lambda p=problem, f=check: f(p))
