"""Conversion of embeddings to float32, with checks of every row."""

from __future__ import annotations

from typing import Any

import numpy as np

from hedgerow._arguments import check_unmasked
from hedgerow.errors import ArgumentError

# Sums of squares of larger numbers overflow float32.
LARGEST = 1e15
BLOCK = 1 << 24


def as_embeddings(values: Any, *, dim: int | None = None) -> np.ndarray:
    """Convert embeddings to float32 [R, D]. They are not copied if they are a float32 array already.

    Args:
        values: [R, D] numbers: a NumPy array, nested sequences, an Arrow column of lists, or anything that NumPy can
            convert.
        dim: the expected D. Default: any.

    Raises:
        ArgumentError: `values` is not such a matrix, or a row is null, too large or not a number; the message names it.
    """
    if hasattr(values, "__arrow_c_array__") or hasattr(values, "__arrow_c_stream__"):
        values = _matrix_of_column(values)
    matrix = _as_array(values)
    if matrix.ndim != 2:
        hint = " For one item, pass embeddings[None]." * (matrix.ndim == 1)
        raise ArgumentError(f"embeddings must be [items, dimensions]; got an array of shape {matrix.shape}.{hint}")
    if matrix.dtype.kind not in "fiu":
        raise ArgumentError(f"embeddings must be numbers, for example float32; got an array of {matrix.dtype}.")
    if matrix.shape[1] == 0 or (dim is not None and matrix.shape[1] != dim):
        expected = "at least one dimension" if dim is None else f"{dim:,} dimensions, as the quantizer"
        raise ArgumentError(f"embeddings must have {expected}; got {matrix.shape[1]:,} (shape {matrix.shape}).")
    rows = max(1, BLOCK // matrix.shape[1])
    for start in range(0, len(matrix), rows):
        _check_range(matrix[start : start + rows], start)
    return np.ascontiguousarray(matrix, np.float32)


def _as_array(values: Any) -> np.ndarray:
    check_unmasked(values, "embeddings", "Drop these rows, or fill them.")
    try:
        return np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ArgumentError(f"embeddings must be a matrix of numbers, [items, dimensions]; {error}.") from None


def as_array(values: Any, what: str) -> np.ndarray:
    """Convert values to a NumPy array.

    Raises:
        ArgumentError: they cannot be converted, for example rows of different lengths; the message names `what`.
    """
    check_unmasked(values, what, "Fill them: values.filled(...).")
    try:
        return np.asarray(values)
    except (TypeError, ValueError, OverflowError):
        raise ArgumentError(f"{what} must be numbers, in rows of equal length; got {values!r:.60}.") from None


def _check_range(block: np.ndarray, start: int) -> None:
    # Comparisons with NaN are false. As Python floats, because the limit overflows float16.
    if not len(block) or (float(np.max(block)) <= LARGEST and float(np.min(block)) >= -LARGEST):
        return
    row, dimension = np.argwhere(~(np.abs(block.astype(np.float64)) <= LARGEST))[0].tolist()
    raise ArgumentError(
        f"row {start + row}, dimension {dimension}: {block[row, dimension]!s} is not a number that an embedding may "
        f"have, from -{LARGEST:.0e} to {LARGEST:.0e}. Remove or repair that row."
    )


def _matrix_of_column(values: Any) -> np.ndarray:
    """An Arrow column of lists of equal length as a matrix."""
    import pyarrow as pa

    from hedgerow.catalog.columns import as_column
    from hedgerow.catalog.types import is_list

    column = as_column(values, "embeddings")
    if not is_list(column.type):
        raise ArgumentError(f"embeddings must be a column of lists of numbers; it holds {column.type}.")
    if column.null_count:
        row = int(np.argmax(column.is_null().to_numpy(zero_copy_only=False)))
        raise ArgumentError(f"row {row}: the embedding is null. Drop the rows without an embedding.")
    lengths = _lengths(column)
    if (lengths != lengths[:1]).any():
        row = int(np.argmax(lengths != lengths[0]))
        raise ArgumentError(
            f"row {row}: the embedding has {lengths[row]} dimensions, but that of row 0 has {lengths[0]}."
        )
    if not len(column):
        return np.zeros((0, column.type.list_size if pa.types.is_fixed_size_list(column.type) else 1), np.float32)
    flat = column.flatten()
    if flat.null_count:
        row = int(np.argmax(flat.is_null().to_numpy(zero_copy_only=False))) // int(lengths[0])
        raise ArgumentError(f"row {row}: a dimension of the embedding is null. Remove or repair that row.")
    return flat.to_numpy(zero_copy_only=False).reshape(len(column), -1)


def _lengths(column: Any) -> np.ndarray:
    import pyarrow.compute as pc

    return pc.list_value_length(column).to_numpy(zero_copy_only=False)  # type: ignore[attr-defined]
