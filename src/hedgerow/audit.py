"""Audits: which items searches ever returned, and how much probability the catalog and its rules took away."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from hedgerow.constraints import ConstraintSet
from hedgerow.decode.array import Normalize, bounded, log_softmax
from hedgerow.decode.beams import DEAD, Beams
from hedgerow.decode.constrain import Exclusions, Sets
from hedgerow.decode.constrained import Constraints
from hedgerow.decode.device import DeviceIndex, as_device_index
from hedgerow.decode.ended import only_ends
from hedgerow.decode.ops import to_numpy
from hedgerow.decode.step import check_step, prepare
from hedgerow.decode.walk import candidates
from hedgerow.errors import ArgumentError, ConstraintError
from hedgerow.index.trie import TrieIndex
from hedgerow.results import Results

if TYPE_CHECKING:
    import pyarrow as pa


class Coverage:
    """Counts what many searches on one index returned: which items, how often, and how many beams were left over.

    ```python
    coverage = hr.Coverage(index)
    for batch in requests:
        beams = hr.beam_search(...)
        coverage.add(index.items(beams, k=10), beams)
    coverage.share(fresh)  # of the items of a set, how many were ever returned
    ```

    Args:
        index: the one that is searched.

    Attributes:
        counts: [N] int64, how often each row of `index` was returned.
        requests: how many results were added.
        beams: how many beams, live or dead, came with them.
        dead_beams: how many of these were dead: what the catalog and the rules left was less than `beam_width` SIDs.
    """

    def __init__(self, index: TrieIndex) -> None:
        if not isinstance(index, TrieIndex):
            raise ArgumentError(f"expected the index that is searched, a TrieIndex; got {type(index).__name__}.")
        self.index = index
        self.counts = np.zeros(index.num_items, np.int64)
        self.requests = self.beams = self.dead_beams = 0

    def add(self, results: Results | Iterable[Results], beams: Beams | None = None) -> None:
        """Counts the results of a search, one `Results` or a batch of them.

        Args:
            results: of `index`: of `TrieIndex.items`, `Version.items` or `Retriever.retrieve`.
            beams: the finished beams [B, M] that they came from, for `dead_beams`.

        Raises:
            ArgumentError: something else is among them, or results of another index, or beams of other requests.
        """
        batch = [results] if isinstance(results, Results) else list(results)
        for one in batch:
            self._check(one)
        if beams is not None:
            if not isinstance(beams, Beams) or len(beams.states) != len(batch):
                got = f"{len(beams.states)} requests" if isinstance(beams, Beams) else type(beams).__name__
                raise ArgumentError(f"expected the beams of these {len(batch)} requests; got {got}.")
            states = to_numpy(beams.states)
            self.beams += states.size
            self.dead_beams += int((states == DEAD).sum())
        self.requests += len(batch)
        for one in batch:
            np.add.at(self.counts, one.rows, 1)

    def share(self, items: ConstraintSet | None = None) -> float:
        """Returns which share of a set's items was ever returned, 0 to 1; left out, of all items. NaN of no items.

        Raises:
            ConstraintError: the set is another index's.
        """
        if items is None:
            return self.num_returned / self.index.num_items if self.index.num_items else float("nan")
        if not isinstance(items, ConstraintSet) or items.index is not self.index:
            raise ConstraintError(f"expected a set of the index whose results are counted; got {items!r}.")
        returned = int((self.counts[items.mask] > 0).sum())
        return returned / items.num_items if items.num_items else float("nan")

    @property
    def num_returned(self) -> int:
        """How many distinct items were returned."""
        return int(np.count_nonzero(self.counts))

    @property
    def items(self) -> pa.ChunkedArray:
        """The ids of the items that were ever returned, in the order of the index."""
        return self.index.item_ids.take(np.flatnonzero(self.counts))

    def _check(self, results: Any) -> None:
        if not isinstance(results, Results):
            raise ArgumentError(f"expected Results, or a list of them; got {type(results).__name__}.")
        known = len(results.rows) == 0 or int(results.rows.max()) < self.index.num_items
        if not known or self.index.item_ids.take(results.rows).to_pylist() != results.item_ids:
            raise ArgumentError("these results are of another index; count those of each index, or version, apart.")

    def __repr__(self) -> str:
        of = f"{self.num_returned:,} of {self.index.num_items:,} items"
        dead = f", dead_beams={self.dead_beams:,} of {self.beams:,}" if self.beams else ""
        return f"Coverage({of} returned, requests={self.requests:,}{dead})"


def removed_mass(
    index: DeviceIndex | TrieIndex,
    beams: Beams,
    logits: Any,
    *,
    normalize: Normalize = "codes",
    constraints: Constraints | Sets = None,
    exclude: Exclusions = None,
) -> Any:
    """Returns how much probability a step takes from each beam: that of the codes which may not follow it.

    It is the share of the model's belief at this level that names no item, or none that the request may be shown: a
    model that knows its catalog has little. It is computed for itself, beside the step, and only where it is asked for:

    ```python
    removed = []


    def model_watched(beams):
        logits = model(beams)
        mass = hr.removed_mass(device_index, beams, logits, constraints=prepared)
        removed.append(mass.sum(-1) / beams.n_valid)  # [B], the mean over a request's live beams
        return logits


    beams = hr.beam_search(device_index, model_watched, batch_size=8, beam_width=50, constraints=prepared)
    ```

    Called again without constraints, the difference is what the rules took, and the rest what the catalog did.

    Args:
        index: the trie, on the device of `beams` and `logits`.
        beams: B requests of m beams, before level l.
        logits: [B, m, C], as for `step`.
        normalize: "codes" or "allowed": probabilities are the softmax over all C codes, before any masking. None: the
            logits are log-probabilities, whose mass on the level's codes may be less than 1.
        constraints: as for `step`.
        exclude: as for `step`.

    Returns:
        [B, m] float32 of the backend, 0 to 1; 0 for dead beams. Errors as for `step`.
    """
    index = as_device_index(index)
    check_step(index, beams, logits, 1, normalize)
    ops, level = index.ops, index.levels[beams.level]
    xp = ops.xp
    prepared = prepare(index, logits.shape[0], constraints, exclude)
    bound = None if prepared is None else prepared.levels[beams.level]
    log_probs = bounded(ops, only_ends(index, beams, logits))
    if normalize is not None:
        log_probs = log_softmax(ops, log_probs)
    codes, valid, _ = candidates(ops, level, beams.states, bound)
    allowed = xp.where(valid, xp.exp(ops.take_along(log_probs, codes)), 0.0)
    removed = xp.sum(xp.exp(log_probs), axis=-1) - xp.sum(allowed, axis=-1)
    return xp.where(beams.states > DEAD, xp.clip(removed, 0.0, 1.0), 0.0)
