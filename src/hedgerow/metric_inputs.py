"""The inputs of metrics: item ids, ranks and numbers, checked."""

from __future__ import annotations

from collections.abc import Mapping, Set
from datetime import date, datetime
from numbers import Number
from typing import Any

import numpy as np

from hedgerow._arguments import check_unmasked
from hedgerow.errors import ArgumentError


def plain_ids(targets: Any) -> list[Any]:
    """Targets as Python values: a scalar of Arrow equals no id."""
    if isinstance(targets, (str, bytes, Mapping, Set)) or not hasattr(targets, "__iter__"):
        raise ArgumentError(
            f"targets must be a list, an array or an Arrow column, one id per request; got {type(targets).__name__}."
        )
    shape = tuple(getattr(targets, "shape", (0,)))
    if len(shape) != 1:
        raise ArgumentError(
            f"targets must be one id per request; got a {type(targets).__name__} of shape {shape}. Pass one column."
        )
    if isinstance(targets, np.ndarray):
        if targets.dtype.kind not in "mM":
            return targets.tolist()
        from hedgerow.catalog.columns import as_column

        # NumPy's tolist converts dates in nanoseconds to integers.
        return as_column(targets, "targets").to_pylist()
    if hasattr(targets, "to_pylist"):
        return targets.to_pylist()
    return [_plain(target) for target in targets]


def _plain(value: Any) -> Any:
    if hasattr(value, "as_py"):
        return value.as_py()
    return value.item() if isinstance(value, np.generic) and value.dtype.kind not in "mM" else value


def kind_of(value: Any) -> str:
    """The kind of a value. Values of different kinds are never equal."""
    if isinstance(value, datetime):
        return "datetimes without a time zone" if value.tzinfo is None else "datetimes with a time zone"
    kinds = {"text": str, "numbers": Number, "dates": date, "bytes": bytes}
    return next((name for name, type_ in kinds.items() if isinstance(value, type_)), type(value).__name__)


def checked_ranks(ranks: Any) -> np.ndarray:
    """Ranks as float64.

    Raises:
        ArgumentError: a rank is no number, below 1 or NaN.
    """
    checked = numbers_of(ranks)
    if np.isnan(checked).any() or (checked < 1).any():
        raise ArgumentError("ranks must be at least 1, or inf for items that were not returned; got NaN or less.")
    return checked


def numbers_of(values: Any) -> np.ndarray:
    """Numbers as float64.

    Raises:
        ArgumentError: `values` are no numbers, or rows of different lengths.
    """
    array = array_of(values)
    if array.dtype.kind not in "fiubO":
        raise ArgumentError(f"expected numbers; got {values!r:.60}.")
    try:
        return array.astype(np.float64)
    except (TypeError, ValueError, OverflowError):
        raise ArgumentError(f"expected numbers; got {values!r:.60}.") from None


def array_of(values: Any) -> np.ndarray:
    """An array of NumPy of a sequence, or of an array of another backend.

    Raises:
        ArgumentError: the rows have different lengths, or an entry is masked.
    """
    check_unmasked(values, "values of metrics", "Drop these requests, or fill them.")
    try:
        # A PyTorch tensor can require a gradient, or be on a GPU.
        return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)
    except (TypeError, ValueError):
        raise ArgumentError(f"expected numbers, in rows of equal length; got {values!r:.60}.") from None
