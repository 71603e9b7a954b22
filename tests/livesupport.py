"""What the tests of live indexes share."""

from __future__ import annotations

import numpy as np

import hedgerow as hr


def items_of(version: hr.Version) -> dict:
    """Returns the items of a version, id -> SID, without those removed."""
    left = version.index.filter(~version.removed)
    first, end = left.rows_of(np.arange(left.num_sids))
    sids = np.repeat(left.sids(), end - first, axis=0).tolist()
    return dict(zip(left.item_ids.to_pylist(), sids, strict=True))
