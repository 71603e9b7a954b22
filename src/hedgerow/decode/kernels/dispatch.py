"""The choice of the kernel of a step. No other module chooses kernels."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import Literal

from hedgerow._arguments import check_choice
from hedgerow._compiled import native
from hedgerow.decode.beams import Beams
from hedgerow.decode.device import DeviceIndex
from hedgerow.decode.kernels.array import StepInput, array_step
from hedgerow.decode.kernels.native import native_step
from hedgerow.decode.ops import Array
from hedgerow.errors import BackendError, install_command

LOGGER = logging.getLogger(__name__)
KernelName = Literal["auto", "array", "native", "triton", "pallas"]
KERNELS = ("auto", "array", "native", "triton", "pallas")
# The name of the native kernel when Numba compiled it.
FORMER_NAME = "numba"
Kernel = Callable[[StepInput], Beams]
# Evaluated at import, because a tracer cannot follow find_spec.
HAS_TRITON = find_spec("triton") is not None
# The Triton kernels number the candidates of a request in 31 bits.
MAX_CANDIDATES = 2**31
# What the log says already: a line per reason, not per step.
_logged: set[str] = set()


def kernel_for(name: KernelName, index: DeviceIndex, beams: Beams, logits: Array, *, divided: bool = False) -> Kernel:
    """Choose the kernel of a step.

    Args:
        name: "array": the definition, over the array API. "native": a compiled kernel for arrays on a CPU. "triton":
            compiled kernels for PyTorch tensors on a GPU. "pallas": kernels for JAX arrays on a TPU. "auto": on a GPU,
            triton if it can run, otherwise array; on a TPU, pallas likewise; on a CPU, native if it can run, otherwise
            array.
        index: the trie on its device.
        beams: the beams [B, m] of the step.
        logits: [B, m, C].
        divided: whether these are the columns of one rank, which only the array step takes.

    Raises:
        ArgumentError: there is no such kernel.
        BackendError: the kernel that is named cannot run here.
    """
    name = "native" if name == FORMER_NAME else name
    check_choice(name, "kernel", KERNELS)
    if divided and name in ("native", "triton", "pallas"):
        raise BackendError(f"the {name} kernel takes the logits of all codes, not a code_range. Use kernel='auto'.")
    if name == "pallas" or (name in ("auto", "array") and index.backend == "jax"):
        return _jax_kernel("array" if divided else name, index, beams, logits)
    if name == "array" or divided:
        return array_step
    if name == "triton" or (name == "auto" and _on_gpu(index)):
        return _triton_kernel(name, index, logits)
    obstacle = _native_obstacle(index, beams, logits)
    if name == "native" and obstacle:
        raise BackendError(f"the native kernel cannot run: {obstacle}. Use kernel='auto'.")
    if obstacle:
        return _array_step_instead(index, "native", obstacle)
    _log_once("steps run in the native kernel")
    return native_step


def _jax_kernel(name: KernelName, index: DeviceIndex, beams: Beams, logits: Array) -> Kernel:
    """The kernel of JAX arrays, or an error if "pallas" is named for others."""
    if index.backend != "jax":
        raise BackendError(
            f"the pallas kernels cannot run: the index is on the backend {index.backend!r}, and these kernels need JAX "
            "arrays. Use kernel='auto'."
        )
    from hedgerow.decode.kernels import jax_mesh, jax_tpu

    if name == "array" or (name == "auto" and not jax_tpu.is_automatic()):
        return jax_mesh.sharded_array_step
    obstacle = jax_tpu.obstacle_of(index.levels[beams.level], logits)
    if obstacle and name == "pallas":
        raise BackendError(f"the pallas kernels cannot run: {obstacle}. Use kernel='auto'.")
    if obstacle:
        _log_once(f"steps run in the array kernel, because the pallas kernels cannot: {obstacle}")
        return jax_mesh.sharded_array_step
    return jax_tpu.kernel_of(name)


def _triton_kernel(name: KernelName, index: DeviceIndex, logits: Array) -> Kernel:
    obstacle = _triton_obstacle(index, logits)
    if obstacle and name == "triton":
        raise BackendError(f"the triton kernels cannot run: {obstacle}. Use kernel='auto'.")
    if obstacle:
        return _array_step_instead(index, "triton", obstacle)
    from hedgerow.decode.kernels.triton import triton_step

    if not _is_compiling():
        _log_once("steps run in the triton kernels")
    return triton_step


def _array_step_instead(index: DeviceIndex, kernel: str, obstacle: str) -> Kernel:
    # A tracer would follow the log.
    if index.backend != "torch" or not _is_compiling():
        _log_once(f"steps run in the array kernel, because the {kernel} kernel cannot: {obstacle}")
    return array_step


def _log_once(message: str) -> None:
    if message not in _logged:
        _logged.add(message)
        LOGGER.info("%s", message)


def _is_compiling() -> bool:
    import torch

    return torch.compiler.is_compiling()


def _triton_obstacle(index: DeviceIndex, logits: Array) -> str | None:
    if index.backend != "torch":
        return f"the index is on the backend {index.backend!r}, and these kernels need PyTorch tensors"
    if not HAS_TRITON:
        return f"the package triton is not installed; install it with: {install_command('triton')}"
    if not _on_gpu(index) and os.environ.get("TRITON_INTERPRET") != "1":
        return f"the index is on {index.device}, and these kernels need a GPU"
    if logits.shape[1] * logits.shape[2] >= MAX_CANDIDATES:
        return f"a request has {logits.shape[1]} x {logits.shape[2]} logits, and these kernels take fewer than 2^31"
    return None


def _on_gpu(index: DeviceIndex) -> bool:
    return index.backend == "torch" and index.device.type == "cuda"


def _native_obstacle(index: DeviceIndex, beams: Beams, logits: Array) -> str | None:
    if index.backend == "jax":
        return "the index is on JAX, whose arrays XLA compiles"
    if index.backend == "torch":
        if not on_host(index):
            return f"the step is being traced, or the index is on {index.device}; this kernel needs a CPU"
        if any(map(is_transformed, (logits, beams.scores, beams.states, beams.codes))):
            return "the logits or the beams are inside a transform such as torch.vmap, and have no memory to read"
        for what, tensor in (("logits", logits), ("scores of the beams", beams.scores)):
            if tensor.requires_grad or (_in_dual_level() and _has_tangent(tensor)):
                return f"the {what} require a gradient, which this kernel does not compute; use detach()"
    if native is None:
        return "hedgerow was built without a C compiler; install a wheel, or a compiler and hedgerow again"
    return None


def on_host(index: DeviceIndex) -> bool:
    """Whether a PyTorch index is on the CPU and the step is not being traced."""
    return not _is_compiling() and index.device.type == "cpu"


def is_transformed(tensor: Array) -> bool:
    """Whether a PyTorch tensor on the CPU stands for others inside a transform such as `torch.vmap`."""
    try:
        tensor.data_ptr()
    except RuntimeError:
        return True
    return False


def _in_dual_level() -> bool:
    """Whether forward-mode differentiation in PyTorch is on. Outside of a dual level, no tensor has a tangent."""
    return sys.modules["torch.autograd.forward_ad"]._current_level >= 0


def _has_tangent(tensor: Array) -> bool:
    from torch.autograd import forward_ad

    return forward_ad.unpack_dual(tensor).tangent is not None
