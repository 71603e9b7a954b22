"""Operations of JAX that the array API standard lacks. Imported only with JAX."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

INF = float("inf")
# The entries that a search among sorted ones compares with at once.
PIVOTS = 16
# The values of a group, and how many times as many values as in k groups there must be, for a top-k of groups first.
GROUP, WORTH_GROUPING = 32, 2


def with_gradients_of(exact: Callable[..., Any], compute: Callable[..., Any]) -> Callable[..., Any]:
    """`compute`, a faster way to the results of `exact`, with the gradients of `exact`."""
    function = jax.custom_jvp(compute)

    @function.defjvp
    def _(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Any, Any]:
        return function(*primals), jax.jvp(exact, primals, tangents)[1]

    return function


def shortcut(quick: Callable[..., tuple[Any, Array]], exact: Callable[..., Any], *arrays: Array) -> Any:
    """`Ops.shortcut`. Only on a CPU: elsewhere a condition costs more than it saves."""

    def on_cpu(*arrays: Array) -> Any:
        found, right = quick(*arrays)

        def corrected() -> Any:
            return jax.tree.map(partial(jnp.where, right), found, exact(*arrays))

        return lax.cond(jnp.all(right), lambda: found, corrected)

    def compute(*arrays: Array) -> Any:
        return lax.platform_dependent(*arrays, cpu=on_cpu, default=exact)

    return with_gradients_of(exact, compute)(*arrays)


def best_of(x: Array, places: Array, k: int) -> tuple[Array, Array]:
    """`Ops.best_of`."""
    if x.shape[1] == 1:
        return _best_of(x, places, k)
    return shortcut(partial(_best_if_distinct, k=k), partial(_best_of, k=k), x, places)


def _best_if_distinct(x: Array, _: Array, k: int) -> tuple[tuple[Array, Array], Array]:
    """The same without regard to places, and for each request whether no two of the first k + 1 values are equal."""
    batch, rows, n = x.shape
    found = _top_k(jnp.reshape(x, (batch, rows * n)), min(k + 1, rows * n))
    # If XLA could merge these slices with that of its top-k, it would sort all values. A barrier for both crashes XLA
    # if it divides the requests among devices.
    values, positions = map(lax.optimization_barrier, found)
    distinct = (values[:, :-1] > values[:, 1:]) | (values[:, 1:] == -INF)
    return (values[:, :k], positions[:, :k]), jnp.all(distinct, axis=1, keepdims=True)


def _top_k(x: Array, k: int) -> tuple[Array, Array]:
    """`lax.top_k` of [B, n], but of equal values it takes any. The k best are in the k groups with the best maxima."""
    batch, n = x.shape
    if n % GROUP or n < WORTH_GROUPING * k * GROUP:
        return lax.top_k(x, k)
    grouped = jnp.reshape(x, (batch, n // GROUP, GROUP))
    _, groups = _top_k(jnp.max(grouped, axis=-1), k)
    candidates = take_along(grouped, groups[..., None], 1)
    values, positions = lax.top_k(jnp.reshape(candidates, (batch, k * GROUP)), k)
    return values, take_along(groups, positions // GROUP, -1) * GROUP + positions % GROUP


def _best_of(x: Array, places: Array, k: int) -> tuple[Array, Array]:
    """The same in any case. Positions are int32, also where JAX has 64-bit integers, as those of `lax.top_k` are."""
    batch, rows, n = x.shape
    # lax.top_k puts 0.0 before -0.0.
    x = jnp.where(x == 0, 0.0, x)
    if rows == 1:
        values, positions = lax.top_k(jnp.reshape(x, (batch, n)), k)
        return values, positions
    # lax.top_k is stable, so it gets the rows in the order of their places.
    order = jnp.argsort(places[..., 0], axis=-1).astype(jnp.int32)
    ordered = take_along(x, order[..., None], 1)
    values, positions = lax.top_k(jnp.reshape(ordered, (batch, rows * n)), k)
    return values, take_along(order, positions // n, -1) * n + positions % n


def strike(flags: Array, positions: Array) -> Array:
    """`Ops.strike`."""
    rows = jnp.arange(flags.shape[0])[:, None]
    return flags.at[rows, positions].set(False)


def rank_rows(ascending: Array, values: Array) -> Array:
    """`Ops.rank_rows`."""
    return jax.vmap(jnp.searchsorted)(ascending, values)


def rank(ascending: Array, values: Array) -> Array:
    """`Ops.rank`. On a CPU, XLA takes longer for a round of a search than for PIVOTS comparisons."""
    size = ascending.shape[0]
    pivot = jnp.arange(1, PIVOTS + 1, dtype=jnp.int32).reshape((1,) * values.ndim + (PIVOTS,))
    found, left = values * 0, size
    while left:
        # The answer is one of the numbers from `found` to `found` + `left`.
        block = -(-(left + 1) // (PIVOTS + 1))
        positions = found[..., None] + (pivot * block - 1)
        below = (positions < size) & (take(ascending, positions) < values[..., None])
        found, left = found + block * jnp.sum(below, axis=-1, dtype=jnp.int32), block - 1
    return found


def take(x: Array, positions: Array) -> Array:
    """`Ops.take`. Other modes of JAX cost a comparison for each position."""
    return jnp.take(x, positions, axis=0, mode="clip")


def take_along(x: Array, positions: Array, axis: int) -> Array:
    """`Ops.gather`."""
    return jnp.take_along_axis(x, positions, axis=axis, mode="clip")
