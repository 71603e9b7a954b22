"""The three array libraries behind one small face, so that a vectorised baseline is written once.

Where a library has an operation of its own that is faster than the array API's, that one is used: baselines get
the best that their library offers.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from hedgerow.errors import BackendError

Array = Any
BACKENDS = ("numpy", "torch", "jax")


@dataclass(frozen=True)
class Arrays:
    """One array library on one device.

    Attributes:
        name: "numpy", "torch" or "jax".
        device: where arrays are put, in the library's terms.
        xp: the array API namespace.
        put: NumPy array -> array of the library.
        log_softmax: over the last axis.
        top_k: (x [B, n], k) -> values and positions [B, k], values descending.
        label: the device, as reports call it.
        jit: compiles a function of arrays; the identity where the library runs eagerly.
        sync: waits until the array is there.
        inference: a context in which nothing is kept for gradients.
        loop: (rounds, body, state) -> state after so many rounds of state = body(state).
        barrier: keeps a compiler from fusing what comes before with what comes after; between steps sits a model.
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
        """Returns an array of the library as NumPy."""
        return x.detach().cpu().numpy() if self.name == "torch" else np.asarray(x)

    def index(self, x: Array) -> Array:
        """Returns whole numbers in the type that the library gathers with."""
        return x if self.name == "jax" else self.xp.astype(x, self.xp.int64)

    def take(self, x: Array, at: Array) -> Array:
        """Returns x[at] for `x` [n] or [n, w] and positions `at` of any shape."""
        return x[self.index(at)]

    def along(self, x: Array, at: Array, axis: int = -1) -> Array:
        """Returns the entries of `x` at positions `at` along an axis."""
        return self.xp.take_along_axis(x, self.index(at), axis=axis)

    def arange(self, n: int) -> Array:
        """Returns 0 .. n - 1 as int32 on the device."""
        return self.xp.arange(n, dtype=self.xp.int32, device=self.device)

    def full(self, shape: tuple[int, ...], value: float, dtype: Any) -> Array:
        """Returns an array of one value on the device."""
        return self.xp.full(shape, value, dtype=dtype, device=self.device)


def arrays_of(backend: str, device: str | None = None) -> Arrays:
    """Returns the array library `backend` on `device`.

    Raises:
        BackendError: the library is unknown, not installed, or has no such device.
    """
    makers = {"numpy": _numpy, "torch": _torch, "jax": _jax}
    if backend not in makers:
        raise BackendError(f"there is no backend {backend!r}; there are {', '.join(BACKENDS)}.")
    try:
        return makers[backend](device)
    except ModuleNotFoundError as error:
        raise BackendError(f"backend {backend!r} needs the package {error.name!r}.") from error


def _numpy(device: str | None) -> Arrays:
    import array_api_compat.numpy as xp

    if device not in (None, "cpu"):
        raise BackendError(f"NumPy runs on the 'cpu'; got device {device!r}.")

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
        where = torch.empty(0, device=device or "cpu").device
    except (RuntimeError, AssertionError) as error:
        raise BackendError(f"PyTorch cannot use device {device!r}: {error}") from None

    def put(x: np.ndarray) -> torch.Tensor:
        return torch.tensor(_signed(x), device=where)

    def top_k(x: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        values, at = torch.topk(x, k)
        return values, at

    def sync(x: Any) -> Any:
        if where.type == "cuda":
            torch.cuda.synchronize(where)
        return x

    def log_softmax(x: torch.Tensor) -> torch.Tensor:
        return torch.log_softmax(x, -1)

    quiet, label = torch.inference_mode, str(where)
    return Arrays("torch", where, xp, put, log_softmax, top_k, label, _no_jit, sync, quiet, _eager_loop, _as_is)


def _jax(device: str | None) -> Arrays:
    import jax
    import jax.numpy as xp

    try:
        where = jax.devices(device)[0] if device else jax.devices()[0]
    except RuntimeError as error:
        raise BackendError(f"JAX cannot use device {device!r}: {error}") from None

    def put(x: np.ndarray) -> jax.Array:
        return jax.device_put(x, where)

    def top_k(x: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
        values, at = jax.lax.top_k(x, k)
        return values, at

    def loop(rounds: int, body: Callable[[Any], Any], state: Any) -> Any:
        # Unrolled, XLA would fuse the rounds and compute the first of them over and over.
        return jax.lax.fori_loop(0, rounds, lambda _, state: body(state), state)

    soft, sync, barrier = jax.nn.log_softmax, jax.block_until_ready, jax.lax.optimization_barrier
    label = where.platform
    return Arrays("jax", where, xp, put, soft, top_k, label, jax.jit, sync, nullcontext, loop, barrier)


def _as_is(x: Any) -> Any:
    return x


def _eager_loop(rounds: int, body: Callable[[Any], Any], state: Any) -> Any:
    for _ in range(rounds):
        state = body(state)
    return state


def _signed(x: np.ndarray) -> np.ndarray:
    """PyTorch gathers uint8 and signed integers; others become the signed type that holds them."""
    if x.dtype.kind != "u" or x.dtype.itemsize == 1:
        return x
    same = np.dtype(f"i{x.dtype.itemsize}")
    fits = not x.size or int(x.max()) <= np.iinfo(same).max
    return x.view(same) if fits else x.astype(f"i{2 * x.dtype.itemsize}")


def _no_jit(function: Callable, **_: Any) -> Callable:
    return function
