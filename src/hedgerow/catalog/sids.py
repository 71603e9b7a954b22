"""Semantic IDs as they come in: any integer matrix, checked row by row and level by level."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hedgerow.errors import CatalogError

MAX_LEVELS = 255
MAX_CODEBOOK_SIZE = 2**31
MAX_CODE = MAX_CODEBOOK_SIZE - 1
MAX_ITEMS = 2**31 - 1
RAGGED_HINT = "SIDs of different lengths take a catalog made with ragged=True (hedgerow build --ragged)"


def as_sids(sids: Any, *, smallest: int = 0) -> np.ndarray:
    """Returns `sids` as an integer matrix [N, L], or says which row is not one.

    `smallest` is what an entry may be at least, as far as the message of an error goes.

    Raises:
        CatalogError: rows of different lengths, codes that are not integers, too many items or levels.
    """
    if isinstance(sids, np.ma.MaskedArray) and np.ma.is_masked(sids):
        row, level = ([*np.argwhere(np.ma.getmaskarray(sids))[0].tolist(), 0])[:2]
        raise CatalogError(f"row {row}, level {level}: the code is masked; drop the rows whose SID is not known.")
    if isinstance(sids, np.ndarray) and sids.dtype == object and sids.ndim == 1:
        sids = sids.tolist()  # an array of lists, as a column of a frame gives them
    matrix = sids if isinstance(sids, np.ndarray) else _as_array(sids)
    if matrix.ndim != 2:
        hint = " For items of one code each, pass sids.reshape(-1, 1)." if matrix.ndim == 1 else ""
        raise CatalogError(f"sids must be [items, levels]; got an array of shape {matrix.shape}.{hint}")
    items, levels = matrix.shape
    if not 1 <= levels <= MAX_LEVELS:
        raise CatalogError(f"sids must have 1 to {MAX_LEVELS} levels; got {levels} (shape {matrix.shape}).")
    if items > MAX_ITEMS:
        raise CatalogError(f"a catalog holds at most {MAX_ITEMS:,} items; got {items:,}. Split it into several.")
    if matrix.dtype.kind not in "iu":
        raise CatalogError(_not_integers(matrix, smallest))
    return matrix


def checked_codebook_sizes(
    sids: np.ndarray, sizes: int | Sequence[int] | None, *, smallest: int = 0
) -> tuple[int, ...]:
    """Returns one codebook size a level, each larger than every code of its level.

    Args:
        sids: [N, L] integers.
        sizes: one number for all levels, L numbers, or None for the smallest that fit.
        smallest: what an entry of `sids` may be at least: 0, or -1 where that says that a SID has ended.

    Raises:
        CatalogError: a size out of range, or a code outside its codebook.
    """
    levels = sids.shape[1]
    if len(sids) == 0:
        if sizes is None:
            raise CatalogError("an empty catalog needs codebook_sizes: there is no code to infer them from.")
        return _as_sizes(sizes, levels)
    if sizes is not None and sids.min() >= smallest and sids.max() < min(wanted := _as_sizes(sizes, levels)):
        # All codes fit the smallest codebook: no need to look at each level by itself.
        return wanted
    lowest, highest = ([int(end(column)) for column in sids.T] for end in (np.min, np.max))
    for level, code in enumerate(lowest):
        if code < smallest:
            hint = f"; {RAGGED_HINT}" if code == -1 else ""
            raise CatalogError(_bad_code(sids, level, code, f"codes count from 0{hint}"))
    wanted = tuple(code + 1 for code in highest) if sizes is None else _as_sizes(sizes, levels)
    for level, (code, size) in enumerate(zip(highest, wanted, strict=True)):
        if code >= size or size > MAX_CODEBOOK_SIZE:
            limit = min(size, MAX_CODEBOOK_SIZE)
            raise CatalogError(_bad_code(sids, level, code, f"the codebook of this level has codes 0 to {limit - 1}"))
    return wanted


def _as_sizes(sizes: Any, levels: int) -> tuple[int, ...]:
    try:
        given = np.asarray(sizes)
    except ValueError:
        given = np.zeros((), object)
    if given.dtype.kind not in "iu" or given.ndim > 1:
        raise CatalogError(f"codebook_sizes must be an integer or one integer a level; got {sizes!r}.")
    if given.ndim == 1 and len(given) != levels:
        raise CatalogError(f"codebook_sizes has {len(given)} entries, but the SIDs have {levels} levels.")
    wanted = tuple(int(size) for size in np.broadcast_to(given, levels))
    for level, size in enumerate(wanted):
        if not 1 <= size <= MAX_CODEBOOK_SIZE:
            raise CatalogError(f"codebook_sizes: level {level} has {size}; expected 1 to {MAX_CODEBOOK_SIZE:,}.")
    return wanted


def _bad_code(sids: np.ndarray, level: int, code: int, rule: str) -> str:
    row = int(np.argmax(sids[:, level] == code))
    return f"row {row}, level {level}: code {code} is out of range; {rule}. The row's SID: {sids[row].tolist()}."


def _as_array(sids: Any) -> np.ndarray:
    try:
        matrix = np.asarray(sids)
        # NumPy turns a row that mixes kinds into one kind; as objects, the code at fault is still to be seen.
        mixed = isinstance(sids, Sequence) and matrix.ndim == 2 and matrix.dtype.kind not in "iu" and matrix.size
        return np.array(sids, object) if mixed else matrix
    except (ValueError, TypeError, RuntimeError, OverflowError) as error:
        ragged = _ragged_row(sids)
        if ragged:
            raise CatalogError(ragged) from None
        raise CatalogError(f"sids must be [items, levels] of integers; {type(sids).__name__} is not: {error}") from None


def _ragged_row(sids: Any) -> str | None:
    """Names the first row whose length differs from row 0, where `sids` is a sequence of sequences."""
    if not isinstance(sids, Sequence):
        return None
    without = row_without_length(sids)
    if without is not None:
        return without
    row = next((row for row, codes in enumerate(sids) if len(codes) != len(sids[0])), None)
    if row is None:
        return None
    return f"row {row} of sids has {len(sids[row])} codes, but row 0 has {len(sids[0])}; {RAGGED_HINT}."


def row_without_length(sids: Sequence[Any]) -> str | None:
    """Names the first row that is no sequence of codes."""
    for row, codes in enumerate(sids):
        if not hasattr(codes, "__len__"):
            return f"row {row} of sids is {codes!r}; expected a list of codes."
    return None


def _not_integers(matrix: np.ndarray, smallest: int) -> str:
    """Says which code is at fault where floats or objects hold one that is not an integer."""
    flat = matrix.reshape(-1)
    if matrix.dtype.kind == "f":
        bad = np.flatnonzero(~np.isfinite(flat) | (flat != np.trunc(flat)))
        advice = "the codes are whole numbers held as floats: pass sids.astype(int)"
    else:
        bad = [at for at, code in enumerate(flat) if not _is_code(code, smallest)][:1]
        advice = "pass an integer array"
    if len(bad):
        row, level = divmod(int(bad[0]), matrix.shape[1])
        return f"row {row}, level {level}: {matrix[row, level]!r} is not an integer code from 0 to {MAX_CODE}."
    return f"sids must be integers; got an array of {matrix.dtype}; {advice}."


def _is_code(code: Any, smallest: int) -> bool:
    return isinstance(code, (int, np.integer)) and not isinstance(code, bool) and smallest <= int(code) <= MAX_CODE
