"""Coverage: the items that many searches returned."""

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
    """Counts the items that many searches on one index return, and the dead beams of these searches.

    Args:
        index: the index that is searched.

    Attributes:
        index: the index that is searched.
        counts: int64 [N], how often each row of `index` was returned.
        requests: the number of results that were added.
        beams: the number of beams that were added, live and dead.
        dead_beams: the number of dead beams among them. A beam is dead if the catalog and the constraints allow fewer
            than `beam_width` SIDs.

    Raises:
        ArgumentError: `index` is not a TrieIndex.

    Examples:
        ```python
        import numpy as np
        import hedgerow as hr

        index = hr.build_index(hr.Catalog([[0], [1], [2], [3]], item_ids=["a", "b", "c", "d"]))
        coverage = hr.Coverage(index)
        for logits in (np.array([[[4.0, 3.0, 2.0, 1.0]]]), np.array([[[2.0, 4.0, 3.0, 1.0]]])):
            beams = hr.beam_search(index, lambda beams: logits, batch_size=1, beam_width=2)
            coverage.add(index.results(beams), beams)
        assert coverage.share() == 0.75
        assert coverage.items.to_pylist() == ["a", "b", "c"]
        assert coverage.share(index.constraint(ids=["c", "d"])) == 0.5
        ```
    """

    def __init__(self, index: TrieIndex) -> None:
        if not isinstance(index, TrieIndex):
            raise ArgumentError(f"expected the index that is searched, a TrieIndex; got {type(index).__name__}.")
        self.index = index
        self.counts = np.zeros(index.num_items, np.int64)
        self.requests = self.beams = self.dead_beams = 0

    def add(self, results: Results | Iterable[Results], beams: Beams | None = None) -> None:
        """Count the results of a search: one `Results`, or one per request of a batch.

        Args:
            results: results of `index`, from `TrieIndex.results`, `Version.results` or `Retriever.retrieve`.
            beams: the finished beams [B, M] of these results, to count dead beams.

        Raises:
            ArgumentError: `results` contains something else, or results of another index; or `beams` has another
                number of requests.

        Examples:
            ```python
            import numpy as np
            import hedgerow as hr

            index = hr.build_index(hr.Catalog([[0], [1]]))
            beams = hr.beam_search(index, lambda beams: np.zeros((1, 1, 2)), batch_size=1, beam_width=3)
            coverage = hr.Coverage(index)
            coverage.add(index.results(beams), beams)
            assert (coverage.requests, coverage.beams, coverage.dead_beams) == (1, 3, 1)
            ```
        """
        batch = self._checked_batch(results)
        if beams is not None:
            if not isinstance(beams, Beams) or len(beams.states) != len(batch):
                got = f"{len(beams.states)} requests" if isinstance(beams, Beams) else type(beams).__name__
                raise ArgumentError(f"beams must be the Beams of these {len(batch)} requests; got {got}.")
            states = to_numpy(beams.states)
            self.beams += states.size
            self.dead_beams += int((states == DEAD).sum())
        self.requests += len(batch)
        for request in batch:
            np.add.at(self.counts, request.rows, 1)

    def share(self, items: ConstraintSet | None = None) -> float:
        """Compute the share of items that were returned at least once, from 0 to 1; NaN if there are no items.

        Args:
            items: the constraint set of the items to consider. Default: all items.

        Raises:
            ConstraintError: `items` is not a constraint set of this index.

        Examples:
            ```python
            import hedgerow as hr

            index = hr.build_index(hr.Catalog([[0], [1]]))
            assert hr.Coverage(index).share() == 0
            ```
        """
        if items is None:
            return self.num_returned / self.index.num_items if self.index.num_items else float("nan")
        if not isinstance(items, ConstraintSet) or items.index is not self.index:
            raise ConstraintError(f"items must be a constraint set of the index of this Coverage; got {items!r}.")
        returned = int((self.counts[items.mask] > 0).sum())
        return returned / items.num_items if items.num_items else float("nan")

    @property
    def num_returned(self) -> int:
        """The number of distinct items that were returned."""
        return int(np.count_nonzero(self.counts))

    @property
    def items(self) -> pa.ChunkedArray:
        """The ids of the items that were returned at least once, in the order of the index."""
        return self.index.item_ids.take(np.flatnonzero(self.counts))

    def _checked_batch(self, results: Any) -> list[Results]:
        if isinstance(results, Results):
            results = [results]
        if not isinstance(results, Iterable):
            raise ArgumentError(f"expected Results, or a list of them; got {type(results).__name__}.")
        batch = list(results)
        for request in batch:
            self._check(request)
        return batch

    def _check(self, results: Any) -> None:
        if not isinstance(results, Results):
            raise ArgumentError(f"expected Results, or a list of them; got {type(results).__name__} in the list.")
        in_range = len(results.rows) == 0 or int(results.rows.max()) < self.index.num_items
        if not in_range or self.index.item_ids.take(results.rows).to_pylist() != results.item_ids:
            raise ArgumentError(
                "these results are of another index than the one of this Coverage. Use one Coverage per index or "
                "version."
            )

    def __repr__(self) -> str:
        items = f"{self.num_returned:,} of {self.index.num_items:,} items"
        dead = f", dead_beams={self.dead_beams:,} of {self.beams:,}" if self.beams else ""
        return f"Coverage({items} returned, requests={self.requests:,}{dead})"
