"""Timing: warm-up, then rounds in which every method runs once, so that drift of the machine affects all alike."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

Thunk = Callable[[], object]
MIN_REPEATS = 3


@dataclass(frozen=True)
class Budget:
    """Limits of a measurement.

    Attributes:
        repeats: maximum number of timed runs per method.
        warmup: number of runs before them that are not timed.
        seconds: a method stops after this time, but not before `MIN_REPEATS` runs.
    """

    repeats: int
    warmup: int
    seconds: float


QUICK = Budget(repeats=30, warmup=2, seconds=0.6)
FULL = Budget(repeats=300, warmup=10, seconds=10.0)


@dataclass(frozen=True, eq=False)
class Samples:
    """The times of one method in seconds, in the order of the runs."""

    seconds: np.ndarray

    def summary(self) -> dict[str, float]:
        """Mean, standard deviation and quantiles in milliseconds, and the number of runs."""
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
    """Time each function up to `budget.repeats` times, once per round. Each round has another order.

    A function leaves its data in the caches and its threads awake for the next one, so none may always follow another.
    On an accelerator, a function must wait for the device before it returns.
    """
    names, orders = list(thunks), random.Random(0)
    times: dict[str, list[float]] = {name: [] for name in names}
    for name in names:
        _warm(thunks[name], budget)
    for _ in range(budget.repeats):
        for name in orders.sample(names, len(names)):
            if len(times[name]) >= MIN_REPEATS and sum(times[name]) >= budget.seconds:
                continue
            times[name].append(elapsed(thunks[name]))
    return {name: Samples(np.asarray(seconds)) for name, seconds in times.items()}


def elapsed(thunk: Thunk) -> float:
    """Run a function and return its time in seconds."""
    started = time.perf_counter()
    thunk()
    return time.perf_counter() - started


def _warm(thunk: Thunk, budget: Budget) -> None:
    spent = 0.0
    for _ in range(budget.warmup):
        spent += elapsed(thunk)
        if spent > budget.seconds:
            return
