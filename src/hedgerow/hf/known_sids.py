"""The SIDs that a model was trained with: a sample of them in its folder, compared with those of an index."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hedgerow.errors import ArgumentError
from hedgerow.trie_index import TrieIndex

FILE = "sids.parquet"
SAMPLE = 1000
# Some items may have been given other SIDs since; if more have, the index is another one.
MAX_DIFFERING = 0.1


def write_sids(folder: Path, index: TrieIndex) -> None:
    """Write ids and SIDs of up to 1,000 items."""
    rows = np.unique(np.linspace(0, index.num_items - 1, SAMPLE).astype(np.int64)) if index.num_items else []
    ids = index.item_ids.take(pa.array(rows, pa.int64()))
    sids = index.sids_of(ids).tolist() if len(ids) else []
    pq.write_table(pa.table({"item_id": ids, "sid": pa.array(sids, pa.list_(pa.int64()))}), folder / FILE)


def check_sids(folder: str | Path, index: TrieIndex) -> None:
    """Check that an index has the SIDs that a model was trained with, if its folder has the file.

    Raises:
        ArgumentError: more than a tenth of the items of the sample that the index has, have other SIDs there; or the
            file cannot be read.
    """
    file = Path(folder).expanduser() / FILE
    if not file.is_file():
        return
    try:
        table = pq.read_table(file)
        ids, expected = table.column("item_id"), table.column("sid").to_pylist()
    except (OSError, KeyError, pa.ArrowException) as error:
        raise ArgumentError(f"{file} cannot be read: {error}") from None
    rows = index.rows(ids, missing="ignore") if ids.type == index.item_ids.type else np.full(len(ids), -1)
    known = np.flatnonzero(rows >= 0)
    if not len(known):
        warnings.warn(
            f"the index has none of {len(ids):,} items that {folder} was trained with, so it cannot be checked that it "
            "has the same SIDs.",
            stacklevel=3,
        )
        return
    found = index.sids_of(ids.take(pa.array(known))).tolist()
    differing = sum(one != expected[place] for one, place in zip(found, known.tolist(), strict=True))
    if differing > MAX_DIFFERING * len(known):
        raise ArgumentError(
            f"{folder} was trained with other Semantic IDs than those of the index: {differing:,} of {len(known):,} "
            "items of a sample have other SIDs. Train again, or build the index from the SIDs of the training: new "
            "items get theirs with semantic-ids --with-quantizer."
        )
