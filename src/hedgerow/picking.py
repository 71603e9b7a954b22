"""Picking: the order of items that share a SID, how many items are kept, and at most how many of one kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from hedgerow._arguments import is_whole
from hedgerow.errors import ArgumentError
from hedgerow.index.arrow import take_values
from hedgerow.index.lookup import attribute_column
from hedgerow.index.trie import Trie

if TYPE_CHECKING:
    import pyarrow as pa

OrderBy = str | tuple[str, str] | None
DIRECTIONS = ("ascending", "descending")


@dataclass(frozen=True)
class Picking:
    """The order of items that share a SID, and how many items are kept: the last arguments of `TrieIndex.results`."""

    k: int | None
    order_by: OrderBy
    caps: Mapping[str, int] | None

    def __post_init__(self) -> None:
        if self.k is not None and not is_whole(self.k):
            raise ArgumentError(f"k must be a positive integer, or None; got {self.k!r}.")
        if not _is_order(self.order_by):
            raise ArgumentError(
                "order_by must be an attribute name (largest values first), or an attribute name and a direction, "
                f"('price', 'ascending') or ('price', 'descending'); got {self.order_by!r}."
            )
        if not isinstance(self.caps or {}, Mapping):
            raise ArgumentError(f"caps must map attribute names to counts, as {{'director': 3}}; got {self.caps!r}.")
        for name, cap in (self.caps or {}).items():
            if not is_whole(cap):
                raise ArgumentError(f"caps[{name!r}] must be a positive integer, the maximum count; got {cap!r}.")

    def check_attributes(self, index: Trie) -> None:
        """Check the attributes of an index, so that a search that cannot be answered does not begin.

        Raises:
            ConstraintError: an attribute of `order_by` or `caps` does not exist.
            ArgumentError: the values of the attribute of `order_by` have no order, for example lists.
        """
        for name in self.caps or ():
            attribute_column(index, name, "caps")
        if self.order_by is not None:
            name = self.order_by if isinstance(self.order_by, str) else self.order_by[0]
            # Arrow refuses types without an order if there is a value to sort.
            column = attribute_column(index, name, "order_by")
            check_order(column, name, "order_by")
            values = column[:2]
            sorted_positions(np.zeros(len(values), np.int64), values, name, "ascending", "order_by")


def check_order(column: pa.ChunkedArray, name: str, what: str) -> None:
    """Check that an attribute is no text that holds dates or numbers.

    Raises:
        ArgumentError: it is.
    """
    from hedgerow.catalog.dates import sampled_text_date, way_out
    from hedgerow.catalog.text_numbers import sampled_text_number

    if (date := sampled_text_date(column)) is not None:
        raise ArgumentError(
            f"{what}: attribute {name!r} is text, for example {date!r}, whose order is not that of time. "
            f"{way_out(date)}, or convert the column to dates."
        )
    if (number := sampled_text_number(column)) is not None:
        raise ArgumentError(
            f"{what}: attribute {name!r} is text, for example {number!r}, whose order is not that of numbers. Write "
            "numbers as 1234.50 in the file, or convert the column to numbers."
        )


def _is_order(order_by: Any) -> bool:
    if order_by is None or isinstance(order_by, str):
        return True
    return isinstance(order_by, tuple | list) and len(order_by) == 2 and order_by[1] in DIRECTIONS


def picked(index: Trie, rows: np.ndarray, beams: np.ndarray, picking: Picking) -> np.ndarray:
    """The positions in `rows` of the items to return, in their order."""
    positions = np.arange(len(rows))
    if picking.order_by is not None:
        positions = _ordered(index, rows, beams, picking.order_by)
    if picking.caps:
        positions = _capped(index, rows, positions, picking)
    return positions if picking.k is None else positions[: picking.k]


def _ordered(index: Trie, rows: np.ndarray, beams: np.ndarray, order_by: Any) -> np.ndarray:
    """The positions of rows sorted by beam, then by an attribute, nulls last; stable."""
    name, direction = (order_by, "descending") if isinstance(order_by, str) else order_by
    column = attribute_column(index, name, "order_by")
    check_order(column, name, "order_by")
    values = take_values(column, rows)
    return sorted_positions(beams, values, name, direction, "order_by")


def sorted_positions(beams: np.ndarray, values: Any, name: str, direction: str, what: str) -> np.ndarray:
    """The positions of values sorted by beam, then by value, nulls last; stable."""
    import pyarrow as pa
    import pyarrow.compute as pc

    table = pa.table({"beam": beams, "value": values, "position": np.arange(len(beams))})
    keys = [("beam", "ascending"), ("value", direction), ("position", "ascending")]
    try:
        return pc.sort_indices(table, sort_keys=keys).to_numpy()  # pyright: ignore[reportAttributeAccessIssue]
    except pa.ArrowException as error:
        raise ArgumentError(f"{what}: attribute {name!r} ({values.type}) has no order: {error}") from None


def _capped(index: Trie, rows: np.ndarray, positions: np.ndarray, picking: Picking) -> np.ndarray:
    """The positions of the rows that do not exceed a cap, in rank order; at most k."""
    reasons = cap_reasons(index, rows[positions], picking.caps or {})
    kept = (position for position, reason in zip(positions.tolist(), reasons, strict=True) if reason is None)
    return np.asarray(list(islice(kept, picking.k)), np.int64)


def cap_reasons(index: Trie, rows: np.ndarray, caps: Mapping[str, int]) -> Iterator[tuple[str, Any] | None]:
    """For each of `rows`, in rank order, the attribute and the value whose cap removes it; None if none does.

    Raises:
        ConstraintError: there is no such attribute.
    """
    columns = {name: take_values(attribute_column(index, name, "caps"), rows).to_pylist() for name in caps}
    counts: dict[str, Counter[Any]] = {name: Counter() for name in caps}
    for rank in range(len(rows)):
        values = {name: _values(column[rank]) for name, column in columns.items()}
        pairs = ((name, value) for name, entries in values.items() for value in entries)
        reason = next(((name, value) for name, value in pairs if counts[name][value] >= caps[name]), None)
        if reason is None:
            for name, entries in values.items():
                counts[name].update(entries.keys())
        yield reason


def _values(cell: Any) -> dict[Any, None]:
    """The values that a cell counts for, without repetitions: each entry of a list; none for null."""
    entries = cell if isinstance(cell, list) else [cell]
    shown = (repr(entry) if isinstance(entry, list | dict) else entry for entry in entries if entry is not None)
    return dict.fromkeys(shown)
