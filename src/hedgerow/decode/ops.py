"""Operations per backend that the array API standard lacks: top-k, popcount, gathers with the right index dtype."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from operator import getitem
from types import ModuleType
from typing import Any

import numpy as np

from hedgerow.errors import BackendError, MissingDependencyError

Array = Any
BACKENDS = ("numpy", "torch", "jax")
CHUNK = 64
# From how many values a top-k in blocks is faster than a flat one, and the sizes of the blocks; measured on a CPU.
BLOCKS = ((2**16, CHUNK),)
JAX_BLOCKS = ((2**17, CHUNK), (2**14, 16))


@dataclass(frozen=True)
class Ops:
    """The operations of one backend.

    Attributes:
        name: "numpy", "torch" or "jax".
        xp: the array API namespace.
        index_dtype: the integer dtype that the backend indexes with.
        best_of: (x [B, m, n], places [B, m, n] integers, k) -> values [B, k] in descending order, and their positions
            [B, k] among the m * n. Equal values come in the order of their places, which ascend along a row; the places
            of two rows with values above -inf do not overlap.
        popcount: int32 words -> the number of bits set in each word.
        array_type: the class of the backend's arrays.
        is_float: dtype -> whether it is a floating-point type.
        is_dense: array -> whether its values lie in memory by their strides: not sparse and not nested.
        rank: (ascending [n], values) -> the number of entries below each value, int32.
        rank_rows: (ascending [B, n], values [B, X]) -> [B, X], the number of entries of the row below each value.
        strike: (flags [B, n], positions [B, X]) -> a copy of the flags with False at the positions.
        clip: (x, lowest, highest) -> x clipped. PyTorch cannot trace that of array-api-compat with dynamic shapes.
        gather: (x, positions, axis) -> take_along_axis, for arrays whose shapes differ at most along the axis.
        take: (x [n] or [n, W], positions of any shape) -> x[positions].
        blocks: (least, size) of the blocks of `top_k`, largest first: from `least` values on, blocks of `size`.
        align: the branch factor of a large level is rounded up to a multiple of this, so that its rows have blocks.
        shortcut: (quick, exact, *arrays) -> exact(*arrays). Where that is faster, from `quick(*arrays)`: the same, and
            flags that broadcast against it: what it found there is right. None: there is no faster way.
    """

    name: str
    xp: ModuleType
    index_dtype: Any
    best_of: Callable[[Array, Array, int], tuple[Array, Array]]
    popcount: Callable[[Array], Array]
    array_type: type
    is_float: Callable[[Any], bool]
    is_dense: Callable[[Array], bool]
    rank: Callable[[Array, Array], Array]
    rank_rows: Callable[[Array, Array], Array]
    strike: Callable[[Array, Array], Array]
    clip: Callable[[Array, float, float], Array]
    gather: Callable[[Array, Array, int], Array]
    take: Callable[[Array, Array], Array]
    blocks: tuple[tuple[int, int], ...] = BLOCKS
    align: int = 1
    shortcut: Callable[..., Any] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as the name of the backend, because modules cannot be pickled."""
        return ops_of, (self.name,)

    def device_of(self, x: Array) -> Any:
        """The device for a new array that is combined with `x`. JAX and NumPy choose it themselves: None."""
        return x.device if self.name == "torch" else None

    def arange(self, count: int, like: Array, ndim: int = 1) -> Array:
        """The integers 0 to count - 1 as int32 [1, ..., 1, count] with `ndim` axes, on the device of `like`.

        With the number of axes of the arrays that it is combined with, JAX need not promote its rank.
        """
        integers = self.xp.arange(count, dtype=self.xp.int32, device=self.device_of(like))
        return self.xp.reshape(integers, (1,) * (ndim - 1) + (count,))

    def take_along(self, x: Array, positions: Array) -> Array:
        """Gather from the last axis: of each row of `x` [..., n] the entries at the row of `positions` [..., k]."""
        return self.gather(x, self.xp.astype(positions, self.index_dtype), -1)

    def take_rows(self, x: Array, rows: Array) -> Array:
        """Gather rows: of each matrix of `x` [B, n, W] the rows at `rows` [B, k], as [B, k, W]."""
        batch, n, width = x.shape
        offset = self.xp.expand_dims(self.arange(batch, x), axis=-1) * n
        return self.take(self.xp.reshape(x, (batch * n, width)), rows + offset)

    def top_k(self, x: Array, first: Array, k: int) -> tuple[Array, Array]:
        """Find the k largest values of each matrix, in descending order.

        The result is exact. Many values are divided into blocks of neighbors: the k first values lie in the k blocks
        that are first by their maxima. So a maximum reads each value once, and only k blocks are sorted.

        Args:
            x: [B, m, n].
            first: [B, m] integers, the place of each row's first value; the places of the others follow it. Equal
                values come in the order of their places, which differ for values above -inf.
            k: at most m * n.

        Returns:
            The values [B, k], and their positions [B, k] among the m * n.
        """
        batch, rows, n = x.shape
        first = self.xp.expand_dims(first, axis=-1)
        chunk = self._chunk(rows, n, k)
        if chunk == 1:
            return self.best_of(x, first + self.arange(n, x, ndim=3), k)
        xp, blocks = self.xp, n // chunk
        grid = xp.reshape(x, (batch, rows * blocks, chunk))
        places = first + self.arange(blocks, x, ndim=3) * chunk
        _, best = self.best_of(xp.reshape(xp.max(grid, axis=2), places.shape), places, k)
        first = self.take_along(xp.reshape(places, (batch, rows * blocks)), best)
        places = xp.expand_dims(first, axis=-1) + self.arange(chunk, x, ndim=3)
        values, positions = self.best_of(self.take_rows(grid, best), places, k)
        return values, self.take_along(best, positions // chunk) * chunk + positions % chunk

    def _chunk(self, rows: int, n: int, k: int) -> int:
        """The number of values in a block; 1 if the values are too few for blocks."""
        return next((c for least, c in self.blocks if rows * n >= max(least, 2 * k * c) and n % c == 0), 1)


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

    def best_of(x: Array, places: Array, k: int) -> tuple[Array, Array]:
        x, places = (array.reshape(len(x), -1) for array in (x, places))
        positions = np.empty((len(x), k), np.int64)
        smallest = np.partition(x, -k, axis=-1)[:, -k] if positions.size else ()
        for row, least in enumerate(smallest):
            (reaching,) = np.nonzero(x[row] >= least)
            positions[row] = reaching[np.lexsort((places[row, reaching], -x[row, reaching]))[:k]]
        return np.take_along_axis(x, positions, axis=-1), positions

    def popcount(words: Array) -> Array:
        return np.bitwise_count(words.view(np.uint32))

    def rank(ascending: Array, values: Array) -> Array:
        return np.searchsorted(ascending, values).astype(np.int32)

    def rank_rows(ascending: Array, values: Array) -> Array:
        return np.stack([np.searchsorted(row, wanted) for row, wanted in zip(ascending, values, strict=True)])

    def strike(flags: Array, positions: Array) -> Array:
        struck = flags.copy()
        np.put_along_axis(struck, positions, False, axis=-1)
        return struck

    return Ops(
        name="numpy",
        xp=xp,
        index_dtype=np.int64,
        best_of=best_of,
        popcount=popcount,
        array_type=np.ndarray,
        is_float=_is_float,
        is_dense=_is_always_dense,
        rank=rank,
        rank_rows=rank_rows,
        strike=strike,
        clip=np.clip,
        gather=np.take_along_axis,
        take=partial(np.take, axis=0),
    )


def _is_float(dtype: Any) -> bool:
    """Whether a dtype of NumPy or ml_dtypes is a floating-point type; NumPy does not recognize bfloat16 as one."""
    return "float" in np.dtype(dtype).name


def _is_always_dense(_: Array) -> bool:
    return True


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

    def best_of(x: Array, places: Array, k: int) -> tuple[Array, Array]:
        # torch.topk is not stable, so it gets one distinct integer per entry: the value in the upper half, minus the
        # place. Adding 0.0 makes -0.0 equal to 0.0.
        bits = (x + 0.0).view(torch.int32)
        ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
        keys = (ordered.long() << 32) - places
        positions = torch.topk(keys.flatten(1), k).indices
        return x.flatten(1).gather(1, positions), positions

    def rank(ascending: Array, values: Array) -> Array:
        return torch.searchsorted(ascending, values).to(torch.int32)

    def is_float(dtype: Any) -> bool:
        return dtype.is_floating_point

    def is_dense(x: Array) -> bool:
        return x.layout == torch.strided and not x.is_nested

    def gather(x: Array, positions: Array, axis: int) -> Array:
        # Not take_along_dim, whose broadcasting fixes the batch size of a trace.
        return torch.gather(x, axis, positions)

    def strike(flags: Array, positions: Array) -> Array:
        return flags.scatter(1, positions.long(), False)

    return Ops(
        name="torch",
        xp=xp,
        index_dtype=torch.int64,
        best_of=best_of,
        popcount=popcount,
        array_type=torch.Tensor,
        is_float=is_float,
        is_dense=is_dense,
        rank=rank,
        rank_rows=torch.searchsorted,
        strike=strike,
        clip=torch.clamp,
        gather=gather,
        # A third of the time of take() of array-api-compat.
        take=getitem,
    )


@cache
def _jax_ops() -> Ops:
    import jax
    import jax.numpy as xp

    from hedgerow.decode import jax_ops

    return Ops(
        name="jax",
        xp=xp,
        index_dtype=xp.int32,
        best_of=jax_ops.best_of,
        popcount=jax.lax.population_count,
        array_type=jax.Array,
        is_float=_is_float,
        is_dense=_is_always_dense,
        rank=jax_ops.rank,
        rank_rows=jax_ops.rank_rows,
        strike=jax_ops.strike,
        clip=xp.clip,
        gather=jax_ops.take_along,
        take=jax_ops.take,
        blocks=JAX_BLOCKS,
        align=JAX_BLOCKS[-1][1],
        shortcut=jax_ops.shortcut,
    )
