"""The step with Pallas kernels, for TPUs.

The kernels do what reads the logits, in one pass: their bounds, the normalizers, and the scores of the candidates, or
on a dense level the largest score in every LANES codes. XLA does the rest. Mosaic, the compiler of Pallas for TPUs,
gathers only within a register. So XLA gathers the codes of children, the row pointers, the words of bitmaps and of
sets from the memory of the device, and ranks candidates: on a dense level those of the M best groups of LANES codes.

At the paper's size (2 x 70 rows of 2,048 float32 logits, 1.1 MB), a step reads 1.1 MB of logits once. The array step
reads them twice for the normalizer and, on a dense level, a third time, and writes as many scores.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.core import ShapedArray
from jax.custom_batching import sequential_vmap
from jax.experimental import pallas as pl
from jax.extend.core import Primitive
from jax.interpreters import mlir

from hedgerow.decode.beams import Beams
from hedgerow.decode.device import DeviceLevel
from hedgerow.decode.jax_ops import with_gradients_of
from hedgerow.decode.kernels.array import (
    INF,
    LARGEST,
    Normalize,
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


class Blocks(NamedTuple):
    """How a kernel runs: over blocks of `rows` rows of each request; its results are float32 [B, m, width]."""

    kernel: Any
    normalize: Normalize
    rows: int
    widths: tuple[int, ...]


Call = Callable[..., Any]


def pallas_step(inputs: StepInput, call: Call | None = None) -> Beams:
    """Compute a step on JAX arrays on a TPU. `call` runs a kernel; `_call` by default."""
    call = _call if call is None else call
    if inputs.level.allowed is None:
        return gather_step(inputs, partial(_gathered_scores, call=call))
    _, width, size = inputs.logits.shape
    if width * pl.cdiv(size, LANES) < inputs.beam_width:
        # All groups of codes would be among the best, as at the root.
        return array_step(inputs)
    return scan_step(inputs, partial(_best_scanned, call=call))


def pallas_or_array_step(inputs: StepInput) -> Beams:
    """`pallas_step` where XLA compiles for a TPU, and otherwise `array_step`, whose gradients it has."""

    def with_step(step: Call) -> Call:
        def compute(level: Any, beams: Any, logits: Any, constraints: Any) -> Beams:
            return step(inputs._replace(level=level, beams=beams, logits=logits, constraints=constraints))

        return compute

    array = with_step(array_step)
    on_tpu = with_step(partial(pallas_step, call=_portable_call))
    either = with_gradients_of(array, lambda *arrays: lax.platform_dependent(*arrays, tpu=on_tpu, default=array))
    return either(inputs.level, inputs.beams, inputs.logits, inputs.constraints)


def obstacle_of(level: DeviceLevel, logits: Array) -> str | None:
    """Why the kernels cannot take these logits, or None."""
    size, branch = logits.shape[-1], level.max_branch
    if size > MAX_CODES:
        return f"the level has {size} codes, and these kernels take at most {MAX_CODES}"
    gathers = pl.cdiv(size, LANES) * pl.cdiv(branch, LANES)
    if level.allowed is None and gathers > MAX_GATHERS:
        return f"nodes of the level have up to {branch} children of {size} codes; these kernels take fewer"
    return None


def _gathered_scores(inputs: StepInput, columns: Array, valid: Array, call: Call) -> Array:
    """Scores [B, m, K] of the candidates by these codes; -inf for those that are not valid."""
    width, span = columns.shape[1:]
    codes = _padded(jnp.where(valid, columns, -1), -1)
    (scores,) = _run(call, gather_kernel, inputs, codes, (codes.shape[-1],))
    return scores[:, :width, :span]


def _best_scanned(inputs: StepInput, valid: Array, first: Array, call: Call) -> tuple[Array, Array, Array]:
    """What `best` returns of the scores of all codes: the best codes lie in the best groups of LANES codes."""
    ops, beams = inputs.ops, inputs.beams
    _, width, size = valid.shape
    groups = pl.cdiv(size, LANES)
    words = _packed(valid)
    widths = pl.cdiv(groups, LANES) * LANES, 1, 1
    maxima, shifts, log_sums = _run(call, scan_kernel, inputs, words, widths)
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


def _run(call: Call, kernel: Any, inputs: StepInput, candidates: Array, widths: tuple[int, ...]) -> Any:
    """Run a kernel. Its results are float32 [B, m or more, width] for each of `widths`."""
    logits = inputs.logits
    if logits.dtype not in (jnp.float32, jnp.bfloat16):
        logits = bounded(inputs.ops, logits)
    arrays = [_padded(logits, -INF), candidates, inputs.beams.scores[..., None]]
    _, width, size = arrays[0].shape
    # A register has at least 8 rows.
    missing = max(MIN_ROWS - width, 0)
    arrays = [jnp.pad(array, ((0, 0), (0, missing), (0, 0))) for array in arrays]
    rows = min(MAX_ROWS, BLOCK // size // MIN_ROWS * MIN_ROWS, width + missing)
    return call(*arrays, blocks=Blocks(kernel, inputs.normalize, rows, widths))


def _call(*arrays: Array, blocks: Blocks, interpret: bool | None = None) -> Any:
    """Run a kernel on arrays [B, m, n]."""
    batch, width, _ = arrays[0].shape

    def block(columns: int) -> pl.BlockSpec:
        return pl.BlockSpec((None, blocks.rows, columns), lambda request, row: (request, row, 0))

    run = pl.pallas_call(
        partial(blocks.kernel, normalize=blocks.normalize, largest=LARGEST),
        out_shape=[jax.ShapeDtypeStruct((batch, width, columns), jnp.float32) for columns in blocks.widths],
        grid=(batch, pl.cdiv(width, blocks.rows)),
        in_specs=[block(array.shape[-1]) for array in arrays],
        out_specs=[block(columns) for columns in blocks.widths],
        interpret=INTERPRET if interpret is None else interpret,
    )
    return run(*arrays)


# A program for several platforms contains each branch of `platform_dependent` for all of them, and Pallas refuses to
# compile for a CPU. So this is the kernel on a TPU, and elsewhere its interpreter, which then never runs.
_portable = Primitive("hedgerow_pallas")
_portable.multiple_results = True
mlir.register_lowering(_portable, mlir.lower_fun(partial(_call, interpret=True), multiple_results=True))
mlir.register_lowering(_portable, mlir.lower_fun(partial(_call, interpret=False), multiple_results=True), "tpu")


@_portable.def_abstract_eval
def _(logits: Any, *_: Any, blocks: Blocks) -> list[Any]:
    return [ShapedArray((*logits.shape[:2], columns), jnp.float32) for columns in blocks.widths]


@partial(jax.jit, static_argnames="blocks")
def _portable_call(*arrays: Array, blocks: Blocks) -> Any:
    return sequential_vmap(partial(_portable.bind, blocks=blocks))(*arrays)


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
