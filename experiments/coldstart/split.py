"""The split of the paper (STATIC, section 5.4): which items are cold, the training data, and the questions.

The age of an item is its earliest interaction. The newest share of the items is cold: no interaction with them is in
the training data. A question is the last item of a user, if it is cold, given the earlier warm items of the user.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from coldstart.tables import Shop

WARM_TEST, WARM_VALIDATION = 0.10, 0.05  # of the users whose last item is warm
LONGEST = 20  # the maximum number of items of a history in a prompt: the latest


@dataclass(frozen=True)
class Questions:
    """The histories of Q users, and the next item of each."""

    histories: list[np.ndarray]
    targets: np.ndarray

    def __len__(self) -> int:
        return len(self.targets)


@dataclass(frozen=True)
class Split:
    """A split of a shop.

    Attributes:
        cold: bool [N], the items that are not in the training data.
        known: bool [N], the items that exist in this split: all items, except in a tuning split.
        training: sequences of warm items.
        validation: the last items of warm users, for early stopping.
        warm: the last items of warm users, for the warm test.
        test: cold last items, given the warm items of their users.
        served: the same items, given all items of their users, as in production: no cold item was trained on.
    """

    cold: np.ndarray
    known: np.ndarray
    training: list[np.ndarray]
    validation: Questions
    warm: Questions
    test: Questions
    served: Questions


def split_of(shop: Shop, share: float, *, tuning: bool = False, seed: int = 0) -> Split:
    """Split a shop so that the newest `share` of the items is cold.

    Args:
        shop: items and histories.
        share: the share of the items that are cold: 0.02 or 0.05.
        tuning: create the split for choices, which never use the test: the newest `share` of the items is removed,
            and the next newest `share` is cold.
        seed: selects the warm users whose last item is a question and not training data.
    """
    cold, known = _cold(shop, share, tuning=tuning)
    asked, served, warm_users = [], [], []
    for history in shop.histories:
        items = history[known[history]]
        warm = items[~cold[items]]
        if len(items) and cold[items[-1]]:
            if len(warm):
                asked.append((warm, items[-1]))
                served.append((items[:-1], items[-1]))
        elif len(warm) >= 2:
            warm_users.append(warm)
    return Split(cold, known, *_warm_parts(warm_users, asked, seed), _questions(asked), _questions(served))


def _cold(shop: Shop, share: float, *, tuning: bool) -> tuple[np.ndarray, np.ndarray]:
    count = len(shop.ids)
    newest_first = np.lexsort((np.arange(count), -shop.first_seen))
    size = round(share * count)
    start = size if tuning else 0
    cold, known = np.zeros(count, bool), np.ones(count, bool)
    cold[newest_first[start : start + size]] = True
    known[newest_first[:start]] = False
    return cold, known


def _warm_parts(
    warm_users: list[np.ndarray], asked: list[tuple[np.ndarray, int]], seed: int
) -> tuple[list[np.ndarray], Questions, Questions]:
    """The training data, and the validation and warm test questions, whose last items are not in it."""
    order = np.random.default_rng(seed).permutation(len(warm_users))
    stops = np.cumsum([round(WARM_TEST * len(order)), round(WARM_VALIDATION * len(order))])
    test, validation, rest = np.split(order, stops)
    held_out = [warm_users[row][:-1] for row in (*test, *validation)]
    training = [warm_users[row] for row in rest] + held_out + [warm for warm, _ in asked]
    validation_questions, test_questions = (
        _questions([(warm_users[row][:-1], warm_users[row][-1]) for row in rows]) for rows in (validation, test)
    )
    return [sequence for sequence in training if len(sequence) >= 2], validation_questions, test_questions


def _questions(pairs: list[tuple[np.ndarray, int]]) -> Questions:
    histories = [history[-LONGEST:] for history, _ in pairs]
    return Questions(histories, np.array([target for _, target in pairs], dtype=np.int64))
