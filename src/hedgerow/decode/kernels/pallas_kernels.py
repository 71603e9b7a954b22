"""The Pallas kernels of a step, for TPUs. Each program reads the logits of a block of rows once, into VMEM.

A block of logits is [R, C], with C a multiple of LANES; the loops run over its columns, LANES at a time. A row is one
beam of one request, and no row reads another, so rows past the last one may hold anything.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl

LANES = 128
WORD_BITS = 32
# Mosaic divides by a shift without asking which TPU it compiles for.
LANE_SHIFT, WORD_SHIFT = 7, 5
INF = float("inf")
Ref = Any
Chunk = Callable[[Any], Array]


def gather_kernel(
    logits: Ref, codes: Ref, beam_scores: Ref, scores: Ref, *, normalize: str | None, largest: float
) -> None:
    """Scores [R, K] of candidates by their codes [R, K], where -1 is no candidate; K is a multiple of LANES.

    A TPU gathers within LANES columns. So each group of candidates gathers from every group of columns, and keeps what
    came from its own.
    """
    rows, size = logits.shape
    groups = codes.shape[1] // LANES
    shift, log_sum = jnp.zeros((rows, 1), jnp.float32), jnp.zeros((rows, 1), jnp.float32)
    if normalize == "codes":
        shift, log_sum = _log_sum(lambda chunk: _bounded(logits[:, _at(chunk)], largest), rows, size // LANES)

    def gather(group: Any, _: None) -> None:
        wanted = codes[:, _at(group)]

        def from_chunk(chunk: Any, found: Array) -> Array:
            values = logits[:, _at(chunk)].astype(jnp.float32)
            own = jnp.take_along_axis(values, wanted & (LANES - 1), axis=1, mode="promise_in_bounds")
            return jnp.where(wanted >> LANE_SHIFT == chunk, own, found)

        nothing = jnp.full((rows, LANES), -INF, jnp.float32)
        found = lax.fori_loop(0, size // LANES, from_chunk, nothing)
        scores[:, _at(group)] = jnp.where(wanted >= 0, _bounded(found, largest), -INF)

    lax.fori_loop(0, groups, gather, None)
    if normalize == "allowed":
        shift, log_sum = _log_sum(lambda group: scores[:, _at(group)], rows, groups)

    def add(group: Any, _: None) -> None:
        scores[:, _at(group)] = beam_scores[...] + (scores[:, _at(group)] - shift - log_sum)

    lax.fori_loop(0, groups, add, None)


def scan_kernel(
    logits: Ref,
    words: Ref,
    beam_scores: Ref,
    maxima: Ref,
    shifts: Ref,
    log_sums: Ref,
    *,
    normalize: str | None,
    largest: float,
) -> None:
    """The largest score in each LANES columns of a row, as [R, groups of LANES], and the normalizers of the row.

    Bit i % 32 of word [i // 32 * LANES + lane] says whether the code i * LANES + lane is allowed.
    """
    rows, size = logits.shape
    chunks = size // LANES

    def value(chunk: Any) -> Array:
        return _bounded(logits[:, _at(chunk)], largest)

    def allowed(chunk: Any) -> Array:
        bits = words[:, _at(chunk >> WORD_SHIFT)] >> (chunk & (WORD_BITS - 1))
        return jnp.where((bits & 1) != 0, value(chunk), -INF)

    shift, log_sum = jnp.zeros((rows, 1), jnp.float32), jnp.zeros((rows, 1), jnp.float32)
    if normalize is not None:
        shift, log_sum = _log_sum(value if normalize == "codes" else allowed, rows, chunks)
    shifts[...], log_sums[...] = shift, log_sum
    lane = lax.broadcasted_iota(jnp.int32, (rows, LANES), 1)
    for group in range(maxima.shape[1] // LANES):

        def add(chunk: Any, found: Array, first: int = group * LANES) -> Array:
            scores = beam_scores[...] + (allowed(first + chunk) - shift - log_sum)
            return jnp.where(lane == chunk, jnp.max(scores, axis=1, keepdims=True), found)

        nothing = jnp.full((rows, LANES), -INF, jnp.float32)
        found = lax.fori_loop(0, min(LANES, chunks - group * LANES), add, nothing)
        maxima[:, group * LANES : (group + 1) * LANES] = found


def _at(group: Any) -> Any:
    """The columns of a group."""
    start = group * LANES
    return pl.ds(start if isinstance(start, int) else pl.multiple_of(start, LANES), LANES)


def _bounded(values: Array, largest: float) -> Array:
    """What `bounded` of the array step computes."""
    wide = values.astype(jnp.float32)
    return jnp.where(wide > -INF, jnp.clip(wide, -largest, largest), -INF)


def _log_sum(values_of: Chunk, rows: int, chunks: int) -> tuple[Array, Array]:
    """The largest value of each row, and the log of the sum of exponentials after subtracting it, [R, 1]."""
    nothing = jnp.full((rows, LANES), -INF, jnp.float32)
    highest = lax.fori_loop(0, chunks, lambda chunk, top: jnp.maximum(top, values_of(chunk)), nothing)
    highest = jnp.max(highest, axis=1, keepdims=True)
    shift = jnp.where(highest > -INF, highest, 0.0)
    total = lax.fori_loop(
        0, chunks, lambda chunk, total: total + jnp.exp(values_of(chunk) - shift), jnp.zeros((rows, LANES), jnp.float32)
    )
    total = jnp.sum(total, axis=1, keepdims=True)
    return shift, jnp.log(jnp.where(total > 0, total, 1.0))
