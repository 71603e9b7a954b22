"""Item ids → rows of an index, many at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hedgerow.errors import CatalogError, ConstraintError
from hedgerow.index.fanout import owners

if TYPE_CHECKING:
    import pyarrow as pa

    from hedgerow.index.trie import TrieIndex


class IdLookup:
    """The item ids of an index in their own order, made once; a look-up halves the span of all wanted ids at once.

    Ids of any type that Arrow can compare are found alike, and nothing is held but the ids and a row number each.
    """

    def __init__(self, item_ids: pa.ChunkedArray) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc

        from hedgerow.columns import sortable

        self.type = item_ids.type
        ids = item_ids.combine_chunks()
        plain = sortable(pa.concat_arrays(ids.chunks) if isinstance(ids, pa.ChunkedArray) else ids)
        order = pc.sort_indices(plain)  # pyright: ignore[reportAttributeAccessIssue]
        self.ids, self.rows = plain.take(order), order.to_numpy(zero_copy_only=False)

    def rows_of(self, wanted: Any, what: str) -> np.ndarray:
        """Returns the row [R] of each id of `wanted`, or -1 where no item has it.

        Raises:
            ConstraintError: `wanted` are no ids of the index's type; `what` names them.
        """
        import pyarrow.compute as pc

        ids = self._converted(wanted, what)
        if not len(self.ids) or not len(ids):
            return np.full(len(ids), -1, np.int64)
        low, high = np.zeros(len(ids), np.int64), np.full(len(ids), len(self.ids), np.int64)
        for _ in range(len(self.ids).bit_length()):
            middle = np.minimum((low + high) // 2, len(self.ids) - 1)
            below = pc.less(self.ids.take(middle), ids)  # pyright: ignore[reportAttributeAccessIssue]
            right = below.to_numpy(zero_copy_only=False) & (low < high)
            low, high = np.where(right, middle + 1, low), np.where(right, high, middle)
        at = np.minimum(low, len(self.ids) - 1)
        same = pc.equal(self.ids.take(at), ids)  # pyright: ignore[reportAttributeAccessIssue]
        return np.where(same.to_numpy(zero_copy_only=False), self.rows[at], -1).astype(np.int64)

    def _converted(self, wanted: Any, what: str) -> pa.Array:
        import pyarrow as pa

        from hedgerow.columns import as_column, sortable

        if isinstance(wanted, str | bytes) or not hasattr(wanted, "__len__"):
            raise ConstraintError(f"{what} must be a list of item ids; got {wanted!r}. For one: [{wanted!r}].")
        if isinstance(wanted, set | frozenset):
            wanted = list(wanted)
        try:
            if isinstance(wanted, list | tuple):
                ids = sortable(pa.array(wanted, self.type))
            else:
                column = as_column(wanted, what)
                ids = sortable(column if column.type == self.type else column.cast(self.type))
        except (CatalogError, pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            raise ConstraintError(
                f"{what} must be item ids of the type of this index, {self.type}; that cannot hold them: {error}"
            ) from None
        if ids.null_count:
            raise ConstraintError(f"{what} holds a null, which is no item's id; leave it out.")
        return ids


def leaves_of(index: TrieIndex, rows: np.ndarray) -> np.ndarray:
    """Returns the leaf of each of `rows` [R] of the index."""
    return owners(index.leaf_start, index.leaf_forks, rows)
