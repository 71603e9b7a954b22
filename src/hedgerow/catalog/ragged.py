"""Ragged SIDs: of different lengths, one a prefix of another included.

Outside, -1 stands after the end of a SID. Inside, the end is a code of its own: where SIDs are ragged, every level but
the first has one code more than its codebook, the last one, END; a SID that ends before a level has END there and at
every level after it. So all SIDs have L codes, and the trie, its files and the kernels treat them alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hedgerow.catalog.sids import MAX_CODEBOOK_SIZE, as_sids, row_without_length
from hedgerow.errors import CatalogError

ENDED = -1
EndCodes = tuple[int | None, ...]


def as_ragged_sids(sids: Any, codebook_sizes: Any) -> np.ndarray:
    """Returns `sids` as an integer matrix [N, L], -1 after the end of a SID, or says which row is not one.

    L is the length of the longest SID, or the number of `codebook_sizes` where that is a sequence and larger.

    Raises:
        CatalogError: an empty SID, a code after the end of one, or as for `as_sids`.
    """
    matrix = as_sids(padded(sids), smallest=ENDED)
    if len(matrix) == 0:
        return matrix
    ended = matrix == ENDED
    if ended[:, 0].any():
        row = int(np.argmax(ended[:, 0]))
        raise CatalogError(f"row {row} of sids is empty; a SID has at least one code. Drop the rows without a SID.")
    resumed = ended[:, :-1] & ~ended[:, 1:]
    if resumed.any():
        row, level = np.argwhere(resumed)[0].tolist()
        raise CatalogError(
            f"row {row}, level {level}: -1 says that the SID has ended, but level {level + 1} has code "
            f"{matrix[row, level + 1]}; -1 may stand after the last code only. The row's SID: {matrix[row].tolist()}."
        )
    longest = int((~ended).any(axis=0).sum())
    is_sequence = isinstance(codebook_sizes, Sequence) or getattr(codebook_sizes, "ndim", 0) == 1
    return as_sids(resized(matrix, max(longest, len(codebook_sizes) if is_sequence else 0)))


def padded(sids: Any) -> Any:
    """Returns sequences of codes, of different lengths, as lists of one length, -1 after the end of each.

    Anything else is returned as it is, for `as_sids` to judge.

    Raises:
        CatalogError: a row is no sequence.
    """
    if isinstance(sids, np.ndarray) and sids.dtype == object and sids.ndim == 1:
        sids = sids.tolist()
    if not isinstance(sids, Sequence) or not sids:
        return sids
    without = row_without_length(sids)
    if without is not None:
        raise CatalogError(without)
    lengths = [len(row) for row in sids]
    longest = max(1, *lengths)
    return sids if min(lengths) == longest else [[*row, *[ENDED] * (longest - len(row))] for row in sids]


def as_int64(codes: np.ndarray) -> np.ndarray:
    """Returns a copy of integers as int64; what is larger, and out of range in any case, must not become -1."""
    if codes.dtype == np.uint64:
        codes = np.minimum(codes, np.uint64(np.iinfo(np.int64).max))
    return codes.astype(np.int64)


def resized(matrix: np.ndarray, levels: int) -> np.ndarray:
    """Returns a matrix [N, W], -1 after the end of a SID, cut or filled to [N, levels]."""
    missing = levels - matrix.shape[1]
    if missing <= 0:
        return matrix[:, :levels]
    return np.pad(as_int64(matrix), ((0, 0), (0, missing)), constant_values=ENDED)


def end_codes_of(codebook_sizes: Sequence[int]) -> EndCodes:
    """Returns the END code of each level of a ragged catalog with these codebooks: None for level 0.

    Raises:
        CatalogError: a codebook leaves no room for it.
    """
    for level, size in enumerate(codebook_sizes):
        if level and size >= MAX_CODEBOOK_SIZE:
            raise CatalogError(
                f"codebook_sizes: level {level} has {size:,}; where SIDs are ragged, the end is one code more, so "
                f"expected 1 to {MAX_CODEBOOK_SIZE - 1:,}."
            )
    return (None, *codebook_sizes[1:])


def with_ends(matrix: np.ndarray, end_codes: EndCodes) -> np.ndarray:
    """Returns SIDs [N, L], -1 after the end, as int64 [N, L] with END there."""
    codes = as_int64(matrix)
    ended = codes == ENDED
    for level, end in enumerate(end_codes):
        if end is not None:
            codes[ended[:, level], level] = end
    return codes


def without_ends(codes: np.ndarray, end_codes: EndCodes) -> np.ndarray:
    """Returns signed codes [N, L] with -1 in place of END."""
    ends = np.array([ENDED if end is None else end for end in end_codes], codes.dtype)
    return np.where(codes == ends, codes.dtype.type(ENDED), codes)


def trimmed(sid: Sequence[int]) -> list[int]:
    """Returns a SID, -1 after its end, at its own length."""
    return [code for code in sid if code != ENDED]
