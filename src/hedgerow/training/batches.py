"""Training batches: sequences of the tokens of items, padded, and the code to predict at each position."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

NO_LEVEL = -1
# Sequences of so many batches are sorted by length together, to reduce padding.
POOL = 30


@dataclass(frozen=True, eq=False)
class ItemTokens:
    """The tokens and codes of N items, of L levels.

    Attributes:
        tokens: int64 [N, L]; -1 after the end of a ragged SID.
        codes: int64 [N, L], the position of each token in the table of its level.
        start: the tokens before the first item of a history.
        separator: the tokens between two items.
    """

    tokens: np.ndarray
    codes: np.ndarray
    start: tuple[int, ...]
    separator: tuple[int, ...]

    def sequence(self, items: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The tokens of a history of n items; and for each position the level (or -1) and the code of the next token.

        The last token is left out: nothing follows it.
        """
        width = len(self.separator)
        tokens = np.pad(self.tokens[items], ((0, 0), (width, 0)))
        tokens[:, :width] = self.separator
        levels = np.broadcast_to(np.arange(-width, self.tokens.shape[1]), tokens.shape)
        codes = np.pad(self.codes[items], ((0, 0), (width, 0)))
        written = tokens >= 0
        # The first item follows the start, without a separator.
        written[0, :width] = False
        tokens, levels, codes = tokens[written], np.maximum(levels[written], NO_LEVEL), codes[written]
        tokens = np.concatenate([self.start, tokens])
        gap = np.full(len(self.start) - 1, NO_LEVEL)
        return tokens[:-1], np.concatenate([gap, levels]), np.concatenate([gap, codes])


def windows(histories: Sequence[np.ndarray], longest: int) -> list[np.ndarray]:
    """Cut histories into windows of at most `longest` items, so that each item of a long one has items before it.

    Windows are counted from the end and overlap by half. A history without items has no window.
    """
    step, parts = max(1, longest // 2), []
    for items in histories:
        for stop in range(len(items), 0, -step):
            parts.append(items[max(0, stop - longest) : stop])
            if stop <= longest:
                break
    return parts


class Sequences(Dataset):
    """The windows of the training histories. In each epoch, other items are left out.

    What is left out depends on the seed, the epoch and the number of the window alone, so that a training that is
    resumed sees the same sequences.
    """

    def __init__(self, parts: list[np.ndarray], dropout: float, seed: int) -> None:
        self.parts, self.dropout, self.seed = parts, dropout, seed

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, place: tuple[int, int]) -> np.ndarray:
        """The items of a window in an epoch, rows of the index: at least one."""
        (epoch, number), items = place, self.parts[place[1]]
        if not self.dropout or len(items) == 1:
            return items
        random = np.random.default_rng((self.seed, epoch, number))
        kept = random.random(len(items)) >= self.dropout
        kept[random.integers(len(items))] = True
        return items[kept]


@dataclass(frozen=True, eq=False)
class Collator:
    """Makes a batch of sequences of items.

    Attributes:
        items: the tokens of the items.
        pad: the token that fills shorter sequences.
    """

    items: ItemTokens
    pad: int

    def __call__(self, parts: list[np.ndarray]) -> dict[str, Tensor]:
        """The batch: input_ids, attention_mask, levels and codes, each int64 [B, T]."""
        sequences = [self.items.sequence(part) for part in parts]
        longest = max(len(tokens) for tokens, _, _ in sequences)
        padding = {"input_ids": self.pad, "levels": NO_LEVEL, "codes": 0}
        batch = {name: np.full((len(parts), longest), value) for name, value in padding.items()}
        mask = np.zeros((len(parts), longest), np.int64)
        for row, sequence in enumerate(sequences):
            for name, values in zip(padding, sequence, strict=True):
                batch[name][row, : len(values)] = values
            mask[row, : len(sequence[0])] = 1
        return {name: torch.from_numpy(values) for name, values in (batch | {"attention_mask": mask}).items()}


class ByLength(Sampler[tuple[int, int]]):
    """A random order of windows, each with its epoch, in which the windows of a batch have similar lengths."""

    def __init__(self, lengths: np.ndarray, size: int, seed: int) -> None:
        self.lengths, self.size, self.seed, self.epoch = lengths, size, seed, 0

    def __len__(self) -> int:
        return len(self.lengths)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; accelerate calls it before each."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[tuple[int, int]]:
        random = np.random.default_rng((self.seed, self.epoch))
        order, batches = random.permutation(len(self.lengths)), []
        for start in range(0, len(order), POOL * self.size):
            pool = order[start : start + POOL * self.size]
            pool = pool[np.argsort(self.lengths[pool], kind="stable")]
            batches += [pool[begin : begin + self.size] for begin in range(0, len(pool), self.size)]
        # The batch that is not full stays the last, because the numbers are cut into batches again.
        numbers = [*random.permutation(len(batches) - 1).tolist(), len(batches) - 1]
        return ((self.epoch, number) for batch in numbers for number in batches[batch].tolist())
