"""CandidateIndex: an index over the candidate lists of a batch of requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hedgerow.constraints.requests import BatchRules
from hedgerow.decode.beams import Beams
from hedgerow.decode.capacity import Capacity
from hedgerow.decode.device import DeviceIndex, to_device
from hedgerow.errors import ArgumentError
from hedgerow.index.bits import bits_at
from hedgerow.index.forest import Forest, grow_forest
from hedgerow.picking import OrderBy, Picking
from hedgerow.results import Results, batch_results, check_finished


@dataclass(frozen=True, eq=False, repr=False)
class CandidateIndex:
    """An index in which each request of a batch has its own items. `TrieIndex.candidates` makes one.

    A search of it costs what the candidates cost, not what the catalog does. It takes no constraint sets and no
    exclusions: those of the requests have been applied to their candidates.

    `len(candidates)` is the number of candidates of all requests.

    Examples:
        ```python
        import numpy as np
        import hedgerow as hr

        index = hr.build_index(hr.Catalog([[0, 1], [2, 0], [2, 2]], item_ids=["a", "b", "c"]))
        candidates = index.candidates([["a", "c"], ["b"]])
        beams = hr.beam_search(
            candidates.to("numpy"), lambda beams: np.zeros((*beams.states.shape, 3)), batch_size=2, beam_width=4
        )
        first, second = candidates.results(beams)
        assert (first.item_ids, second.item_ids) == (["a", "c"], ["b"])
        ```
    """

    _forest: Forest

    @property
    def num_requests(self) -> int:
        """B, the number of requests. `init_beams` and `beam_search` need this batch size."""
        return self._forest.num_requests

    @property
    def rows(self) -> list[np.ndarray]:
        """The rows [R] int64 of each request's candidates, in the index of the catalog, ascending."""
        return np.split(self._forest.rows, self._forest.item_starts[1:-1])

    def __len__(self) -> int:
        return self._forest.num_items

    def __repr__(self) -> str:
        return f"CandidateIndex(requests={self.num_requests:,}, items={len(self):,})"

    def to(self, backend: str, device: Any = None, *, capacity: Capacity | None = None) -> DeviceIndex:
        """Copy the index to a device, as `TrieIndex.to` does.

        Args:
            backend: "numpy", "torch" or "jax".
            device: where to put the arrays. Default: as for `TrieIndex.to`.
            capacity: the sizes to pad the arrays to, so that a compiled step runs on the candidates of other batches.

        Raises:
            BackendError: as for `TrieIndex.to`.
            MissingDependencyError: as for `TrieIndex.to`.
            ArgumentError: the index does not fit into the capacity.

        Examples:
            ```python
            import hedgerow as hr

            index = hr.build_index(hr.Catalog([[0, 1], [2, 0]], item_ids=["a", "b"]))
            assert index.candidates([["a"], ["b"]]).to("numpy").num_levels == 2
            ```
        """
        return to_device(self._forest, backend, device, capacity)

    def results(
        self,
        beams: Beams,
        *,
        k: int | None = None,
        order_by: OrderBy = None,
        caps: Mapping[str, int] | None = None,
    ) -> list[Results]:
        """Map finished beams to items: one `Results` per request, best first.

        Args:
            beams: the beams [B, M] after the last level.
            k: as for `TrieIndex.results`.
            order_by: as for `TrieIndex.results`.
            caps: as for `TrieIndex.results`.

        Raises:
            ArgumentError: the beams are not finished or belong to another index, or another argument is out of range.
            ConstraintError: there is no such attribute.

        Examples:
            ```python
            import numpy as np
            import hedgerow as hr

            index = hr.build_index(hr.Catalog([[0, 1], [2, 0], [2, 2]], item_ids=["a", "b", "c"]))
            candidates = index.candidates([["c", "b"]])
            beams = hr.beam_search(
                candidates.to("numpy"), lambda beams: np.zeros((*beams.states.shape, 3)), batch_size=1, beam_width=4
            )
            assert candidates.results(beams, k=1)[0].item_ids == ["b"]
            ```
        """
        picking = Picking(k, order_by, caps)
        check_finished(self._forest, beams)
        if len(beams.states) != self.num_requests:
            given = len(beams.states)
            raise ArgumentError(f"these are the candidates of {self.num_requests} requests; got beams of {given}.")
        return self._results(beams, picking)

    def _results(
        self, beams: Beams, pickings: Picking | Sequence[Picking], widths: Sequence[int] = ()
    ) -> list[Results]:
        no_rules = BatchRules(self._forest, self.num_requests, None, None)
        allowed = np.diff(self._forest.item_starts).tolist()
        found = batch_results(self._forest, beams, no_rules, pickings, widths=widths, allowed=allowed)
        return [replace(results, rows=self._forest.rows[results.rows]) for results in found]


def candidate_index(rules: BatchRules) -> CandidateIndex:
    """Build the index of the candidates that the rules of each request allow.

    Args:
        rules: the rules of B requests. Each request has candidates.
    """
    allowed = []
    for request in range(rules.batch_size):
        rows, items = rules.candidates_of(request), rules.set_of(request)
        assert rows is not None
        rows = np.unique(rows)
        rows = rows if items is None else rows[bits_at(items._words, rows)]
        allowed.append(rows[~np.isin(rows, rules.excluded_by(request))])
    requests = np.repeat(np.arange(rules.batch_size), list(map(len, allowed)))
    return CandidateIndex(grow_forest(rules.index, rules.batch_size, requests, np.concatenate(allowed)))
