"""A method prepared for a case: compiled, if its library compiles, with the inputs of every level."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hedgerow.bench.arrays import Array, Arrays
from hedgerow.bench.baselines.base import Baseline, Problem, Promise, SearchResult, Unavailable
from hedgerow.bench.baselines.original import OriginalStatic
from hedgerow.bench.cases import Case, logits_after


@dataclass(frozen=True, eq=False)
class Entry:
    """A method, ready to be checked and timed.

    Attributes:
        name: name of the method in tables.
        promise: the property that its results must have.
        nbytes: bytes of its constraint; None if unknown.
        build_seconds: time to build it from sorted SIDs in this process (hedgerow: to move its index to the device).
        decode: runs all levels and waits for the device.
        levels: for each level, a function that runs it from the beams of the method's own search, and waits.
        search: runs all levels and returns the result.
        search_by_prefix: like `search`, with logits that depend on the prefix of a beam; None for the authors' code.
        method: the baseline, for further checks; None for the authors' code.
    """

    name: str
    promise: Promise
    nbytes: int | None
    build_seconds: float
    decode: Callable[[], object]
    levels: tuple[Callable[[], object], ...]
    search: Callable[[], SearchResult]
    search_by_prefix: Callable[[], SearchResult] | None
    method: Baseline | None


def check_size(method: type[Baseline] | type[OriginalStatic], items: int) -> None:
    """Check the size of the catalog.

    Raises:
        Unavailable: the catalog is larger than the limit of the method.
    """
    if method.max_items is not None and items > method.max_items:
        raise Unavailable(f"not run above {method.max_items:,} items: its build would take too much time or memory")


def entry_of(method_class: type[Baseline], problem: Problem, arrays: Arrays, case: Case, logits: list[Array]) -> Entry:
    """Build a method and compile its step.

    Raises:
        Unavailable: the method cannot run here, or not at this size.
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
        search=lambda: method.result(decode(method.tables, logits)),
        search_by_prefix=lambda: _search_by_prefix(method, step, arrays, case, logits),
        method=method,
    )


def original_entry(problem: Problem, arrays: Arrays, case: Case, logits: list[Array], reference: Path | None) -> Entry:
    """Prepare the authors' code. It can only run a whole decode.

    Raises:
        Unavailable: the code is not importable, or does not support this case.
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
        search=lambda: original.result(original.decode(logits, case.beam_width)),
        search_by_prefix=None,
        method=None,
    )


def _search_by_prefix(
    method: Baseline, step: Callable, arrays: Arrays, case: Case, logits: list[Array]
) -> SearchResult:
    state = method.start(case.batch)
    for level_logits in logits:
        logits_of_beams = logits_after(method.result(state).codes, arrays.get(level_logits))
        state = step(method.tables, state, arrays.put(logits_of_beams), case.beam_width)
    return method.result(state)


def _compiled(method: Baseline, arrays: Arrays, case: Case) -> tuple[Callable, Callable]:
    """The step and the whole decode, each compiled as one function if the method's step can be compiled."""

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
