"""Which items are cold, what a model may learn from, and what it is asked: the paper's split (section 5.4 of STATIC).

An item's age is its earliest interaction. The newest share of the items is cold: nothing that anyone did with them is
trained on. Asked is what a user took last, where that is cold, after the warm items taken before.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from coldstart.tables import Shop

WARM_TEST, WARM_VALIDATION = 0.10, 0.05  # of the users whose last item is warm
LONGEST = 20  # items of a history that a model is shown: the latest


@dataclass(frozen=True)
class Questions:
    """Q users: what they took, and the item they took next."""

    histories: list[np.ndarray]
    targets: np.ndarray

    def __len__(self) -> int:
        return len(self.targets)


@dataclass(frozen=True)
class Split:
    """One division of a shop.

    Attributes:
        cold: bool [N], the items that no training sees.
        known: bool [N], the items that exist in this split: all of them, but for a tuning split.
        training: sequences of warm items.
        validation: warm users' last items, for early stopping.
        warm: warm users' last items, for the warm test.
        test: cold last items, after the warm items of their users.
        served: the same, after all items of their users, as a shop would ask: some were cold, and none was trained on.
    """

    cold: np.ndarray
    known: np.ndarray
    training: list[np.ndarray]
    validation: Questions
    warm: Questions
    test: Questions
    served: Questions


def split_of(shop: Shop, share: float, *, tuning: bool = False, seed: int = 0) -> Split:
    """Returns the split whose cold items are the newest `share` of all.

    Args:
        shop: items and histories.
        share: of the items that are cold: 0.02 or 0.05.
        tuning: choices are made on this one, never on the test: the newest `share` does not exist at all, and the
            next newest `share` is cold.
        seed: which warm users are asked instead of learnt from.
    """
    cold, known = _cold(shop, share, tuning)
    asked, served, warm_users = [], [], []
    for history in shop.histories:
        taken = history[known[history]]
        warm = taken[~cold[taken]]
        if len(taken) and cold[taken[-1]]:
            if len(warm):
                asked.append((warm, taken[-1]))
                served.append((taken[:-1], taken[-1]))
        elif len(warm) >= 2:
            warm_users.append(warm)
    return Split(cold, known, *_warm_parts(warm_users, asked, seed), _questions(asked), _questions(served))


def _cold(shop: Shop, share: float, tuning: bool) -> tuple[np.ndarray, np.ndarray]:
    count = len(shop.ids)
    newest_first = np.lexsort((np.arange(count), -shop.first_seen))
    size = round(share * count)
    begin = size if tuning else 0
    cold, known = np.zeros(count, bool), np.ones(count, bool)
    cold[newest_first[begin : begin + size]] = True
    known[newest_first[:begin]] = False
    return cold, known


def _warm_parts(
    warm_users: list[np.ndarray], asked: list[tuple[np.ndarray, int]], seed: int
) -> tuple[list[np.ndarray], Questions, Questions]:
    """Returns what is trained on, and the warm users whose last item is kept out of it."""
    order = np.random.default_rng(seed).permutation(len(warm_users))
    ends = np.cumsum([round(WARM_TEST * len(order)), round(WARM_VALIDATION * len(order))])
    test, validation, rest = np.split(order, ends)
    held_out = [warm_users[row][:-1] for row in (*test, *validation)]
    training = [warm_users[row] for row in rest] + held_out + [warm for warm, _ in asked]
    validated, tested = (
        _questions([(warm_users[row][:-1], warm_users[row][-1]) for row in rows]) for rows in (validation, test)
    )
    return [sequence for sequence in training if len(sequence) >= 2], validated, tested


def _questions(pairs: list[tuple[np.ndarray, int]]) -> Questions:
    histories = [history[-LONGEST:] for history, _ in pairs]
    return Questions(histories, np.array([target for _, target in pairs], dtype=np.int64))
