"""start() and beam_search(): the loop over levels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hedgerow.decode.array import Normalize
from hedgerow.decode.beams import Beams
from hedgerow.decode.constrain import Exclusions, Sets
from hedgerow.decode.constrained import Constraints
from hedgerow.decode.device import DeviceIndex, as_device_index
from hedgerow.decode.kernels import Backend
from hedgerow.decode.step import is_count, prepare, step
from hedgerow.errors import ArgumentError
from hedgerow.index.trie import TrieIndex


def start(index: DeviceIndex | TrieIndex, batch_size: int) -> Beams:
    """Returns the beams before level 0: for each of `batch_size` requests one beam, at the root.

    Raises:
        ArgumentError: `batch_size` is not a positive integer.
    """
    if not is_count(batch_size):
        raise ArgumentError(f"batch_size must be a positive integer; got {batch_size!r}.")
    device_index = as_device_index(index)
    xp, device = device_index.ops.xp, device_index.device
    shape = (int(batch_size), 1)
    return Beams(
        codes=xp.zeros((*shape, 0), dtype=xp.int32, device=device),
        scores=xp.zeros(shape, dtype=xp.float32, device=device),
        states=xp.zeros(shape, dtype=xp.int32, device=device),
        parents=xp.zeros(shape, dtype=xp.int32, device=device),
    )


def beam_search(
    index: DeviceIndex | TrieIndex,
    logits_fn: Callable[[Beams], Any],
    *,
    batch_size: int,
    beam_width: int,
    normalize: Normalize = "codes",
    backend: Backend = "auto",
    constraints: Constraints | Sets = None,
    exclude: Exclusions = None,
) -> Beams:
    """Searches for the best `beam_width` SIDs of each request, level by level.

    Args:
        index: the trie; one on the host is searched with NumPy.
        logits_fn: beams of B requests and m beams, before level l -> logits [B, m, C] of that level. m is 1 before
            level 0, and `beam_width` after it. The codes of dead beams are -1; what it gives for them, and for beams
            that have ended, is not used. C is the index's `codebook_sizes[l]`.
        batch_size: B.
        beam_width: M.
        normalize: as for `step`.
        backend: as for `step`.
        constraints: as for `step`; made ready once.
        exclude: as for `step`.

    Returns:
        Finished beams [B, M], for `TrieIndex.items`, with the same constraints. Errors as for `step`.
    """
    beams, prepared = start(index, batch_size), prepare(index, batch_size, constraints, exclude)
    index, options = as_device_index(index), {"beam_width": beam_width, "normalize": normalize, "backend": backend}
    for _ in range(index.num_levels):
        beams = step(index, beams, logits_fn(beams), constraints=prepared, **options)
    return beams
