"""Training batches: a row has the item tokens of a history, and branches with the codes of some of the next items.

A row is: begin, item, item, ..., followed by a few branches. A branch belongs to a position of the history and has all
codes of the next item except the last. The mask lets a code attend to the history up to its position and to the
earlier codes of its branch, as if it were the only question. Thus the history is computed once for several questions.
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
# Share of the sequences that are shuffled; the data has no order within a day.
SHUFFLED = 0.3
# Share of the targets that are later items than the next: before a cold item, some items of a history are missing.
LATER = 0.3
# Number of batches that are sorted by length together, to reduce padding.
POOL = 20


@dataclass(frozen=True)
class Batch:
    """B histories with branches. A row has length = longest + branches * (L - 1) tokens.

    Attributes:
        tokens: int64 [B, length].
        positions: int64 [B, length], the position ids.
        seen: bool [B, length, length], whether a token attends to another.
        first: int64 [B, longest], the first code of the item after each position; -1 for padding.
        codes: int64 [B, branches, L], the codes of the target of each branch.
        places: int64 [B, branches], the position in the history of each branch.
    """

    tokens: Tensor
    positions: Tensor
    seen: Tensor
    first: Tensor
    codes: Tensor
    places: Tensor

    def to(self, device: torch.device) -> Batch:
        """A copy on a device."""
        return Batch(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))


def batch_of(
    sequences: list[np.ndarray], asked: list[np.ndarray], chosen: np.ndarray, sids: np.ndarray, starts: np.ndarray
) -> Batch:
    """Build a batch.

    Args:
        sequences: the items of each history.
        asked: the target at each position of each sequence. At position t, a model has seen the first t items.
        chosen: int64 [B, branches], the positions that have a branch, for the whole SID of their target.
        sids: [N, L], the SIDs of the items.
        starts: the first token of each level, and of the items.
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
    """The batches of one epoch: every sequence once, with branches at random positions.

    Args:
        sequences: the items of each history; of long ones, the latest are used.
        sids: [N, L], the SIDs of the items.
        starts: as for `batch_of`.
        size: the number of sequences per batch.
        random: the random numbers.
    """
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
    """The target at each position: the next item, or sometimes a later one."""
    positions = np.arange(len(sequence))
    later = positions + random.geometric(1 - LATER, len(sequence)) - 1
    return sequence[np.where(later < len(sequence), later, positions)]


def question_batches(
    histories: list[np.ndarray], targets: np.ndarray, sids: np.ndarray, starts: np.ndarray, size: int
) -> Iterator[Batch]:
    """Batches of questions, each with one branch at the end of its history.

    Args:
        histories: the items of each history.
        targets: the next item of each history.
        sids: [N, L], the SIDs of the items.
        starts: as for `batch_of`.
        size: the number of questions per batch.
    """
    order = sorted(range(len(targets)), key=lambda row: len(histories[row]))
    for begin in range(0, len(order), size):
        part = [np.append(histories[row], targets[row]) for row in order[begin : begin + size]]
        yield batch_of(part, part, np.array([[len(row) - 1] for row in part]), sids, starts)
