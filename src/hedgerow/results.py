"""Results: the items that finished beams name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from hedgerow._arguments import is_whole, whole_number
from hedgerow.catalog.catalog import ITEM_ID
from hedgerow.catalog.ragged import trimmed, without_ends
from hedgerow.constraints.requests import BatchRules
from hedgerow.decode.beams import Beams
from hedgerow.decode.ops import to_numpy
from hedgerow.errors import ArgumentError
from hedgerow.index.bits import bits_at
from hedgerow.index.lookup import attribute_column
from hedgerow.index.trie import Trie, codes_of_leaves

if TYPE_CHECKING:
    import pyarrow as pa

OrderBy = str | tuple[str, str] | None
DIRECTIONS = ("ascending", "descending")
# How many items a Results shows of itself.
SHOWN = 3


@dataclass(frozen=True, eq=False, repr=False)
class Results:
    """The R items of one request, best first.

    Attributes:
        item_ids: R ids, as Python values.
        sids: [R, L] int32; -1 after the end of a SID, where they are ragged.
        scores: [R] float32, the sum of log-probabilities along the SID; items of one SID share it.
        rows: [R] int64, the items' rows in the index's `item_ids` and `attributes`.
        attributes: R rows, as an Arrow table.
    """

    item_ids: list[Any]
    sids: np.ndarray
    scores: np.ndarray
    rows: np.ndarray
    attributes: pa.Table

    def __len__(self) -> int:
        return len(self.item_ids)

    def __repr__(self) -> str:
        best = zip(self.item_ids[:SHOWN], self.scores[:SHOWN].tolist(), strict=True)
        shown = [f"{item!r} {score:.2f}" for item, score in best] + ["..."] * (len(self) > SHOWN)
        return f"Results({len(self):,} items: {', '.join(shown)})" if shown else "Results(0 items)"

    def head(self, k: int) -> Results:
        """Returns the best k items, or all where there are fewer."""
        return self[: whole_number(k, "k", least=0)]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.to_pylist())

    @overload
    def __getitem__(self, place: int) -> dict[str, Any]: ...

    @overload
    def __getitem__(self, place: slice) -> Results: ...

    def __getitem__(self, place: int | slice) -> dict[str, Any] | Results:
        """The item at a rank counted from 0, as in `to_pylist`; or the Results of a slice."""
        kept = np.arange(len(self))[place]
        if isinstance(place, slice):
            return self._take(kept)
        return self._take(kept[None]).to_pylist()[0]

    def _take(self, places: np.ndarray) -> Results:
        ids = [self.item_ids[place] for place in places.tolist()]
        arrays = self.sids[places], self.scores[places], self.rows[places]
        # Arrow's take loses the number of rows of a table without columns.
        attributes = self.attributes.take(places) if self.attributes.num_columns else self.attributes.slice(0, len(ids))
        return Results(ids, *arrays, attributes)

    def to_pylist(self) -> list[dict[str, Any]]:
        """Returns one dict an item: item_id, score, sid (at its own length), and its attributes."""
        # Arrow forgets the number of rows of a table without columns when it is pickled.
        rest = self.attributes.to_pylist() if self.attributes.num_columns else [{}] * len(self)
        named = zip(self.item_ids, self.scores.tolist(), self.sids.tolist(), rest, strict=True)
        return [row | {"item_id": item, "score": score, "sid": trimmed(sid)} for item, score, sid, row in named]


@dataclass(frozen=True)
class Picking:
    """How the items of a SID are ordered, and how many of all are kept: the last arguments of `Trie.items`."""

    k: int | None
    order_by: OrderBy
    caps: Mapping[str, int] | None

    def __post_init__(self) -> None:
        if self.k is not None and not is_whole(self.k):
            raise ArgumentError(f"k must be a positive integer, or None; got {self.k!r}.")
        if not _is_order(self.order_by):
            raise ArgumentError(
                "order_by must be an attribute, whose largest values come first, or an attribute and its direction, "
                f"('price', 'ascending') or ('price', 'descending'); got {self.order_by!r}."
            )
        if not isinstance(self.caps or {}, Mapping):
            raise ArgumentError(f"caps must map attributes to counts: {{'director': 3}}; got {self.caps!r}.")
        for name, most in (self.caps or {}).items():
            if not is_whole(most):
                raise ArgumentError(f"caps must say how many items at most: {{{name!r}: 3}}; got {most!r}.")


def _is_order(order_by: Any) -> bool:
    if order_by is None or isinstance(order_by, str):
        return True
    return isinstance(order_by, tuple | list) and len(order_by) == 2 and order_by[1] in DIRECTIONS


def results_of(index: Trie, beams: Beams, rules: BatchRules, picking: Picking) -> list[Results]:
    """One `Results` per request, under rules that are checked already: see `TrieIndex.results`."""
    states, scores, codes = (to_numpy(array) for array in (beams.states, beams.scores, beams.codes))
    return [
        _request(index, states[request], scores[request], codes[request], rules, request, picking)
        for request in range(len(states))
    ]


def check_finished(index: Trie, beams: Any) -> None:
    """Checks that beams are finished.

    Raises:
        ArgumentError: they are not Beams, or do not have all L codes.
    """
    if not isinstance(beams, Beams):
        raise ArgumentError(f"expected Beams; got {type(beams).__name__}.")
    if beams.level != index.num_levels:
        raise ArgumentError(
            f"results need finished beams; these have {beams.level} of {index.num_levels} codes. Continue the search."
        )


def _request(
    index: Trie,
    states: np.ndarray,
    scores: np.ndarray,
    codes: np.ndarray,
    rules: BatchRules,
    request: int,
    picking: Picking,
) -> Results:
    beams = np.flatnonzero(states >= 0)
    leaves = states[beams].astype(np.int64)
    if (leaves >= index.num_sids).any() or (codes_of_leaves(index, leaves) != codes[beams]).any():
        raise ArgumentError("these beams come from a search on another index; call results on that index.")
    first, end = index.rows_of(leaves)
    counts = end - first
    owners = np.repeat(beams, counts)
    before = np.repeat(np.cumsum(counts) - counts, counts)
    rows = np.repeat(first, counts).astype(np.int64) + np.arange(len(owners)) - before
    within, excluded = rules.set_of(request), rules.excluded_by(request)
    kept = np.ones(len(rows), bool) if within is None else bits_at(within._words, rows)
    kept &= ~np.isin(rows, excluded)
    rows, owners = rows[kept], owners[kept]
    picked = _picked(index, rows, owners, picking)
    rows, owners = rows[picked], owners[picked]
    # Taken together with the ids: Arrow loses the number of rows of a table without columns.
    items = index.items_table.take(rows)
    ids, attributes = items.column(ITEM_ID).to_pylist(), items.drop_columns([ITEM_ID])
    sids = without_ends(codes[owners], index.end_codes) if index.ragged else codes[owners]
    return Results(ids, sids, scores[owners], rows, attributes)


def _picked(index: Trie, rows: np.ndarray, owners: np.ndarray, picking: Picking) -> np.ndarray:
    """Returns which of the rows are kept, and in which order: places in `rows`."""
    order = np.arange(len(rows))
    if picking.order_by is not None:
        order = _ordered(index, rows, owners, picking.order_by)
    if picking.caps:
        order = _capped(index, rows, order, picking)
    return order if picking.k is None else order[: picking.k]


def _ordered(index: Trie, rows: np.ndarray, owners: np.ndarray, order_by: Any) -> np.ndarray:
    """Returns the places of rows, those of one SID in the order of an attribute, nulls last; equal ones stay."""
    import pyarrow as pa
    import pyarrow.compute as pc

    name, direction = (order_by, "descending") if isinstance(order_by, str) else order_by
    values = attribute_column(index, name, "order_by").take(rows)
    table = pa.table({"beam": owners, "value": values, "place": np.arange(len(rows))})
    keys = [("beam", "ascending"), ("value", direction), ("place", "ascending")]
    try:
        return pc.sort_indices(table, sort_keys=keys).to_numpy()  # pyright: ignore[reportAttributeAccessIssue]
    except pa.ArrowException as error:
        raise ArgumentError(f"attribute {name!r} ({values.type}) has no order: {error}") from None


def _capped(index: Trie, rows: np.ndarray, order: np.ndarray, picking: Picking) -> np.ndarray:
    """Returns the places of the rows that come in rank order before their attribute's value has been had so often."""
    caps = picking.caps or {}
    columns = {name: attribute_column(index, name, "caps").take(rows[order]).to_pylist() for name in caps}
    had: dict[str, Counter[Any]] = {name: Counter() for name in caps}
    kept = []
    for at, place in enumerate(order.tolist()):
        values = {name: _values(column[at]) for name, column in columns.items()}
        if any(had[name][value] >= caps[name] for name, own in values.items() for value in own):
            continue
        for name, own in values.items():
            had[name].update(own)
        kept.append(place)
        if len(kept) == picking.k:
            break
    return np.asarray(kept, np.int64)


def _values(cell: Any) -> set[Any]:
    """Returns what an item counts as: each entry of a list; nothing where it is unknown."""
    entries = cell if isinstance(cell, list) else [cell]
    return {repr(entry) if isinstance(entry, list | dict) else entry for entry in entries if entry is not None}
