"""verify_trie(): compare every array of a saved index with its definition."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np

from hedgerow.errors import CatalogError, IndexFileError
from hedgerow.index.build import Progress, bitmap, ignore_progress
from hedgerow.index.fanout import is_consistent
from hedgerow.index.files import load_trie
from hedgerow.index.level import Level
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
    index = load_trie(path, verify=True)
    for fault in _faults(index, progress):
        raise IndexFileError(
            f"{path}: {fault}. The checksums are correct, so the index was written incorrectly. Build and save it "
            "again."
        )
    return index


def _faults(index: Trie, progress: Progress) -> Iterator[str]:
    parents = 1
    for number, level in enumerate(index.levels):
        for fault in _level_faults(level, parents):
            yield f"level {number}: {fault}"
        parents = level.num_nodes
    for number, (above, level) in enumerate(pairwise(index.levels), 1):
        if above.end is not None and not _ends_are_final(above, level):
            yield f"level {number}: a SID continues after its end code"
    if not is_consistent(index.leaf_start, index.leaf_forks, index.num_sids, index.num_items):
        yield "a leaf has no item, or its items are out of order"
        return
    yield from _item_faults(index)
    for start in range(0, index.num_sids, BLOCK):
        leaves = np.arange(start, min(start + BLOCK, index.num_sids))
        progress("walk", start, index.num_sids)
        if (wrong := index.find(index.sids(leaves)) != leaves).any():
            yield f"the SID {index.sids(leaves[wrong][:1])[0].tolist()} does not lead to its leaf"
    progress("walk", index.num_sids, index.num_sids)


def _level_faults(level: Level, parents: int) -> Iterator[str]:
    if not is_consistent(level.child_start, level.forks, parents, level.num_nodes):
        yield "the row pointers or forks do not give each node one parent, in order"
        return
    start, stop = level.children(np.arange(parents))
    counts = stop - start
    if level.max_branch != counts.max(initial=0):
        yield f"the largest branch factor is {counts.max(initial=0)}, but the manifest has {level.max_branch}"
    codes = level.codes.astype(np.int64)
    if codes.max(initial=0) >= level.codebook_size:
        yield f"code {codes.max()} is outside the codebook of {level.codebook_size}"
        return
    has_left_sibling = np.ones(level.num_nodes, bool)
    has_left_sibling[start[counts > 0]] = False
    if (np.diff(codes) < 1)[has_left_sibling[1:]].any():
        yield "the codes of a node's children are not in ascending order"
    if level.allowed is not None and not np.array_equal(bitmap(level), level.allowed):
        yield "the bitmap does not match the codes"


def _ends_are_final(above: Level, level: Level) -> bool:
    """Whether each node of the level above with the end code has one child, and that child has the end code."""
    start, stop = level.children(np.flatnonzero(above.codes == above.end))
    return bool((stop - start == 1).all() and (level.codes[start] == level.end).all())


def _item_faults(index: Trie) -> Iterator[str]:
    from hedgerow.catalog.columns import checked_item_ids

    try:
        checked_item_ids(index.item_ids, index.num_items)
    except CatalogError as error:
        yield str(error).rstrip(".")
