"""Prompts: text, chats or token ids → lists of ids, and batches of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hedgerow.errors import ArgumentError

Ids = list[int]


def as_prompts(prompts: Any, tokenizer: Any) -> list[Ids]:
    """Returns the token ids of prompts, one or several: text, chats (lists of messages), ids, or a tokenizer's output.

    Raises:
        ArgumentError: a prompt is empty or of another kind, or is text and there is no tokenizer.
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


def checked(prompts: list[Ids], *, begin: Sequence[int], vocabulary_size: int, longest: int | None) -> list[Ids]:
    """Returns the prompts, each ended by the begin delimiter.

    Raises:
        ArgumentError: an id that the model does not have, or a prompt that is longer than it takes.
    """
    begun = [prompt if begin and prompt[-len(begin) :] == list(begin) else [*prompt, *begin] for prompt in prompts]
    for row, prompt in enumerate(begun):
        unknown = [token for token in prompt if not 0 <= token < vocabulary_size]
        if unknown:
            raise ArgumentError(
                f"prompt {row} holds token {unknown[0]}; the model has tokens 0 to {vocabulary_size - 1}."
            )
        if longest is not None and len(prompt) > longest:
            raise ArgumentError(
                f"prompt {row} has {len(prompt):,} tokens, and the model takes {longest:,} before a SID "
                "(max_position_embeddings of its configuration); shorten it."
            )
    return begun


def batches(prompts: list[Ids], *, beams: int, most_tokens: int) -> Iterator[list[int]]:
    """Yields the rows of prompts that go together, alike in length, so that each batch keeps to a number of tokens.

    Args:
        prompts: token ids of each.
        beams: tokens that a request adds to its prompt.
        most_tokens: of a batch, padding and beams counted; a single prompt may have more.
    """
    rows = sorted(range(len(prompts)), key=lambda row: -len(prompts[row]))
    start = 0
    while start < len(rows):
        size = max(1, most_tokens // (len(prompts[rows[start]]) + beams))
        yield rows[start : start + size]
        start += size


def padded(prompts: list[Ids], device: torch.device, *, length: int | None = None) -> tuple[Tensor, Tensor]:
    """Returns prompts [B, P], padded on the right with token 0, and their lengths [B]."""
    ends = [len(prompt) for prompt in prompts]
    ids = torch.zeros((len(prompts), length or max(ends)), dtype=torch.int64)
    for row, prompt in zip(ids, prompts, strict=True):
        row[: len(prompt)] = torch.tensor(prompt)
    return ids.to(device), torch.tensor(ends, device=device)


def _unpadded(encoded: Mapping[str, Any]) -> list[Ids]:
    rows, mask = _listed(encoded["input_ids"]), encoded.get("attention_mask")
    masks = None if mask is None else _listed(mask)
    if _is_ids(rows):
        rows, masks = [rows], None if masks is None else [masks]
    if masks is not None:
        if [len(_listed(ids)) for ids in rows] != [len(_listed(mask)) for mask in masks]:
            raise ArgumentError("input_ids and attention_mask are not of one shape; give what one tokenizer call gave.")
        rows = [
            [token for token, kept in zip(_listed(ids), _listed(mask), strict=True) if kept]
            for ids, mask in zip(rows, masks, strict=True)
        ]
    return [_ids_of(row, ids, None) for row, ids in enumerate(rows)]


def _listed(values: Any) -> list[Any]:
    return values.tolist() if isinstance(values, np.ndarray | Tensor) else list(values)


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
            f"prompt {row} is text, and there is no tokenizer: Retriever(..., tokenizer=...), or give ids."
        )
    if not isinstance(prompt, str):
        ids = _templated(row, prompt, tokenizer)
    elif hasattr(tokenizer, "encode_batch"):
        # A tokenizer of the tokenizers library.
        ids = list(tokenizer.encode(prompt).ids)
    else:
        ids = list(tokenizer(prompt)["input_ids"])
    if not ids:
        raise ArgumentError(f"prompt {row} is empty: the tokenizer made no token of it.")
    return ids


def _templated(row: int, chat: Any, tokenizer: Any) -> Ids:
    try:
        encoded = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=True, return_dict=True)
    except Exception as error:
        # A template is a program, which may refuse a chat with any error.
        raise ArgumentError(
            f"prompt {row} is a chat that the tokenizer's chat template cannot write: {error}"
        ) from None
    return list(encoded["input_ids"])
