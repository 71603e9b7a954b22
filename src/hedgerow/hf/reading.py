"""Prompts as users give them: text, chats or token ids, padded or not → lists of token ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from hedgerow.errors import ArgumentError
from hedgerow.hf.model import CodeModel
from hedgerow.hf.prompts import Ids
from hedgerow.hf.text import TextReader


@dataclass(frozen=True, eq=False)
class PromptReader:
    """Converts prompts to token ids.

    Attributes:
        text: reads text and chats.
        pads: the tokens that can only be padding: those of padded ids without a mask are removed, as in `generate`.
        unclear_pads: the tokens that pad, and also mean something, for example the end of a text.
        num_codes: the number of tokens at the end of each prompt that are codes, and no padding.
    """

    text: TextReader = field(default_factory=TextReader)
    pads: frozenset[int] = frozenset()
    unclear_pads: frozenset[int] = frozenset()
    num_codes: int = 0

    def __call__(self, prompts: Any) -> list[Ids]:
        """Convert prompts.

        Args:
            prompts: one or several of: text, chats (lists of messages), token ids. Or the output of a tokenizer.

        Raises:
            ArgumentError: a prompt is empty or of another type, or needs a tokenizer and there is none; or token ids
                may be padded, and there is no mask to tell.
        """
        if isinstance(prompts, Mapping) and "input_ids" in prompts:
            if prompts.get("attention_mask") is not None:
                return _unmasked(prompts["input_ids"], prompts["attention_mask"])
            rows = _as_list(prompts["input_ids"], "input_ids")
            rows = [rows] if _is_ids(rows) else [_as_list(ids, "input_ids") for ids in rows]
            return self._unpadded([_checked_ids(row, ids) for row, ids in enumerate(rows)])
        if isinstance(prompts, np.ndarray | Tensor):
            prompts = prompts.tolist()
        if isinstance(prompts, str | bytes) or not isinstance(prompts, Sequence):
            prompts = [prompts]
        if _is_ids(prompts) or _is_chat(prompts):
            prompts = [prompts]
        read = [self._read(row, prompt) for row, prompt in enumerate(prompts)]
        given = [row for row, prompt in enumerate(prompts) if not (isinstance(prompt, str) or _is_chat(prompt))]
        for row, ids in zip(given, self._unpadded([read[row] for row in given], given), strict=True):
            read[row] = ids
        return read

    def _read(self, row: int, prompt: Any) -> Ids:
        if isinstance(prompt, str) and not prompt.strip():
            raise ArgumentError(f"prompt {row} is empty.")
        if isinstance(prompt, str) or _is_chat(prompt):
            return self.text(row, prompt)
        return _checked_ids(row, prompt)

    def _unpadded(self, rows: list[Ids], numbers: Sequence[int] | None = None) -> list[Ids]:
        """Remove padding, as `generate` does if it gets no mask."""
        numbers = range(len(rows)) if numbers is None else numbers
        self._check_clear(rows, numbers)
        kept = []
        for number, ids in zip(numbers, rows, strict=True):
            end = len(ids) - self.num_codes
            kept.append([token for token in ids[:end] if token not in self.pads] + ids[end:])
            if not kept[-1]:
                raise ArgumentError(f"prompt {number} is empty: all of its tokens are padding.")
        return kept

    def _check_clear(self, rows: list[Ids], numbers: Sequence[int]) -> None:
        padded = [ids[0] in self.unclear_pads or ids[-1] in self.unclear_pads for ids in rows]
        twice = [
            any(first == second and first in self.unclear_pads for first, second in (ids[:2], ids[-2:]))
            if len(ids) > 1
            else False
            for ids in rows
        ]
        is_batch = len(rows) > 1 and len(set(map(len, rows))) == 1
        suspects = padded if is_batch and not all(padded) else twice
        if self.num_codes or not any(suspects):
            return
        row = suspects.index(True)
        token = next(token for token in (rows[row][0], rows[row][-1]) if token in self.unclear_pads)
        raise ArgumentError(
            f"prompt {numbers[row]} begins or ends with token {token}, which pads and also has a meaning of its own "
            "(the end of a text, or a code), so it is unclear whether it is padding. Pass the attention_mask, as the "
            "tokenizer returns it: retrieve({'input_ids': ..., 'attention_mask': ...}), or lists without padding."
        )


def reader_of(model: CodeModel, tokenizer: Any, *, num_codes: int, **options: Any) -> PromptReader:
    """Create the reader of a model's prompts.

    Args:
        model: the language model and the tokens of its codes.
        tokenizer: as for `TextReader`.
        num_codes: as for `PromptReader`.
        options: add_special_tokens and chat_template_kwargs, as for `TextReader`.
    """
    generation = getattr(model.model, "generation_config", None)
    sources = (generation, tokenizer)
    pads = frozenset().union(*(_tokens(source, "pad_token_id") for source in sources))
    ends = frozenset().union(
        *(_tokens(source, name) for source in sources for name in ("eos_token_id", "sep_token_id"))
    )
    meant = ends | {pad for pad in pads if any((table == pad).any() for table in model.tokens.token_ids)}
    # The encoder of T5 reads the end of a text.
    text_ends = frozenset() if model.is_encoder_decoder else ends
    reads_histories = model.tokens.history is not None
    text = TextReader(tokenizer, ends=text_ends, reads_histories=reads_histories, **options)
    return PromptReader(text, pads - meant, pads & meant, num_codes)


def _tokens(source: Any, name: str) -> frozenset[int]:
    value = getattr(source, name, None)
    values = value if isinstance(value, list | tuple) else [value]
    return frozenset(token for token in values if isinstance(token, int))


def _unmasked(ids: Any, mask: Any) -> list[Ids]:
    """The tokens of padded ids that a mask shows."""
    rows, masks = _as_list(ids, "input_ids"), _as_list(mask, "attention_mask")
    # The mask of one prompt has no rows either.
    is_one = _is_ids(rows)
    rows = [rows] if is_one else [_as_list(row, "input_ids") for row in rows]
    masks = [masks] if is_one else [_as_list(row, "attention_mask") for row in masks]
    if list(map(len, rows)) != list(map(len, masks)):
        raise ArgumentError(
            "input_ids and attention_mask have different shapes; pass both from the same call of the tokenizer."
        )
    rows = [
        [token for token, value in zip(ids, mask, strict=True) if _is_visible(value)]
        for ids, mask in zip(rows, masks, strict=True)
    ]
    return [_checked_ids(row, ids) for row, ids in enumerate(rows)]


def _checked_ids(row: int, prompt: Any) -> Ids:
    if isinstance(prompt, np.ndarray | Tensor):
        prompt = prompt.tolist()
    if isinstance(prompt, Sequence) and not isinstance(prompt, str | bytes) and not prompt:
        raise ArgumentError(f"prompt {row} is empty.")
    if not _is_ids(prompt):
        raise ArgumentError(
            f"prompt {row} must be text, a chat (a list of messages), or token ids; got {type(prompt).__name__}: "
            f"{str(prompt)[:50]!r}."
        )
    return [int(token) for token in prompt]


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
