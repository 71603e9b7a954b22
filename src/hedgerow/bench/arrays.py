"""One interface to NumPy, PyTorch and JAX, so that a vectorised baseline is written once.

Operations use the fastest implementation of each library, also where it is not part of the array API standard.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from hedgerow.errors import BackendError, install_command

Array = Any
BACKENDS = ("numpy", "torch", "jax")


@dataclass(frozen=True)
class Arrays:
    """One array library on one device.

    Attributes:
        name: "numpy", "torch" or "jax".
        device: the device of the arrays, as the library represents it.
        xp: the array API namespace.
        put: copies a NumPy array to the device.
        log_softmax: log-softmax over the last axis.
        top_k: maps (x [B, n], k) to values and positions [B, k], in descending order of the values.
        label: the name of the device in reports.
        jit: compiles a function of arrays; the identity if the library runs eagerly.
        sync: waits until an array is computed.
        inference: a context without gradients.
        loop: maps (rounds, body, state) to the state after `rounds` repetitions of state = body(state).
        barrier: prevents a compiler from fusing two steps, between which a real search runs the model.
    """

    name: str
    device: Any
    xp: ModuleType
    put: Callable[[np.ndarray], Array]
    log_softmax: Callable[[Array], Array]
    top_k: Callable[[Array, int], tuple[Array, Array]]
    label: str
    jit: Callable[..., Callable]
    sync: Callable[[Any], Any]
    inference: Callable[[], AbstractContextManager[Any]]
    loop: Callable[[int, Callable[[Any], Any], Any], Any]
    barrier: Callable[[Any], Any]

    def get(self, x: Array) -> np.ndarray:
        """Copy an array to NumPy."""
        return x.detach().cpu().numpy() if self.name == "torch" else np.asarray(x)

    def index(self, x: Array) -> Array:
        """Convert integers to the dtype that the library requires for indexing."""
        return x if self.name == "jax" else self.xp.astype(x, self.xp.int64)

    def take(self, x: Array, positions: Array) -> Array:
        """Rows of `x` [n] or [n, w] at `positions` of any shape."""
        return x[self.index(positions)]

    def along(self, x: Array, positions: Array, axis: int = -1) -> Array:
        """Entries of `x` at `positions` along an axis."""
        return self.xp.take_along_axis(x, self.index(positions), axis=axis)

    def arange(self, n: int) -> Array:
        """The integers 0 to n - 1 as int32, on the device."""
        return self.xp.arange(n, dtype=self.xp.int32, device=self.device)

    def full(self, shape: tuple[int, ...], value: float, dtype: Any) -> Array:
        """An array filled with one value, on the device."""
        return self.xp.full(shape, value, dtype=dtype, device=self.device)


def arrays_of(backend: str, device: str | None = None) -> Arrays:
    """The array library `backend` on `device`.

    Raises:
        BackendError: the library is unknown, not installed, or has no such device.
    """
    constructors = {"numpy": _numpy, "torch": _torch, "jax": _jax}
    if backend not in constructors:
        raise BackendError(f"backend must be one of {', '.join(BACKENDS)}; got {backend!r}.")
    try:
        return constructors[backend](device)
    except ModuleNotFoundError as error:
        raise BackendError(
            f"backend {backend!r} needs the package {error.name!r}, which is not installed; {install_command(backend)}."
        ) from error


def _numpy(device: str | None) -> Arrays:
    import array_api_compat.numpy as xp

    if device not in (None, "cpu"):
        raise BackendError(f"backend 'numpy' runs on device 'cpu' only; got {device!r}.")

    def log_softmax(x: np.ndarray) -> np.ndarray:
        shifted = x - x.max(axis=-1, keepdims=True)
        return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))

    def top_k(x: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        part = np.argpartition(x, -k, axis=-1)[:, -k:]
        values = np.take_along_axis(x, part, axis=-1)
        order = np.argsort(-values, axis=-1, kind="stable")
        return np.take_along_axis(values, order, axis=-1), np.take_along_axis(part, order, axis=-1)

    return Arrays(
        "numpy", "cpu", xp, np.asarray, log_softmax, top_k, "cpu", _no_jit, _as_is, nullcontext, _eager_loop, _as_is
    )


def _torch(device: str | None) -> Arrays:
    import array_api_compat.torch as xp
    import torch

    try:
        torch_device = torch.empty(0, device=device or "cpu").device
    except (RuntimeError, AssertionError) as error:
        raise BackendError(f"PyTorch cannot use device {device!r}: {error}") from None

    def put(x: np.ndarray) -> torch.Tensor:
        return torch.tensor(_signed(x), device=torch_device)

    def top_k(x: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        values, positions = torch.topk(x, k)
        return values, positions

    def sync(x: Any) -> Any:
        if torch_device.type == "cuda":
            torch.cuda.synchronize(torch_device)
        return x

    def log_softmax(x: torch.Tensor) -> torch.Tensor:
        return torch.log_softmax(x, -1)

    inference, label = torch.inference_mode, str(torch_device)
    return Arrays(
        "torch", torch_device, xp, put, log_softmax, top_k, label, _no_jit, sync, inference, _eager_loop, _as_is
    )


def _jax(device: str | None) -> Arrays:
    import jax
    import jax.numpy as xp

    try:
        jax_device = jax.devices(device)[0] if device else jax.devices()[0]
    except RuntimeError as error:
        raise BackendError(f"JAX cannot use device {device!r}: {error}") from None

    def put(x: np.ndarray) -> jax.Array:
        return jax.device_put(x, jax_device)

    def top_k(x: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
        values, positions = jax.lax.top_k(x, k)
        return values, positions

    def loop(rounds: int, body: Callable[[Any], Any], state: Any) -> Any:
        # If the loop were unrolled, XLA would fuse the rounds and recompute the first ones several times.
        return jax.lax.fori_loop(0, rounds, lambda _, state: body(state), state)

    log_softmax, sync, barrier = jax.nn.log_softmax, jax.block_until_ready, jax.lax.optimization_barrier
    label = jax_device.platform
    return Arrays("jax", jax_device, xp, put, log_softmax, top_k, label, jax.jit, sync, nullcontext, loop, barrier)


def _as_is(x: Any) -> Any:
    return x


def _eager_loop(rounds: int, body: Callable[[Any], Any], state: Any) -> Any:
    for _ in range(rounds):
        state = body(state)
    return state


def _signed(x: np.ndarray) -> np.ndarray:
    """Convert unsigned integers wider than uint8, which PyTorch does not gather, to the narrowest signed type."""
    if x.dtype.kind != "u" or x.dtype.itemsize == 1:
        return x
    same_width = np.dtype(f"i{x.dtype.itemsize}")
    fits = not x.size or int(x.max()) <= np.iinfo(same_width).max
    return x.view(same_width) if fits else x.astype(f"i{2 * x.dtype.itemsize}")


def _no_jit(function: Callable, **_: Any) -> Callable:
    return function
