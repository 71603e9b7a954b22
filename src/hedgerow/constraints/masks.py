"""Masks: whether each item of an index belongs to a set, from masks with item ids, arrays, and functions."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from hedgerow._arguments import check_choice, check_unmasked
from hedgerow.errors import CatalogError, ConstraintError, HedgerowError
from hedgerow.index.lookup import Missing, as_ids, check_known, find_rows
from hedgerow.index.trie import Trie

ORDERS = ("index", None)
Order = Literal["index"] | None


def mask_of(
    index: Trie,
    mask: Any,
    order: Order,
    missing: Missing = "raise",
    *,
    error: type[HedgerowError] = ConstraintError,
) -> np.ndarray:
    """The mask bool [N] in the order of the index: see `TrieIndex.constraint`.

    Args:
        index: the index.
        mask: a function of the attributes, a mask with item ids, or an array.
        order: "index" if `mask` is in the order of the index.
        missing: whether ids that no item has are an error, "raise", or skipped, "ignore".
        error: the exception to raise.

    Raises:
        error: the mask is not bool [N], an array without ids has no order, or the ids are not those of the items.
    """
    check_choice(order, "order", ORDERS, error=error)
    if callable(mask):
        return _checked(index, _call(index, mask, error), "the result of the function", error)
    if order is None and (pair := _with_ids(mask, error)) is not None:
        return _aligned(index, *pair, missing, error)
    array = _checked(index, mask, "the mask", error)
    if order is None:
        raise error(
            "this mask has no item ids, and the items of an index are in the order of their SIDs, not of the rows that "
            "the catalog was made of. For a mask in the order of your rows, pass the ids: "
            "index.constraint(ids=item_ids[mask]), or a frame with a column of ids and one of the mask. For a mask in "
            "the order of index.item_ids and index.attributes, pass order='index'."
        )
    return array


def _with_ids(mask: Any, error: type[HedgerowError]) -> tuple[Any, np.ndarray] | None:
    """The item ids of a mask and its values; None if it is an array without ids.

    Raises:
        error: a frame has other columns than ids and a mask, or a value is null.
    """
    import pyarrow as pa

    from hedgerow.catalog.columns import from_frame, other_columns

    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(mask, pandas.Series | pandas.DataFrame):
        has_ids = not _has_row_numbers(mask, pandas)
        if isinstance(mask, pandas.Series):
            return (mask.index, _values(mask, error)) if has_ids else None
        if has_ids and mask.shape[1] == 1:
            return mask.index, _values(mask.iloc[:, 0], error)
    # A class with columns is a frame.
    if not hasattr(type(mask), "columns"):
        return None
    try:
        rows = from_frame(mask)
    except CatalogError as cause:
        raise error(f"the mask: {cause}") from None
    names = other_columns(rows, ())
    masks = [name for name in names if pa.types.is_boolean(rows.schema.field(name).type)]
    if len(names) != 2 or len(masks) != 1:
        given = ", ".join(f"{name} ({rows.schema.field(name).type})" for name in names) or "no columns"
        raise error(
            f"a mask in a frame has two columns: item ids, and true or false; got {given}. Select these two columns."
        )
    (ids,) = (name for name in names if name not in masks)
    return rows.column(ids), _values(rows.column(masks[0]), error)


def _values(column: Any, error: type[HedgerowError]) -> np.ndarray:
    """A column of a mask as bool [R]."""
    import pyarrow as pa

    from hedgerow.catalog.columns import as_column

    try:
        values = as_column(column, "the mask")
    except CatalogError as cause:
        raise error(str(cause)) from None
    if values.null_count:
        raise error(_nulls("the mask", values.null_count))
    if not pa.types.is_boolean(values.type):
        raise error(f"the mask must be true or false for each item; got values of type {values.type}.")
    return values.to_numpy(zero_copy_only=False)


def _has_row_numbers(rows: Any, pandas: Any) -> bool:
    """Whether the labels of a Series or frame of pandas may be row numbers: integers without a name."""
    labels = rows.index
    return labels.name is None and (isinstance(labels, pandas.MultiIndex) or labels.dtype.kind in "iu")


def _aligned(index: Trie, ids: Any, values: np.ndarray, missing: Missing, error: type[HedgerowError]) -> np.ndarray:
    """A mask with item ids in the order of the index. It must name every item of the index once."""
    wanted = as_ids(index, ids, "the ids of the mask", error=error)
    rows = find_rows(index, wanted)
    if missing == "raise":
        check_known(rows, wanted, "ids of the mask", error, " missing='ignore' skips such ids.")
    known = rows >= 0
    rows, entries = rows[known], values[known]
    counts = np.bincount(rows, minlength=index.num_items)
    if (counts != 1).any():
        row = int(np.argmax(counts != 1))
        found = f"{counts[row]:,} entries" if counts[row] else "no entry"
        raise error(
            f"the mask has {found} for item {index.item_ids[row].as_py()!r}, and needs one for each of the "
            f"{index.num_items:,} items. To name only the items of the set, pass their ids: index.constraint(ids=...)."
        )
    mask = np.zeros(index.num_items, bool)
    mask[rows] = entries
    return mask


def _call(index: Trie, function: Callable[[Any], Any], error: type[HedgerowError]) -> Any:
    try:
        return function(index.attributes)
    except Exception as cause:
        names = index.attributes.column_names
        raise error(
            f"the function raised {type(cause).__name__}: {cause}. Its argument is index.attributes, an Arrow table "
            f"with the columns {', '.join(names) or '(none)'}. To use NumPy's operators: "
            f"lambda attributes: np.asarray(attributes[{(names or ['price'])[0]!r}]) == ..."
        ) from cause


def _checked(index: Trie, mask: Any, what: str, error: type[HedgerowError]) -> np.ndarray:
    check_unmasked(mask, what, "Fill them: mask.filled(False).", error=error)
    if num_nulls := _count_nulls(mask):
        raise error(_nulls(what, num_nulls))
    if hasattr(mask, "detach"):
        mask = mask.detach().cpu()
    try:
        array = np.asarray(mask)
    except ValueError:
        array = np.zeros(0, object)
    if array.dtype != bool or array.shape != (index.num_items,):
        raise error(
            f"{what} must be bool [{index.num_items}], one entry per item in the order of index.item_ids and "
            f"index.attributes, which is not the order of the catalog; got {array.dtype} {list(array.shape)}. Item ids "
            "(ids=[...]), a function of the attributes and index.where(...) work without knowing the order."
        )
    return array


def _nulls(what: str, num_nulls: int) -> str:
    return f"{what} has {num_nulls:,} nulls, but must be True or False for each item. Fill them: mask.fill_null(False)."


def _count_nulls(mask: Any) -> int:
    """Number of nulls of an Arrow or Polars column; 0 for other types."""
    null_count = getattr(mask, "null_count", 0)
    return null_count if isinstance(null_count, int) else null_count()
