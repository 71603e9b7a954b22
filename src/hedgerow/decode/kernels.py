"""The one place where a step's kernel is chosen."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Literal

from hedgerow.decode.array import Normalize, array_step
from hedgerow.decode.beams import Beams
from hedgerow.decode.device import DeviceIndex, DeviceLevel
from hedgerow.decode.ops import Array, Ops
from hedgerow.errors import ArgumentError, BackendError

Backend = Literal["auto", "array", "numba"]
Kernel = Callable[[Ops, DeviceLevel, Beams, Array, int, Normalize], Beams]
BACKENDS = ("auto", "array", "numba")
# From this many logits on, Numba's kernel gains more in a few steps than loading it costs.
NUMBA_FROM = 2**16


def kernel_for(backend: Backend, index: DeviceIndex, logits: Array) -> Kernel:
    """Returns the kernel that does a step on these logits.

    Args:
        backend: "array": the definition, over the array API. "numba": a compiled kernel for arrays of a CPU. "auto":
            numba where it can run and the step has at least 65,536 logits, and array otherwise.
        index: where the step runs.
        logits: [B, m, C].

    Raises:
        BackendError: the backend asked for by name cannot run here.
    """
    if backend not in BACKENDS:
        raise ArgumentError(f"backend must be one of {', '.join(BACKENDS)}; got {backend!r}.")
    if backend == "array":
        return array_step
    obstacle = _numba_obstacle(index)
    if backend == "numba" and obstacle:
        raise BackendError(f"the numba kernel cannot run: {obstacle}. Use backend='auto'.")
    if obstacle or (backend == "auto" and _size(logits) < NUMBA_FROM):
        return array_step
    from hedgerow.decode.numba import numba_step

    return numba_step


def _numba_obstacle(index: DeviceIndex) -> str | None:
    if index.ops.name == "jax":
        return "the index is on JAX, whose arrays are traced and compiled by XLA"
    if index.ops.name == "torch":
        import torch

        if torch.compiler.is_compiling():
            return "the step is being traced, and the compiler makes kernels of its own"
        if index.device.type != "cpu":
            return f"the index is on {index.device}, and this kernel is one of the CPU"
    return None if find_spec("numba") else "the package numba is not installed"


def _size(logits: Array) -> int:
    batch, beams, codes = logits.shape
    return batch * beams * codes
