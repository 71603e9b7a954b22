"""What the GPU scripts share: options, a run whose results are written as they come, and times inside CUDA graphs."""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

if "--dry-run" in sys.argv:
    # Triton reads this variable when it is imported.
    os.environ["TRITON_INTERPRET"] = "1"

import numpy as np
import torch

from hedgerow.bench.machine import conditions

RESULTS = Path(__file__).parent / "results" / "gpu"
# Each of the two scripts starts nothing after this time.
SECONDS = 230
WARMUP = 3
# A replay runs COPIES steps. The number of replays is REPLAYS, or those that fit in SECONDS_EACH, at least MIN_REPLAYS.
COPIES, REPLAYS, MIN_REPLAYS, SECONDS_EACH = 20, 100, 10, 0.15
# Bytes that are written between two steps, more than the L2 cache of any GPU, so that a step finds nothing in it.
FLUSH = 2**28
Row = dict[str, Any]


@dataclass
class Run:
    """The state of a run.

    Attributes:
        device: the device of the tensors.
        dry: whether this is a dry run, at tiny sizes and without a GPU.
        deadline: time of the monotonic clock after which no further case starts.
        save: writes the rows and checks so far.
        rows: one row per measurement.
        checks: (name, whether it passed, error) of each check.
        costs: columns of every row, as soon as they are known: what reading and a launch cost on this device.
    """

    device: torch.device
    dry: bool
    deadline: float
    save: Callable[[Run], None] = lambda _: None
    rows: list[Row] = field(default_factory=list)
    checks: list[tuple[str, bool, str]] = field(default_factory=list)
    costs: Row = field(default_factory=dict)

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
            self.checks.append((name, False, described(error)))
        self.save(self)
        print(f"{'ok    ' if self.checks[-1][1] else 'FAILED'}  {name}  {self.checks[-1][2]}", flush=True)

    def attempt(self, name: str, timing: Callable[[], object]) -> None:
        """Run a timing that may not be possible here, and state why if it is not."""
        if self.left < 0:
            print(f"  {name} is skipped: no time is left", flush=True)
            return
        try:
            timing()
        except Exception as error:
            print(f"  {name} is skipped: {described(error)}", flush=True)

    def add(self, row: Row) -> None:
        """Record a measurement."""
        self.rows.append(row)
        self.save(self)

    def finish(self, out: Path) -> int:
        """Print how many checks passed. Returns the exit code: 1 if one failed."""
        failed = [name for name, holds, _ in self.checks if not holds]
        print(f"{len(self.checks) - len(failed)} checks passed, {len(failed)} failed; results are in {out}", flush=True)
        return 1 if failed else 0


def described(error: Exception) -> str:
    """The type and the message of an error, on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def options_of(description: str | None) -> argparse.Namespace:
    """The options of both scripts. Exits with 2 if there is no GPU."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--dry-run", action="store_true", help="use tiny sizes and the interpreter of Triton, without a GPU"
    )
    parser.add_argument(
        "--out", type=Path, help=f"folder of the results (default: {RESULTS}; a new folder for a dry run)"
    )
    parser.add_argument(
        "--seconds",
        type=float,
        help=f"each script starts nothing after this time (default: {SECONDS}; no limit for a dry run)",
    )
    parser.add_argument("--static", type=Path, help="folder with the authors' package static_decoding, to time it too")
    parser.add_argument("--commit", help="commit of the code, for a copy without its repository")
    options = parser.parse_args()
    if not options.dry_run and not torch.cuda.is_available():
        print("There is no CUDA device. Use --dry-run to test the script without one.", file=sys.stderr)
        sys.exit(2)
    options.seconds = options.seconds or (float("inf") if options.dry_run else SECONDS)
    options.out = options.out or (Path(tempfile.mkdtemp()) if options.dry_run else RESULTS)
    return options


def run_of(options: argparse.Namespace, name: str) -> Run:
    """A run that writes `name`.csv and `name`-checks.csv in the folder of the results."""
    device = torch.device("cpu" if options.dry_run else "cuda:0")
    stamp = stamp_of(device, options.commit)

    def save(run: Run) -> None:
        write(options.out / f"{name}.csv", run.rows, run.costs | stamp)
        checks = [{"check": what, "holds": holds, "why": why} for what, holds, why in run.checks]
        write(options.out / f"{name}-checks.csv", checks, stamp)

    return Run(device, options.dry_run, time.monotonic() + options.seconds, save)


def stamp_of(device: torch.device, commit: str | None) -> Row:
    """The conditions of the measurement, for every line of a CSV file."""
    facts = conditions(str(device))
    versions = {name: facts["versions"].get(name) for name in ("torch", "triton", "transformers")}
    stamp = {"gpu": facts["gpu"], "driver": driver(), "cuda": torch.version.cuda, **versions, "cpu": facts["cpu"]}
    return {**stamp, "commit": commit or facts["commit"], "date": facts["date"]}


def driver() -> str | None:
    """The version of the GPU's driver."""
    try:
        command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        return None


def write(path: Path, rows: list[Row], stamp: Row) -> None:
    """Write rows as CSV, each with the stamp. A file from before stays whole until the new one is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    with part.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*dict.fromkeys(key for row in rows for key in row), *stamp], lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({key: f"{x:.5g}" if isinstance(x, float) else x for key, x in row.items()} | stamp)
    part.replace(path)


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


def replayed(graph: torch.cuda.CUDAGraph, replays: int) -> np.ndarray:
    """Times of replays in microseconds, by CUDA events."""
    events = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(replays)]
    for before, after in events:
        before.record()
        graph.replay()
        after.record()
    torch.cuda.synchronize()
    return np.asarray([before.elapsed_time(after) for before, after in events]) * 1e3


def microseconds(run: Run, thunk: Callable[[], Any], copies: int = COPIES) -> np.ndarray:
    """Times of a function inside a CUDA graph in microseconds, one sample per replay of `copies` calls."""
    if run.dry:
        return eager_microseconds(run, thunk)
    graph, _ = captured(thunk, copies)
    for _ in range(WARMUP):
        graph.replay()
    torch.cuda.synchronize()
    started = time.perf_counter()
    graph.replay()
    torch.cuda.synchronize()
    replays = int(SECONDS_EACH / (time.perf_counter() - started))
    return replayed(graph, min(max(replays, MIN_REPLAYS), REPLAYS)) / copies


def cold_microseconds(run: Run, thunk: Callable[[], Any]) -> np.ndarray:
    """Times of a function that finds nothing in the L2 cache, as after the weights of a model: without the flush."""
    flush = _flush(run.device, 2**10 if run.dry else FLUSH // 4)

    def both() -> None:
        flush.add_(1)
        thunk()

    alone = np.median(microseconds(run, lambda: flush.add_(1), copies=4))
    return microseconds(run, both, copies=4) - alone


@cache
def _flush(device: torch.device, size: int) -> torch.Tensor:
    return torch.zeros(size, device=device)


def eager_microseconds(run: Run, thunk: Callable[[], Any], runs: int = 30) -> np.ndarray:
    """Times of a function without a graph in microseconds, by the clock of the host; the result is waited for."""
    times = []
    for _ in range(1 if run.dry else WARMUP + runs):
        started = time.perf_counter()
        thunk()
        if run.device.type == "cuda":
            torch.cuda.synchronize()
        times.append((time.perf_counter() - started) * 1e6)
    return np.asarray(times if run.dry else times[WARMUP:])
