"""The nearest codeword of each vector, exactly. The result does not depend on batching or threads."""

from __future__ import annotations

import numpy as np

ROUNDING = float(np.finfo(np.float32).eps)
SMALLEST = float(np.finfo(np.float32).tiny)
# The number of float32 products of a block, 32 MB; and of float64 differences that are computed at once.
BLOCK = 1 << 23
PAIRS = 1 << 22


def nearest(vectors: np.ndarray, codebook: np.ndarray) -> np.ndarray:
    """Find the nearest row of a codebook for each vector; the first one of equally near rows.

    Distances are sums of squares in float64. A float32 matrix product selects the candidates: the rows whose distance
    is within the error bound of the product from the smallest one. Only these are compared in float64. So the result
    does not depend on the other vectors or the number of threads.

    Args:
        vectors: float32 [R, D].
        codebook: float32 [C, D], C at least 1.

    Returns:
        int32 [R].
    """
    codes = np.empty(len(vectors), np.int32)
    lengths = (codebook.astype(np.float64) ** 2).sum(1)
    rows = max(1, BLOCK // max(codebook.shape))
    for start in range(0, len(vectors), rows):
        block = vectors[start : start + rows]
        codes[start : start + rows] = _nearest(block, codebook, lengths)
    return codes


def _nearest(block: np.ndarray, codebook: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    scores = block @ codebook.T
    scores *= -2
    scores += lengths.astype(np.float32)
    codes = scores.argmin(1)
    # The error bound of a float32 sum of D products, in any order.
    longest = float(np.sqrt(lengths.max()))
    norms = np.sqrt((block.astype(np.float64) ** 2).sum(1))
    error = (block.shape[1] + 8) * ROUNDING * longest * (2 * norms + longest) + block.shape[1] * SMALLEST
    limit = scores.min(1) + 2 * error
    close = scores <= np.nextafter(limit.astype(np.float32), np.float32(np.inf))[:, None]
    ambiguous = np.flatnonzero(close.sum(1) > 1)
    if len(ambiguous):
        codes[ambiguous] = _compared(block, codebook, ambiguous, close[ambiguous])
    return codes


def _compared(block: np.ndarray, codebook: np.ndarray, ambiguous: np.ndarray, close: np.ndarray) -> np.ndarray:
    """The code of each ambiguous row, by the float64 distances to its candidates."""
    rows, codes = np.nonzero(close)
    distances = np.empty(len(rows))
    step = max(1, PAIRS // block.shape[1])
    for start in range(0, len(rows), step):
        span = slice(start, start + step)
        differences = block[ambiguous[rows[span]]].astype(np.float64) - codebook[codes[span]]
        distances[span] = (differences * differences).sum(1)
    order = np.lexsort((codes, distances, rows))
    first = np.flatnonzero(np.diff(rows[order], prepend=-1))
    return codes[order[first]]
