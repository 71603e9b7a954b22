"""The step as Triton kernels, for PyTorch tensors of a GPU: which kernels a step takes, and their launch.

Everything is chosen from numbers that are known before the data: shapes, and the level's largest branch factor. Nothing
is read back, so a step is captured whole in a CUDA graph, and torch.compile keeps it as one operation of one graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from hedgerow.decode.beams import Beams
from hedgerow.decode.kernels import triton_kernels as kernels
from hedgerow.decode.kernels.array import Normalize, StepInput, bounded
from hedgerow.decode.kernels.triton_limits import DEAD_PIVOTS
from hedgerow.decode.prepared import LevelConstraints
from hedgerow.index.bits import power_of_two
from hedgerow.index.level import WORD_BITS

# Up to this many candidates a request, all are ranked against each other at once.
FEW = 4096
# Above it, candidates are sieved by as many peaks a request, in all of its rows together.
PEAKS = 4096
# Logits a program loads at once; candidates; and children where they are sieved, which takes the most registers.
ROW_BLOCK, BLOCK, SIEVED_CHILDREN = 8192, 2048, 1024
# Wider bitmaps are left alone, and the children gathered.
MOST_WORDS = 256
PIVOTS = 256
OWN, TILE = 16, 512
# Programs of a launch that has no natural number of them: two for each multiprocessor of a large GPU.
PROGRAMS = 256
# Of a multiprocessor, threads of a warp, and registers that a thread can have.
REGISTERS, WARP, MOST_REGISTERS = 65_536, 32, 255


@dataclass(frozen=True)
class Plan:
    """The kernels of one step, and their compile-time numbers.

    Attributes:
        few: whether all children are listed and ranked, in two kernels; else they are sieved first, in three.
        span: how many candidates a row is numbered to have: K, or C where all codes are scanned under the bitmap.
        capacity: how many keys a request has room for.
        programs: how many programs of the last kernel a request takes.
        rows: options of the kernel that has one program a row.
        sieve: options of the kernel that shortens the list.
        place: options of the kernel that ranks.
    """

    few: bool
    span: int
    capacity: int
    programs: int
    rows: Mapping[str, Any]
    sieve: Mapping[str, Any]
    place: Mapping[str, Any]

    @property
    def kernels(self) -> tuple[tuple[Any, Mapping[str, Any]], ...]:
        """The kernels in the order of their launches, with their options."""
        if self.few:
            return (kernels.list_children, self.rows), (kernels.place, self.place)
        return (kernels.measure_rows, self.rows), (kernels.shortlist, self.sieve), (kernels.place, self.place)


@cache
def plan_step(
    *,
    batch: int,
    width: int,
    beam_width: int,
    depth: int,
    codebook_size: int,
    max_branch: int,
    sparse: bool,
    forks: int,
    dense: bool,
    normalize: Normalize,
    sets: bool = False,
    room: int = 0,
) -> Plan:
    """Returns the kernels for B requests of m beams (`width`) at level l (`depth`); none of it depends on data.

    `sets`: whether constraint sets bind requests; `room`: X, the room of the lists of dead nodes.
    """
    words = -(-codebook_size // WORD_BITS)
    few = width * max_branch <= FEW
    scan = dense and not few and words <= MOST_WORDS
    span = codebook_size if scan else max(max_branch, 1)
    groups = min(power_of_two(span), max(1, PEAKS // power_of_two(width)))
    capacity = width * max_branch if few else min(width * span, beam_width * -(-span // groups))
    programs = -(-max(capacity, beam_width) // OWN)
    if not few:
        programs = min(programs, max(PROGRAMS // batch, -(-beam_width // OWN)))
    trie = {"SIZE": codebook_size, "SCAN": scan, "WORDS": words}
    children = {"NORMALIZE": normalize, "SPARSE": sparse, "FORK_STEPS": _search_steps(forks, PIVOTS), "PIVOTS": PIVOTS}
    limits = {"SETS": sets, "BITMAP_WORDS": words if dense else 0, "DEAD_STEPS": _search_steps(room, DEAD_PIVOTS.value)}
    children, sieved_trie = children | limits, trie | limits
    row_block, child_block = min(power_of_two(codebook_size), ROW_BLOCK), power_of_two(max_branch)
    block, peaks = max(groups, min(power_of_two(span), BLOCK)), power_of_two(width * groups)
    sieved = max(groups, min(block, BLOCK if scan else SIEVED_CHILDREN))
    rows_at_once = min(max(SIEVED_CHILDREN // sieved, 1), power_of_two(width))
    if few:
        sizes = {"SIZE": codebook_size, "ROW_BLOCK": row_block, "CHILD_BLOCK": child_block}
        rows = children | sizes | _compiled(max(row_block, child_block))
    else:
        sizes = {"ROW_BLOCK": row_block, "BLOCK": block, "GROUPS": groups}
        rows = children | trie | sizes | _compiled(max(row_block, block))
    sizes = {"ROWS": rows_at_once, "BLOCK": sieved, "GROUPS": groups, "PEAKS": peaks}
    sieve = sieved_trie | sizes | _compiled(max(sieved, SIEVED_CHILDREN) if sets or room else BLOCK)
    if sets or room:
        rows, sieve = rows | _most_registers(rows), sieve | _most_registers(sieve)
    sizes = {"WORD_BLOCK": min(power_of_two(words), 64), "DEPTH_BLOCK": power_of_two(depth) if depth else 0}
    place = trie | sizes | {"COUNTED": not few, "OWN": OWN, "TILE": TILE} | _compiled(OWN * TILE // 4)
    return Plan(few, span, capacity, programs, rows, sieve, place)


def triton_step(given: StepInput) -> Beams:
    """Does what `array_step` does, on PyTorch tensors of a GPU."""
    level, beams, logits = given.level, given.beams, given.logits
    if logits.dtype == torch.float64:
        logits = bounded(given.ops, logits)
    pointers = level.forks if level.child_start is None else level.child_start
    bound = given.constraints or LevelConstraints(None, None, None, None, None)
    codes, scores, states, parents = _step(
        logits,
        beams.codes,
        beams.scores,
        beams.states,
        level.codes,
        pointers,
        level.allowed,
        level.child_start is not None,
        level.codebook_size,
        level.max_branch,
        given.beam_width,
        given.normalize,
        bound.rows,
        bound.free,
        bound.alive,
        bound.dead_parents,
        bound.dead_slots,
    )
    return Beams(codes=codes, scores=scores, states=states, parents=parents)


@torch.library.custom_op("hedgerow::step", mutates_args=())
def _step(
    logits: Tensor,
    history: Tensor,
    scores: Tensor,
    states: Tensor,
    codes: Tensor,
    pointers: Tensor | None,
    allowed: Tensor | None,
    sparse: bool,
    codebook_size: int,
    max_branch: int,
    beam_width: int,
    normalize: str | None,
    set_rows: Tensor | None = None,
    free: Tensor | None = None,
    alive: Tensor | None = None,
    dead_parents: Tensor | None = None,
    dead_slots: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Codes [B, M, l + 1], scores, states and parents [B, M] of the new beams."""
    batch, width, depth = history.shape
    plan = plan_step(
        batch=batch,
        width=width,
        beam_width=beam_width,
        depth=depth,
        codebook_size=codebook_size,
        max_branch=max_branch,
        sparse=sparse,
        forks=0 if sparse or pointers is None else pointers.shape[0],
        dense=allowed is not None,
        normalize=normalize,  # pyright: ignore[reportArgumentType]
        sets=alive is not None,
        room=0 if dead_parents is None else dead_parents.shape[1],
    )
    if logits.stride(-1) != 1:
        logits = logits.contiguous()
    scores, states, history = scores.contiguous(), states.contiguous(), history.contiguous()
    new = _new_beams(logits, history, beam_width)
    # A kernel is given some tensor where there is none, and does not look at it.
    trie = {"codes": codes, "pointers": codes if pointers is None else pointers}
    trie["allowed"] = codes if allowed is None else allowed
    limits = {
        "set_rows": set_rows,
        "free": free,
        "alive": alive,
        "dead_parents": dead_parents,
        "dead_slots": dead_slots,
    }
    trie |= {name: codes if tensor is None else tensor.contiguous() for name, tensor in limits.items()}
    numbers = {"num_pointers": trie["pointers"].shape[0], "max_branch": max_branch, "span": plan.span}
    numbers |= {"width": width, "beam_width": beam_width, "depth": depth, "capacity": plan.capacity}
    numbers |= {"set_words": 0 if alive is None else alive[0].numel()}
    numbers |= {"room": 0 if dead_parents is None else dead_parents.shape[1]}
    numbers |= {"batch_stride": logits.stride(0), "beam_stride": logits.stride(1)}
    known = {"logits": logits, "history": history, "scores": scores, "states": states, **trie, **numbers}
    known |= dict(zip(("new_codes", "new_scores", "new_states", "new_parents"), new, strict=True))
    known |= _scratch(plan, batch, width, logits.device)
    rows = (batch * width,)
    sieving = (batch, min(-(-width // plan.sieve["ROWS"]), max(1, PROGRAMS // batch)))
    grids = (rows, (batch, plan.programs)) if plan.few else (rows, sieving, (batch, plan.programs))
    with _on(logits.device):
        for (kernel, options), grid in zip(plan.kernels, grids, strict=True):
            wanted = {name: known[name] for name in kernel.arg_names if name in known}
            kernel[grid](**wanted, **options)
    return new


@_step.register_fake
def _(
    logits: Tensor,
    history: Tensor,
    scores: Tensor,  # noqa: ARG001
    states: Tensor,  # noqa: ARG001
    codes: Tensor,  # noqa: ARG001
    pointers: Tensor | None,  # noqa: ARG001
    allowed: Tensor | None,  # noqa: ARG001
    sparse: bool,  # noqa: ARG001
    codebook_size: int,  # noqa: ARG001
    max_branch: int,  # noqa: ARG001
    beam_width: int,
    normalize: str | None,  # noqa: ARG001
    set_rows: Tensor | None = None,  # noqa: ARG001
    free: Tensor | None = None,  # noqa: ARG001
    alive: Tensor | None = None,  # noqa: ARG001
    dead_parents: Tensor | None = None,  # noqa: ARG001
    dead_slots: Tensor | None = None,  # noqa: ARG001
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return _new_beams(logits, history, beam_width)


def _new_beams(logits: Tensor, history: Tensor, beam_width: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    batch, _, depth = history.shape
    return (
        logits.new_empty((batch, beam_width, depth + 1), dtype=torch.int32),
        logits.new_empty((batch, beam_width), dtype=torch.float32),
        logits.new_empty((batch, beam_width), dtype=torch.int32),
        logits.new_empty((batch, beam_width), dtype=torch.int32),
    )


def _scratch(plan: Plan, batch: int, width: int, device: torch.device) -> dict[str, Tensor]:
    """What the kernels of a step hand on to each other."""

    def empty(*shape: int, dtype: torch.dtype = torch.int32) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=device)

    firsts, keys = empty(batch, width), empty(batch, plan.capacity, dtype=torch.int64)
    if plan.few:
        return {"firsts": firsts, "keys": keys, "sizes": firsts}
    shifts, log_sums = empty(2, batch, width, dtype=torch.float32)
    peaks = empty(batch, width, plan.rows["GROUPS"])
    counts, sizes = empty(batch, width), empty(batch)
    dead_firsts, dead_ends = empty(2, batch, width) if plan.rows["DEAD_STEPS"] else (counts, counts)
    handed_on = {"firsts": firsts, "counts": counts, "shifts": shifts, "log_sums": log_sums}
    handed_on |= {"dead_firsts": dead_firsts, "dead_ends": dead_ends}
    return {**handed_on, "peaks": peaks, "sizes": sizes, "keys": keys}


def _on(device: torch.device) -> AbstractContextManager[Any]:
    """Triton launches on the current device, which need not be the tensors'."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def _search_steps(entries: int, pivots: int) -> int:
    """Returns how often a search among so many entries looks at so many of them; 0 where there is none."""
    steps = min(entries, 1)
    while pivots**steps < entries:
        steps += 1
    return steps


def _most_registers(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what keeps ptxas from spilling to save registers that nobody else wants: half of them a program."""
    return {"maxnreg": min(REGISTERS // (2 * WARP * options["num_warps"]), MOST_REGISTERS)}


def _compiled(block: int) -> dict[str, Any]:
    """Returns how a kernel is compiled whose programs hold `block` elements: 8 a thread, within 4 to 16 warps.

    Additions and multiplications are not fused, so that a score is the same to the last bit wherever it is computed.
    """
    return {"num_warps": min(max(block // 256, 4), 16), "enable_fp_fusion": False}
