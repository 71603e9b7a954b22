"""Make a constraint set from a mask, item ids or a function of the attributes: see `TrieIndex.constraint`."""

from __future__ import annotations

from typing import Any

import numpy as np

from hedgerow._arguments import check_choice
from hedgerow.constraints.device_sets import DeviceSet, is_on_device
from hedgerow.constraints.masks import Order, mask_of
from hedgerow.constraints.sets import ConstraintSet
from hedgerow.errors import ConstraintError
from hedgerow.index.bits import packed
from hedgerow.index.lookup import MISSING, Missing, as_ids, check_known, find_rows
from hedgerow.index.trie import Trie


def constraint(index: Trie, mask: Any, ids: Any, order: Order, name: str | None, missing: Missing) -> ConstraintSet:
    """Make a constraint set of the index's items: see `TrieIndex.constraint`."""
    if (mask is None) == (ids is None):
        raise ConstraintError(
            "pass either a mask (or a function of the attributes) or ids, not both: index.constraint(mask) or "
            "index.constraint(ids=[...])."
        )
    check_choice(missing, "missing", MISSING, error=ConstraintError)
    if ids is not None:
        if order is not None:
            raise ConstraintError("order is the order of a mask; ids have any order. Omit order.")
        return ConstraintSet(index, packed(_mask_of_ids(index, ids, missing)), name or "ids")
    if order == "index" and is_on_device(mask):
        return DeviceSet.of(index, mask, name or "mask")
    default = getattr(mask, "__name__", "function") if callable(mask) else "mask"
    return ConstraintSet(index, packed(mask_of(index, mask, order, missing)), name or default)


def _mask_of_ids(index: Trie, ids: Any, missing: Missing) -> np.ndarray:
    wanted = as_ids(index, ids, "ids", skip_too_large=missing == "ignore")
    rows = find_rows(index, wanted)
    if missing == "raise":
        check_known(rows, wanted, "ids", ConstraintError, " missing='ignore' skips such ids.")
    mask = np.zeros(index.num_items, bool)
    mask[rows[rows >= 0]] = True
    return mask
