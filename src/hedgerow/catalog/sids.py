"""Validation of Semantic IDs: integer matrices, checked per row and per level."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

from hedgerow._arguments import check_unmasked
from hedgerow.errors import CatalogError

MAX_LEVELS = 255
MAX_CODEBOOK_SIZE = 2**31
MAX_CODE = MAX_CODEBOOK_SIZE - 1
MAX_ITEMS = 2**31 - 1
RAGGED_HINT = "for SIDs of different lengths, pass ragged=True (hedgerow build --ragged)"


def as_sids(sids: Any, *, min_code: int = 0) -> np.ndarray:
    """Convert SIDs to an integer matrix [N, L].

    Args:
        sids: a NumPy array, nested sequences, or another object that NumPy can convert.
        min_code: the smallest valid entry: 0, or -1 if SIDs may be ragged. It only decides which entry an error
            message names; `checked_codebook_sizes` checks the range.

    Raises:
        CatalogError: rows have different lengths, a code is not an integer, or there are too many items or levels.
            The message names the row.
    """
    if isinstance(sids, np.ma.MaskedArray) and np.ma.is_masked(sids):
        row, level = ([*np.argwhere(np.ma.getmaskarray(sids))[0].tolist(), 0])[:2]
        raise CatalogError(f"row {row}, level {level}: the code is masked. Remove the rows without a SID.")
    check_unmasked(sids, "sids", "Remove the rows without a SID.", error=CatalogError)
    if isinstance(sids, np.ndarray) and sids.dtype == object and sids.ndim == 1:
        sids = sids.tolist()  # An array of lists, as a column of a data frame gives it.
    matrix = np.asarray(sids) if isinstance(sids, np.ndarray) else _as_array(sids)
    if matrix.ndim != 2:
        hint = " For items of one code each, pass sids.reshape(-1, 1)." if matrix.ndim == 1 else ""
        raise CatalogError(f"sids must be [items, levels]; got an array of shape {matrix.shape}.{hint}")
    num_items, num_levels = matrix.shape
    if not 1 <= num_levels <= MAX_LEVELS:
        raise CatalogError(f"sids must have 1 to {MAX_LEVELS} levels; got {num_levels} (shape {matrix.shape}).")
    if num_items > MAX_ITEMS:
        raise CatalogError(
            f"a catalog can contain up to {MAX_ITEMS:,} items; got {num_items:,}. Split it into several catalogs."
        )
    if matrix.dtype.kind not in "iu":
        raise CatalogError(_not_integers(matrix, min_code))
    return matrix


def checked_codebook_sizes(
    sids: np.ndarray, sizes: int | Sequence[int] | None, *, min_code: int = 0
) -> tuple[int, ...]:
    """Check codes against codebook sizes, and return one size per level.

    Args:
        sids: [N, L] integers.
        sizes: one number for all levels, L numbers, or None for the smallest sizes that fit.
        min_code: the smallest valid entry of `sids`: 0, or -1 if that marks the end of a SID.

    Raises:
        CatalogError: a size is out of range, or a code is outside its codebook.
    """
    num_levels = sids.shape[1]
    if len(sids) == 0:
        if sizes is None:
            raise CatalogError("an empty catalog needs codebook_sizes, because it has no codes to infer them from.")
        return _as_sizes(sizes, num_levels)
    if sizes is not None and sids.min() >= min_code and sids.max() < min(checked := _as_sizes(sizes, num_levels)):
        # All codes fit the smallest codebook, so no level needs a check of its own.
        return checked
    lowest, highest = ([int(reduce(column)) for column in sids.T] for reduce in (np.min, np.max))
    for level, code in enumerate(lowest):
        if code < min_code:
            hint = f"; {RAGGED_HINT}" if code == -1 else ""
            raise CatalogError(_out_of_range(sids, level, code, f"codes count from 0{hint}"))
    checked = tuple(code + 1 for code in highest) if sizes is None else _as_sizes(sizes, num_levels)
    for level, (code, size) in enumerate(zip(highest, checked, strict=True)):
        if code >= size or size > MAX_CODEBOOK_SIZE:
            limit = min(size, MAX_CODEBOOK_SIZE)
            raise CatalogError(
                _out_of_range(sids, level, code, f"the codebook of this level has codes 0 to {limit - 1}")
            )
    return checked


def row_without_length(sids: Sequence[Any]) -> str | None:
    """The error message for the first row that is not a sequence of codes; None if all rows are."""
    for row, codes in enumerate(sids):
        if not hasattr(codes, "__len__"):
            return f"row {row} of sids is {codes!r}; expected a list of codes."
    return None


def _as_sizes(sizes: Any, num_levels: int) -> tuple[int, ...]:
    check_unmasked(sizes, "codebook_sizes", "Pass one size per level.", error=CatalogError)
    try:
        array = np.asarray(sizes)
    except ValueError:
        array = np.zeros((), object)
    if array.dtype.kind not in "iu" or array.ndim > 1:
        raise CatalogError(f"codebook_sizes must be an integer or one integer per level; got {sizes!r}.")
    if array.ndim == 1 and len(array) != num_levels:
        raise CatalogError(f"codebook_sizes has {len(array)} entries, but the SIDs have {num_levels} levels.")
    checked = tuple(int(size) for size in np.broadcast_to(array, num_levels))
    for level, size in enumerate(checked):
        if not 1 <= size <= MAX_CODEBOOK_SIZE:
            raise CatalogError(f"codebook_sizes: level {level} has {size}; expected 1 to {MAX_CODEBOOK_SIZE:,}.")
    return checked


def _out_of_range(sids: np.ndarray, level: int, code: int, rule: str) -> str:
    row = int(np.argmax(sids[:, level] == code))
    return f"row {row}, level {level}: code {code} is out of range; {rule}. The row's SID: {sids[row].tolist()}."


def _as_array(sids: Any) -> np.ndarray:
    try:
        matrix = np.asarray(sids)
        # NumPy converts a row of mixed types to one type. An object array keeps the invalid code for the message.
        is_rows = isinstance(sids, Sequence) and matrix.ndim == 2
        return np.array(sids, object) if is_rows and (matrix.dtype.kind not in "iu" or _has_bools(sids)) else matrix
    except (ValueError, TypeError, RuntimeError, OverflowError) as error:
        message = _ragged_row(sids)
        if message:
            raise CatalogError(message) from None
        raise CatalogError(
            f"sids must be integers [items, levels]; NumPy cannot convert {type(sids).__name__}: {error}"
        ) from None


def _has_bools(sids: Sequence[Any]) -> bool:
    """Whether rows of integers contain a bool, which NumPy converts to 0 or 1."""
    return not {bool, np.bool_}.isdisjoint(map(type, chain.from_iterable(sids)))


def _ragged_row(sids: Any) -> str | None:
    """The error message for the first row of a nested sequence whose length differs from that of row 0."""
    if not isinstance(sids, Sequence):
        return None
    message = row_without_length(sids)
    if message is not None:
        return message
    row = next((row for row, codes in enumerate(sids) if len(codes) != len(sids[0])), None)
    if row is None:
        return None
    return f"row {row} of sids has {len(sids[row])} codes, but row 0 has {len(sids[0])}; {RAGGED_HINT}."


def _not_integers(matrix: np.ndarray, min_code: int) -> str:
    """The error message for a matrix of floats or objects: names the first code that is not an integer, if any."""
    flat = matrix.reshape(-1)
    if matrix.dtype.kind == "f":
        invalid = np.flatnonzero(~np.isfinite(flat) | (flat != np.trunc(flat)))
        advice = "the codes are whole numbers stored as floats. Pass sids.astype(int)"
    else:
        invalid = [position for position, code in enumerate(flat) if not _is_code(code, min_code)][:1]
        advice = "pass an integer array"
    if len(invalid):
        row, level = divmod(int(invalid[0]), matrix.shape[1])
        return f"row {row}, level {level}: {matrix[row, level]!r} is not an integer code from 0 to {MAX_CODE}."
    return f"sids must be integers; got an array of {matrix.dtype}; {advice}."


def _is_code(code: Any, min_code: int) -> bool:
    return isinstance(code, (int, np.integer)) and not isinstance(code, bool) and min_code <= int(code) <= MAX_CODE
