"""Prompts: text, chats or token ids → lists of token ids, and batches of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hedgerow.errors import ArgumentError

Ids = list[int]


def as_prompts(prompts: Any, tokenizer: Any) -> list[Ids]:
    """Convert prompts to token ids.

    Args:
        prompts: one or several of: text, chats (lists of messages), token ids. Or the output of a tokenizer.
        tokenizer: for text and chats; None if there is none.

    Raises:
        ArgumentError: a prompt is empty or of another type, or needs a tokenizer and there is none.
    """
    if isinstance(prompts, Mapping) and "input_ids" in prompts:
        return _unpadded(prompts)
    if isinstance(prompts, np.ndarray | Tensor):
        prompts = prompts.tolist()
    if isinstance(prompts, str | bytes) or not isinstance(prompts, Sequence):
        prompts = [prompts]
    if _is_ids(prompts) or _is_chat(prompts):
        prompts = [prompts]
    return [_ids_of(row, prompt, tokenizer) for row, prompt in enumerate(prompts)]


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
        ArgumentError: a token is not in the vocabulary, or a prompt is too long, or has too few tokens for the codes.
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
            raise ArgumentError(
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


def _unpadded(encoded: Mapping[str, Any]) -> list[Ids]:
    rows, mask = _as_list(encoded["input_ids"], "input_ids"), encoded.get("attention_mask")
    is_one = _is_ids(rows)
    rows = [rows] if is_one else [_as_list(ids, "input_ids") for ids in rows]
    if mask is not None:
        masks = _as_list(mask, "attention_mask")
        # The mask of one prompt has no rows either.
        masks = [masks] if is_one else [_as_list(row, "attention_mask") for row in masks]
        if list(map(len, rows)) != list(map(len, masks)):
            raise ArgumentError(
                "input_ids and attention_mask have different shapes; pass both from the same call of the tokenizer."
            )
        rows = [
            [token for token, value in zip(ids, mask, strict=True) if _is_visible(value)]
            for ids, mask in zip(rows, masks, strict=True)
        ]
    return [_ids_of(row, ids, None) for row, ids in enumerate(rows)]


def _as_list(values: Any, name: str) -> list[Any]:
    converted = values.tolist() if isinstance(values, np.ndarray | Tensor) else values
    if isinstance(converted, str | bytes) or not isinstance(converted, Sequence):
        raise ArgumentError(
            f"{name} must be a list, or a list of lists, one per prompt; got {type(values).__name__}: "
            f"{str(values)[:50]!r}. Pass the output of the tokenizer unchanged."
        )
    return list(converted)


def _is_visible(value: Any) -> bool:
    """Whether a value of an attention mask stands for a token, not for padding."""
    if isinstance(value, Sequence | np.ndarray | Tensor) or value not in (0, 1):
        raise ArgumentError(
            f"attention_mask must contain 1 for tokens and 0 for padding; got {value!r}. A mask that is added to "
            "attention scores is not supported."
        )
    return bool(value)


def _is_ids(prompt: Any) -> bool:
    return (
        isinstance(prompt, Sequence)
        and not isinstance(prompt, bytes)
        and bool(prompt)
        and all(_is_id(token) for token in prompt)
    )


def _is_id(token: Any) -> bool:
    return isinstance(token, int | np.integer) and not isinstance(token, bool)


def _is_chat(prompt: Any) -> bool:
    return isinstance(prompt, Sequence) and bool(prompt) and all(isinstance(message, Mapping) for message in prompt)


def _ids_of(row: int, prompt: Any, tokenizer: Any) -> Ids:
    if isinstance(prompt, np.ndarray | Tensor):
        prompt = prompt.tolist()
    if isinstance(prompt, str | Mapping):
        is_text = isinstance(prompt, str) and bool(prompt.strip())
        if not is_text:
            raise ArgumentError(f"prompt {row} is empty." if isinstance(prompt, str) else _unreadable(row, prompt))
        return _encoded(row, prompt, tokenizer)
    if _is_chat(prompt):
        return _encoded(row, prompt, tokenizer)
    if isinstance(prompt, Sequence) and not prompt:
        raise ArgumentError(f"prompt {row} is empty.")
    if not _is_ids(prompt):
        raise ArgumentError(_unreadable(row, prompt))
    return [int(token) for token in prompt]


def _unreadable(row: int, prompt: Any) -> str:
    return (
        f"prompt {row} must be text, a chat (a list of messages), or token ids; got {type(prompt).__name__}: "
        f"{str(prompt)[:50]!r}."
    )


def _encoded(row: int, prompt: Any, tokenizer: Any) -> Ids:
    if tokenizer is None:
        raise ArgumentError(
            f"prompt {row} is text, and there is no tokenizer; pass Retriever(..., tokenizer=...), or token ids."
        )
    if not isinstance(prompt, str):
        ids = _templated(row, prompt, tokenizer)
    elif hasattr(tokenizer, "encode_batch"):
        # A tokenizer of the tokenizers library.
        ids = list(tokenizer.encode(prompt).ids)
    else:
        ids = list(tokenizer(prompt)["input_ids"])
    if not ids:
        raise ArgumentError(f"prompt {row} is empty: the tokenizer returned no tokens for it.")
    return ids


def _templated(row: int, chat: Any, tokenizer: Any) -> Ids:
    try:
        encoded = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=True, return_dict=True)
    except Exception as error:
        # A template is a program, which can raise any exception.
        raise ArgumentError(f"the tokenizer's chat template cannot format prompt {row}, a chat: {error}") from None
    return list(encoded["input_ids"])
