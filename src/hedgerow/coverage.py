"""Coverage: which items many searches returned."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from hedgerow.constraints.sets import ConstraintSet
from hedgerow.decode.beams import DEAD, Beams
from hedgerow.decode.ops import to_numpy
from hedgerow.errors import ArgumentError, ConstraintError
from hedgerow.results import Results
from hedgerow.trie_index import TrieIndex

if TYPE_CHECKING:
    import pyarrow as pa


class Coverage:
    """Counts what many searches on one index returned: which items, how often, and how many beams were left over.

    ```python
    coverage = hr.Coverage(index)
    for batch in requests:
        beams = hr.beam_search(...)
        coverage.add(index.results(beams, k=10), beams)
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
