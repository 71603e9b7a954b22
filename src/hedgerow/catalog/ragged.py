"""Ragged SIDs: SIDs of different lengths, where one may be a prefix of another.

In user-facing matrices, -1 fills the entries after the end of a SID. Internally, the end is a code: every level except
the first has one more code than its codebook. That code, the last one, is the end code. A SID has the end code at every
level after its last code. So all SIDs have L codes, and the trie, its files and the kernels need no special case.
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
    """Convert ragged SIDs to an integer matrix [N, L], with -1 after the end of a SID.

    L is the length of the longest SID, or the number of `codebook_sizes` if that is a longer sequence.

    Raises:
        CatalogError: a SID is empty, a code follows the end of a SID, or as for `as_sids`.
    """
    matrix = as_sids(padded(sids), min_code=ENDED)
    if len(matrix) == 0:
        return matrix
    ended = matrix == ENDED
    if ended[:, 0].any():
        row = int(np.argmax(ended[:, 0]))
        raise CatalogError(f"row {row} of sids is empty; a SID has at least one code. Remove the rows without a SID.")
    resumed = ended[:, :-1] & ~ended[:, 1:]
    if resumed.any():
        row, level = np.argwhere(resumed)[0].tolist()
        raise CatalogError(
            f"row {row}, level {level}: -1 marks the end of the SID, but level {level + 1} has code "
            f"{matrix[row, level + 1]}. Use -1 only after the last code. The row's SID: {matrix[row].tolist()}."
        )
    longest = int((~ended).any(axis=0).sum())
    is_sequence = isinstance(codebook_sizes, Sequence) or getattr(codebook_sizes, "ndim", 0) == 1
    return as_sids(resized(matrix, max(longest, len(codebook_sizes) if is_sequence else 0)))


def padded(sids: Any) -> Any:
    """Pad sequences of codes to one length, with -1 after the end of each.

    Other objects are returned unchanged; `as_sids` checks them.

    Raises:
        CatalogError: a row is not a sequence.
    """
    if isinstance(sids, np.ndarray) and sids.dtype == object and sids.ndim == 1:
        sids = sids.tolist()
    if not isinstance(sids, Sequence) or not sids:
        return sids
    message = row_without_length(sids)
    if message is not None:
        raise CatalogError(message)
    lengths = [len(row) for row in sids]
    longest = max(1, *lengths)
    return sids if min(lengths) == longest else [[*row, *[ENDED] * (longest - len(row))] for row in sids]


def as_int64(codes: np.ndarray) -> np.ndarray:
    """Copy integers to int64. A uint64 above the int64 maximum becomes that maximum, so that it cannot become -1."""
    if codes.dtype == np.uint64:
        codes = np.minimum(codes, np.uint64(np.iinfo(np.int64).max))
    return codes.astype(np.int64)


def resized(matrix: np.ndarray, num_levels: int) -> np.ndarray:
    """Cut a matrix of SIDs to `num_levels` columns, or pad it to that width with -1."""
    missing = num_levels - matrix.shape[1]
    if missing <= 0:
        return matrix[:, :num_levels]
    return np.pad(as_int64(matrix), ((0, 0), (0, missing)), constant_values=ENDED)


def end_codes_of(codebook_sizes: Sequence[int]) -> EndCodes:
    """The end code per level of a ragged catalog with these codebook sizes; None for level 0.

    Raises:
        CatalogError: a codebook is so large that there is no room for the end code.
    """
    for level, size in enumerate(codebook_sizes):
        if level and size >= MAX_CODEBOOK_SIZE:
            raise CatalogError(
                f"codebook_sizes: level {level} has {size:,}; ragged SIDs need one more code per level for the end, so "
                f"expected 1 to {MAX_CODEBOOK_SIZE - 1:,}."
            )
    return (None, *codebook_sizes[1:])


def with_ends(matrix: np.ndarray, end_codes: EndCodes) -> np.ndarray:
    """Copy SIDs [N, L] to int64, with end codes in place of -1."""
    codes = as_int64(matrix)
    ended = codes == ENDED
    for level, end in enumerate(end_codes):
        if end is not None:
            codes[ended[:, level], level] = end
    return codes


def without_ends(codes: np.ndarray, end_codes: EndCodes) -> np.ndarray:
    """Replace end codes by -1 in signed codes [N, L]."""
    ends = np.array([ENDED if end is None else end for end in end_codes], codes.dtype)
    return np.where(codes == ends, codes.dtype.type(ENDED), codes)


def trimmed(sid: Sequence[int]) -> list[int]:
    """The codes of a SID without the -1 after its end."""
    return [code for code in sid if code != ENDED]
