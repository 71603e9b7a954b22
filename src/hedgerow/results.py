"""Results: the items of finished beams."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np

from hedgerow._arguments import check_choice, whole_number
from hedgerow.catalog.constructors import ITEM_ID
from hedgerow.catalog.ragged import trimmed, without_ends
from hedgerow.constraints.requests import BatchRules
from hedgerow.decode.beams import Beams
from hedgerow.decode.ops import to_numpy
from hedgerow.errors import ArgumentError
from hedgerow.index.arrow import take_rows
from hedgerow.index.bits import bits_at
from hedgerow.index.trie import Trie, codes_of_leaves
from hedgerow.picking import DIRECTIONS, Picking, check_order, picked, sorted_positions

if TYPE_CHECKING:
    import pyarrow as pa

Reason = Literal["beams", "caps", "set", "catalog", "model"]
# The number of items in the repr of Results.
SHOWN_ITEMS = 3


@dataclass(frozen=True, eq=False, repr=False)
class Results:
    """The items of one request, best first.

    `len(results)` is the number of items. Iteration and indexing return a dict per item, as `to_pylist`; a slice is a
    Results.

    Attributes:
        item_ids: the item ids, as a list of Python values.
        sids: int32 [items, L]; -1 after the end of a ragged SID.
        scores: float32 [items], the sum of the log-probabilities along the SID. Items that share a SID share the score.
        rows: int64 [items], the rows of the items in the index's `item_ids` and `attributes`.
        attributes: the attributes of the items, as an Arrow table.
        code_scores: float32 [items, L], the log-probability of each code of the SIDs; 0 after the end of a ragged SID.
            They add up to the scores, before a length penalty and without the end after a SID of L codes. None if the
            beams have none: see `Beams.code_scores`.
        num_valid: the number of SIDs that the search found, at most its beam width. Rules, k and caps can leave fewer
            items than that, and SIDs with several items more. None if the results are not those of a search.
        reason: why there are fewer than k items: "beams" (the beams found no more items; a larger `beam_width` may),
            "caps" (the caps leave out the others), "set" (the constraints, exclusions and candidates allow no others),
            "catalog" (the index has no others) or "model" (the model gives all others probability 0). None if there are
            k items, or k is None.

    Examples:
        ```python
        import numpy as np
        import hedgerow as hr

        catalog = hr.Catalog([[0], [2]], item_ids=["a", "b"], attributes={"price": [3, 9]})
        index = hr.build_index(catalog)
        beams = hr.beam_search(index, lambda beams: np.array([[[0.7, 0.0, 0.3]]]), batch_size=1, beam_width=2)
        results = index.results(beams)[0]
        assert results.item_ids == ["a", "b"]
        assert results[1]["price"] == 9
        assert [item["item_id"] for item in results[:1]] == ["a"]
        ```
    """

    item_ids: list[Any]
    sids: np.ndarray
    scores: np.ndarray
    rows: np.ndarray
    attributes: pa.Table
    code_scores: np.ndarray | None = None
    num_valid: int | None = None
    reason: Reason | None = None

    @property
    def complete(self) -> bool:
        """Whether the search returned as many items as were asked for: `reason` is None. A slice keeps the reason."""
        return self.reason is None

    def __len__(self) -> int:
        return len(self.item_ids)

    def __repr__(self) -> str:
        best = zip(self.item_ids[:SHOWN_ITEMS], self.scores[:SHOWN_ITEMS].tolist(), strict=True)
        shown = [f"{item!r} {score:.2f}" for item, score in best] + ["..."] * (len(self) > SHOWN_ITEMS)
        return f"Results({len(self):,} items: {', '.join(shown)})" if shown else "Results(0 items)"

    def head(self, k: int) -> Results:
        """Return the best k items, or all items if there are fewer.

        Args:
            k: the number of items, at least 0.

        Raises:
            ArgumentError: k is not an integer, or is below 0.

        Examples:
            ```python
            import numpy as np
            import hedgerow as hr

            index = hr.build_index(hr.Catalog([[0], [2], [1]]))
            beams = hr.beam_search(index, lambda beams: np.array([[[0.1, 0.2, 0.7]]]), batch_size=1, beam_width=3)
            results = index.results(beams)[0]
            assert results.head(2).item_ids == [1, 2]
            ```
        """
        return self[: whole_number(k, "k", least=0)]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.to_pylist())

    @overload
    def __getitem__(self, position: int) -> dict[str, Any]: ...

    @overload
    def __getitem__(self, position: slice) -> Results: ...

    def __getitem__(self, position: int | slice) -> dict[str, Any] | Results:
        """The item at a position, counted from 0, as in `to_pylist`; or the Results of a slice."""
        if isinstance(position, slice):
            return self._take(np.arange(len(self))[position])
        return self._take(np.arange(len(self))[[operator.index(position)]]).to_pylist()[0]

    def _take(self, positions: np.ndarray) -> Results:
        item_ids = [self.item_ids[position] for position in positions.tolist()]
        # Arrow's take loses the number of rows of a table without columns.
        attributes = (
            self.attributes.take(positions) if self.attributes.num_columns else self.attributes.slice(0, len(item_ids))
        )
        code_scores = None if self.code_scores is None else self.code_scores[positions]
        arrays = self.sids[positions], self.scores[positions], self.rows[positions]
        return Results(item_ids, *arrays, attributes, code_scores, self.num_valid, self.reason)

    def sort_by(self, attribute: str, direction: str = "descending") -> Results:
        """Sort all items by an attribute; nulls are last, and equal values keep their order.

        `order_by` of a search is something else: the order of the items that share a SID.

        Args:
            attribute: the name of an attribute.
            direction: "ascending" or "descending".

        Raises:
            ArgumentError: there is no such attribute, it has no order, or the direction is something else.

        Examples:
            ```python
            import numpy as np
            import hedgerow as hr

            catalog = hr.Catalog([[0], [2]], item_ids=["a", "b"], attributes={"price": [3, 9]})
            index = hr.build_index(catalog)
            beams = hr.beam_search(index, lambda beams: np.array([[[0.7, 0.0, 0.3]]]), batch_size=1, beam_width=2)
            assert index.results(beams)[0].sort_by("price").item_ids == ["b", "a"]
            ```
        """
        check_choice(direction, "direction", DIRECTIONS)
        if attribute not in self.attributes.column_names:
            names = ", ".join(self.attributes.column_names) or "none"
            raise ArgumentError(f"sort_by: there is no attribute {attribute!r}; the attributes are {names}.")
        check_order(self.attributes.column(attribute), attribute, "sort_by")
        no_beams = np.zeros(len(self), np.int64)
        return self._take(
            sorted_positions(no_beams, self.attributes.column(attribute), attribute, direction, "sort_by")
        )

    def to_pylist(self) -> list[dict[str, Any]]:
        """Convert to a list with one dict per item: its attributes, and item_id, score and sid.

        A sid is a list of codes, without padding.

        Examples:
            ```python
            import numpy as np
            import hedgerow as hr

            index = hr.build_index(hr.Catalog([[0], [2]], item_ids=["a", "b"]))
            beams = hr.beam_search(index, lambda beams: np.array([[[9.0, 0.0, 0.0]]]), batch_size=1, beam_width=1)
            assert index.results(beams)[0].to_pylist()[0]["sid"] == [0]
            ```
        """
        # Arrow loses the number of rows of a table without columns when it is pickled.
        attributes = self.attributes.to_pylist() if self.attributes.num_columns else [{}] * len(self)
        items = zip(self.item_ids, self.scores.tolist(), self.sids.tolist(), attributes, strict=True)
        return [row | {"item_id": item, "score": score, "sid": trimmed(sid)} for item, score, sid, row in items]


def batch_results(
    index: Trie,
    beams: Beams,
    rules: BatchRules,
    pickings: Picking | Sequence[Picking],
    *,
    widths: Sequence[int] = (),
    allowed: Sequence[int] = (),
) -> list[Results]:
    """One `Results` per request, with rules that are checked already: see `TrieIndex.results`.

    Args:
        index: the index that was searched.
        beams: finished beams of B requests.
        rules: the rules of the requests.
        pickings: for each request, or one for all.
        widths: the number of beams of each request. Default: M.
        allowed: the number of items that each request may return. Default: that of the rules.
    """
    arrays = (beams.codes, beams.scores, beams.states, beams.parents, beams.code_scores)
    host = Beams(*(None if array is None else to_numpy(array) for array in arrays))
    each = [pickings] * len(host.states) if isinstance(pickings, Picking) else pickings
    found = []
    for request, picking in enumerate(each):
        results, num_found = _request(index, host, rules, request, picking)
        if picking.k is not None and len(results) < picking.k:
            width = widths[request] if widths else host.states.shape[1]
            most = allowed[request] if allowed else _num_allowed(index, rules, request)
            is_restricted = bool(allowed) or most < index.num_items
            has_dead_beams = (results.num_valid or 0) < width
            reason = _reason(picking.k, num_found, most, is_restricted=is_restricted, has_dead_beams=has_dead_beams)
            results = replace(results, reason=reason)
        found.append(results)
    return found


def _num_allowed(index: Trie, rules: BatchRules, request: int) -> int:
    """The number of items that a request may return."""
    items, excluded = rules.set_of(request), np.unique(rules.excluded_by(request))
    if items is None:
        return index.num_items - len(excluded)
    return items.num_items - int(np.count_nonzero(bits_at(items._words, excluded)))


def _reason(k: int, num_found: int, num_allowed: int, *, is_restricted: bool, has_dead_beams: bool) -> Reason:
    """Why a request has fewer than k items: see `Results.reason`.

    Args:
        k: the number of items that were asked for.
        num_found: the number of items of the beams, before caps.
        num_allowed: the number of items that the request may return.
        is_restricted: whether these are not all items of the index.
        has_dead_beams: whether the search found fewer SIDs than it has beams.
    """
    if num_found >= k:
        return "caps"
    if num_found == num_allowed:
        return "set" if is_restricted else "catalog"
    return "model" if has_dead_beams else "beams"


def check_finished(index: Trie, beams: Any) -> None:
    """Check that beams are finished.

    Raises:
        ArgumentError: `beams` is not a Beams, or has fewer than L codes.
    """
    if not isinstance(beams, Beams):
        raise ArgumentError(f"expected Beams; got {type(beams).__name__}.")
    if beams.level != index.num_levels:
        raise ArgumentError(
            f"results need finished beams; these have {beams.level} of {index.num_levels} codes. Continue the search."
        )


def _request(index: Trie, host: Beams, rules: BatchRules, request: int, picking: Picking) -> tuple[Results, int]:
    """The results of one request, from beams of NumPy arrays; and the number of items before k and caps."""
    states, scores, codes = host.states[request], host.scores[request], host.codes[request]
    live_beams = np.flatnonzero(states >= 0)
    leaves = states[live_beams].astype(np.int64)
    if (leaves >= index.num_sids).any() or (codes_of_leaves(index, leaves) != codes[live_beams]).any():
        raise ArgumentError("these beams come from a search on another index; call results on that index.")
    rows, beams = _rows_of_leaves(index, leaves, live_beams)
    constraint, excluded = rules.set_of(request), rules.excluded_by(request)
    kept = np.ones(len(rows), bool) if constraint is None else bits_at(constraint._words, rows)
    kept &= ~np.isin(rows, excluded)
    rows, beams = rows[kept], beams[kept]
    num_found = len(rows)
    positions = picked(index, rows, beams, picking)
    rows, beams = rows[positions], beams[positions]
    # Ids and attributes are taken from one table: Arrow loses the number of rows of a table without columns.
    items = take_rows(index.items_table, rows)
    item_ids, attributes = items.column(ITEM_ID).to_pylist(), items.drop_columns([ITEM_ID])
    sids = without_ends(codes[beams], index.end_codes) if index.ragged else codes[beams]
    code_scores = None if host.code_scores is None else host.code_scores[request][beams]
    return Results(item_ids, sids, scores[beams], rows, attributes, code_scores, len(live_beams)), num_found


def _rows_of_leaves(index: Trie, leaves: np.ndarray, beams: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows of all items of the leaves, in the order of the leaves; and for each row the beam of its leaf."""
    start, stop = index.rows_of(leaves)
    counts = stop - start
    preceding = np.repeat(np.cumsum(counts) - counts, counts)
    rows = np.repeat(start, counts).astype(np.int64) + np.arange(len(preceding)) - preceding
    return rows, np.repeat(beams, counts)
