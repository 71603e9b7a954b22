"""A method made ready on a case: compiled where its library compiles, with the inputs of every level at hand."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hedgerow.bench.arrays import Array, Arrays
from hedgerow.bench.baselines.base import Baseline, Found, Problem, Promise, Unavailable
from hedgerow.bench.baselines.original import OriginalStatic
from hedgerow.bench.cases import Case, logits_after


@dataclass(frozen=True, eq=False)
class Entry:
    """A method, ready to be checked and timed.

    Attributes:
        name: what tables call it.
        promise: what it promises.
        nbytes: bytes of its constraint, where known.
        build_seconds: time to build it from sorted SIDs (hedgerow: to move its index), in this process.
        decode: runs all levels, and waits.
        levels: each runs one level from the beams that its own search has there, and waits.
        found: runs all levels and returns what was found.
        found_by_prefix: the same, with logits that follow a beam's prefix; None for the authors' code.
        method: the baseline itself, for checks of its own; None for the authors' code.
    """

    name: str
    promise: Promise
    nbytes: int | None
    build_seconds: float
    decode: Callable[[], object]
    levels: tuple[Callable[[], object], ...]
    found: Callable[[], Found]
    found_by_prefix: Callable[[], Found] | None
    method: Baseline | None


def check_size(method: type[Baseline] | type[OriginalStatic], items: int) -> None:
    """Raises:
    Unavailable: the catalog is larger than the method is tried on.
    """
    if method.most_items is not None and items > method.most_items:
        raise Unavailable(f"not tried above {method.most_items:,} items: its build would take too long, or too much")


def entry_of(method_class: type[Baseline], problem: Problem, arrays: Arrays, case: Case, logits: list[Array]) -> Entry:
    """Builds a method and compiles its step.

    Raises:
        Unavailable: it cannot run here, or not at this size.
    """
    check_size(method_class, problem.index.num_sids)
    started = time.perf_counter()
    method = method_class(problem, arrays)
    built = time.perf_counter() - started
    step, decode = _compiled(method, arrays, case)
    state, thunks = method.start(case.batch), []
    for level_logits in logits:
        thunks.append(_level_thunk(step, arrays, method.tables, state, level_logits, case.beam_width))
        state = arrays.sync(step(method.tables, state, level_logits, case.beam_width))
    return Entry(
        name=method.name,
        promise=method.promise,
        nbytes=method.nbytes,
        build_seconds=built,
        decode=lambda: arrays.sync(decode(method.tables, logits)),
        levels=tuple(thunks),
        found=lambda: method.found(decode(method.tables, logits)),
        found_by_prefix=lambda: _found_by_prefix(method, step, arrays, case, logits),
        method=method,
    )


def original_entry(problem: Problem, arrays: Arrays, case: Case, logits: list[Array], reference: Path | None) -> Entry:
    """Returns the authors' code, ready; only its whole decode can be run.

    Raises:
        Unavailable: it is not importable, or not made for this case.
    """
    check_size(OriginalStatic, problem.index.num_sids)
    started = time.perf_counter()
    original = OriginalStatic(problem, arrays, reference)
    built = time.perf_counter() - started
    arrays.sync(original.decode(logits, case.beam_width))
    return Entry(
        name=original.name,
        promise=original.promise,
        nbytes=original.nbytes,
        build_seconds=built,
        decode=lambda: arrays.sync(original.decode(logits, case.beam_width)),
        levels=(),
        found=lambda: original.found(original.decode(logits, case.beam_width)),
        found_by_prefix=None,
        method=None,
    )


def _found_by_prefix(method: Baseline, step: Callable, arrays: Arrays, case: Case, logits: list[Array]) -> Found:
    state = method.start(case.batch)
    for level_logits in logits:
        chosen = logits_after(method.found(state).codes, arrays.get(level_logits))
        state = step(method.tables, state, arrays.put(chosen), case.beam_width)
    return method.found(state)


def _compiled(method: Baseline, arrays: Arrays, case: Case) -> tuple[Callable, Callable]:
    """Returns the step and the whole decode; compiled each as one, where the method's step can be."""

    def decode_with(step: Callable, barrier: Callable[[Any], Any]) -> Callable:
        def decode(tables: Any, logits: list[Array]) -> Any:
            state = method.start(case.batch)
            for level_logits in logits:
                state = barrier(step(tables, state, level_logits, case.beam_width))
            return state

        return decode

    if method.on_host:
        return method.step, decode_with(method.step, lambda state: state)
    return arrays.jit(method.step, static_argnums=3), arrays.jit(decode_with(method.step, arrays.barrier))


def _level_thunk(
    step: Callable, arrays: Arrays, tables: Any, state: Any, logits: Array, beam_width: int
) -> Callable[[], object]:
    return lambda: arrays.sync(step(tables, state, logits, beam_width))
