"""Operations per backend that the array API standard lacks: top-k, popcount, gathers with the right index dtype."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np

from hedgerow.errors import BackendError, MissingDependencyError

Array = Any
BACKENDS = ("numpy", "torch", "jax")
# For shorter rows one flat top-k is faster; measured with NumPy, PyTorch and XLA on a CPU.
TWO_STAGE_FROM = 2**16
CHUNK = 64


@dataclass(frozen=True)
class Ops:
    """The operations of one backend.

    Attributes:
        name: "numpy", "torch" or "jax".
        xp: the array API namespace.
        index_dtype: the integer dtype that the backend indexes with.
        flat_top_k: (x [B, n], k) -> values [B, k] in descending order, and their positions [B, k].
        popcount: int32 words -> the number of bits set in each word.
        array_type: the class of the backend's arrays.
        is_float: dtype -> whether it is a floating-point type.
        rank_rows: (ascending [B, n], values [B, X]) -> [B, X], the number of entries of the row below each value.
        strike: (flags [B, n], positions [B, X]) -> a copy of the flags with False at the positions.
    """

    name: str
    xp: ModuleType
    index_dtype: Any
    flat_top_k: Callable[[Array, int], tuple[Array, Array]]
    popcount: Callable[[Array], Array]
    array_type: type
    is_float: Callable[[Any], bool]
    rank_rows: Callable[[Array, Array], Array]
    strike: Callable[[Array, Array], Array]

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as the name of the backend, because modules cannot be pickled."""
        return ops_of, (self.name,)

    def device_of(self, x: Array) -> Any:
        """The device for a new array that is combined with `x`. JAX and NumPy choose it themselves: None."""
        return x.device if self.name == "torch" else None

    def take(self, x: Array, positions: Array) -> Array:
        """Gather x[positions], where `x` is [n] or [n, W] and `positions` has any shape."""
        flat = self.xp.reshape(self.xp.astype(positions, self.index_dtype), (-1,))
        return self.xp.reshape(self.xp.take(x, flat, axis=0), (*positions.shape, *x.shape[1:]))

    def take_along(self, x: Array, positions: Array) -> Array:
        """Gather from the last axis: of each row of `x` [..., n] the entries at the row of `positions` [..., k]."""
        return self.xp.take_along_axis(x, self.xp.astype(positions, self.index_dtype), axis=-1)

    def rank(self, ascending: Array, values: Array) -> Array:
        """Number of entries of `ascending` [n] below each of `values`, int32."""
        return self.xp.astype(self.xp.searchsorted(ascending, values), self.xp.int32)

    def top_k(self, x: Array, k: int) -> tuple[Array, Array]:
        """Find the k largest values [B, k] of each row of `x` [B, n], in descending order, and their positions.

        The result is exact. A long row is laid out as a grid of CHUNK rows: its k largest values lie in the k columns
        with the largest maxima. So a maximum reads each value once, and only k columns are sorted.
        """
        batch, n = x.shape
        columns = n // CHUNK
        if n < TWO_STAGE_FROM or n % CHUNK or columns < 2 * k:
            return self.flat_top_k(x, k)
        xp = self.xp
        grid = xp.reshape(x, (batch, CHUNK, columns))
        _, best = self.flat_top_k(xp.max(grid, axis=1), k)
        best_columns = xp.broadcast_to(xp.expand_dims(best, axis=1), (batch, CHUNK, k))
        values, positions = self.flat_top_k(xp.reshape(self.take_along(grid, best_columns), (batch, CHUNK * k)), k)
        return values, positions // k * columns + self.take_along(best, positions % k)


def ops_of(backend: str) -> Ops:
    """Import a backend and make its operations.

    Raises:
        BackendError: there is no such backend.
        MissingDependencyError: the backend is not installed.
    """
    makers = {"numpy": _numpy_ops, "torch": _torch_ops, "jax": _jax_ops}
    if backend not in makers:
        raise BackendError(f"backend must be one of {', '.join(map(repr, BACKENDS))}; got {backend!r}.")
    try:
        return makers[backend]()
    except ModuleNotFoundError as error:
        raise MissingDependencyError.of(f"backend {backend!r}", str(error.name), backend) from error


def to_numpy(array: Array) -> np.ndarray:
    """Copy an array of any backend to NumPy, on the host. A NumPy array or a tensor on the CPU shares its memory."""
    return array.detach().cpu().numpy() if hasattr(array, "detach") else np.asarray(array)


@cache
def _numpy_ops() -> Ops:
    import array_api_compat.numpy as xp

    def top_k(x: Array, k: int) -> tuple[Array, Array]:
        part = np.argpartition(x, -k, axis=-1)[:, -k:] if k < x.shape[1] else np.broadcast_to(np.arange(k), x.shape)
        values = np.take_along_axis(x, part, axis=-1)
        best_first = np.argsort(-values, axis=-1, kind="stable")
        return np.take_along_axis(values, best_first, axis=-1), np.take_along_axis(part, best_first, axis=-1)

    def popcount(words: Array) -> Array:
        return np.bitwise_count(words.view(np.uint32))

    def rank_rows(ascending: Array, values: Array) -> Array:
        return np.stack([np.searchsorted(row, wanted) for row, wanted in zip(ascending, values, strict=True)])

    def strike(flags: Array, positions: Array) -> Array:
        struck = flags.copy()
        np.put_along_axis(struck, positions, False, axis=-1)
        return struck

    return Ops("numpy", xp, np.int64, top_k, popcount, np.ndarray, _is_float, rank_rows, strike)


def _is_float(dtype: Any) -> bool:
    """Whether a dtype of NumPy or ml_dtypes is a floating-point type; NumPy does not recognize bfloat16 as one."""
    return "float" in np.dtype(dtype).name


@cache
def _torch_ops() -> Ops:
    import array_api_compat.torch as xp
    import torch

    def popcount(words: Array) -> Array:
        """Count bits in pairs, then in nibbles, then in bytes: PyTorch has no popcount."""
        words = words - ((words >> 1) & 0x55555555)
        words = (words & 0x33333333) + ((words >> 2) & 0x33333333)
        words = (words + (words >> 4)) & 0x0F0F0F0F
        return (words * 0x01010101) >> 24

    def top_k(x: Array, k: int) -> tuple[Array, Array]:
        values, positions = torch.topk(x, k)
        return values, positions

    def is_float(dtype: Any) -> bool:
        return dtype.is_floating_point

    def strike(flags: Array, positions: Array) -> Array:
        return flags.scatter(1, positions.long(), False)

    return Ops("torch", xp, torch.int64, top_k, popcount, torch.Tensor, is_float, torch.searchsorted, strike)


@cache
def _jax_ops() -> Ops:
    import jax
    import jax.numpy as xp

    def top_k(x: Array, k: int) -> tuple[Array, Array]:
        values, positions = jax.lax.top_k(x, k)
        return values, positions

    def strike(flags: Array, positions: Array) -> Array:
        rows = xp.arange(flags.shape[0])[:, None]
        return flags.at[rows, positions].set(False)

    rank_rows = jax.vmap(xp.searchsorted)
    return Ops("jax", xp, xp.int32, top_k, jax.lax.population_count, jax.Array, _is_float, rank_rows, strike)
