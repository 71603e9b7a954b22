"""Embeddings as they come in: any matrix of numbers, checked row by row, as float32."""

from __future__ import annotations

from typing import Any

import numpy as np

from hedgerow.errors import ArgumentError

# Squares of larger numbers, added up, would leave float32.
LARGEST = 1e15
BLOCK = 1 << 24


def as_embeddings(values: Any, *, dim: int | None = None) -> np.ndarray:
    """Returns embeddings as float32 [N, D], the same memory where it is float32 already.

    Args:
        values: [N, D] numbers: a NumPy array, nested sequences, an Arrow column of lists, or what NumPy can view.
        dim: the D that is expected; left out, any.

    Raises:
        ArgumentError: not such a matrix, or naming the row that is null, too large or not a number.
    """
    if hasattr(values, "__arrow_c_array__") or hasattr(values, "__arrow_c_stream__"):
        values = _of_column(values)
    matrix = _as_array(values)
    if matrix.ndim != 2:
        hint = " For one item, pass embeddings[None]." if matrix.ndim == 1 else ""
        raise ArgumentError(f"embeddings must be [items, dimensions]; got an array of shape {matrix.shape}.{hint}")
    if matrix.dtype.kind not in "fiu":
        raise ArgumentError(f"embeddings must be numbers, as float32; got an array of {matrix.dtype}.")
    if matrix.shape[1] == 0 or (dim is not None and matrix.shape[1] != dim):
        expected = "one dimension or more" if dim is None else f"the {dim:,} dimensions that the quantizer was made for"
        raise ArgumentError(f"embeddings must have {expected}; got {matrix.shape[1]:,} (shape {matrix.shape}).")
    rows = max(1, BLOCK // matrix.shape[1])
    for begin in range(0, len(matrix), rows):
        _check(matrix[begin : begin + rows], begin)
    return np.ascontiguousarray(matrix, np.float32)


def _as_array(values: Any) -> np.ndarray:
    if np.ma.is_masked(values):
        raise ArgumentError("embeddings have masked entries; drop those rows, or fill them.")
    try:
        return np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ArgumentError(f"embeddings must be a matrix of numbers, [items, dimensions]; {error}.") from None


def as_array(values: Any, what: str) -> np.ndarray:
    """Returns values as a NumPy array.

    Raises:
        ArgumentError: naming `what`, where they are none, as rows of several lengths are not.
    """
    try:
        return np.asarray(values)
    except (TypeError, ValueError, OverflowError):
        raise ArgumentError(f"{what} must be numbers, in rows of one length; got {values!r:.60}.") from None


def _check(block: np.ndarray, begin: int) -> None:
    # NaN is never within a limit. As Python's floats: float16 has no number as large as the limit.
    if not len(block) or (float(np.max(block)) <= LARGEST and float(np.min(block)) >= -LARGEST):
        return
    row, dimension = np.argwhere(~(np.abs(block.astype(np.float64)) <= LARGEST))[0].tolist()
    raise ArgumentError(
        f"row {begin + row}, dimension {dimension}: {block[row, dimension]!s} is not a number that an embedding may "
        f"have, from -{LARGEST:.0e} to {LARGEST:.0e}. Drop or mend that item."
    )


def _of_column(values: Any) -> np.ndarray:
    """Returns an Arrow column of lists, all of one length, as a matrix."""
    import pyarrow as pa

    from hedgerow.catalog.columns import as_column, is_list

    column = as_column(values, "embeddings")
    if not is_list(column.type):
        raise ArgumentError(f"embeddings must be a column of lists of numbers; it holds {column.type}.")
    if column.null_count:
        row = int(np.argmax(column.is_null().to_numpy(zero_copy_only=False)))
        raise ArgumentError(f"row {row}: the embedding is null; drop the rows without one.")
    lengths = _lengths(column)
    if (lengths != lengths[:1]).any():
        row = int(np.argmax(lengths != lengths[0]))
        raise ArgumentError(f"row {row}: the embedding has {lengths[row]} dimensions, but that of row 0 {lengths[0]}.")
    if not len(column):
        return np.zeros((0, column.type.list_size if pa.types.is_fixed_size_list(column.type) else 1), np.float32)
    flat = column.flatten()
    if flat.null_count:
        row = int(np.argmax(flat.is_null().to_numpy(zero_copy_only=False))) // int(lengths[0])
        raise ArgumentError(f"row {row}: a dimension of the embedding is null; drop or mend that item.")
    return flat.to_numpy(zero_copy_only=False).reshape(len(column), -1)


def _lengths(column: Any) -> np.ndarray:
    import pyarrow.compute as pc

    return pc.list_value_length(column).to_numpy(zero_copy_only=False)  # type: ignore[attr-defined]
