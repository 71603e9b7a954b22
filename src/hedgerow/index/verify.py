"""verify_index(): all that a saved index promises, held against what is there."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np

from hedgerow.errors import CatalogError, IndexFileError
from hedgerow.index.build import Progress, bitmap, ignore_progress
from hedgerow.index.fanout import is_whole
from hedgerow.index.files import load_trie
from hedgerow.index.level import Level
from hedgerow.index.trie import Trie

BLOCK = 2**18


def verify_trie(path: str | Path, *, progress: Progress = ignore_progress) -> Trie:
    """Loads the index in the folder `path` after comparing every checksum, every array and every SID.

    Args:
        path: a saved index.
        progress: called as ``progress(what, done, total)``, in SIDs.

    Returns:
        The index, loaded whole.

    Raises:
        IndexFileError: naming the first thing that is wrong.
    """
    index = load_trie(path, verify=True)
    for fault in _faults(index, progress):
        raise IndexFileError(f"{path}: {fault}. The checksums agree, so it was written wrong: build and save it again.")
    return index


def _faults(index: Trie, progress: Progress) -> Iterator[str]:
    parents = 1
    for number, level in enumerate(index.levels):
        for fault in _level_faults(level, parents):
            yield f"level {number}: {fault}"
        parents = level.num_nodes
    for number, (before, level) in enumerate(pairwise(index.levels), 1):
        if before.end is not None and not _ends_stay(before, level):
            yield f"level {number}: a SID that has ended goes on"
    if not is_whole(index.leaf_start, index.leaf_forks, index.num_sids, index.num_items):
        yield "a leaf has no item, or its items are out of order"
        return
    yield from _item_faults(index)
    for first in range(0, index.num_sids, BLOCK):
        leaves = np.arange(first, min(first + BLOCK, index.num_sids))
        progress("walk", first, index.num_sids)
        if (wrong := index.find(index.sids(leaves)) != leaves).any():
            yield f"the SID {index.sids(leaves[wrong][:1])[0].tolist()} does not lead to its leaf"
    progress("walk", index.num_sids, index.num_sids)


def _level_faults(level: Level, parents: int) -> Iterator[str]:
    if not is_whole(level.child_start, level.forks, parents, level.num_nodes):
        yield "the row pointers or forks do not give each node one parent, in order"
        return
    first, end = level.children(np.arange(parents))
    counts = end - first
    if level.max_branch != counts.max(initial=0):
        yield f"the largest branch factor is {counts.max(initial=0)}, not {level.max_branch} as the manifest says"
    codes = level.codes.astype(np.int64)
    if codes.max(initial=0) >= level.codebook_size:
        yield f"code {codes.max()} is outside the codebook of {level.codebook_size}"
        return
    inside = np.ones(level.num_nodes, bool)
    inside[first[counts > 0]] = False
    if (np.diff(codes) < 1)[inside[1:]].any():
        yield "the codes of a node's children do not rise"
    if level.allowed is not None and not np.array_equal(bitmap(level), level.allowed):
        yield "the bitmap does not say what the codes say"


def _ends_stay(before: Level, level: Level) -> bool:
    """Whether each end code of the level before has one child, the end code of this level."""
    first, end = level.children(np.flatnonzero(before.codes == before.end))
    return bool((end - first == 1).all() and (level.codes[first] == level.end).all())


def _item_faults(index: Trie) -> Iterator[str]:
    from hedgerow.catalog.columns import checked_item_ids

    try:
        checked_item_ids(index.item_ids, index.num_items)
    except CatalogError as error:
        yield str(error).rstrip(".")
