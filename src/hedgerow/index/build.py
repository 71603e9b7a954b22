"""Build the trie of a catalog: one sort, then one linear pass per level."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from hedgerow._arguments import check_choice, is_whole
from hedgerow.catalog.catalog import Catalog
from hedgerow.catalog.constructors import ITEM_ID
from hedgerow.errors import ArgumentError
from hedgerow.index.compact import LAYOUTS, AnyLevel, Layout, compact_level
from hedgerow.index.fanout import fan_out
from hedgerow.index.lazy import Lazy
from hedgerow.index.level import WORD_BITS, Level, words_of
from hedgerow.index.sort import sorted_columns, sorted_rows, tied_rows
from hedgerow.index.trie import Trie

if TYPE_CHECKING:
    import pyarrow as pa

Progress = Callable[[str, int, int], None]
DenseLevels = Collection[int] | Literal["auto"]
# (level number, level in its layout) -> whether it is made dense.
DenseRule = Callable[[int, AnyLevel], bool]
DENSE_FILL = 4
BITMAP_LIMIT = 2**33
CHUNK_BITS = 2**26


def ignore_progress(what: str, done: int, total: int) -> None:
    """A progress callback that does nothing."""


def build_trie(
    catalog: Catalog,
    *,
    dense_levels: DenseLevels = "auto",
    layout: Layout = "plain",
    progress: Progress = ignore_progress,
) -> Trie:
    """Build the trie of a catalog. `hedgerow.build_index` documents the arguments and errors."""
    if not isinstance(catalog, Catalog):
        raise ArgumentError(
            f"build_index takes a Catalog; got {type(catalog).__name__}. Make one with hr.Catalog(sids)."
        )
    check_choice(layout, "layout", LAYOUTS)
    is_dense = dense_rule(dense_levels, catalog.num_levels)
    passes = catalog.num_levels + 2
    progress("sort", 0, passes)
    order = sorted_rows(catalog)
    columns = sorted_columns(catalog, order)
    is_new = np.zeros(catalog.num_items, bool)
    is_new[:1] = True
    levels, parents = [], 1
    for number, (size, end, codes) in enumerate(zip(catalog.codebook_sizes, catalog.end_codes, columns, strict=True)):
        progress(f"level {number}", number + 1, passes)
        is_first, codes = new_nodes(is_new, codes)
        level = level_of(codes, *fan_out(is_first, parents), size, end)
        levels.append(finished(level, number, is_dense, layout))
        parents = level.num_nodes
    progress("items", passes - 1, passes)
    leaf_start, leaf_forks, _ = fan_out(is_new, parents)
    order = _ordered_by_ids(catalog, order, is_new)
    progress("done", passes, passes)
    ids = catalog.item_ids if catalog.has_item_ids else None
    attributes = catalog.attributes if catalog.attribute_names else None
    return Trie(tuple(levels), leaf_start, leaf_forks, Lazy(partial(_items_table, ids, attributes, order)))


def new_nodes(is_new: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the nodes of a level.

    Args:
        is_new: [N] bool, whether each sorted row starts a node of the level before. Updated in place for this level.
        codes: [N], the codes of the sorted rows at this level.

    Returns:
        Whether each node is the first child of its parent [E], and its code [E].
    """
    if is_new.all():
        return is_new, codes
    was_new = is_new.copy()
    is_new[1:] |= codes[1:] != codes[:-1]
    return was_new[is_new], codes[is_new]


def level_of(
    codes: np.ndarray,
    child_start: np.ndarray | None,
    forks: np.ndarray | None,
    max_branch: int,
    codebook_size: int,
    end: int | None,
) -> Level:
    """Make a level without a bitmap, with the smallest type of its codes. Other arguments as `fan_out` returns them."""
    codes = codes.astype(np.min_scalar_type(codebook_size - 1), copy=False)
    return Level(codes, child_start, forks, None, codebook_size, max_branch, end)


def finished(
    level: Level,
    number: int,
    is_dense: DenseRule,
    layout: Layout,
    empty: Callable[..., np.ndarray] = np.empty,
) -> AnyLevel:
    """Level `number` in a layout, with a bitmap if it is dense.

    Args:
        level: the level, without a bitmap.
        number: its number.
        is_dense: the rule for dense levels: see `dense_rule`.
        layout: the layout.
        empty: allocates the large arrays of the compact layout, as `numpy.empty` does.

    Raises:
        ArgumentError: the bitmap would be larger than 8 GiB.
    """
    made = compact_level(level, empty=empty) if layout == "compact" else level
    return replace(made, allowed=_checked_bitmap(level, number)) if is_dense(number, made) else made


