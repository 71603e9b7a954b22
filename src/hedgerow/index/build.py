"""Catalog → TrieIndex: one sort, then one linear pass a level."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import numpy as np

from hedgerow.catalog import ITEM_ID, Catalog
from hedgerow.errors import ArgumentError
from hedgerow.index.trie import WORD_BITS, Level, TrieIndex, is_forked

if TYPE_CHECKING:
    import pyarrow as pa

Progress = Callable[[str, int, int], None]
DENSE_FILL = 4
BITMAP_LIMIT = 2**33
CHUNK_BITS = 2**26


def ignore_progress(what: str, done: int, total: int) -> None:
    """A progress callback for who does not want to know."""


def build_index(
    catalog: Catalog,
    *,
    dense_levels: Collection[int] | Literal["auto"] = "auto",
    progress: Progress = ignore_progress,
) -> TrieIndex:
    """Builds the flat trie of a catalog; time O(N · L), after one sort.

    A level is made dense (also held as a bitmap) where both hold: its largest branch factor is at least a quarter of
    its codebook, so that scanning all codes beats gathering the children of the fattest node; and the bitmap takes
    no more bytes than the codes and row pointers it stands beside.

    Args:
        catalog: what to index.
        dense_levels: the levels to make dense, in place of that rule.
        progress: called as ``progress(what, done, total)`` between the passes.

    Raises:
        ArgumentError: a dense level does not exist, or its bitmap would take more than 8 GiB.
    """
    by_rule = isinstance(dense_levels, str) and dense_levels == "auto"
    by_hand = set() if by_rule else _checked_levels(dense_levels, catalog.num_levels)
    passes = catalog.num_levels + 2
    progress("sort", 0, passes)
    order = sorted_rows(catalog)
    is_new = np.zeros(catalog.num_items, bool)
    is_new[:1] = True
    levels, parent_starts = [], np.zeros(1, np.int64)
    for at, size in enumerate(catalog.codebook_sizes):
        progress(f"level {at}", at + 1, passes)
        codes = catalog.sids[:, at][order]
        is_new[1:] |= codes[1:] != codes[:-1]
        starts = np.flatnonzero(is_new)
        level = _level(codes[starts], parent_starts, starts, size)
        if _pays_dense(level) if by_rule else at in by_hand:
            level = _with_bitmap(level, at)
        levels.append(level)
        parent_starts = starts
    progress("items", passes - 1, passes)
    leaf_start, order = _leaves(catalog, order, is_new)
    progress("done", passes, passes)
    ids, attributes = catalog.given_ids, catalog.given_attributes
    return TrieIndex(tuple(levels), leaf_start, lambda: _items_table(ids, attributes, order))


def sorted_rows(catalog: Catalog) -> np.ndarray:
    """Returns the rows [N] of the catalog in lexicographic order of their SIDs; equal SIDs in any order.

    Codes are packed into as few uint64 words as hold them. Rows are sorted by the first word, and only those that
    tie in it by the next, so that a deep catalog costs little more than a shallow one.
    """
    words = list(_packed(catalog))
    order = np.argsort(words[0]) if words else np.arange(catalog.num_items)
    ties = None
    for before, word in pairwise(words):
        ranked = before[order]
        differs = ranked[1:] != ranked[:-1]
        ties = ~differs if ties is None else ties & ~differs
        tied = _touched(ties, len(order))
        if not tied.any():
            break
        rows = order[tied]
        group = np.cumsum(np.concatenate(([True], ~ties)))[tied]
        order[tied] = rows[np.lexsort((word[rows], group))]
    return order


def _packed(catalog: Catalog) -> list[np.ndarray]:
    """Returns the SIDs as uint64 words, most significant first, each of as many whole levels as it holds."""
    words: list[np.ndarray] = []
    free = 0
    for at, size in enumerate(catalog.codebook_sizes):
        bits = (size - 1).bit_length()
        column = catalog.sids[:, at].astype(np.uint64)
        if bits > free:
            words.append(column)
            free = 64
        elif bits:
            words[-1] <<= np.uint64(bits)
            words[-1] |= column
        free -= bits
    return words


def _touched(ties: np.ndarray, rows: int) -> np.ndarray:
    """Returns bool [rows]: whether a row ties with a neighbour, where ties[i] says that rows i and i + 1 do."""
    touched = np.zeros(rows, bool)
    touched[1:] = ties
    touched[:-1] |= ties
    return touched


def _level(codes: np.ndarray, parent_starts: np.ndarray, starts: np.ndarray, codebook_size: int) -> Level:
    """Returns a level, from its codes and the sorted rows at which its parents and its nodes start."""
    codes = codes.astype(np.min_scalar_type(codebook_size - 1))
    first = np.searchsorted(starts, parent_starts).astype(np.int32)
    counts = np.diff(first, append=np.int32(len(starts)))
    child_start, forks = None, None
    if is_forked(len(first), len(starts)):
        forks = np.repeat(np.arange(len(first), dtype=np.int32), counts - 1)
    elif len(first) != len(starts):
        child_start = np.append(first, np.int32(len(starts)))
    return Level(codes, child_start, forks, None, codebook_size, int(counts.max(initial=0)))


def _words(codebook_size: int) -> int:
    return -(-codebook_size // WORD_BITS)


def _pays_dense(level: Level) -> bool:
    return level.max_branch * DENSE_FILL >= level.codebook_size and _bitmap_nbytes(level) <= level.nbytes


def _bitmap_nbytes(level: Level) -> int:
    return level.num_parents * _words(level.codebook_size) * 4


def _with_bitmap(level: Level, at: int) -> Level:
    if _bitmap_nbytes(level) > BITMAP_LIMIT:
        raise ArgumentError(
            f"dense_levels: level {at} has {level.num_parents:,} parents of {level.codebook_size:,} codes, a bitmap of "
            f"{_bitmap_nbytes(level) / 2**30:,.0f} GiB; at most {BITMAP_LIMIT >> 30} GiB are built. Leave it out."
        )
    return replace(level, allowed=bitmap(level))


def bitmap(level: Level) -> np.ndarray:
    """Returns `Level.allowed` [P, ceil(C / 32)], made a block of parents at a time, so that memory stays small."""
    words = _words(level.codebook_size)
    allowed = np.empty((level.num_parents, words), np.uint32)
    block = max(1, CHUNK_BITS // (words * WORD_BITS))
    for begin in range(0, level.num_parents, block):
        parents = np.arange(begin, min(begin + block, level.num_parents))
        first, end = level.children(parents)
        bits = np.zeros((len(parents), words * WORD_BITS), bool)
        bits[np.repeat(parents - begin, end - first), level.codes[first[0] : end[-1]]] = True
        allowed[begin : begin + block] = np.packbits(bits, axis=1, bitorder="little").view("<u4")
    return allowed


def _leaves(catalog: Catalog, order: np.ndarray, is_new: np.ndarray) -> tuple[np.ndarray | None, np.ndarray]:
    """Returns leaf_start, and the rows with those that share a SID put in the order of their ids."""
    if is_new.all():
        return None, order
    shares = _touched(~is_new[1:], len(order))
    rows = order[shares]
    rank = _ranks(catalog.given_ids, rows)
    order = order.copy()
    order[shares] = rows[np.lexsort((rank, np.cumsum(is_new)[shares]))]
    return np.append(np.flatnonzero(is_new), len(order)).astype(np.int32), order


def _ranks(ids: pa.Array | None, rows: np.ndarray) -> np.ndarray:
    if ids is None:
        return rows
    from hedgerow.columns import ranks

    return ranks(ids.take(rows))


def _items_table(ids: pa.Array | None, attributes: pa.Table | None, order: np.ndarray) -> pa.Table:
    import pyarrow as pa

    column = pa.array(order) if ids is None else ids.take(order)
    return pa.table({ITEM_ID: column}) if attributes is None else attributes.take(order).add_column(0, ITEM_ID, column)


def _checked_levels(levels: Collection[int] | str, num_levels: int) -> set[int]:
    if isinstance(levels, str):
        raise ArgumentError(f'dense_levels must be "auto" or numbers of levels; got {levels!r}.')
    wanted: set[int] = {levels} if isinstance(levels, int) else set(levels)
    unknown = [level for level in wanted if level not in range(num_levels)]
    if unknown:
        raise ArgumentError(f"dense_levels: level {unknown[0]} does not exist; levels are 0 to {num_levels - 1}.")
    return wanted
