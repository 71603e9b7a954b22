"""Training batches: histories as one row of item tokens, and of some of their items the codes, branching off.

A row is: begin, item, item, ... and behind it, for each of a few chosen places, the codes of the item taken next, all
but the last. A code sees the history up to its place, and the codes before it on its own branch: what it would see if
it alone were asked for. So one history serves several questions, and is computed once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from coldstart.network import BEGIN
from coldstart.split import LONGEST

BRANCHES = 2
SHUFFLED = 0.3  # of the sequences: what was taken on one day has no order in the data anyway
LATER = (
    0.3  # of the items asked for are not the next but a later one: between a history and a cold item some are missing
)
POOL = 20  # batches sorted by length together, so that little of a batch is padding


@dataclass(frozen=True)
class Batch:
    """B histories of at most T places, and K branches of each.

    Attributes:
        tokens: [B, T + K (L - 1)].
        positions: the same shape.
        seen: bool [B, S, S]: what each token attends to.
        first: [B, T], the first code of the item after each place; -1 for padding.
        codes: [B, K, L], the codes of the items after the chosen places.
        places: [B, K].
    """

    tokens: Tensor
    positions: Tensor
    seen: Tensor
    first: Tensor
    codes: Tensor
    places: Tensor

    def to(self, device: torch.device) -> Batch:
        """Returns it on a device."""
        return Batch(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))


def batch_of(
    sequences: list[np.ndarray], asked: list[np.ndarray], chosen: np.ndarray, sids: np.ndarray, starts: np.ndarray
) -> Batch:
    """Returns the batch of sequences, each asked for the items `asked` at its places, whole at the chosen ones [B, K].

    At place t a model has seen the first t items of a sequence; asked[row][t] is mostly the next.
    """
    longest, (rows, branches) = max(map(len, sequences)), chosen.shape
    history = np.full((rows, longest), BEGIN)
    items, seen_items = np.zeros((rows, longest), np.int64), np.zeros((rows, longest), np.int64)
    real = np.arange(longest) < np.array([len(sequence) for sequence in sequences])[:, None]
    seen_items[real], items[real] = np.concatenate(sequences), np.concatenate(asked)
    history[:, 1:] = np.where(real[:, 1:], starts[-1] + seen_items[:, :-1], BEGIN)
    codes = sids[items[np.arange(rows)[:, None], chosen]].astype(np.int64)
    inner = (codes + starts[:-1])[..., :-1]
    depth = inner.shape[-1]
    places = np.arange(longest)
    positions = np.broadcast_to(places, (rows, longest))
    branching = (chosen[..., None] + 1 + np.arange(depth)).reshape(rows, -1)
    seen = np.zeros((rows, longest + branches * depth, longest + branches * depth), bool)
    seen[:, :longest, :longest] = places[:, None] >= places
    seen[:, longest:, :longest] = np.repeat(chosen[..., None] >= places, depth, axis=1)
    seen[:, longest:, longest:] = np.kron(np.eye(branches), np.tri(depth)) > 0
    parts = (
        np.concatenate([history, inner.reshape(rows, -1)], axis=1),
        np.concatenate([positions, branching], axis=1),
        seen,
        np.where(real, sids[items, 0], -1).astype(np.int64),
        codes,
        chosen,
    )
    return Batch(*(torch.from_numpy(np.ascontiguousarray(part)) for part in parts))


def training_batches(
    sequences: list[np.ndarray], sids: np.ndarray, starts: np.ndarray, size: int, random: np.random.Generator
) -> Iterator[Batch]:
    """Yields one epoch: every sequence once, its latest items where it is long, with branches at random places."""
    order = random.permutation(len(sequences))
    for begin in range(0, len(order), POOL * size):
        rows = sorted((sequences[row][-LONGEST - 1 :] for row in order[begin : begin + POOL * size]), key=len)
        for start in random.permutation(range(0, len(rows), size)):
            part = [_shuffled(row, random) for row in rows[start : start + size]]
            lengths = np.array([len(row) for row in part])[:, None]
            chosen = random.integers(0, lengths, (len(part), BRANCHES))
            yield batch_of(part, [_asked(row, random) for row in part], chosen, sids, starts)


def _shuffled(sequence: np.ndarray, random: np.random.Generator) -> np.ndarray:
    return random.permutation(sequence) if random.random() < SHUFFLED else sequence


def _asked(sequence: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Returns the item to ask for at each place: the next, or now and then one of those after it."""
    next_one = np.arange(len(sequence))
    later = next_one + random.geometric(1 - LATER, len(sequence)) - 1
    return sequence[np.where(later < len(sequence), later, next_one)]


def question_batches(
    histories: list[np.ndarray], targets: np.ndarray, sids: np.ndarray, starts: np.ndarray, size: int
) -> Iterator[Batch]:
    """Yields questions, each with one branch, at the end of its history."""
    order = sorted(range(len(targets)), key=lambda row: len(histories[row]))
    for begin in range(0, len(order), size):
        part = [np.append(histories[row], targets[row]) for row in order[begin : begin + size]]
        yield batch_of(part, part, np.array([[len(row) - 1] for row in part]), sids, starts)
