"""The nearest codeword of each vector, exactly, and so the same however the vectors come: alone, or among millions."""

from __future__ import annotations

import numpy as np

ROUNDING = float(np.finfo(np.float32).eps)
SMALLEST = float(np.finfo(np.float32).tiny)
# Products of a block, 32 MB at 256 codes; and the numbers of the pairs that are compared in float64 at a time.
BLOCK = 1 << 23
PAIRS = 1 << 22


def nearest(vectors: np.ndarray, codebook: np.ndarray) -> np.ndarray:
    """Returns the code int32 [N] of each vector: the nearest row of the codebook, the first one of equals.

    Distances are the squares summed in float64. A matrix product in float32 finds all but the close calls, and what it
    may be wrong by is known; those within it are compared one by one. So which rows stand beside a vector, on how many
    threads, changes nothing.

    Args:
        vectors: float32 [N, D].
        codebook: float32 [K, D], K at least 1.
    """
    codes = np.empty(len(vectors), np.int32)
    lengths = (codebook.astype(np.float64) ** 2).sum(1)
    rows = max(1, BLOCK // max(codebook.shape))
    for begin in range(0, len(vectors), rows):
        block = vectors[begin : begin + rows]
        codes[begin : begin + rows] = _nearest(block, codebook, lengths)
    return codes


def _nearest(block: np.ndarray, codebook: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    scores = block @ codebook.T
    scores *= -2
    scores += lengths.astype(np.float32)
    codes = scores.argmin(1)
    # No sum of D products, in any order, is further than this from the true one.
    longest = float(np.sqrt(lengths.max()))
    norms = np.sqrt((block.astype(np.float64) ** 2).sum(1))
    error = (block.shape[1] + 8) * ROUNDING * longest * (2 * norms + longest) + block.shape[1] * SMALLEST
    limit = scores.min(1) + 2 * error
    close = scores <= np.nextafter(limit.astype(np.float32), np.float32(np.inf))[:, None]
    unsure = np.flatnonzero(close.sum(1) > 1)
    if len(unsure):
        codes[unsure] = _compared(block, codebook, unsure, close[unsure])
    return codes


def _compared(block: np.ndarray, codebook: np.ndarray, unsure: np.ndarray, close: np.ndarray) -> np.ndarray:
    """Returns the code of each unsure row, from the distances to the codewords that are close."""
    rows, codes = np.nonzero(close)
    distances = np.empty(len(rows))
    step = max(1, PAIRS // block.shape[1])
    for begin in range(0, len(rows), step):
        some = slice(begin, begin + step)
        apart = block[unsure[rows[some]]].astype(np.float64) - codebook[codes[some]]
        distances[some] = (apart * apart).sum(1)
    order = np.lexsort((codes, distances, rows))
    first = np.flatnonzero(np.diff(rows[order], prepend=-1))
    return codes[order[first]]
