"""The step over the array API standard. It defines the result that every kernel must give.

It scores every allowed child of every live beam and keeps the best of them (STATIC, section 4, without its pruning of
candidates before the mask). Shapes depend on B, m, M and the level, never on the data, and the host reads nothing back,
so it can be traced by torch.compile, torch.export, CUDA graphs and jax.jit.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from hedgerow.decode.beams import DEAD, Beams
from hedgerow.decode.device import DeviceLevel
from hedgerow.decode.kernels.masking import alive_nodes, allowed_words, not_excluded
from hedgerow.decode.ops import Array, Ops
from hedgerow.decode.prepared import LevelConstraints
from hedgerow.index.level import WORD_BITS

Normalize = Literal["codes", "allowed"] | None
# Finite logits are clipped to +-LARGEST: the sum of 255 of them, the most levels there are, does not overflow float32.
LARGEST = 1e30
INF = float("inf")


class StepInput(NamedTuple):
    """The checked arguments of a step, which every kernel takes.

    Attributes:
        ops: the operations of the backend.
        level: the level that the step decides.
        beams: B requests of m beams.
        logits: [B, m, C], of any floating-point dtype.
        beam_width: M.
        normalize: as for `step`.
        constraints: the sets and exclusions of the batch at this level, or None.
    """

    ops: Ops
    level: DeviceLevel
    beams: Beams
    logits: Array
    beam_width: int
    normalize: Normalize
    constraints: LevelConstraints | None


def array_step(inputs: StepInput) -> Beams:
    """Compute a step: gather the children of the beams, or on a dense level scan the bitmap."""
    inputs = inputs._replace(logits=bounded(inputs.ops, inputs.logits))
    return _gather_step(inputs) if inputs.level.allowed is None else _scan_step(inputs)


def _gather_step(inputs: StepInput) -> Beams:
    """Gather the children of every beam and their logits: K candidates per beam."""
    ops, level, beams, logits = inputs.ops, inputs.level, inputs.beams, inputs.logits
    xp = ops.xp
    start, count = children(ops, level, beams.states)
    branch = max(level.max_branch, 1)
    child = ops.arange(branch, logits, ndim=3)
    valid = child < xp.expand_dims(count, axis=-1)
    nodes = xp.expand_dims(start, axis=-1) + xp.where(valid, child, 0)
    alive = alive_nodes(ops, inputs.constraints, nodes, valid)
    valid = not_excluded(ops, inputs.constraints, beams.states, alive)
    codes = codes_of(ops, level, nodes)
    scores = _scores(inputs, ops.take_along(logits, codes), valid)
    best, positions, live = _best(ops, scores, start, inputs.beam_width)
    states, codes = ops.take_along(_flat(ops, nodes), positions), ops.take_along(_flat(ops, codes), positions)
    return _continued(ops, beams, best, live, positions // branch, states, codes)


def _scan_step(inputs: StepInput) -> Beams:
    """Scan all C codes of every beam under the bitmap. The time does not depend on the branch factor."""
    ops, level, beams, logits = inputs.ops, inputs.level, inputs.beams, inputs.logits
    xp = ops.xp
    size = level.codebook_size
    words = allowed_words(ops, level, beams.states, inputs.constraints)
    bit = ops.arange(WORD_BITS, logits, ndim=4)
    bits = (xp.expand_dims(words, axis=-1) >> bit) & 1
    shape = (*words.shape[:-1], words.shape[-1] * WORD_BITS)
    valid = (xp.reshape(bits, shape)[..., :size] != 0) & xp.expand_dims(beams.states > DEAD, axis=-1)
    valid = not_excluded(ops, inputs.constraints, beams.states, valid)
    # In the order of SIDs, the codes of a beam come after those of all beams at lower states.
    first = beams.states * 0
    if beams.states.shape[1] > 1:
        first = xp.argsort(xp.argsort(beams.states, axis=-1), axis=-1) * size
    best, positions, live = _best(ops, _scores(inputs, logits, valid), first, inputs.beam_width)
    parents, codes = positions // size, xp.astype(positions % size, xp.int32)
    states = ranked_children(ops, level, ops.take_along(beams.states, parents), codes)
    return _continued(ops, beams, best, live, parents, states, codes)


def _scores(inputs: StepInput, candidates: Array, valid: Array) -> Array:
    """Scores of all candidates, [B, m, K] or [B, m, C] as their logits; -inf for candidates that are not valid."""
    ops, xp = inputs.ops, inputs.ops.xp
    if inputs.normalize == "codes":
        candidates = minus_normalizer(ops, candidates, inputs.logits)
    elif inputs.normalize == "allowed":
        candidates = minus_normalizer(ops, candidates, xp.where(valid, candidates, -INF))
    return xp.where(valid, xp.expand_dims(inputs.beams.scores, axis=-1) + candidates, -INF)


def ranked_children(ops: Ops, level: DeviceLevel, states: Array, codes: Array) -> Array:
    """Child of each state by a code of a dense level: the first child plus the number of allowed codes below the code.

    Args:
        ops: the operations of the backend.
        level: a dense level.
        states: nodes of the level before, in any shape. A dead state counts as node 0.
        codes: int32 in the same shape, an allowed code of each state.
    """
    xp = ops.xp
    states = xp.where(states > DEAD, states, 0)
    words = ops.take(level.allowed, states)
    word = ops.arange(words.shape[-1], words, ndim=words.ndim)
    # The number of bits of each word below the code: 32 for earlier words, 0 for later ones.
    below = ops.clip(xp.expand_dims(codes, axis=-1) - word * WORD_BITS, 0, WORD_BITS)
    # A shift by 32 is not defined, so 32 bits are handled separately.
    low_bits = xp.where(below == WORD_BITS, -1, (1 << (below % WORD_BITS)) - 1)
    rank = xp.sum(xp.astype(ops.popcount(words & low_bits), xp.int32), axis=-1, dtype=xp.int32)
    start, _ = children(ops, level, states)
    return start + rank


def children(ops: Ops, level: DeviceLevel, states: Array) -> tuple[Array, Array]:
    """First child and number of children of each state, int32 in the shape of `states`. A dead state has none."""
    xp = ops.xp
    live = states > DEAD
    parents = xp.where(live, states, 0)
    if level.max_branch == 0:
        return parents * 0, parents * 0
    if level.child_start is not None:
        start = ops.take(level.child_start, parents)
        stop = ops.take(level.child_start, parents + 1)
    elif level.forks is not None:
        start = parents + ops.rank(level.forks, parents)
        stop = parents + 1 + ops.rank(level.forks, parents + 1)
    else:
        start, stop = parents, parents + 1
    return start, xp.where(live, stop - start, 0)


def codes_of(ops: Ops, level: DeviceLevel, nodes: Array) -> Array:
    """Codes of nodes of a level, int32 in the shape of `nodes`."""
    codes = ops.xp.astype(ops.take(level.codes, nodes), ops.xp.int32)
    # PyTorch holds 16-bit codes as signed integers.
    return codes & 0xFFFF if level.codebook_size <= 2**16 else codes


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


def minus_normalizer(ops: Ops, logits: Array, over: Array) -> Array:
    """Subtract the log of the sum of exponentials of `over` along the last axis."""
    xp = ops.xp
    top = xp.max(over, axis=-1, keepdims=True)
    top = xp.where(top > -INF, top, 0.0)
    total = xp.sum(xp.exp(over - top), axis=-1, keepdims=True)
    return logits - top - xp.log(xp.where(total > 0, total, 1.0))


def _best(ops: Ops, scores: Array, first: Array, beam_width: int) -> tuple[Array, Array, Array]:
    """The best M candidates of each request: scores, positions among its m * K or m * C, and whether they are live.

    All are [B, M]. The position of a dead beam is 0.

    Args:
        ops: the operations of the backend.
        scores: [B, m, K] or [B, m, C].
        first: [B, m], the place of each beam's first candidate in the order of SIDs; the others follow it.
        beam_width: M.
    """
    xp = ops.xp
    _, width, span = scores.shape
    best, positions = ops.top_k(scores, first, min(beam_width, width * span))
    missing = beam_width - width * span
    if missing > 0:
        best, positions = (_filled(ops, x, missing, value) for x, value in ((best, -INF), (positions, 0)))
    live = best > -INF
    return best, xp.where(live, positions, 0), live


def _filled(ops: Ops, x: Array, count: int, value: float) -> Array:
    """[B, n + count]: x [B, n] and a value."""
    fill = ops.xp.full((len(x), count), value, dtype=x.dtype, device=ops.device_of(x))
    return ops.xp.concat([x, fill], axis=-1)


def _continued(
    ops: Ops, beams: Beams, scores: Array, live: Array, parents: Array, states: Array, codes: Array
) -> Beams:
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
