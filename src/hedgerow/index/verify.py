"""verify_trie(): compare every array of a saved index with its definition."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from hedgerow.errors import CatalogError, IndexFileError
from hedgerow.index.build import Progress, ignore_progress
from hedgerow.index.files import load_trie
from hedgerow.index.trie import Trie

BLOCK = 2**18


def verify_trie(path: str | Path, *, progress: Progress = ignore_progress) -> Trie:
    """Load the index in the folder `path` and check every checksum, every array and every SID.

    Args:
        path: a saved index.
        progress: called as ``progress(what, done, total)``, in SIDs.

    Returns:
        The index, completely read.

    Raises:
        IndexFileError: a check failed. The message names the first one.
    """
    index, _ = load_trie(path, verify="full")
    for fault in _faults(index, progress):
        raise IndexFileError(
            f"{path}: {fault}. The checksums are correct, so the index was written incorrectly. Build and save it "
            "again."
        )
    return index


def _faults(index: Trie, progress: Progress) -> Iterator[str]:
    """What contradicts the format, beyond the structure, which `load_trie` checks."""
    yield from _item_faults(index)
    for start in range(0, index.num_sids, BLOCK):
        leaves = np.arange(start, min(start + BLOCK, index.num_sids))
        progress("walk", start, index.num_sids)
        if (wrong := index.find(index.sids(leaves)) != leaves).any():
            yield f"the SID {index.sids(leaves[wrong][:1])[0].tolist()} does not lead to its leaf"
    progress("walk", index.num_sids, index.num_sids)


def _item_faults(index: Trie) -> Iterator[str]:
    from hedgerow.catalog.columns import checked_item_ids

    try:
        checked_item_ids(index.item_ids, index.num_items)
    except CatalogError as error:
        yield str(error).rstrip(".")
