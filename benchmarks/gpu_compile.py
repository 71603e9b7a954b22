"""Compile the Triton kernels that gpu.sh launches, without a GPU, into a cache folder to copy to the machine with one.

    TRITON_CACHE_DIR=folder python benchmarks/gpu_compile.py                  for compute capability 9.0 (H100, H200)
    TRITON_CACHE_DIR=folder python benchmarks/gpu_compile.py --capability 80

Compiling them there takes minutes. The versions of Python and Triton must be those of that machine, and the files of
hedgerow the same: set TRITON_CACHE_DIR to the folder there, and check that its number of entries does not grow.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest import mock

if not os.environ.get("TRITON_CACHE_DIR"):
    raise SystemExit("Set TRITON_CACHE_DIR to the folder for the compiled kernels.")
os.environ.pop("TRITON_INTERPRET", None)

import torch
import triton
from gpu_checks import Problem, decode, early_start, mixed_problems, problem_of, run_checks
from gpu_run import Run
from gpu_step import timed_cases
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from hedgerow.decode.kernels import array, dispatch
from hedgerow.decode.kernels import triton as kernels


class Driver:
    """Replaces the driver of a GPU with this compute capability."""

    def __init__(self, capability: int) -> None:
        self.capability = capability

    def get_current_target(self) -> GPUTarget:
        """The GPU to compile for."""
        return GPUTarget("cuda", self.capability, 32)

    def get_current_device(self) -> int:
        """The number of the GPU."""
        return 0

    def get_current_stream(self, _: Any = None) -> int:
        """A stream, which is not used."""
        return 0


@contextmanager
def compiling(capability: int) -> Iterator[set[Any]]:
    """Within it, a step by the Triton kernels compiles them, and computes by the array kernel. Yields the kernels."""
    compiled, run, step = set(), JITFunction.run, kernels.triton_step
    driver: Any = Driver(capability)
    triton.runtime.driver.set_active(driver)

    def compile_only(self: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> Any:  # noqa: ARG001
        kernel: Any = run(self, *args, grid=grid, warmup=True, **options)
        compiled.add(kernel.hash)
        return kernel

    def step_on_host(inputs: Any) -> Any:
        step(inputs)
        return array.array_step(inputs)

    def starts_early(_: Any) -> bool:
        return kernels.EARLY_START

    with (
        mock.patch.object(JITFunction, "run", compile_only),
        mock.patch.object(kernels, "triton_step", step_on_host),
        mock.patch.object(kernels, "_starts_early", starts_early),
        mock.patch.object(dispatch, "_triton_obstacle", return_value=None),
    ):
        yield compiled


def decode_early(problem: Problem, capability: int) -> None:
    """Decode with kernels that start early, if the GPU can do so."""
    if capability >= 90:
        with early_start():
            decode(problem, "triton")


def main() -> None:
    """Compile what the checks and the timed cases launch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--capability", type=int, default=90, help="of the GPU, for example 90")
    options = parser.parse_args()
    started, run = time.monotonic(), Run(torch.device("cpu"), dry=False, deadline=float("inf"))
    with compiling(options.capability) as compiled:

        def report(what: str) -> None:
            print(f"{time.monotonic() - started:6.0f} s  {len(compiled):4} kernels  {what}", flush=True)

        run_checks(run)
        for _, problem in mixed_problems(run):
            decode_early(problem, options.capability)
        report("checks")
        for case in timed_cases(run):
            if case.items <= 20_000_000:
                problem = problem_of(case, run.device)
                decode(problem, "triton")
                decode_early(problem, options.capability)
                # The model of gpu_hf.py has logits in bfloat16.
                decode(replace(problem, logits=[level.bfloat16() for level in problem.logits]), "triton")
                report(f"{case.name}, {case.items:,} items")


if __name__ == "__main__":
    main()
