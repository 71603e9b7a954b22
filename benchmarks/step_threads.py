"""Measure a step of the native kernel on 1 thread and on several, beside processes that keep the cores busy.

``python benchmarks/step_threads.py --busy 0,2``: median, mean and 99th percentile in milliseconds. `PARALLEL_FROM` of
`_compiled.py` is chosen with it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

import hedgerow as hr
from hedgerow import _compiled

# B, M and C of the third level.
SHAPES = ((2, 70, 2048), (8, 50, 8192), (8, 512, 8192))
LEVELS, ITEMS = 3, 200_000


@contextmanager
def busy(count: int) -> Iterator[None]:
    """Run processes that never wait."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def times_of(shape: tuple[int, int, int], seconds: float) -> np.ndarray:
    """Milliseconds of each step."""
    batch, width, size = shape
    rng = np.random.default_rng(0)
    sids = rng.integers(0, size, (ITEMS, LEVELS)).astype(np.int32)
    index = hr.build_index(hr.Catalog(sids, codebook_sizes=size)).to("torch")
    beams = hr.init_beams(index, batch)
    for _ in range(LEVELS - 1):
        beams = hr.step(index, beams, torch.randn(*beams.states.shape, size), beam_width=width, kernel="native")
    logits, times = torch.randn(*beams.states.shape, size), []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 20:
        started = time.perf_counter()
        hr.step(index, beams, logits, beam_width=width, kernel="native")
        times.append(time.perf_counter() - started)
    return np.array(times) * 1e3


def main() -> None:
    """Measure, and print one line per case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--busy", default="0,2", help="numbers of processes beside the step")
    parser.add_argument("--threads", default=f"1,{os.cpu_count()}", help="numbers of threads")
    parser.add_argument("--seconds", type=float, default=3, help="seconds per case")
    options = parser.parse_args()
    _compiled.PARALLEL_FROM = 0
    for processes in map(int, options.busy.split(",")):
        for count in map(int, options.threads.split(",")):
            torch.set_num_threads(count)
            for shape in SHAPES:
                with busy(processes):
                    ms = times_of(shape, options.seconds)
                print(
                    f"busy processes {processes}, threads {count}, logits {np.prod(shape):>11,}: "
                    f"median {np.median(ms):.3f} ms, mean {ms.mean():.3f}, p99 {np.percentile(ms, 99):.3f}, "
                    f"least {ms.min():.3f}"
                )


if __name__ == "__main__":
    main()
