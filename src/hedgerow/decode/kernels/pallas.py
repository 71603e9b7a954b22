"""The step with Pallas kernels, for TPUs.

The kernels do what reads the logits, in one pass: their bounds, the normalizers, and the scores of the candidates, or
on a dense level the largest score in every LANES codes. XLA does the rest. Mosaic, the compiler of Pallas for TPUs,
gathers only within a register. So XLA gathers the codes of children, the row pointers, the words of bitmaps and of
sets from the memory of the device, and ranks candidates: on a dense level those of the M best groups of LANES codes.

At the paper's size (2 x 70 rows of 2,048 float32 logits, 1.1 MB), a step reads 1.1 MB of logits once. The array step
reads them twice for the normalizer and, on a dense level, a third time, and writes as many scores.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl

from hedgerow.decode.beams import Beams
from hedgerow.decode.device import DeviceLevel
from hedgerow.decode.kernels.array import (
    INF,
    LARGEST,
    StepInput,
    array_step,
    bounded,
    completed,
    gather_step,
    scan_step,
)
from hedgerow.decode.kernels.pallas_kernels import LANES, WORD_BITS, gather_kernel, scan_kernel

# Run the kernels in the interpreter of Pallas, which needs no TPU.
INTERPRET = False
# Registers have 8 rows of float32 and 16 of bfloat16; more rows are less overlap of copying and computing.
MIN_ROWS, MAX_ROWS = 16, 32
# The logits in a block: 4 MB of float32, of which VMEM holds two.
BLOCK = 2**20
MAX_CODES = BLOCK // MIN_ROWS
# A gather takes a step for each pair of LANES candidates and LANES codes.
MAX_GATHERS = 2**12


def pallas_step(inputs: StepInput) -> Beams:
    """Compute a step on JAX arrays on a TPU."""
    if inputs.level.allowed is None:
        return gather_step(inputs, _gathered_scores)
    return scan_step(inputs, _best_scanned)


def pallas_or_array_step(inputs: StepInput) -> Beams:
    """`pallas_step` where XLA compiles for a TPU, and otherwise `array_step`."""
    arrays = inputs.level, inputs.beams, inputs.logits, inputs.constraints

    def with_step(step: Any) -> Any:
        def compute(level: Any, beams: Any, logits: Any, constraints: Any) -> Beams:
            return step(inputs._replace(level=level, beams=beams, logits=logits, constraints=constraints))

        return compute

    return lax.platform_dependent(*arrays, tpu=with_step(pallas_step), default=with_step(array_step))


def obstacle_of(level: DeviceLevel, logits: Array) -> str | None:
    """Why the kernels cannot take these logits, or None."""
    size, branch = logits.shape[-1], level.max_branch
    if size > MAX_CODES:
        return f"the level has {size} codes, and these kernels take at most {MAX_CODES}"
    gathers = pl.cdiv(size, LANES) * pl.cdiv(branch, LANES)
    if level.allowed is None and gathers > MAX_GATHERS:
        return f"nodes of the level have up to {branch} children of {size} codes; these kernels take fewer"
    return None


def _gathered_scores(inputs: StepInput, columns: Array, valid: Array) -> Array:
    """Scores [B, m, K] of the candidates by these codes; -inf for those that are not valid."""
    width, span = columns.shape[1:]
    codes = _padded(jnp.where(valid, columns, -1), -1)
    kernel = partial(gather_kernel, normalize=inputs.normalize, largest=LARGEST)
    (scores,) = _run(kernel, inputs, codes, [codes.shape[-1]])
    return scores[:, :width, :span]


def _best_scanned(inputs: StepInput, valid: Array, first: Array) -> tuple[Array, Array, Array]:
    """What `best` returns of the scores of all codes: from the best groups of LANES codes, which hold the best codes."""
    ops, beams = inputs.ops, inputs.beams
    _, width, size = valid.shape
    groups = pl.cdiv(size, LANES)
    words = _packed(valid)
    kernel = partial(scan_kernel, normalize=inputs.normalize, largest=LARGEST)
    maxima, shifts, log_sums = _run(kernel, inputs, words, [pl.cdiv(groups, LANES) * LANES, 1, 1])
    places = first[..., None] + ops.arange(groups, maxima, ndim=3) * LANES
    count = min(inputs.beam_width, width * size)
    _, best = ops.best_of(maxima[:, :width, :groups], places, min(count, width * groups))
    rows, groups_of = best // groups, best % groups
    logits = bounded(ops, _groups_at(_padded(inputs.logits, -INF), rows, groups_of))
    bits = _groups_at(words, rows, groups_of // WORD_BITS) >> (groups_of % WORD_BITS)[..., None]

    def of_rows(values: Array) -> Array:
        return ops.take_along(values, rows)[..., None]

    log_probs = logits - of_rows(shifts[..., 0]) - of_rows(log_sums[..., 0])
    scores = jnp.where((bits & 1) != 0, of_rows(beams.scores) + log_probs, -INF)
    places = ops.take_along(jnp.reshape(places, (places.shape[0], width * groups)), best)
    top, positions = ops.best_of(scores, places[..., None] + ops.arange(LANES, scores, ndim=3), count)
    chosen = positions // LANES
    codes = ops.take_along(groups_of, chosen) * LANES + positions % LANES
    return completed(ops, top, ops.take_along(rows, chosen) * size + codes, inputs.beam_width)


def _run(kernel: Any, inputs: StepInput, candidates: Array, widths: list[int]) -> list[Array]:
    """Run a kernel over blocks of rows. Its results are float32 [B, m or more, width] for each of `widths`."""
    logits = inputs.logits
    if logits.dtype not in (jnp.float32, jnp.bfloat16):
        logits = bounded(inputs.ops, logits)
    arrays = [_padded(logits, -INF), candidates, inputs.beams.scores[..., None]]
    batch, width, size = arrays[0].shape
    # A register has at least 8 rows.
    missing = max(MIN_ROWS - width, 0)
    arrays = [jnp.pad(array, ((0, 0), (0, missing), (0, 0))) for array in arrays]
    rows = min(MAX_ROWS, BLOCK // size // MIN_ROWS * MIN_ROWS, width + missing)

    def block(columns: int) -> pl.BlockSpec:
        return pl.BlockSpec((None, rows, columns), lambda request, row: (request, row, 0))

    shapes = [jax.ShapeDtypeStruct((batch, width + missing, columns), jnp.float32) for columns in widths]
    run = pl.pallas_call(
        kernel,
        out_shape=shapes,
        grid=(batch, pl.cdiv(width + missing, rows)),
        in_specs=[block(array.shape[-1]) for array in arrays],
        out_specs=[block(columns) for columns in widths],
        interpret=INTERPRET,
    )
    return run(*arrays)


def _padded(x: Array, value: float) -> Array:
    """The array [B, m, n] with n rounded up to a multiple of LANES."""
    return jnp.pad(x, ((0, 0), (0, 0), (0, -x.shape[-1] % LANES)), constant_values=value)


def _packed(valid: Array) -> Array:
    """Words [B, m, W] of flags [B, m, C], in the order of `scan_kernel`."""
    batch, width, size = valid.shape
    flags = jnp.pad(valid, ((0, 0), (0, 0), (0, -size % (WORD_BITS * LANES))))
    flags = jnp.reshape(flags, (batch, width, -1, WORD_BITS, LANES)).astype(jnp.int32)
    bit = jnp.reshape(jnp.arange(WORD_BITS, dtype=jnp.int32), (1, 1, 1, WORD_BITS, 1))
    return jnp.reshape(jnp.sum(flags << bit, axis=3, dtype=jnp.int32), (batch, width, -1))


def _groups_at(x: Array, rows: Array, groups: Array) -> Array:
    """Of each matrix of x [B, m, n], the LANES columns of a group [B, k] in a row [B, k]: [B, k, LANES]."""

    def of_request(matrix: Array, rows: Array, groups: Array) -> Array:
        return jax.vmap(lambda row, group: lax.dynamic_slice(matrix, (row, group * LANES), (1, LANES))[0])(rows, groups)

    return jax.vmap(of_request)(x, rows, groups)
