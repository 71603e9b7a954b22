"""Shared helpers of the tests of live indexes."""

from __future__ import annotations

import numpy as np

import hedgerow as hr


def items_of(version: hr.Version) -> dict:
    """Item id -> SID, of the items of a version that were not removed."""
    index = version.index.filter(~version.removed, order="index")
    start, stop = index.rows_of(np.arange(index.num_sids))
    sids = np.repeat(index.sids(), stop - start, axis=0).tolist()
    return dict(zip(index.item_ids.to_pylist(), sids, strict=True))
