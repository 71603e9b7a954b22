"""What the array API standard lacks, for each backend: top-k, popcount, gathers with the right index type."""

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
# Below this many candidates one flat top-k is the faster; measured with NumPy, PyTorch and XLA on a CPU.
TWO_STAGE_FROM = 2**16
CHUNK = 64


@dataclass(frozen=True)
class Ops:
    """One backend: its array namespace, and the operations that differ between backends.

    Attributes:
        name: "numpy", "torch" or "jax".
        xp: the array API namespace.
        index_dtype: the integer type that the backend indexes with.
        flat_top_k: (x [B, n], k) -> values [B, k], positions [B, k], values descending.
        popcount: int32 words -> the number of bits set in each.
        array_type: the class of the backend's arrays.
        is_float: whether a dtype of the backend is a floating point type.
        rank_rows: (ascending [B, n], values [B, k]) -> [B, k], how many entries of its row are below each value.
        strike: (flags [B, n], positions [B, k]) -> the flags, False at the positions.
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
        """Pickles as the backend's name: a module cannot be."""
        return ops_of, (self.name,)

    def device_of(self, x: Array) -> Any:
        """Returns where to make an array that meets `x`; JAX and NumPy find out by themselves."""
        return x.device if self.name == "torch" else None

    def take(self, x: Array, positions: Array) -> Array:
        """Returns x[positions], where `x` is [n] or [n, w] and `positions` has any shape."""
        flat = self.xp.reshape(self.xp.astype(positions, self.index_dtype), (-1,))
        return self.xp.reshape(self.xp.take(x, flat, axis=0), (*positions.shape, *x.shape[1:]))

    def take_along(self, x: Array, positions: Array) -> Array:
        """Returns, for each row of the last axis of `x` [..., n], the entries at `positions` [..., k]."""
        return self.xp.take_along_axis(x, self.xp.astype(positions, self.index_dtype), axis=-1)

    def rank(self, ascending: Array, values: Array) -> Array:
        """Returns, for each of `values`, how many entries of `ascending` [n] are below it, as int32."""
        return self.xp.astype(self.xp.searchsorted(ascending, values), self.xp.int32)

    def top_k(self, x: Array, k: int) -> tuple[Array, Array]:
        """Returns the k largest of each row of `x` [B, n], descending, and their positions, exactly.

        Long rows go in two stages: the k largest values lie in the k columns whose maxima are largest, where the row
        is laid out as CHUNK rows. So all but k columns are read once, by a maximum, and never sorted.
        """
        batch, n = x.shape
        columns = n // CHUNK
        if n < TWO_STAGE_FROM or n % CHUNK or columns < 2 * k:
            return self.flat_top_k(x, k)
        xp = self.xp
        grid = xp.reshape(x, (batch, CHUNK, columns))
        _, best = self.flat_top_k(xp.max(grid, axis=1), k)
        wanted = xp.broadcast_to(xp.expand_dims(best, axis=1), (batch, CHUNK, k))
        values, at = self.flat_top_k(xp.reshape(self.take_along(grid, wanted), (batch, CHUNK * k)), k)
        return values, at // k * columns + self.take_along(best, at % k)


def ops_of(backend: str) -> Ops:
    """Returns the operations of a backend, importing it now.

    Raises:
        BackendError: the backend is unknown, or not installed.
    """
    makers = {"numpy": _numpy_ops, "torch": _torch_ops, "jax": _jax_ops}
    if backend not in makers:
        raise BackendError(f"there is no backend {backend!r}; there are {', '.join(BACKENDS)}.")
    try:
        return makers[backend]()
    except ModuleNotFoundError as error:
        raise MissingDependencyError.of(f"backend {backend!r}", str(error.name), backend) from error


def to_numpy(array: Array) -> np.ndarray:
    """Returns an array of any backend as NumPy, on the host."""
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
    """Knows bfloat16 too, which NumPy itself does not."""
    return "float" in np.dtype(dtype).name


@cache
def _torch_ops() -> Ops:
    import array_api_compat.torch as xp
    import torch

    def popcount(words: Array) -> Array:
        """Counts bits in halves, quarters and bytes: PyTorch has no such operation."""
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
