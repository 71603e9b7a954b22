"""Timing: warm-up, then rounds in which every method runs once, so that a machine's drift falls on all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

Thunk = Callable[[], object]
LEAST_REPEATS = 3


@dataclass(frozen=True)
class Budget:
    """How much measuring is done.

    Attributes:
        repeats: timed runs a method, at most.
        warmup: runs before them, not timed.
        seconds: after `LEAST_REPEATS` runs, a method that has used as much stops.
    """

    repeats: int
    warmup: int
    seconds: float


QUICK = Budget(repeats=30, warmup=2, seconds=0.6)
FULL = Budget(repeats=300, warmup=10, seconds=10.0)


@dataclass(frozen=True, eq=False)
class Samples:
    """The times of one method, in seconds, in the order that they were taken."""

    seconds: np.ndarray

    def summary(self) -> dict[str, float]:
        """Returns mean, sd and quantiles in milliseconds, and how many runs there were."""
        ms = self.seconds * 1e3
        quantiles = {f"p{percent}_ms": float(np.percentile(ms, percent)) for percent in (10, 90, 99)}
        return {
            "median_ms": float(np.median(ms)),
            "mean_ms": float(ms.mean()),
            "sd_ms": float(ms.std(ddof=1)) if len(ms) > 1 else 0.0,
            **quantiles,
            "runs": len(ms),
        }


def measure(thunks: Mapping[str, Thunk], budget: Budget) -> dict[str, Samples]:
    """Times each thunk up to `budget.repeats` times, round robin; each round starts with another one.

    A thunk must not return before its work is done: on an accelerator it waits.
    """
    names = list(thunks)
    taken: dict[str, list[float]] = {name: [] for name in names}
    for name in names:
        _warm(thunks[name], budget)
    for round_number in range(budget.repeats):
        first = round_number % len(names) if names else 0
        for name in names[first:] + names[:first]:
            if len(taken[name]) >= LEAST_REPEATS and sum(taken[name]) >= budget.seconds:
                continue
            taken[name].append(elapsed(thunks[name]))
    return {name: Samples(np.asarray(seconds)) for name, seconds in taken.items()}


def elapsed(thunk: Thunk) -> float:
    """Returns the seconds that a thunk takes."""
    started = time.perf_counter()
    thunk()
    return time.perf_counter() - started


def _warm(thunk: Thunk, budget: Budget) -> None:
    spent = 0.0
    for _ in range(budget.warmup):
        spent += elapsed(thunk)
        if spent > budget.seconds:
            return
