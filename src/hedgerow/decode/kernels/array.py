"""The step over the array API standard: the definition, which every kernel must equal.

It scores every allowed child of every live beam and keeps the best of all of them (STATIC, section 4, without its cut
of each beam's candidates before the mask). Shapes depend on B, m, M and the level alone, never on the data, and nothing
is read back to the host, so it traces under torch.compile, torch.export, CUDA graphs and jax.jit.
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
# Finite logits are clipped to +-LARGEST, so that no sum of 255 of them overflows float32 and no live beam is lost.
LARGEST = 1e30
INF = float("inf")


class StepInput(NamedTuple):
    """The checked arguments of a step, which every kernel takes.

    Attributes:
        ops: the operations of the backend.
        level: the level that the step decides.
        beams: B requests of m beams.
        logits: [B, m, C].
        beam_width: M.
        normalize: as for `step`.
        constraints: the batch's sets and exclusions at this level; None if there are none.
    """

    ops: Ops
    level: DeviceLevel
    beams: Beams
    logits: Array
    beam_width: int
    normalize: Normalize
    constraints: LevelConstraints | None


def array_step(given: StepInput) -> Beams:
    """The step, by gathering children, or on dense levels by scanning the bitmap."""
    given = given._replace(logits=bounded(given.ops, given.logits))
    return _gather_step(given) if given.level.allowed is None else _scan_step(given)


def _gather_step(given: StepInput) -> Beams:
    """Gathers the children of every beam, and their logits: K candidates per beam, K the largest branch factor."""
    ops, level, beams, logits = given.ops, given.level, given.beams, given.logits
    xp = ops.xp
    first, count = children(ops, level, beams.states)
    branch = max(level.max_branch, 1)
    child = xp.arange(branch, dtype=xp.int32, device=ops.device_of(logits))
    valid = child < xp.expand_dims(count, axis=-1)
    nodes = xp.expand_dims(first, axis=-1) + xp.where(valid, child, 0)
    alive = alive_nodes(ops, given.constraints, nodes, valid)
    valid = not_excluded(ops, given.constraints, beams.states, alive)
    codes = codes_of(ops, level, nodes)
    scores = _scores(given, ops.take_along(logits, codes), valid)
    best, places, live = _best(ops, scores, given.beam_width)
    states = ops.take_along(_flat(ops, nodes), places)
    codes = ops.take_along(_flat(ops, codes), places)
    return _continued(ops, beams, best, live, places // branch, states, codes)


def _scan_step(given: StepInput) -> Beams:
    """Scans every code of every beam under the bitmap: nothing is gathered, and a large branch factor costs nothing."""
    ops, level, beams, logits = given.ops, given.level, given.beams, given.logits
    xp = ops.xp
    size = level.codebook_size
    words = allowed_words(ops, level, beams.states, given.constraints)
    bit = xp.arange(WORD_BITS, dtype=xp.int32, device=ops.device_of(logits))
    bits = (xp.expand_dims(words, axis=-1) >> bit) & 1
    shape = (*words.shape[:-1], words.shape[-1] * WORD_BITS)
    valid = (xp.reshape(bits, shape)[..., :size] != 0) & xp.expand_dims(beams.states > DEAD, axis=-1)
    valid = not_excluded(ops, given.constraints, beams.states, valid)
    best, places, live = _best(ops, _scores(given, logits, valid), given.beam_width)
    parents, codes = places // size, xp.astype(places % size, xp.int32)
    states = ranked_children(ops, level, ops.take_along(beams.states, parents), codes)
    return _continued(ops, beams, best, live, parents, states, codes)


def _scores(given: StepInput, candidates: Array, valid: Array) -> Array:
    """Scores [B, m, K] of all candidates, from their logits; -inf where a candidate is not valid."""
    ops, xp = given.ops, given.ops.xp
    if given.normalize == "codes":
        candidates = _less_normalizer(ops, candidates, given.logits)
    elif given.normalize == "allowed":
        candidates = _less_normalizer(ops, candidates, xp.where(valid, candidates, -INF))
    return xp.where(valid, xp.expand_dims(given.beams.scores, axis=-1) + candidates, -INF)


def ranked_children(ops: Ops, level: DeviceLevel, states: Array, codes: Array) -> Array:
    """Returns the child of each state by each code: the first child, plus the allowed codes below this one."""
    xp = ops.xp
    states = xp.where(states > DEAD, states, 0)
    words = ops.take(level.allowed, states)
    word = xp.arange(words.shape[-1], dtype=xp.int32, device=ops.device_of(words))
    # How many of each word's bits lie below the code: all of an earlier word's, none of a later one's.
    below = xp.clip(xp.expand_dims(codes, axis=-1) - word * WORD_BITS, 0, WORD_BITS)
    # ~0 << 32 is not defined, so the whole word is a case of its own.
    low_bits = xp.where(below == WORD_BITS, -1, (1 << (below % WORD_BITS)) - 1)
    rank = xp.sum(xp.astype(ops.popcount(words & low_bits), xp.int32), axis=-1, dtype=xp.int32)
    first, _ = children(ops, level, states)
    return first + rank


def children(ops: Ops, level: DeviceLevel, states: Array) -> tuple[Array, Array]:
    """Returns the first child and the number of children of each state; a dead one has none."""
    xp = ops.xp
    live = states > DEAD
    parents = xp.where(live, states, 0)
    if level.max_branch == 0:
        return parents * 0, parents * 0
    if level.child_start is not None:
        first = ops.take(level.child_start, parents)
        end = ops.take(level.child_start, parents + 1)
    elif level.forks is not None:
        first = parents + ops.rank(level.forks, parents)
        end = parents + 1 + ops.rank(level.forks, parents + 1)
    else:
        first, end = parents, parents + 1
    return first, xp.where(live, end - first, 0)


def codes_of(ops: Ops, level: DeviceLevel, nodes: Array) -> Array:
    """Returns the codes of nodes of a level, int32, in their shape."""
    codes = ops.xp.astype(ops.take(level.codes, nodes), ops.xp.int32)
    # PyTorch holds 16-bit codes as signed numbers.
    return codes & 0xFFFF if level.codebook_size <= 2**16 else codes


def bounded(ops: Ops, logits: Array) -> Array:
    """Returns float32 logits, finite ones within +-LARGEST, +inf as LARGEST, NaN as -inf."""
    xp = ops.xp
    wide = logits if logits.dtype == xp.float64 else xp.astype(logits, xp.float32, copy=False)
    return xp.astype(xp.where(wide > -INF, xp.clip(wide, -LARGEST, LARGEST), -INF), xp.float32, copy=False)


def log_softmax(ops: Ops, logits: Array) -> Array:
    """Returns log-probabilities, along the last axis; -inf all along where all logits are."""
    return _less_normalizer(ops, logits, logits)


def _less_normalizer(ops: Ops, logits: Array, over: Array) -> Array:
    """Returns `logits` less the log of the sum of exponentials of `over` along the last axis."""
    xp = ops.xp
    top = xp.max(over, axis=-1, keepdims=True)
    top = xp.where(top > -INF, top, 0.0)
    total = xp.sum(xp.exp(over - top), axis=-1, keepdims=True)
    return logits - top - xp.log(xp.where(total > 0, total, 1.0))


def _best(ops: Ops, scores: Array, beam_width: int) -> tuple[Array, Array, Array]:
    """Returns the best scores [B, M] of all candidates of a request, where they are, and which are live."""
    xp = ops.xp
    flat = _flat(ops, scores)
    missing = beam_width - flat.shape[-1]
    if missing > 0:
        fill = xp.full((flat.shape[0], missing), -INF, dtype=xp.float32, device=ops.device_of(scores))
        flat = xp.concat([flat, fill], axis=-1)
    best, places = ops.top_k(flat, beam_width)
    live = best > -INF
    return best, xp.where(live, places, 0), live


def _continued(
    ops: Ops, beams: Beams, scores: Array, live: Array, parents: Array, states: Array, codes: Array
) -> Beams:
    xp = ops.xp
    batch, width, level = *live.shape, beams.level
    history = xp.broadcast_to(xp.expand_dims(parents, axis=-1), (batch, width, level))
    before = xp.take_along_axis(beams.codes, xp.astype(history, ops.index_dtype), axis=1)
    codes = xp.concat([before, xp.expand_dims(xp.astype(codes, xp.int32), axis=-1)], axis=-1)
    return Beams(
        codes=xp.where(xp.expand_dims(live, axis=-1), codes, DEAD),
        scores=scores,
        states=xp.where(live, xp.astype(states, xp.int32), DEAD),
        parents=xp.astype(parents, xp.int32),
    )


def _flat(ops: Ops, x: Array) -> Array:
    return ops.xp.reshape(x, (x.shape[0], x.shape[1] * x.shape[2]))
