"""Prompts as lists of token ids: their delimiters and limits, and batches of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from hedgerow.errors import ArgumentError, PromptLengthError

Ids = list[int]


def checked(
    prompts: list[Ids], *, begin: Sequence[int], vocabulary_size: int, max_length: int | None, num_codes: int = 0
) -> list[Ids]:
    """Add the begin delimiter to prompts that lack it, and check the result.

    Args:
        prompts: token ids of each prompt.
        begin: the begin delimiter.
        vocabulary_size: V.
        max_length: the maximum number of tokens before a SID; None if there is no limit.
        num_codes: the number of tokens at the end of each prompt that are codes. The delimiter goes before them.

    Raises:
        ArgumentError: a token is not in the vocabulary, or a prompt has too few tokens for the codes.
        PromptLengthError: a prompt is too long.
    """
    begun = []
    for row, prompt in enumerate(prompts):
        text, codes = prompt[: len(prompt) - num_codes], prompt[len(prompt) - num_codes :]
        text = text if begin and text[-len(begin) :] == list(begin) else [*text, *begin]
        if len(prompt) < num_codes or not text:
            raise ArgumentError(
                f"prompt {row} has {len(prompt)} tokens; level {num_codes} needs a prompt that is followed by the "
                f"tokens of {num_codes} codes."
            )
        unknown = [token for token in (*text, *codes) if not 0 <= token < vocabulary_size]
        if unknown:
            raise ArgumentError(
                f"prompt {row} contains token {unknown[0]}, but the model has tokens 0 to {vocabulary_size - 1}."
            )
        if max_length is not None and len(text) > max_length:
            raise PromptLengthError(
                f"prompt {row} has {len(text):,} tokens, but the model takes {max_length:,} before a SID "
                "(max_position_embeddings of its configuration); shorten it."
            )
        begun.append([*text, *codes])
    return begun


def batches(prompts: list[Ids], *, beam_tokens: int, max_tokens: int) -> Iterator[list[int]]:
    """Group the rows of prompts of similar length into batches of a limited number of tokens.

    Args:
        prompts: token ids of each prompt.
        beam_tokens: the number of tokens that the beams of a request add to its prompt.
        max_tokens: the maximum size of a batch, counting padding and beams. A batch of a single prompt may be larger.
    """
    rows = sorted(range(len(prompts)), key=lambda row: -len(prompts[row]))
    start = 0
    while start < len(rows):
        size = max(1, max_tokens // (len(prompts[rows[start]]) + beam_tokens))
        yield rows[start : start + size]
        start += size


def padded(prompts: list[Ids], device: torch.device, *, length: int | None = None) -> tuple[Tensor, Tensor]:
    """Put prompts on a device: ids [B, T] int64, padded on the right with token 0, and lengths [B] int64."""
    lengths = [len(prompt) for prompt in prompts]
    ids = torch.zeros((len(prompts), length or max(lengths)), dtype=torch.int64)
    for row, prompt in zip(ids, prompts, strict=True):
        row[: len(prompt)] = torch.tensor(prompt)
    return ids.to(device), torch.tensor(lengths, device=device)
