"""Items that share codes, and the last code that keeps them apart."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hedgerow.errors import ArgumentError

FEWEST = 16


def prefix_numbers(codes: np.ndarray) -> Iterator[np.ndarray]:
    """Yields for each level the number int64 [N] of each row's prefix: counted from 0, equal where prefixes are."""
    numbers = np.zeros(len(codes), np.int64)
    for column in codes.T:
        # Both below 2**31, so that the pair is one integer.
        _, numbers = np.unique((numbers << 31) | column.astype(np.int64), return_inverse=True)
        yield numbers


def numbers_of(codes: np.ndarray) -> np.ndarray:
    """Returns the number int64 [N] of each row's codes: counted from 0, equal where the codes are."""
    *_, numbers = prefix_numbers(codes)
    return numbers


def free_last_codes(codes: np.ndarray, taken: np.ndarray | None = None) -> np.ndarray:
    """Returns a last code int64 [N] for each row: the smallest that are free, in the order of the rows.

    Args:
        codes: [N, L].
        taken: [T, L + 1], the SIDs of other items, or None.
    """
    if not len(codes):
        return np.zeros(0, np.int64)
    others = np.zeros((0, codes.shape[1] + 1), np.int64) if taken is None else taken
    numbers = numbers_of(np.concatenate([others[:, :-1].astype(np.int64), codes]))
    return _free(numbers[len(others) :], numbers[: len(others)], others[:, -1].astype(np.int64))


def _free(groups: np.ndarray, taken_groups: np.ndarray, taken_codes: np.ndarray) -> np.ndarray:
    """Returns for each row the k-th code that its group has free, k being how many rows before it have its group."""
    order = np.argsort(groups, kind="stable")
    ranks = np.empty(len(groups), np.int64)
    ranks[order] = np.arange(len(groups)) - np.searchsorted(groups[order], groups[order])
    used = np.unique((taken_groups << 31) | taken_codes)
    owners = used >> 31
    # The j-th code in use, t, has t - j free ones below it: so the k-th free one is k plus those with t - j <= k.
    gaps = (used & (2**31 - 1)) - (np.arange(len(used)) - np.searchsorted(owners, owners))
    below = np.searchsorted((owners << 31) | gaps, (groups << 31) | ranks, side="right")
    return ranks + below - np.searchsorted(owners, groups)


def room_for(last: np.ndarray) -> int:
    """Returns how many separating codes to have: a power of two, at least 16, and twice what is in use."""
    used = int(last.max(initial=0)) + 1
    return max(FEWEST, 1 << (2 * used - 1).bit_length())


def check_room(codes: np.ndarray, last: np.ndarray, room: int) -> None:
    """Checks that every separating code is one of `room`.

    Raises:
        ArgumentError: naming the codes that more items have.
    """
    if len(last) and last.max() >= room:
        row = int(last.argmax())
        prefix = ", ".join(map(str, codes[row].tolist()))
        raise ArgumentError(
            f"row {row}: {int(last[row]) + 1:,} items have the codes {prefix}, and only {room:,} codes separate them. "
            "Train anew with more deduplication_codes, more levels or larger codebooks; or keep collisions: separate=False."
        )
