"""The step as Triton kernels, for PyTorch tensors on a GPU: the choice of the kernels, and their launch.

The choice depends on shapes and on the branch factor of the level, never on data, and the host reads nothing back. So a
CUDA graph can capture a step, and torch.compile keeps it as one operation of its graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from hedgerow.decode.beams import Beams
from hedgerow.decode.kernels.array import Normalize, StepInput, bounded
from hedgerow.decode.kernels.triton_kernels import list_children, measure_rows, shortlist
from hedgerow.decode.kernels.triton_limits import DEAD_PIVOTS
from hedgerow.decode.kernels.triton_place import place
from hedgerow.decode.prepared import LevelConstraints
from hedgerow.index.bits import power_of_two
from hedgerow.index.compact import code_bits
from hedgerow.index.level import WORD_BITS

# Up to this many candidates per request are ranked without a shortlist.
FEW = 4096
# With more candidates, the shortlist is chosen by this many peaks per request, over all of its rows.
PEAKS = 4096
# Sizes of blocks that a program loads at once: logits, candidates, and children of a shortlist, which take the most
# registers.
ROW_BLOCK, BLOCK, SIEVED_CHILDREN = 8192, 2048, 1024
# Beams whose states are compared at once.
WIDTH_BLOCK = 1024
# The children of a level with a wider bitmap are gathered, not scanned.
MAX_WORDS = 256
# Entries that one step of a search in row pointers or forks loads.
PIVOTS = 256
# Candidates that a program of the last kernel ranks at once, and keys that it compares them with at once.
OWN, TILE = 16, 512
# Number of programs if the work does not determine it: two for each multiprocessor of a large GPU.
PROGRAMS = 256
# Registers of a multiprocessor, threads of a warp, and the maximum number of registers of a thread.
REGISTERS, WARP, MAX_REGISTERS = 65_536, 32, 255
NO_LIMITS = LevelConstraints(None, None, None, None, None).arrays
# On GPUs from this compute capability on, a kernel can be started before the one before it has ended. Off: the gain has
# not been measured on a GPU yet; benchmarks/gpu_step.py times both.
EARLY_START, EARLY_START_FROM = False, (9, 0)


@dataclass(frozen=True)
class Plan:
    """The kernels of one step, and their compile-time options.

    Attributes:
        few: True: two kernels list and rank all children. False: three kernels, of which the second makes a shortlist.
        span: the number of candidates per row: K, or C if all codes are scanned under the bitmap.
        capacity: the number of keys that a request has room for.
        programs: the number of programs per request of the last kernel.
        rows: options of the kernel with one program per row.
        sieve: options of the kernel that makes the shortlist.
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
            return (list_children, self.rows), (place, self.place)
        return (measure_rows, self.rows), (shortlist, self.sieve), (place, self.place)


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
    blocks: int = 0,
    low_bits: int = -1,
    high_bits: int = 0,
    early: bool = False,
) -> Plan:
    """Choose the kernels of a step, and the sizes of their blocks.

    Args:
        batch: B.
        width: m.
        beam_width: M.
        depth: l.
        codebook_size: C.
        max_branch: K.
        sparse: whether the level has row pointers.
        forks: X, the number of its forks.
        dense: whether it has a bitmap.
        normalize: as for `step`.
        sets: whether the batch has constraint sets.
        room: X, the length of the lists of dead nodes; 0 if the batch has no exclusions.
        blocks: the number of blocks of the bit vector of a compact level; 0 if it has none.
        low_bits: the number of packed bits of each code; -1 if the level is not compact.
        high_bits: the number of bits of each code in the bit vector.
        early: whether kernels start early: see `EARLY_START`.
    """
    words, few = -(-codebook_size // WORD_BITS), width * max_branch <= FEW
    scan = dense and not few and words <= MAX_WORDS
    span = codebook_size if scan else max(max_branch, 1)
    groups = min(power_of_two(span), max(1, PEAKS // power_of_two(width)))
    capacity = width * max_branch if few else min(width * span, beam_width * -(-span // groups))
    programs = -(-max(capacity, beam_width) // OWN)
    if not few:
        programs = min(programs, max(PROGRAMS // batch, -(-beam_width // OWN)))
    packed = {"LOW_BITS": low_bits, "HIGH_BITS": high_bits}
    trie = {"SIZE": codebook_size, "SCAN": scan, "WORDS": words} | packed
    width_block = {"WIDTH_BLOCK": min(power_of_two(width), WIDTH_BLOCK)}
    children = {"NORMALIZE": normalize, "SPARSE": sparse, "VECTOR": blocks > 0, "PIVOTS": PIVOTS}
    children |= {"FORK_STEPS": _search_steps(max(forks, blocks), PIVOTS)}
    limits = {"SETS": sets, "BITMAP_WORDS": words if dense else 0, "DEAD_STEPS": _search_steps(room, DEAD_PIVOTS.value)}
    children |= limits
    row_block, child_block = min(power_of_two(codebook_size), ROW_BLOCK), power_of_two(max_branch)
    block, peaks = max(groups, min(power_of_two(span), BLOCK)), power_of_two(width * groups)
    sieved = max(groups, min(block, BLOCK if scan else SIEVED_CHILDREN))
    rows_at_once = min(max(SIEVED_CHILDREN // sieved, 1), power_of_two(width))
    if few:
        sizes = {"SIZE": codebook_size, "ROW_BLOCK": row_block, "CHILD_BLOCK": child_block}
        rows = children | packed | sizes | width_block | _compile_options(max(row_block, child_block))
    else:
        sizes = {"ROW_BLOCK": row_block, "BLOCK": block, "GROUPS": groups}
        rows = children | trie | sizes | width_block | _compile_options(max(row_block, block))
    sizes = {"ROWS": rows_at_once, "BLOCK": sieved, "GROUPS": groups, "PEAKS": peaks}
    sieve = trie | limits | sizes | _compile_options(max(sieved, SIEVED_CHILDREN) if sets or room else BLOCK)
    if sets or room or not few:
        # The one row per request of the first level never needs all multiprocessors.
        resident = 1 if width == 1 else 2
        rows, sieve = rows | _register_limit(rows, resident), sieve | _register_limit(sieve, resident)
    sizes = {"WORD_BLOCK": min(power_of_two(words), 64), "DEPTH_BLOCK": power_of_two(depth) if depth else 0}
    place = trie | sizes | {"COUNTED": not few, "OWN": OWN, "TILE": TILE} | _compile_options(OWN * TILE // 4)
    start = {"EARLY": early} | ({"launch_pdl": True} if early else {})
    return Plan(few, span, capacity, programs, rows | start, sieve | start, place | start)


def triton_step(inputs: StepInput) -> Beams:
    """Compute a step on PyTorch tensors on a GPU."""
    level, beams, logits = inputs.level, inputs.beams, inputs.logits
    if logits.dtype == torch.float64:
        logits = bounded(inputs.ops, logits)
    # The dispatcher of PyTorch takes several times as long as this function.
    compute = _compute if _is_eager(logits, beams.scores) else _step
    codes, scores, states, parents = compute(
        logits,
        beams.codes,
        beams.scores,
        beams.states,
        level.codes,
        level.child_start,
        level.forks,
        level.allowed,
        level.codebook_size,
        level.max_branch,
        inputs.beam_width,
        inputs.normalize,
        *(NO_LIMITS if inputs.constraints is None else inputs.constraints.arrays),
        high=level.high,
        zeros_before=level.zeros_before,
        ones_before=level.ones_before,
        low_bits=-1 if level.low_bits is None else level.low_bits,
    )
    return Beams(codes=codes, scores=scores, states=states, parents=parents)


def _is_eager(*tensors: Tensor) -> bool:
    """Whether a step is neither traced nor transformed nor differentiated, so that its kernels can be launched."""
    return not (
        torch.compiler.is_compiling()
        or is_in_torch_dispatch_mode()
        or torch._C._functorch.peek_interpreter_stack() is not None  # pyright: ignore[reportAttributeAccessIssue]
        or forward_ad._current_level >= 0
        or any(type(tensor) is not Tensor or tensor.requires_grad for tensor in tensors)
    )


def _compute(
    logits: Tensor,
    history: Tensor,
    scores: Tensor,
    states: Tensor,
    codes: Tensor,
    child_start: Tensor | None,
    forks: Tensor | None,
    allowed: Tensor | None,
    codebook_size: int,
    max_branch: int,
    beam_width: int,
    normalize: str | None,
    set_rows: Tensor | None = None,
    free: Tensor | None = None,
    alive: Tensor | None = None,
    dead_parents: Tensor | None = None,
    dead_slots: Tensor | None = None,
    high: Tensor | None = None,
    zeros_before: Tensor | None = None,
    ones_before: Tensor | None = None,
    low_bits: int = -1,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Codes [B, M, l + 1], scores, states and parents [B, M] of the new beams."""
    batch, width, depth = history.shape
    room = 0 if dead_parents is None else dead_parents.shape[1]
    plan = plan_step(
        batch=batch,
        width=width,
        beam_width=beam_width,
        depth=depth,
        codebook_size=codebook_size,
        max_branch=max_branch,
        sparse=child_start is not None,
        forks=0 if forks is None else forks.shape[0],
        dense=allowed is not None,
        normalize=normalize,  # pyright: ignore[reportArgumentType]
        sets=alive is not None,
        room=room,
        blocks=0 if high is None else high.shape[0],
        low_bits=low_bits,
        high_bits=0 if low_bits < 0 else code_bits(codebook_size) - low_bits,
        early=_starts_early(logits.device),
    )
    logits = logits if logits.stride(-1) == 1 else logits.contiguous()
    pointers = next((tensor for tensor in (child_start, forks, zeros_before) if tensor is not None), None)
    tensors = {"pointers": pointers, "allowed": allowed, "high": high, "ones_before": ones_before}
    tensors |= {"set_rows": set_rows, "free": free, "alive": alive}
    tensors |= {"dead_parents": dead_parents, "dead_slots": dead_slots}
    arguments = _arguments(tensors, codes) | {"codes": codes, "logits": logits}
    arguments |= {"scores": scores.contiguous(), "states": states.contiguous(), "history": history.contiguous()}
    arguments |= {"batch_stride": logits.stride(0), "beam_stride": logits.stride(1)}
    arguments |= {"width": width, "beam_width": beam_width, "depth": depth, "max_branch": max_branch}
    arguments |= {"span": plan.span, "capacity": plan.capacity, "room": room}
    arguments |= {"num_blocks": 0 if high is None else high.shape[0]}
    arguments |= {"set_words": 0 if alive is None else alive[0].numel()}
    new = _new_beams(logits, history, beam_width)
    arguments |= dict(zip(("new_codes", "new_scores", "new_states", "new_parents"), new, strict=True))
    _launch(plan, arguments, batch, width, logits.device)
    return new


_step = torch.library.custom_op("hedgerow::step", _compute, mutates_args=())


@_step.register_fake
def _(
    logits: Tensor,
    history: Tensor,
    scores: Tensor,  # noqa: ARG001
    states: Tensor,  # noqa: ARG001
    codes: Tensor,  # noqa: ARG001
    child_start: Tensor | None,  # noqa: ARG001
    forks: Tensor | None,  # noqa: ARG001
    allowed: Tensor | None,  # noqa: ARG001
    codebook_size: int,  # noqa: ARG001
    max_branch: int,  # noqa: ARG001
    beam_width: int,
    normalize: str | None,  # noqa: ARG001
    set_rows: Tensor | None = None,  # noqa: ARG001
    free: Tensor | None = None,  # noqa: ARG001
    alive: Tensor | None = None,  # noqa: ARG001
    dead_parents: Tensor | None = None,  # noqa: ARG001
    dead_slots: Tensor | None = None,  # noqa: ARG001
    high: Tensor | None = None,  # noqa: ARG001
    zeros_before: Tensor | None = None,  # noqa: ARG001
    ones_before: Tensor | None = None,  # noqa: ARG001
    low_bits: int = -1,  # noqa: ARG001
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return _new_beams(logits, history, beam_width)


def _arguments(tensors: Mapping[str, Tensor | None], unread: Tensor) -> dict[str, Any]:
    """The tensors as arguments of kernels. A kernel needs some tensor for a missing one, but does not read it."""
    arguments: dict[str, Any] = {
        name: unread if tensor is None else tensor.contiguous() for name, tensor in tensors.items()
    }
    return arguments | {"num_pointers": arguments["pointers"].shape[0]}


def _launch(plan: Plan, arguments: Mapping[str, Any], batch: int, width: int, device: torch.device) -> None:
    """Launch the kernels of a plan, each with the arguments that it has."""
    arguments = {**arguments, **_scratch(plan, batch, width, device)}
    rows = (batch * width,)
    sieve = (batch, min(-(-width // plan.sieve["ROWS"]), max(1, PROGRAMS // batch)))
    grids = (rows, (batch, plan.programs)) if plan.few else (rows, sieve, (batch, plan.programs))
    with _on(device):
        for (kernel, options), grid in zip(plan.kernels, grids, strict=True):
            kernel[grid](**{name: arguments[name] for name in kernel.arg_names if name in arguments}, **options)


def _new_beams(logits: Tensor, history: Tensor, beam_width: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    batch, _, depth = history.shape
    return (
        logits.new_empty((batch, beam_width, depth + 1), dtype=torch.int32),
        logits.new_empty((batch, beam_width), dtype=torch.float32),
        logits.new_empty((batch, beam_width), dtype=torch.int32),
        logits.new_empty((batch, beam_width), dtype=torch.int32),
    )


def _scratch(plan: Plan, batch: int, width: int, device: torch.device) -> dict[str, Tensor]:
    """The tensors that the kernels of a step pass on to each other."""

    def empty(*shape: int, dtype: torch.dtype = torch.int32) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=device)

    firsts, keys = empty(batch, width), empty(batch, plan.capacity, dtype=torch.int64)
    order = empty(batch, width)
    if plan.few:
        return {"firsts": firsts, "keys": keys, "sizes": firsts, "order": order}
    shifts, log_sums = empty(2, batch, width, dtype=torch.float32)
    peaks = empty(batch, width, plan.rows["GROUPS"])
    counts, sizes = empty(batch, width), empty(batch)
    dead_firsts, dead_ends = empty(2, batch, width) if plan.rows["DEAD_STEPS"] else (counts, counts)
    scratch = {"firsts": firsts, "counts": counts, "shifts": shifts, "log_sums": log_sums}
    scratch |= {"dead_firsts": dead_firsts, "dead_ends": dead_ends}
    numbers, places = empty(batch, width, plan.rows["GROUPS"]), empty(batch, width)
    scratch |= {"numbers": numbers, "order": order, "places": places}
    return {**scratch, "peaks": peaks, "sizes": sizes, "keys": keys}


def _starts_early(device: torch.device) -> bool:
    return EARLY_START and device.type == "cuda" and torch.cuda.get_device_capability(device) >= EARLY_START_FROM


def _on(device: torch.device) -> AbstractContextManager[Any]:
    """Make a device current, because Triton launches on the current device."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def _search_steps(entries: int, pivots: int) -> int:
    """Number of steps of a search among so many entries that loads `pivots` of them per step; 0 without entries."""
    steps = min(entries, 1)
    while pivots**steps < entries:
        steps += 1
    return steps


def _register_limit(options: Mapping[str, Any], resident: int) -> dict[str, Any]:
    """Options that divide the registers among `resident` programs, so that ptxas does not spill to use fewer."""
    return {"maxnreg": min(REGISTERS // (resident * WARP * options["num_warps"]), MAX_REGISTERS)}


def _compile_options(block: int) -> dict[str, Any]:
    """Compiler options of a kernel whose programs hold `block` elements: 8 per thread, with 4 to 16 warps.

    Additions and multiplications are not fused, so that every kernel computes a score to the same bits.
    """
    return {"num_warps": min(max(block // 256, 4), 16), "enable_fp_fusion": False}
