"""A small shop whose users move through the items in a pattern that a model learns in seconds."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

import hedgerow as hr
from hedgerow.training import Histories

ITEMS, GROUPS = 60, 10
OPTIONS = {"size": "tiny", "epochs": 3, "device": "cpu", "precision": "float32", "validation_users": 60}


def sids() -> np.ndarray:
    """Two codes per item: its group, and its number in the group."""
    return np.stack([np.arange(ITEMS) % GROUPS, np.arange(ITEMS) // GROUPS], axis=1)


def shop() -> hr.TrieIndex:
    """An index of items i0 to i59, with names."""
    ids = [f"i{number}" for number in range(ITEMS)]
    names = {"title": [f"Item {number}" for number in range(ITEMS)], "price": range(ITEMS)}
    return hr.build_index(hr.Catalog(sids(), item_ids=ids, attributes=names))


def clicks(users: int = 150) -> pa.Table:
    """Histories of 1 to 12 items: the next item is in the next group."""
    random = np.random.default_rng(0)
    rows = []
    for user in range(users):
        number = int(random.integers(ITEMS))
        for time in range(int(random.integers(1, 13))):
            rows.append({"user": user, "item_id": f"i{number}", "timestamp": time})
            number = int(random.integers(ITEMS // GROUPS)) * GROUPS + (number + 1) % GROUPS
    return pa.Table.from_pylist(rows)


def histories(index: hr.TrieIndex) -> Histories:
    """The histories of `clicks`, without items that a user has seen before at the same time."""
    return Histories.from_arrow(clicks(), index)
