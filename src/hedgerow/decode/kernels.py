"""The one place where a step's kernel is chosen."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.util import find_spec
from typing import Literal

from hedgerow.decode.array import Normalize, array_step
from hedgerow.decode.beams import Beams
from hedgerow.decode.constrained import LevelConstraints
from hedgerow.decode.device import DeviceIndex, DeviceLevel
from hedgerow.decode.ops import Array, Ops
from hedgerow.errors import ArgumentError, BackendError

Backend = Literal["auto", "array", "numba", "triton"]
Kernel = Callable[[Ops, DeviceLevel, Beams, Array, int, Normalize, LevelConstraints | None], Beams]
BACKENDS = ("auto", "array", "numba", "triton")
# From this many logits on Numba's kernel is worth loading, which takes a second, and half a minute of compiling the
# first time of all. It is 4 to 8 times as fast from 512 logits on, but below this that is 0.1 to 0.2 ms a step.
NUMBA_FROM = 2**13
# Set in a process that was forked after the Numba kernel had run: its threads are gone there.
FORKED = False

# Asked once: the step may be traced, and a tracer cannot follow the question.
HAS_NUMBA, HAS_TRITON = find_spec("numba") is not None, find_spec("triton") is not None
# A request's candidates are numbered in 31 bits.
MOST_CANDIDATES = 2**31


def kernel_for(backend: Backend, index: DeviceIndex, logits: Array) -> Kernel:
    """Returns the kernel that does a step on these logits.

    Args:
        backend: "array": the definition, over the array API. "numba": a compiled kernel for arrays of a CPU.
            "triton": compiled kernels for PyTorch tensors of a GPU. "auto": triton where it can run, on a GPU; numba
            where it can run and the step has at least 8,192 logits; and array otherwise.
        index: where the step runs.
        logits: [B, m, C].

    Raises:
        BackendError: the backend asked for by name cannot run here.
    """
    if backend not in BACKENDS:
        raise ArgumentError(f"backend must be one of {', '.join(BACKENDS)}; got {backend!r}.")
    if backend == "array":
        return array_step
    if backend == "triton" or (backend == "auto" and _on_gpu(index)):
        return _triton_kernel(backend, index, logits)
    obstacle = _numba_obstacle(index, logits)
    if backend == "numba" and obstacle:
        raise BackendError(f"the numba kernel cannot run: {obstacle}. Use backend='auto'.")
    if obstacle or (backend == "auto" and _size(logits) < NUMBA_FROM):
        return array_step
    from hedgerow.decode.numba import numba_step

    return numba_step


def _triton_kernel(backend: Backend, index: DeviceIndex, logits: Array) -> Kernel:
    obstacle = _triton_obstacle(index, logits)
    if obstacle and backend == "triton":
        raise BackendError(f"the triton kernels cannot run: {obstacle}. Use backend='auto'.")
    if obstacle:
        return array_step
    from hedgerow.decode.triton import triton_step

    return triton_step


def _triton_obstacle(index: DeviceIndex, logits: Array) -> str | None:
    if index.ops.name != "torch":
        return f"the index is on the backend {index.ops.name!r}, and these kernels take PyTorch tensors"
    if not HAS_TRITON:
        return "the package triton is not installed; install it with: pip install 'hedgerow[triton]'"
    if not _on_gpu(index) and os.environ.get("TRITON_INTERPRET") != "1":
        return f"the index is on {index.device}, and these kernels are those of a GPU"
    if logits.shape[1] * logits.shape[2] >= MOST_CANDIDATES:
        return f"a request has {logits.shape[1]} x {logits.shape[2]} logits, and these kernels take less than 2^31"
    return None


def _on_gpu(index: DeviceIndex) -> bool:
    return index.ops.name == "torch" and index.device.type == "cuda"


def _numba_obstacle(index: DeviceIndex, logits: Array) -> str | None:
    if index.ops.name == "jax":
        return "the index is on JAX, whose arrays are traced and compiled by XLA"
    if index.ops.name == "torch":
        if not on_host(index):
            return f"the step is being traced, or the index is on {index.device}; this kernel is one of the CPU"
        if logits.requires_grad:
            return "the logits ask for a gradient, and this kernel gives none; use logits.detach()"
    if FORKED:
        return "this process was forked from one whose kernel has threads, which do not survive that"
    return None if HAS_NUMBA else "the package numba is not installed"


def on_host(index: DeviceIndex) -> bool:
    """Whether an index of PyTorch is on the CPU, and the step is run and not traced."""
    import torch

    return not torch.compiler.is_compiling() and index.device.type == "cpu"


def _size(logits: Array) -> int:
    batch, beams, codes = logits.shape
    return batch * beams * codes
