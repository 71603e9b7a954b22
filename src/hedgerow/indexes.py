"""build_index(), load_index(), merge() and concat(): the functions that create a `TrieIndex`."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hedgerow.catalog.catalog import Catalog
from hedgerow.index import build, files
from hedgerow.index import merge as merging
from hedgerow.index.attributes import AttributeRule, MissingAttributes, NewAttributes
from hedgerow.index.build import DenseLevels, Progress, ignore_progress
from hedgerow.index.compact import Layout
from hedgerow.index.concat import concat_tries
from hedgerow.index.files import Verify
from hedgerow.trie_index import TrieIndex

LOGGER = logging.getLogger(__name__)


def build_index(
    catalog: Catalog,
    *,
    dense_levels: DenseLevels = "auto",
    layout: Layout = "plain",
    progress: Progress = ignore_progress,
) -> TrieIndex:
    """Build the index of a catalog in O(N · L) time after one sort.

    By default, a level is dense (it has a bitmap of allowed codes as well) if two conditions are true: its largest
    branch factor is at least a quarter of its codebook size, so that scanning all codes is faster than gathering the
    children of the largest node; and the bitmap takes no more bytes than the codes and row pointers.

    Args:
        catalog: the items to index.
        dense_levels: the numbers of the dense levels. Default: "auto", the rule above.
        layout: "plain", or "compact", which packs codes and row pointers into their bits. A compact index takes less
            memory, and gives the same results. Indexes that are made from it are compact too.
        progress: called as ``progress(what, done, total)`` between the passes.

    Raises:
        ArgumentError: `catalog` is not a Catalog, `layout` is something else, a dense level does not exist, or its
            bitmap takes more than 8 GiB.

    Examples:
        ```python
        import hedgerow as hr

        index = hr.build_index(hr.Catalog([[3, 1, 4], [3, 1, 5], [0, 2, 2]], codebook_sizes=6))
        assert index.nodes_per_level == (2, 2, 3)
        assert index.layout == "plain"
        ```
    """
    started = time.perf_counter()
    trie = build.build_trie(catalog, dense_levels=dense_levels, layout=layout, progress=progress)
    index = TrieIndex._of(trie)
    LOGGER.info("built %r in %.2f s", index, time.perf_counter() - started)
    return index


def load_index(path: str | Path, *, mmap: bool = False, verify: Verify | None = None) -> TrieIndex:
    """Load the index that `TrieIndex.save` wrote to the folder `path`.

    Args:
        path: the folder.
        mmap: map the files into memory instead of reading them, so that processes share the memory of trie and items.
            The files must not be changed in place or cut short while the index is in use; `save` never does that. The
            index is pickled as its path and checksum, and loaded again where it is unpickled.
        verify: what to check, in addition to the manifest's checksum and all names, sizes, types and shapes.
            "structure" checks that the arrays form a trie, so that no search reads outside them, the offsets and texts
            of the items, and the order of their ids (for 10M items, 0.3 s with integers as ids, 1 s with text).
            "full" also verifies the checksums of the files. "none" checks neither; use it only for files that cannot
            be damaged. Default: "full" without `mmap`, "structure" with it.

    Raises:
        IndexFileError: there is no index, or it is truncated, altered, of another program or of a newer format.
        ArgumentError: `verify` is something else.

    Examples:
        ```python
        import hedgerow as hr

        hr.build_index(hr.Catalog([[0, 1], [2, 0]])).save("items.hedgerow")
        index = hr.load_index("items.hedgerow", mmap=True)
        assert index.num_levels == 2
        ```
    """
    started = time.perf_counter()
    trie, sha256 = files.load_trie(path, mmap=mmap, verify=verify)
    index = TrieIndex._of(trie)
    LOGGER.info("loaded %r from %s in %.2f s", index, path, time.perf_counter() - started)
    return _pickled_by_path(index, path, verify, sha256) if mmap else index


def _pickled_by_path(index: TrieIndex, path: str | Path, verify: Verify | None, sha256: str) -> TrieIndex:
    folder = Path(os.path.abspath(files.as_folder(path)))
    object.__setattr__(index, "_reduced", (_load_pickled, (folder, verify, sha256)))
    return index


def _load_pickled(folder: Path, verify: Verify | None, sha256: str) -> TrieIndex:
    """Load a mapped index that was pickled, and check that its folder still contains the same index."""
    trie, _ = files.load_trie(folder, mmap=True, verify=verify, sha256=sha256)
    return _pickled_by_path(TrieIndex._of(trie), folder, verify, sha256)


def merge(
    index: TrieIndex,
    added: Catalog | None = None,
    removed: Any = (),
    *,
    new_attributes: NewAttributes = "error",
    missing_attributes: MissingAttributes = "error",
    dense_levels: DenseLevels = "auto",
) -> TrieIndex:
    """Build the index of `index`'s items without those `removed` and with those `added`.

    An added item whose id is already in the index replaces the old one. The result equals `build_index` of the
    resulting catalog, byte for byte, and takes less time: only the added items are sorted.

    Added values are converted to the types of `index`. If a value does not fit, the column widens, if a type of the
    same kind holds all old and new values exactly: int32 to int64, float32 to float64, string to large_string,
    timestamps to a finer unit, null to any type. No other types change. An index without items takes the attributes of
    the added items.

    Args:
        index: the index to start from; it does not change.
        added: items with ids, and no code outside the codebooks of `index`.
        removed: ids of items of `index`.
        new_attributes: for attributes that only `added` has: "error"; "add" them, with null for the other items; or
            "drop" them.
        missing_attributes: for attributes that only `index` has: "error"; or "null", their value for the added items.
        dense_levels: as for `build_index`.

    Raises:
        CatalogError: a removed id is not in the index, or ids, attributes or codes do not fit `index`.
        ArgumentError: `new_attributes` or `missing_attributes` is something else, or as for `build_index`.

    Examples:
        ```python
        import hedgerow as hr

        index = hr.build_index(hr.Catalog([[0, 1], [2, 0]], codebook_sizes=3, item_ids=["a", "b"]))
        index = hr.merge(index, added=hr.Catalog([[1, 1]], item_ids=["c"]), removed=["a"])
        assert index.item_ids.to_pylist() == ["c", "b"]
        ```
    """
    rule = AttributeRule(new_attributes, missing_attributes)
    started = time.perf_counter()
    merged = TrieIndex._of(merging.merge_trie(index, added, removed, rule=rule, dense_levels=dense_levels))
    LOGGER.info("merged to %r in %.2f s", merged, time.perf_counter() - started)
    return merged


def concat(
    indexes: Iterable[TrieIndex], *, dense_levels: DenseLevels = "auto", layout: Layout | None = None
) -> TrieIndex:
    """Join indexes of disjoint ranges of SIDs, for example parts of a catalog that were built in parallel.

    The result equals `build_index` of all items, byte for byte, and so does a saved one. Nothing is sorted but the item
    ids. The items are joined on first use: until then, those of mapped indexes stay on disk.

    Args:
        indexes: at least one index, in any order; they do not change. All have the same codebook sizes, and the same
            attributes in the same order and of the same types. Indexes without items may have any attributes.
        dense_levels: as for `build_index`.
        layout: as for `build_index`. Default: that of the first index.

    Raises:
        CatalogError: the ranges of SIDs overlap, an item id is in two indexes, codebook sizes or attributes differ, or
            there are more than 2,147,483,647 items.
        ArgumentError: `indexes` is not a list of indexes, or is empty; or as for `build_index`.

    Examples:
        ```python
        import hedgerow as hr

        low = hr.build_index(hr.Catalog([[0, 1], [0, 2]], codebook_sizes=3, item_ids=["a", "b"]))
        high = hr.build_index(hr.Catalog([[2, 0]], codebook_sizes=3, item_ids=["c"]))
        index = hr.concat([low, high])
        assert index.item_ids.to_pylist() == ["a", "b", "c"]
        ```
    """
    started = time.perf_counter()
    joined = TrieIndex._of(concat_tries(indexes, dense_levels=dense_levels, layout=layout))
    LOGGER.info("joined to %r in %.2f s", joined, time.perf_counter() - started)
    return joined
