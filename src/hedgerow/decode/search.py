"""init_beams() and beam_search(): the loop over levels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from hedgerow._arguments import whole_number
from hedgerow.constraints.requests import Exclusions, Sets
from hedgerow.decode.beams import DEAD, Beams
from hedgerow.decode.device import DeviceIndex, as_device_index
from hedgerow.decode.divided import CodeRange
from hedgerow.decode.kernels.array import Normalize
from hedgerow.decode.kernels.columns import Gather
from hedgerow.decode.kernels.dispatch import KernelName
from hedgerow.decode.paths import with_code_scores
from hedgerow.decode.prepare import as_prepared
from hedgerow.decode.prepared import PreparedConstraints
from hedgerow.decode.step import step
from hedgerow.errors import ArgumentError
from hedgerow.index.trie import Trie


def init_beams(index: DeviceIndex | Trie, batch_size: int) -> Beams:
    """Create the beams before level 0: one beam per request, at the root; or, of a `CandidateIndex`, at its own root.

    Args:
        index: the trie, on the device of the search.
        batch_size: B.

    Returns:
        Beams [B, 1] with 0 codes.

    Raises:
        ArgumentError: `batch_size` is not a positive integer, or not the number of requests of a `CandidateIndex`; or
            `index` is not an index.

    Examples:
        ```python
        import hedgerow as hr

        index = hr.build_index(hr.Catalog([[0, 1], [2, 0]]))
        beams = hr.init_beams(index, batch_size=4)
        assert (beams.level, beams.states.shape) == (0, (4, 1))
        ```
    """
    shape = (whole_number(batch_size, "batch_size"), 1)
    device_index = as_device_index(index)
    xp, device = device_index._ops.xp, device_index.device
    num_roots, start = device_index.levels[0].num_parents, device_index.levels[0].child_start
    if num_roots not in (1, shape[0]):
        raise ArgumentError(f"the index has the candidates of {num_roots} requests; got batch_size={shape[0]}.")
    scores = xp.zeros(shape, dtype=xp.float32, device=device)
    states = xp.zeros(shape, dtype=xp.int32, device=device)
    if num_roots > 1:
        assert start is not None
        # The beam of a request without items is dead.
        has_items = start[1:] > start[:-1]
        roots = xp.where(has_items, xp.arange(num_roots, dtype=xp.int32, device=device), DEAD)
        states = xp.reshape(xp.astype(roots, xp.int32), shape)
        scores = xp.where(states > DEAD, scores, -float("inf"))
    return Beams(
        codes=xp.zeros((*shape, 0), dtype=xp.int32, device=device),
        scores=scores,
        states=states,
        parents=xp.zeros(shape, dtype=xp.int32, device=device),
    )


def beam_search(
    index: DeviceIndex | Trie,
    logits_fn: Callable[[Beams], Any],
    *,
    batch_size: int,
    beam_width: int,
    normalize: Normalize = "codes",
    temperature: float = 1.0,
    kernel: KernelName = "auto",
    constraints: PreparedConstraints | Sets = None,
    exclude: Exclusions = None,
    code_ranges: Sequence[CodeRange] | None = None,
    gather: Gather | None = None,
) -> Beams:
    """Search for the best `beam_width` SIDs of each request, level by level.

    Args:
        index: the trie. A `TrieIndex` on the host is searched with NumPy.
        logits_fn: maps the beams of B requests and m beams before level l to the logits [B, m, C] of that level. m is
            1 before level 0 and `beam_width` after it. C is `index.codebook_sizes[l]`. Dead beams have code -1; the
            logits of dead beams, and of beams that have ended, are ignored.
        batch_size: B.
        beam_width: M.
        normalize: as for `step`.
        temperature: as for `step`.
        kernel: as for `step`.
        constraints: as for `step`. They are prepared once.
        exclude: as for `step`.
        code_ranges: the `code_range` of `step` of each level, if the head of the model is divided among ranks.
            `logits_fn` then returns the logits of these codes.
        gather: as for `step`; the search needs it with `code_ranges`.

    Returns:
        Finished beams [B, M] with `code_scores`, for `TrieIndex.results` with the same constraints. Errors as for
        `step`.

    Examples:
        ```python
        import numpy as np
        import hedgerow as hr

        index = hr.build_index(hr.Catalog([[0, 1], [2, 0], [2, 2]], item_ids=["a", "b", "c"]))
        beams = hr.beam_search(
            index, lambda beams: np.zeros((*beams.states.shape, 3)), batch_size=1, beam_width=5
        )
        assert beams.num_valid.tolist() == [3]
        ```
    """
    device_index = as_device_index(index)
    beams = init_beams(device_index, batch_size)
    prepared = as_prepared(device_index, batch_size, constraints, exclude)
    options = {"beam_width": beam_width, "normalize": normalize, "temperature": temperature, "kernel": kernel}
    ranges = _ranges_of_levels(device_index, code_ranges, gather)
    history = []
    for code_range in ranges:
        divided = {"code_range": code_range, "gather": gather}
        beams = step(device_index, beams, logits_fn(beams), constraints=prepared, **options, **divided)
        history.append(beams)
    return with_code_scores(device_index._ops, history)


def _ranges_of_levels(
    index: DeviceIndex, code_ranges: Sequence[CodeRange] | None, gather: Gather | None
) -> Sequence[CodeRange | None]:
    """The `code_range` of each level."""
    if code_ranges is None:
        return [None] * index.num_levels
    if gather is None:
        raise ArgumentError("a search with code_ranges needs gather=, which exchanges beams between ranks.")
    if len(code_ranges) != index.num_levels:
        raise ArgumentError(
            f"code_ranges must have a (first, stop) for each of the {index.num_levels} levels; got {len(code_ranges)}."
        )
    return code_ranges
