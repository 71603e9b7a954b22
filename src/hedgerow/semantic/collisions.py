"""Items that share codes, and the deduplication codes that distinguish them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hedgerow.errors import ArgumentError

MIN_SIZE = 16
# The number of items whose distances to all codewords are computed at once.
BLOCK = 1 << 10


def prefix_numbers(codes: np.ndarray) -> Iterator[np.ndarray]:
    """Yield int64 [N] per level: a number for each row's prefix, counted from 0, equal for equal prefixes."""
    numbers = np.zeros(len(codes), np.int64)
    for column in codes.T:
        # Both are below 2**31, so the pair fits one int64.
        _, numbers = np.unique((numbers << 31) | column.astype(np.int64), return_inverse=True)
        yield numbers


def numbers_of(codes: np.ndarray) -> np.ndarray:
    """A number int64 [N] for each row, counted from 0, equal for equal rows."""
    *_, numbers = prefix_numbers(codes)
    return numbers


def free_last_codes(codes: np.ndarray, taken: np.ndarray | None = None) -> np.ndarray:
    """Assign deduplication codes: the smallest free code for each row, in the order of the rows.

    Args:
        codes: [R, L].
        taken: [items, L + 1], the SIDs of other items, or None.

    Returns:
        int64 [R].
    """
    if not len(codes):
        return np.zeros(0, np.int64)
    others = np.zeros((0, codes.shape[1] + 1), np.int64) if taken is None else taken
    numbers = numbers_of(np.concatenate([others[:, :-1].astype(np.int64), codes]))
    return _free(numbers[len(others) :], numbers[: len(others)], others[:, -1].astype(np.int64))


def _free(groups: np.ndarray, taken_groups: np.ndarray, taken_codes: np.ndarray) -> np.ndarray:
    """For each row the r-th free code of its group, where r is the number of rows of the group before it."""
    ranks = _ranks(groups)
    used = np.unique((taken_groups << 31) | taken_codes)
    owners = used >> 31
    # Below the j-th used code u there are u - j free codes. So the r-th free code is r + |{j: u - j <= r}|.
    gaps = (used & (2**31 - 1)) - (np.arange(len(used)) - np.searchsorted(owners, owners))
    below = np.searchsorted((owners << 31) | gaps, (groups << 31) | ranks, side="right")
    return ranks + below - np.searchsorted(owners, groups)


def nearest_free_codes(
    codes: np.ndarray,
    residuals: np.ndarray,
    codebook: np.ndarray,
    taken: np.ndarray | None,
    limit: int,
    numbers: np.ndarray,
) -> np.ndarray:
    """Last codes such that at most `limit` items share a SID.

    The first items of a SID keep it, in the order of the rows. Each of the others gets the code of the nearest codeword
    of the last level that has room after the same prefix.

    Args:
        codes: [R, L].
        residuals: [R, d], what the last level encodes.
        codebook: [C, d] of the last level.
        taken: [items, L], the SIDs of other items, or None.
        limit: the maximum number of items of a SID.
        numbers: [R], the row numbers for the message.

    Returns:
        int64 [R].

    Raises:
        ArgumentError: all codes after a prefix are full.
    """
    others = np.zeros((0, codes.shape[1]), np.int64) if taken is None else taken
    every = np.concatenate([others, codes.astype(np.int64)])
    prefixes = numbers_of(every[:, :-1]) if codes.shape[1] > 1 else np.zeros(len(every), np.int64)
    last = every[:, -1].copy()
    moves = _ranks((prefixes << 31) | last) >= limit
    moves[: len(others)] = False
    movers = np.flatnonzero(moves)
    counts = {prefix: np.zeros(last.max(initial=0) + len(codebook) + 1, np.int64) for prefix in set(prefixes[movers])}
    for row in np.flatnonzero(~moves & np.isin(prefixes, list(counts))):
        counts[prefixes[row]][last[row]] += 1
    lengths = np.square(codebook, dtype=np.float64).sum(1)
    for start in range(0, len(movers), BLOCK):
        rows = movers[start : start + BLOCK]
        distances = lengths - 2 * (residuals[rows - len(others)].astype(np.float64) @ codebook.T.astype(np.float64))
        for row, distance in zip(rows, distances, strict=True):
            used = counts[prefixes[row]]
            distance[used[: len(codebook)] >= limit] = np.inf
            last[row] = distance.argmin()
            if np.isinf(distance[last[row]]):
                raise _no_room(int(numbers[row - len(others)]), every[row, :-1], len(codebook), limit)
            used[last[row]] += 1
    return last[len(others) :]


def _no_room(row: int, prefix: np.ndarray, size: int, limit: int) -> ArgumentError:
    after = f" after {', '.join(map(str, prefix.tolist()))}" if len(prefix) else ""
    return ArgumentError(
        f"row {row}: all {size:,} codes of the last level{after} have {limit:,} items. Train again with a larger last "
        "codebook or more levels; or use items_per_sid=, or on_collision='separate'."
    )


def _ranks(groups: np.ndarray) -> np.ndarray:
    """For each row the number of rows of its group before it."""
    order = np.argsort(groups, kind="stable")
    ranks = np.empty(len(groups), np.int64)
    ranks[order] = np.arange(len(groups)) - np.searchsorted(groups[order], groups[order])
    return ranks


def default_size(last: np.ndarray) -> int:
    """The default number of deduplication codes: a power of two, at least 16 and at least twice the codes in use."""
    used = int(last.max(initial=0)) + 1
    return max(MIN_SIZE, 1 << (2 * used - 1).bit_length())


def check_size(codes: np.ndarray, last: np.ndarray, size: int, rows: np.ndarray) -> None:
    """Check that every deduplication code is below `size`. `rows` are the row numbers for the message.

    Raises:
        ArgumentError: one is not. The message names the codes that too many items share.
    """
    if len(last) and last.max() >= size:
        row = int(last.argmax())
        prefix = ", ".join(map(str, codes[row].tolist()))
        raise ArgumentError(
            f"row {rows[row]}: {int(last[row]) + 1:,} items have the codes {prefix}, and only {size:,} deduplication "
            "codes separate them. Train again with more deduplication_codes, more levels or larger codebooks; or keep "
            "the collisions: deduplicate=False."
        )
