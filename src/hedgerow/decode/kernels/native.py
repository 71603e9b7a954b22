"""The step as a compiled kernel, for NumPy arrays and PyTorch tensors on a CPU: src/native/step.c.

It makes two passes. The first, over rows (a row is one beam of one request), computes the largest logit and the
normalizer of each row in one vectorized pass (src/native/rows.h, compiled for several processors). The second, over
requests, collects candidates. Each time their room is full, the M best stay, and the worst of these is the threshold
for later ones. On a dense level, the threshold starts at the M-th best of the largest allowed logits of groups of
codes. A row is skipped if its largest logit is below the threshold; where nodes have many children, a word of 32 codes
is. Loops run over each row's own children, so a node with many children slows down only its own rows. Constraint sets
and exclusions are tested only for children above the threshold.

Threads take rows, and the thread that measures the last rows of a request selects its best. They are those of PyTorch's
OpenMP runtime if there is one (src/native/openmp.c), and otherwise our own (src/native/pool.c).
"""

from __future__ import annotations

from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from hedgerow._compiled import native, thread_count
from hedgerow.decode.beams import DEAD, Beams
from hedgerow.decode.device import DeviceLevel
from hedgerow.decode.kernels.array import StepInput, bounded
from hedgerow.decode.ops import to_numpy
from hedgerow.decode.prepared import LevelConstraints

# As in src/native/native.h.
NORMALIZERS = {"codes": 0, "allowed": 1, None: 2}
UNARY, SPARSE, FORKED, ELIAS_FANO = 0, 1, 2, 3
NOTHING = np.zeros(1, np.int32)


class HostLevel(NamedTuple):
    """The arrays of a level as read-only NumPy arrays, which share its memory.

    Attributes:
        kind: UNARY, SPARSE, FORKED or ELIAS_FANO.
        pointers: int32, the row pointers [P + 1] of a SPARSE level, the forks [X] of a FORKED one, or the directory of
            the zeros [blocks] of an ELIAS_FANO one.
        codes: [E] uint8, uint16 or uint32; of a compact level, the packed bits, uint32.
        low_bits: the number of packed bits of each code; -1 if the level is not compact.
        high_bits: the number of bits of each code in the bit vector.
        high: [blocks, 8] int32, the bit vector, or None.
        allowed: [P, W] uint32; None if the level is not dense.
    """

    kind: int
    pointers: np.ndarray
    codes: np.ndarray
    low_bits: int
    high_bits: int
    high: np.ndarray | None
    allowed: np.ndarray | None


# Converted once per level: a conversion takes longer than a small step.
HOST_LEVELS: WeakKeyDictionary[DeviceLevel, HostLevel] = WeakKeyDictionary()


def host_level(level: DeviceLevel) -> HostLevel:
    """The arrays of a level on a CPU, converted on first use."""
    arrays = HOST_LEVELS.get(level)
    if arrays is None:
        kind, pointers = UNARY, NOTHING
        if level.high is not None:
            kind, pointers = ELIAS_FANO, to_numpy(level.zeros_before)
        elif level.child_start is not None:
            kind, pointers = SPARSE, to_numpy(level.child_start)
        elif level.forks is not None:
            kind, pointers = FORKED, to_numpy(level.forks)
        codes = to_numpy(level.codes).view(f"u{level.codes.itemsize}")
        high, allowed = (None if array is None else to_numpy(array) for array in (level.high, level.allowed))
        low_bits = -1 if level.low_bits is None else level.low_bits
        arrays = HostLevel(kind, pointers, codes, low_bits, level.high_bits, high, allowed)
        HOST_LEVELS[level] = arrays
    return arrays


def native_step(inputs: StepInput) -> Beams:
    """Compute a step on NumPy arrays, or on PyTorch tensors on a CPU, whose memory it reads in place."""
    assert native is not None
    ops, level, beams = inputs.ops, inputs.level, inputs.beams
    batch, width, size = inputs.logits.shape
    logits = _readable(inputs)
    # Not to_numpy, which takes twice as long: these tensors are on the host and require no gradient.
    scores, states, history = (
        np.ascontiguousarray(x.numpy() if ops.name == "torch" else x) for x in (beams.scores, beams.states, beams.codes)
    )
    if level.max_branch == 0:
        states = np.full((batch, width), DEAD, np.int32)
    best = np.empty((batch, inputs.beam_width), np.float32)
    nodes, parents = np.empty(best.shape, np.int32), np.empty(best.shape, np.int32)
    codes = np.empty((*best.shape, beams.level + 1), np.int32)
    sizes = batch, width, size, beams.level, inputs.beam_width
    options = NORMALIZERS[inputs.normalize], thread_count(batch * width * size)
    found = codes, best, nodes, parents
    native.step(
        *sizes, *options, logits, scores, states, history, *host_level(level), *_limits(inputs.constraints), *found
    )
    return Beams(*(ops.xp.from_numpy(array) if ops.name == "torch" else array for array in found))


def _readable(inputs: StepInput) -> np.ndarray:
    """The logits as float32, or the bits of bfloat16 of PyTorch; in one piece, and without a copy where possible."""
    ops, logits = inputs.ops, inputs.logits
    if logits.dtype == ops.xp.float64:
        logits = bounded(ops, logits)
    if ops.name == "torch":
        if logits.dtype == ops.xp.bfloat16:
            logits = logits.resolve_neg().view(ops.xp.int16)
        elif logits.dtype != ops.xp.float32:
            logits = logits.float()
        return logits.contiguous().numpy()
    return np.ascontiguousarray(ops.xp.astype(logits, ops.xp.float32, copy=False))


def _limits(constraints: LevelConstraints | None) -> tuple[Any, ...]:
    """The sets of a batch (rows, free, alive, and the words of a set), and its excluded nodes (parents, slots)."""
    sets: tuple[Any, ...] = None, None, None, 0
    dead: tuple[Any, ...] = None, None
    if constraints is not None and constraints.rows is not None:
        rows, free, alive = map(to_numpy, (constraints.rows, constraints.free, constraints.alive))
        sets = rows, free, alive, alive[0].size
    if constraints is not None and constraints.dead_parents is not None:
        dead = to_numpy(constraints.dead_parents), to_numpy(constraints.dead_slots)
    return *sets, *dead