def dense_rule(dense_levels: DenseLevels, num_levels: int) -> DenseRule:
    """The predicate (level number, level) -> whether the level is made dense, for `dense_levels` of `build_index`."""
    if isinstance(dense_levels, str) and dense_levels == "auto":
        return lambda _, level: pays_dense(level)
    dense_numbers = _checked_levels(dense_levels, num_levels)
    return lambda number, level: number in dense_numbers and level.num_nodes > 0


def pays_dense(level: AnyLevel) -> bool:
    """Whether the default rule of `build_index` makes a level dense."""
    return level.max_branch * DENSE_FILL >= level.codebook_size and _bitmap_nbytes(level) <= level.nbytes


def _bitmap_nbytes(level: AnyLevel) -> int:
    return level.num_parents * words_of(level.codebook_size) * 4


def _checked_bitmap(level: Level, number: int) -> np.ndarray:
    """The bitmap of level `number`, whose size is checked before it is allocated."""
    if _bitmap_nbytes(level) > BITMAP_LIMIT:
        raise ArgumentError(
            f"dense_levels: level {number} has {level.num_parents:,} parents and {level.codebook_size:,} codes, which "
            f"takes a bitmap of {_bitmap_nbytes(level) / 2**30:,.0f} GiB; the limit is {BITMAP_LIMIT >> 30} GiB. "
            "Remove the level from dense_levels."
        )
    return bitmap(level)


def bitmap(level: Level) -> np.ndarray:
    """Make `Level.allowed` [P, ceil(C / 32)], in blocks of parents to limit memory."""
    words = words_of(level.codebook_size)
    allowed = np.empty((level.num_parents, words), np.uint32)
    block = max(1, CHUNK_BITS // (words * WORD_BITS))
    for begin in range(0, level.num_parents, block):
        parents = np.arange(begin, min(begin + block, level.num_parents))
        start, stop = level.children(parents)
        bits = np.zeros((len(parents), words * WORD_BITS), bool)
        bits[np.repeat(parents - begin, stop - start), level.codes[start[0] : stop[-1]]] = True
        allowed[begin : begin + block] = np.packbits(bits, axis=1, bitorder="little").view("<u4")
    return allowed


def _ordered_by_ids(catalog: Catalog, order: np.ndarray, is_new: np.ndarray) -> np.ndarray:
    """Sort the rows that share a SID by their ids. `order` [N] holds the rows in the order of their SIDs."""
    shared = tied_rows(~is_new[1:], len(order))
    if not shared.any():
        return order
    rows = order[shared]
    order[shared] = rows[np.lexsort((_ranks(catalog, rows), np.cumsum(is_new)[shared]))]
    return order


def _ranks(catalog: Catalog, rows: np.ndarray) -> np.ndarray:
    if not catalog.has_item_ids:
        return rows
    from hedgerow.catalog.columns import ranks

    return ranks(catalog.item_ids.take(rows))


def _items_table(ids: pa.Array | None, attributes: pa.Table | None, order: np.ndarray) -> pa.Table:
    import pyarrow as pa

    column = pa.array(order) if ids is None else ids.take(order)
    return pa.table({ITEM_ID: column}) if attributes is None else attributes.take(order).add_column(0, ITEM_ID, column)


def _checked_levels(levels: Collection[int] | str, num_levels: int) -> set[int]:
    is_list = isinstance(levels, Iterable) and not isinstance(levels, str | bytes)
    if not is_list and not is_whole(levels, least=0):
        raise ArgumentError(f'dense_levels must be "auto" or level numbers, for example [0, 1]; got {levels!r}.')
    numbers: list[Any] = list(levels) if is_list else [levels]
    unknown = [number for number in numbers if not is_whole(number, 0, num_levels - 1)]
    if unknown:
        raise ArgumentError(f"dense_levels: level {unknown[0]} does not exist; levels are 0 to {num_levels - 1}.")
    return set(map(int, numbers))
