"""Make a constraint set from a mask, item ids, rows or a function of the attributes: see `TrieIndex.constraint`."""

from __future__ import annotations

from typing import Any

import numpy as np

from hedgerow._arguments import check_choice, check_unmasked
from hedgerow.constraints.device_sets import DeviceSet, is_on_device, no_such_row, not_rows
from hedgerow.constraints.masks import Order, mask_of
from hedgerow.constraints.sets import ConstraintSet
from hedgerow.errors import ConstraintError
from hedgerow.index.bits import packed
from hedgerow.index.lookup import MISSING, Missing, as_ids, check_known, find_rows
from hedgerow.index.trie import Trie


def constraint(
    index: Trie, mask: Any, ids: Any, rows: Any, order: Order, name: str | None, missing: Missing
) -> ConstraintSet:
    """Make a constraint set of the index's items: see `TrieIndex.constraint`."""
    if sum(given is not None for given in (mask, ids, rows)) != 1:
        raise ConstraintError(
            "pass either a mask (or a function of the attributes), or ids, or rows: index.constraint(mask), "
            "index.constraint(ids=[...]) or index.constraint(rows=[...])."
        )
    check_choice(missing, "missing", MISSING, error=ConstraintError)
    if order is not None and mask is None:
        raise ConstraintError("order is the order of a mask; ids and rows have any order. Omit order.")
    if rows is not None:
        return _of_rows(index, rows, name or "rows", missing)
    if ids is not None:
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


def _of_rows(index: Trie, rows: Any, name: str, missing: Missing) -> ConstraintSet:
    if is_on_device(rows):
        return DeviceSet.of_rows(index, rows, name, missing)
    check_unmasked(rows, "rows", "Remove them: rows.compressed().", error=ConstraintError)
    given = np.asarray(rows.detach() if hasattr(rows, "detach") else rows)
    given = given.astype(np.int64) if given.size == 0 else given
    if given.dtype.kind not in "iu" or given.ndim != 1:
        raise ConstraintError(not_rows(index, given.dtype, given.shape))
    known = (given >= 0) & (given < index.num_items)
    if missing == "raise" and not known.all():
        raise ConstraintError(no_such_row(index, int(given[~known][0])))
    mask = np.zeros(index.num_items, bool)
    mask[given[known]] = True
    return ConstraintSet(index, packed(mask), name)
