"""Forest: a trie per request, over a few items of an index, stored as one trie with a root per request."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from hedgerow._read_only import set_read_only
from hedgerow.index.build import level_of, new_nodes
from hedgerow.index.fanout import fan_out
from hedgerow.index.lookup import leaves_of
from hedgerow.index.trie import Trie, codes_of_leaves

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, eq=False, repr=False)
class Forest(Trie):
    """The items of each of B requests as a trie of their own. The root of request b is state b before level 0.

    The items of a request are in the order of their SIDs, as in the index. An item of several requests is stored for
    each of them. A request without items has a root without children.

    Attributes:
        rows: [N] int64, the rows of the items in the index.
        item_starts: [B + 1] int64: the items of request b are item_starts[b] to item_starts[b + 1] - 1.
    """

    rows: np.ndarray
    item_starts: np.ndarray

    def __post_init__(self) -> None:
        super().__post_init__()
        set_read_only((self.rows, self.item_starts))

    @property
    def num_requests(self) -> int:
        """B, the number of requests."""
        return self.levels[0].num_parents


def grow_forest(index: Trie, batch_size: int, requests: np.ndarray, rows: np.ndarray) -> Forest:
    """Build the forest of a batch. Its size and the time depend on the number of items, not on the index.

    Args:
        index: the index of the catalog.
        batch_size: B.
        requests: [N] int64, the request of each item, ascending.
        rows: [N] int64, the row of each item in the index, ascending per request and distinct.
    """
    leaves = leaves_of(index, rows)
    is_new = np.ones(len(rows), bool)
    is_new[1:] = (requests[1:] != requests[:-1]) | (leaves[1:] != leaves[:-1])
    leaf_start, leaf_forks, _ = fan_out(is_new, int(is_new.sum()))
    leaf_requests, codes = requests[is_new], codes_of_leaves(index, leaves[is_new])
    starts_node = np.ones(len(codes), bool)
    starts_node[1:] = leaf_requests[1:] != leaf_requests[:-1]
    item_starts = np.searchsorted(requests, np.arange(batch_size + 1))
    levels, num_parents = [], batch_size
    for number, level in enumerate(index.levels):
        is_first, level_codes = new_nodes(starts_node, codes[:, number])
        if number == 0:
            # Row pointers, because a request can have no items.
            counts = np.bincount(leaf_requests[starts_node], minlength=batch_size)
            start = np.concatenate(([0], np.cumsum(counts))).astype(np.int32)
            fan = start, None, int(counts.max())
        else:
            fan = fan_out(is_first, num_parents)
        levels.append(level_of(level_codes, *fan, level.codebook_size, level.end))
        num_parents = len(level_codes)
    return Forest(tuple(levels), leaf_start, leaf_forks, partial(_items, index, rows), rows, item_starts)


def _items(index: Trie, rows: np.ndarray) -> pa.Table:
    return index.items_table.take(rows)
