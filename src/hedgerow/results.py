"""Results: the items that finished beams name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hedgerow.decode.beams import Beams
from hedgerow.decode.ops import to_numpy
from hedgerow.errors import ArgumentError
from hedgerow.ragged import trimmed, without_ends

if TYPE_CHECKING:
    import pyarrow as pa

    from hedgerow.index.trie import TrieIndex


@dataclass(frozen=True, eq=False)
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

    def head(self, k: int) -> Results:
        """Returns the best k items, or all where there are fewer."""
        cut = slice(0, k)
        arrays = self.item_ids[cut], self.sids[cut], self.scores[cut], self.rows[cut]
        return Results(*arrays, self.attributes.slice(0, k))

    def to_pylist(self) -> list[dict[str, Any]]:
        """Returns one dict an item: item_id, score, sid (at its own length), and its attributes."""
        # Arrow forgets the number of rows of a table without columns when it is pickled.
        rest = self.attributes.to_pylist() if self.attributes.num_columns else [{}] * len(self)
        named = zip(self.item_ids, self.scores.tolist(), self.sids.tolist(), rest, strict=True)
        return [row | {"item_id": item, "score": score, "sid": trimmed(sid)} for item, score, sid, row in named]


def results_of(index: TrieIndex, beams: Beams) -> list[Results]:
    """Returns one `Results` a request: `TrieIndex.items`."""
    if not isinstance(beams, Beams):
        raise ArgumentError(f"expected Beams; got {type(beams).__name__}.")
    if beams.level != index.num_levels:
        raise ArgumentError(
            f"only finished beams name items: these have {beams.level} of {index.num_levels} codes; step them on."
        )
    states, scores, sids = (to_numpy(array) for array in (beams.states, beams.scores, beams.codes))
    return [_request(index, *arrays) for arrays in zip(states, scores, sids, strict=True)]


def _request(index: TrieIndex, states: np.ndarray, scores: np.ndarray, sids: np.ndarray) -> Results:
    beams = np.flatnonzero(states >= 0)
    leaves = states[beams].astype(np.int64)
    if (leaves >= index.num_sids).any() or (index.codes_of(leaves) != sids[beams]).any():
        raise ArgumentError("these beams were searched on another index, with other SIDs; ask that one for the items.")
    first, end = index.rows_of(leaves)
    counts = end - first
    owners = np.repeat(beams, counts)
    before = np.repeat(np.cumsum(counts) - counts, counts)
    rows = np.repeat(first, counts).astype(np.int64) + np.arange(len(owners)) - before
    # Taken with the ids beside them: Arrow forgets the number of rows of a table without columns.
    items = index.items_table.take(rows)
    ids, attributes = items.column("item_id").to_pylist(), items.drop_columns(["item_id"])
    named = without_ends(sids[owners], index.end_codes) if index.ragged else sids[owners]
    return Results(ids, named, scores[owners], rows, attributes)
