"""The step over the array API standard. It defines the result that every kernel must give.

It scores every allowed child of every live beam and keeps the best of them (STATIC, section 4, without its pruning of
candidates before the mask). Shapes depend on B, m, M and the level, never on the data, and the host reads nothing back,
so it can be traced by torch.compile, torch.export, CUDA graphs and jax.jit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

from hedgerow.decode.beams import DEAD, Beams
from hedgerow.decode.device import DeviceLevel
from hedgerow.decode.kernels.columns import Columns, Gather, gathered, own_children, own_columns
from hedgerow.decode.kernels.masking import alive_nodes, allowed_words, not_excluded
from hedgerow.decode.kernels.nodes import codes_of, ranked_children
from hedgerow.decode.ops import Array, Ops
from hedgerow.decode.prepared import LevelConstraints
from hedgerow.index.level import WORD_BITS

Normalize = Literal["codes", "allowed"] | None
# Where a sum of exponentials is between these, no float32 in it was too large or too small to be exact.
LEAST_SUM, LARGEST_SUM = 1e-20, 1e30
# How many logits of a row give a number near its largest one.
SAMPLE = 32
# Finite logits are clipped to +-LARGEST: the sum of 255 of them, the most levels there are, does not overflow float32.
LARGEST = 1e30
INF = float("inf")


class StepInput(NamedTuple):
    """The checked arguments of a step, which every kernel takes.

    Attributes:
        ops: the operations of the backend.
        level: the level that the step decides.
        beams: B requests of m beams.
        logits: [B, m, C], of any floating-point dtype; or the columns of this rank.
        beam_width: M.
        normalize: as for `step`.
        constraints: the sets and exclusions of the batch at this level, or None.
        columns: None: all of them. Only the array step takes others.
        log_sums: the normalizers of the rows, as `_log_sums` returns them. Only the array step has them.
    """

    ops: Ops
    level: DeviceLevel
    beams: Beams
    logits: Array
    beam_width: int
    normalize: Normalize
    constraints: LevelConstraints | None
    columns: Columns | None = None
    log_sums: tuple[Array, Array] | None = None


def array_step(inputs: StepInput) -> Beams:
    """Compute a step: gather the children of the beams, or on a dense level scan the bitmap."""
    logits = bounded(inputs.ops, inputs.logits)
    inputs = inputs._replace(logits=logits, log_sums=_log_sums(inputs))
    if inputs.level.allowed is None:
        return gather_step(inputs, _gathered_scores)
    return scan_step(inputs, _best_scanned)


def gather_step(inputs: StepInput, scores_of: Callable[[StepInput, Array, Array], Array]) -> Beams:
    """Gather the children of every beam and their logits: K candidates per beam.

    Args:
        inputs: the step, at a level that is not dense.
        scores_of: (inputs, columns [B, m, K], valid [B, m, K]) -> the scores of the candidates by these columns of the
            logits; -inf for candidates that are not valid.
    """
    ops, level, beams, logits = inputs.ops, inputs.level, inputs.beams, inputs.logits
    xp = ops.xp
    start, count, branch, skipped = own_children(ops, level, beams.states, inputs.columns)
    if branch >= ops.align * ops.align:
        branch = -(-branch // ops.align) * ops.align
    child = ops.arange(branch, logits, ndim=3)
    valid = child < xp.expand_dims(count, axis=-1)
    nodes = xp.expand_dims(start, axis=-1) + xp.where(valid, child, 0)
    alive = alive_nodes(ops, inputs.constraints, nodes, valid)
    valid = not_excluded(ops, inputs.constraints, beams.states, alive, skipped)
    codes = codes_of(ops, level, nodes)
    columns, valid = own_columns(ops, inputs.columns, codes, valid)
    top, positions, live = best(ops, scores_of(inputs, columns, valid), start, inputs.beam_width)
    states, codes = ops.take_along(_flat(ops, nodes), positions), ops.take_along(_flat(ops, codes), positions)
    return continued(ops, beams, top, live, positions // branch, states, codes)


def _gathered_scores(inputs: StepInput, columns: Array, valid: Array) -> Array:
    return _scores(inputs, inputs.ops.take_along(inputs.logits, columns), valid)


def scan_step(
    inputs: StepInput, best_scanned: Callable[[StepInput, Array, Array], tuple[Array, Array, Array]]
) -> Beams:
    """Scan all C codes of every beam under the bitmap. The time does not depend on the branch factor.

    Args:
        inputs: the step, at a dense level.
        best_scanned: (inputs, valid [B, m, C], first [B, m]) -> what `best` returns of the scores of all codes.
    """
    ops, level, beams = inputs.ops, inputs.level, inputs.beams
    xp = ops.xp
    size, skipped = level.codebook_size, None
    if inputs.columns is not None:
        size, skipped = inputs.columns.size, beams.states * 0 + inputs.columns.first
    valid = _scanned(inputs) & xp.expand_dims(beams.states > DEAD, axis=-1)
    valid = not_excluded(ops, inputs.constraints, beams.states, valid, skipped)
    # In the order of SIDs, the codes of a beam come after those of all beams at lower states.
    place = beams.states * 0
    if beams.states.shape[1] > 1:
        place = xp.argsort(xp.argsort(beams.states, axis=-1), axis=-1) * size
    top, positions, live = best_scanned(inputs, valid, place)
    parents, codes = positions // size, xp.astype(positions % size, xp.int32)
    if inputs.columns is not None:
        codes = codes + inputs.columns.first
    states = ranked_children(ops, level, ops.take_along(beams.states, parents), codes)
    return continued(ops, beams, top, live, parents, states, codes)


def _best_scanned(inputs: StepInput, valid: Array, first: Array) -> tuple[Array, Array, Array]:
    return best(inputs.ops, _scores(inputs, inputs.logits, valid), first, inputs.beam_width)


def _scanned(inputs: StepInput) -> Array:
    """Bool [B, m, C], the codes in the bitmap and in the request's set. A dead state has those of node 0."""
    ops, level, logits = inputs.ops, inputs.level, inputs.logits
    xp = ops.xp
    words = allowed_words(ops, level, inputs.beams.states, inputs.constraints)
    if inputs.columns is None:
        bit = ops.arange(WORD_BITS, logits, ndim=4)
        bits = (xp.expand_dims(words, axis=-1) >> bit) & 1
        return xp.reshape(bits, (*words.shape[:-1], words.shape[-1] * WORD_BITS))[..., : level.codebook_size] != 0
    codes = inputs.columns.first + ops.arange(inputs.columns.size, logits)
    # Columns past the last code read its word; their logits are -inf.
    words = xp.take(words, ops.clip(codes // WORD_BITS, 0, words.shape[-1] - 1), axis=-1)
    return ((words >> (codes % WORD_BITS)) & 1) != 0


def _scores(inputs: StepInput, candidates: Array, valid: Array) -> Array:
    """Scores of all candidates, [B, m, K] or [B, m, C] as their logits; -inf for candidates that are not valid."""
    ops, xp = inputs.ops, inputs.ops.xp
    gather = None if inputs.columns is None else inputs.columns.gather
    if inputs.log_sums is not None:
        shift, log_sum = inputs.log_sums
        candidates = candidates - shift - log_sum
    elif inputs.normalize == "codes":
        candidates = minus_normalizer(ops, candidates, inputs.logits, gather)
    elif inputs.normalize == "allowed":
        candidates = minus_normalizer(ops, candidates, xp.where(valid, candidates, -INF), gather)
    return xp.where(valid, xp.expand_dims(inputs.beams.scores, axis=-1) + candidates, -INF)


def bounded(ops: Ops, logits: Array) -> Array:
    """Float32 logits: finite ones clipped to +-LARGEST, +inf as LARGEST, NaN as -inf."""
    return ops.xp.astype(clipped(ops, logits, LARGEST), ops.xp.float32, copy=False)


def clipped(ops: Ops, logits: Array, limit: float) -> Array:
    """Float32 or float64 logits: finite ones clipped to +-limit, +inf as the limit, NaN as -inf."""
    xp = ops.xp
    wide = logits if logits.dtype == xp.float64 else xp.astype(logits, xp.float32, copy=False)
    return xp.where(wide > -INF, ops.clip(wide, -limit, limit), -INF)


def log_softmax(ops: Ops, logits: Array) -> Array:
    """Log-probabilities along the last axis. If all logits are -inf, all log-probabilities are -inf."""
    return minus_normalizer(ops, logits, logits)


def minus_normalizer(ops: Ops, logits: Array, over: Array, gather: Gather | None = None) -> Array:
    """Subtract the log of the sum of exponentials of `over` along the last axis, and over all ranks."""
    top, log_sum = _log_sum(ops, over, gather)
    return logits - top - log_sum


def _log_sum(ops: Ops, over: Array, gather: Gather | None = None) -> tuple[Array, Array]:
    """The largest of `over` along the last axis, and the log of the sum of exponentials after subtracting it."""
    xp = ops.xp
    highest = xp.max(over, axis=-1, keepdims=True)
    top = xp.where(highest > -INF, highest, 0.0)
    total = xp.sum(xp.exp(over - top), axis=-1, keepdims=True)
    if gather is not None:
        of_ranks = gathered(gather, xp.stack([highest, total]))
        highest, total = of_ranks[:, 0], of_ranks[:, 1]
        top = xp.max(highest, axis=0)
        top = xp.where(top > -INF, top, 0.0)
        total = xp.sum(total * xp.exp(highest - top), axis=0)
    return top, xp.log(xp.where(total > 0, total, 1.0))


def _log_sums(inputs: StepInput) -> tuple[Array, Array] | None:
    """The normalizers of the rows of a step, or None where `_scores` computes them.

    A compiler bounds the logits for each of three passes, or writes them down. The quick way is one pass over the
    logits as they are.
    """
    ops, divided = inputs.ops, inputs.columns is not None
    if ops.shortcut is None or inputs.normalize != "codes" or divided:
        return None

    def exact(given: Array) -> tuple[Array, Array]:
        return _log_sum(ops, bounded(ops, given))

    return ops.shortcut(lambda given: _quick_log_sum(ops, given), exact, inputs.logits)


def _quick_log_sum(ops: Ops, logits: Array) -> tuple[tuple[Array, Array], Array]:
    """The same as `_log_sum` of the bounded logits, from a number near the largest one; and whether it is right.

    A row with a logit that bounds would change has a sum that is NaN, infinite or 0.
    """
    xp = ops.xp
    wide = xp.astype(logits, xp.float32, copy=False)
    highest = xp.max(wide[..., :SAMPLE], axis=-1, keepdims=True)
    shift = xp.where(xp.abs(highest) < LARGEST_SUM, highest, 0.0)
    total = xp.sum(xp.exp(wide - shift), axis=-1, keepdims=True)
    return (shift, xp.log(total)), (total > LEAST_SUM) & (total < LARGEST_SUM)


def best(ops: Ops, scores: Array, first: Array, beam_width: int) -> tuple[Array, Array, Array]:
    """The best M candidates of each request: scores, positions among its m * K or m * C, and whether they are live.

    All are [B, M]. The position of a dead beam is 0.

    Args:
        ops: the operations of the backend.
        scores: [B, m, K] or [B, m, C].
        first: [B, m], the place of each beam's first candidate in the order of SIDs; the others follow it.
        beam_width: M.
    """
    _, width, span = scores.shape
    return completed(ops, *ops.top_k(scores, first, min(beam_width, width * span)), beam_width)


def completed(ops: Ops, top: Array, positions: Array, beam_width: int) -> tuple[Array, Array, Array]:
    """The same as `best`, of at most M candidates in order: their scores and positions."""
    xp = ops.xp
    missing = beam_width - top.shape[1]
    if missing > 0:
        top, positions = (_filled(ops, x, missing, value) for x, value in ((top, -INF), (positions, 0)))
    live = top > -INF
    return top, xp.where(live, positions, 0), live


def _filled(ops: Ops, x: Array, count: int, value: float) -> Array:
    """[B, n + count]: x [B, n] and a value."""
    fill = ops.xp.full((x.shape[0], count), value, dtype=x.dtype, device=ops.device_of(x))
    return ops.xp.concat([x, fill], axis=-1)


def continued(ops: Ops, beams: Beams, scores: Array, live: Array, parents: Array, states: Array, codes: Array) -> Beams:
    """The beams [B, M] that continue `beams` from `parents` by `codes`."""
    xp = ops.xp
    batch, width, level = *live.shape, beams.level
    codes = xp.expand_dims(xp.astype(codes, xp.int32), axis=-1)
    # XLA of jaxlib 0.11 crashes on a concatenation with an empty array, so not at level 0.
    if level:
        rows = xp.broadcast_to(xp.expand_dims(parents, axis=-1), (batch, width, level))
        history = ops.gather(beams.codes, xp.astype(rows, ops.index_dtype), 1)
        codes = xp.concat([history, codes], axis=-1)
    return Beams(
        codes=xp.where(xp.expand_dims(live, axis=-1), codes, DEAD),
        scores=scores,
        states=xp.where(live, xp.astype(states, xp.int32), DEAD),
        parents=xp.astype(parents, xp.int32),
    )


def _flat(ops: Ops, x: Array) -> Array:
    return ops.xp.reshape(x, (x.shape[0], x.shape[1] * x.shape[2]))
