"""Join indexes of disjoint ranges of SIDs into the index that one build of all their items gives."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from hedgerow._arguments import check_choice
from hedgerow.catalog.ragged import without_ends
from hedgerow.catalog.sids import MAX_ITEMS
from hedgerow.errors import ArgumentError, CatalogError
from hedgerow.index.build import DenseLevels, dense_rule
from hedgerow.index.compact import LAYOUTS, Layout
from hedgerow.index.joining import Joined, Nodes
from hedgerow.index.lazy import Lazy, made
from hedgerow.index.order import repeated_id, sorted_order
from hedgerow.index.trie import Trie, codes_of_leaves, in_layout

if TYPE_CHECKING:
    import pyarrow as pa

# A trie, and its position in the list of the caller.
Numbered = tuple[int, Trie]


def concat_tries(indexes: Iterable[Trie], *, dense_levels: DenseLevels = "auto", layout: Layout | None = None) -> Trie:
    """Join tries. `hedgerow.concat` documents the arguments and errors."""
    tries = _checked(indexes)
    _check_fit(tries)
    check_choice(layout, "layout", (*LAYOUTS, None))
    is_dense = dense_rule(dense_levels, tries[0].num_levels)
    parts = _ascending(tries)
    if not parts:
        return in_layout(tries[0], layout or tries[0].layout)
    order = _order(parts)
    joined = Joined(tries[0].codebook_sizes, tries[0].end_codes)
    for _, trie in parts:
        joined.add(Nodes.of(trie))
    items = Lazy(partial(_items, [trie._load_items for _, trie in parts]))
    finished = joined.finish(is_dense, layout=layout or tries[0].layout)
    return Trie(*finished, items, _load_order=made(order))


def _checked(indexes: Any) -> list[Trie]:
    """The indexes as a list.

    Raises:
        ArgumentError: they are no list of indexes, or none.
    """
    if isinstance(indexes, Trie | Mapping | str) or not isinstance(indexes, Iterable):
        advice = " For one index, pass [index]." if isinstance(indexes, Trie) else ""
        raise ArgumentError(f"concat takes a list of indexes; got {type(indexes).__name__}.{advice}")
    tries = list(indexes)
    if not tries:
        raise ArgumentError("concat takes a list of at least one index; got an empty list.")
    for number, trie in enumerate(tries):
        if not isinstance(trie, Trie):
            raise ArgumentError(f"concat takes a list of indexes; number {number} is a {type(trie).__name__}.")
    return tries


def _check_fit(tries: Sequence[Trie]) -> None:
    """Check that tries have the same codebooks and attributes, and together not too many items.

    Raises:
        CatalogError: they do not.
    """
    first = tries[0]
    for number, trie in enumerate(tries):
        if (trie.codebook_sizes, trie.end_codes) != (first.codebook_sizes, first.end_codes):
            raise CatalogError(
                f"the indexes need the same codebook sizes: index 0 has {_sizes(first)}, but index {number} has "
                f"{_sizes(trie)}. Build each with the same codebook_sizes=, and all or none with ragged=True."
            )
    filled = [(number, trie) for number, trie in enumerate(tries) if trie.num_items]
    for number, trie in filled[1:]:
        expected, schema = filled[0][1].items_table.schema, trie.items_table.schema
        if schema != expected:
            raise CatalogError(
                f"the indexes need the same columns: index {filled[0][0]} has {_columns(expected)}, but index {number} "
                f"has {_columns(schema)}. Build each from columns of the same names, order and types."
            )
    total = sum(trie.num_items for trie in tries)
    if total > MAX_ITEMS:
        raise CatalogError(f"an index can contain up to {MAX_ITEMS:,} items; these contain {total:,} together.")


def _sizes(trie: Trie) -> str:
    return f"{list(trie.codebook_sizes)}" + ", ragged SIDs with end codes" * trie.ragged


def _columns(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} ({field.type})" for field in schema)


def _ascending(tries: Sequence[Trie]) -> list[Numbered]:
    """The tries that have items, in the order of their SIDs.

    Raises:
        CatalogError: the ranges of two of them overlap.
    """
    ends = {
        number: codes_of_leaves(trie, [0, trie.num_sids - 1]) for number, trie in enumerate(tries) if trie.num_items
    }
    numbers = sorted(ends, key=lambda number: ends[number].tolist())
    for before, after in pairwise(numbers):
        if ends[before][1].tolist() >= ends[after][0].tolist():
            stop, start = without_ends(np.stack([ends[before][1], ends[after][0]]), tries[0].end_codes).tolist()
            raise CatalogError(
                f"the indexes need disjoint ranges of SIDs: the last SID of index {before} is {stop}, and the first of "
                f"index {after} is {start}, which is not after it. For indexes that overlap: hr.merge, or one build of "
                "all items."
            )
    return [(number, tries[number]) for number in numbers]


def _order(parts: Sequence[Numbered]) -> np.ndarray:
    """The order of the ids of all parts.

    Raises:
        CatalogError: an id is in two parts.
    """
    import pyarrow as pa

    from hedgerow.catalog.types import one_array

    chunks = [chunk for _, trie in parts for chunk in trie.item_ids.chunks]
    ids = pa.chunked_array([one_array(pa.chunked_array(chunks))])
    order = sorted_order(ids)
    repeated = repeated_id(ids, order)
    if repeated is not None:
        stops = np.cumsum([trie.num_items for _, trie in parts])
        one, other = (parts[int(part)][0] for part in np.searchsorted(stops, sorted(repeated), side="right"))
        raise CatalogError(
            f"item id {ids[repeated[0]].as_py()!r} is in index {one} and in index {other}; item ids must be distinct. "
            "Catalogs without item_ids have row numbers as ids: pass item_ids=."
        )
    return order


def _items(loaders: Sequence[Callable[[], pa.Table]]) -> pa.Table:
    import pyarrow as pa

    from hedgerow.catalog.types import one_array

    table = pa.concat_tables([load() for load in loaders])
    columns = [one_array(column) for column in table.columns]
    fields = [field.with_type(column.type) for field, column in zip(table.schema, columns, strict=True)]
    return pa.Table.from_arrays(columns, schema=pa.schema(fields, table.schema.metadata))
