"""Text and chats → token ids, without special tokens that a SID cannot follow."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from hedgerow.errors import ArgumentError
from hedgerow.hf.prompts import Ids

# Any text: its own tokens tell those that a tokenizer adds.
SAMPLE = "a"


@dataclass(frozen=True, eq=False)
class TextReader:
    """Converts text and chats to token ids.

    Attributes:
        tokenizer: of transformers or tokenizers; None if there is none.
        add_special_tokens: as for `Retriever`.
        chat_template_kwargs: as for `Retriever`.
        ends: the tokens that end a text. A SID does not follow them, so those that the tokenizer appends are removed.
        reads_histories: the model was trained on histories of items, and may know no words.
    """

    tokenizer: Any = None
    add_special_tokens: bool | None = None
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    ends: frozenset[int] = frozenset()
    reads_histories: bool = False

    def __call__(self, row: int, prompt: Any) -> Ids:
        """Convert one text or chat.

        Args:
            row: the number of the prompt, for errors.
            prompt: text, or a list of messages.

        Raises:
            ArgumentError: there is no tokenizer, it returns no tokens, its chat template fails, or a model of histories
                knows no word of the prompt.
        """
        if self.tokenizer is None:
            raise ArgumentError(
                f"prompt {row} is text, and there is no tokenizer; pass Retriever(..., tokenizer=...), or token ids."
            )
        ids = self._of_text(row, prompt) if isinstance(prompt, str) else self._of_chat(row, prompt)
        if not ids:
            raise ArgumentError(f"prompt {row} is empty: the tokenizer returned no tokens for it.")
        if self.reads_histories and self._unknown.issuperset(ids):
            raise ArgumentError(
                f"prompt {row}, {str(prompt)!r:.60}, has no word that the model knows. It was trained on histories: "
                "pass retriever.history_prompt(item_ids), --history, or a history in place of the prompt."
            )
        return ids

    @cached_property
    def _unknown(self) -> frozenset[int]:
        """The token of unknown words, and those of beginnings, ends and padding; empty if there is none."""
        names = ("unk_token_id", "bos_token_id", "eos_token_id", "pad_token_id")
        unknown, *others = (getattr(self.tokenizer, name, None) for name in names)
        known = (token for token in others if token is not None)
        return frozenset() if unknown is None else frozenset([unknown, *known])

    def _of_text(self, row: int, text: str) -> Ids:
        chosen = {} if self.add_special_tokens is None else {"add_special_tokens": self.add_special_tokens}
        try:
            ids = self._encode(text, **chosen)
        except Exception as error:
            # Each kind of tokenizer has its own exceptions.
            raise ArgumentError(f"the tokenizer cannot encode prompt {row}: {error}") from None
        if chosen:
            return ids
        first, last = self._added or self._added_to(text) or ([], [])
        if last and ids[-len(last) :] == last and self.ends.issuperset(last):
            self._warn_of_end(last)
            ids = ids[: -len(last)]
        # Text that a chat template has written begins with these tokens already.
        return ids[len(first) :] if first and ids[: 2 * len(first)] == first * 2 else ids

    def _encode(self, text: str, **options: Any) -> Ids:
        if hasattr(self.tokenizer, "encode_batch"):
            # A tokenizer of the tokenizers library, which may pad all that it encodes.
            encoding = self.tokenizer.encode(text, **options)
            return [token for token, shown in zip(encoding.ids, encoding.attention_mask, strict=True) if shown]
        return list(self.tokenizer(text, **options)["input_ids"])

    @cached_property
    def _added(self) -> tuple[Ids, Ids] | None:
        return self._added_to(SAMPLE)

    def _added_to(self, text: str) -> tuple[Ids, Ids] | None:
        """The tokens that the tokenizer adds before and after a text; None if it has no tokens for the text itself."""
        try:
            whole, bare = self._encode(text), self._encode(text, add_special_tokens=False)
        except Exception:
            # Some tokenizers take no such option, and some have no tokens for the sample.
            return None
        places = [at for at in range(len(whole) - len(bare) + 1) if bare and whole[at : at + len(bare)] == bare]
        return (whole[: places[0]], whole[places[0] + len(bare) :]) if places else None

    def _warn_of_end(self, last: Ids) -> None:
        if not vars(self).get("_has_warned"):
            vars(self)["_has_warned"] = True
            warnings.warn(
                f"the tokenizer appends token {', '.join(map(str, last))} to a text, the end of a text, which no SID "
                "follows; it is left out. Pass Retriever(..., add_special_tokens=True) to keep it, or False to add no "
                "special tokens at all.",
                stacklevel=2,
            )

    def _of_chat(self, row: int, chat: Any) -> Ids:
        # A last message of the assistant is the beginning of its reply.
        is_begun = chat[-1].get("role") == "assistant"
        begun = {"continue_final_message": True} if is_begun else {}
        options = {"add_generation_prompt": not is_begun} | begun | dict(self.chat_template_kwargs)
        try:
            encoded = self.tokenizer.apply_chat_template(chat, **options, tokenize=True, return_dict=True)
        except Exception as error:
            # A template is a program, which can raise any exception.
            raise ArgumentError(f"the tokenizer's chat template cannot format prompt {row}, a chat: {error}") from None
        return list(encoded["input_ids"])
