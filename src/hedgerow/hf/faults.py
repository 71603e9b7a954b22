"""What is wrong with a search that has run: invalid logits, or a model that is not what it was in its trial."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from hedgerow.errors import ArgumentError
from hedgerow.hf.model import HEAD_TOLERANCE, LOOSE, ModelChangedError
from hedgerow.hf.search import ModelSearch

T = TypeVar("T")
# The number of prompts that an error lists.
LISTED = 5
# Of a search: its result, whether [B, levels] a prompt had invalid logits, and the deviation: see `Searched`.
Outcome = tuple[T, Tensor, Tensor | None]


def retried(search: ModelSearch, attempt: Callable[[ModelSearch], Outcome[T]], rows: Sequence[int]) -> T:
    """Run a search, check its logits, and run it again if the model has changed since its trial.

    The check waits for the device once, at the end.

    Args:
        search: the model, the index and the options.
        attempt: runs the search that it gets, whose model is ready.
        rows: the number of each prompt, for errors.

    Raises:
        ArgumentError: logits are NaN or infinite, or the model gives other logits in every call.
    """
    for _ in range(2):
        try:
            result, invalid, deviation = attempt(search.ready())
            check(search, invalid, deviation, rows)
        except ModelChangedError:
            # The next attempt tries the model again, and leaves all logits to it.
            search.model.probed, search.model.trusts_rows = None, False
        else:
            return result
    raise ArgumentError(
        f"{type(search.model.model).__name__} gives outputs of another length in every call, so it cannot be searched."
    )


def check(search: ModelSearch, invalid: Tensor, deviation: Tensor | None, rows: Sequence[int]) -> None:
    """Check a search that has run.

    Args:
        search: the model, the index and the options.
        invalid: bool [B, levels], whether a prompt had NaN or infinite logits at a level.
        deviation: the difference between the logits of a search and those of the model; see `Decoder`.
        rows: the number of each prompt, for errors.

    Raises:
        ArgumentError: logits are NaN or infinite.
        ModelChangedError: the logits of the search are not those of the model.
    """
    numbers = invalid.flatten().float()
    if deviation is not None:
        numbers = torch.cat([numbers, deviation.float().reshape(1).to(numbers.device)])
    *_, last = values = numbers.tolist()
    levels = torch.tensor(values[: invalid.numel()]).reshape(invalid.shape).bool()
    if bool(levels.any()):
        raise ArgumentError(_message(search, levels, rows))
    if deviation is not None and last > HEAD_TOLERANCE.get(search.model.dtype, LOOSE):
        raise ModelChangedError


def _message(search: ModelSearch, levels: Tensor, rows: Sequence[int]) -> str:
    wrong = [(row, int(of_row.int().argmax())) for row, of_row in zip(rows, levels, strict=True) if bool(of_row.any())]
    listed = ", ".join(f"prompt {row} at level {level}" for row, level in wrong[:LISTED])
    more = f" and {len(wrong) - LISTED:,} more prompts" if len(wrong) > LISTED else ""
    return (
        f"the logits of {type(search.model.model).__name__} are NaN or infinite for {listed}{more}, so no item has a "
        "score. Check the weights and these prompts; half precision can overflow: load the model in bfloat16 or "
        "float32. Other prompts can be searched without these."
    )
