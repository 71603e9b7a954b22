"""A causal language model of transformers as the searches use it: from token ids to logits of one level's codes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from hedgerow.errors import ArgumentError
from hedgerow.tokens import NO_TOKEN, TokenMap

INF = float("inf")


class CodeModel:
    """A causal language model and the tokens of its codes.

    What the model says of a position is kept as features, from which the logits of any level's codes can be had: its
    last hidden states, where the head's rows for those codes give the model's own logits (`slices_head`), else the
    model's logits over the whole vocabulary (a model that scales or caps them).

    Attributes:
        model: `...ForCausalLM`.
        tokens: the tokens of each level's codes.
        vocabulary_size: V.
        head: its last layer, from hidden states to logits.
        slices_head: see above; set by a caller who has tried it.
    """

    def __init__(self, model: Any, tokens: TokenMap) -> None:
        """Checks that the model is causal, and has the tokens.

        Raises:
            ArgumentError: an encoder-decoder or headless model, or a token beyond its vocabulary.
        """
        if getattr(model.config, "is_encoder_decoder", False):
            raise ArgumentError(
                f"{type(model).__name__} is an encoder-decoder, and Retriever takes decoder-only models; "
                "use hedgerow.hf.CatalogLogitsProcessor with its generate()."
            )
        head = getattr(model, "get_output_embeddings", lambda: None)()
        if head is None:
            raise ArgumentError(f"{type(model).__name__} has no language model head; load it as ...ForCausalLM.")
        self.model, self.tokens, self.head = model, tokens, head
        self.vocabulary_size = int(head.weight.shape[0])
        highest = max(max(map(int, ids), default=0) for ids in (*tokens.token_ids, tokens.begin, tokens.end))
        if highest >= self.vocabulary_size:
            raise ArgumentError(
                f"the token map names token {highest}, but the model has {self.vocabulary_size:,} tokens; "
                "model.resize_token_embeddings(len(tokenizer)) adds rows, which then must be trained."
            )
        # A code without a token stands for token 0, and its logit is overwritten.
        self._ids = [torch.as_tensor(table.clip(min=0), device=self.device) for table in tokens.token_ids]
        self._rows = [_selection(ids) for ids in self._ids]
        absent = [torch.as_tensor(table == NO_TOKEN, device=self.device) for table in tokens.token_ids]
        self._absent = [codes if bool(codes.any()) else None for codes in absent]
        self.slices_head = False

    @property
    def config(self) -> Any:
        """The configuration of the language model, where the model has other parts too."""
        return self.model.config.get_text_config(decoder=True)

    @property
    def device(self) -> torch.device:
        """Where token ids go."""
        return self.model.get_input_embeddings().weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The type of the head's weights."""
        return self.head.weight.dtype

    def features(self, ids: Tensor, *, last: Tensor | None = None, **inputs: Any) -> Tensor:
        """Returns the features [R, T, ...] of token ids [R, T]; those at `last` [R] alone, [R, 1, ...], if given."""
        if self.slices_head:
            return _at(self.model.base_model(input_ids=ids, **inputs).last_hidden_state, last)
        with self._head_sees(last):
            return self.model(input_ids=ids, **inputs).logits

    def token_ids(self, codes: Tensor, level: int) -> Tensor:
        """Returns the token ids of codes of a level; -1, a dead beam's, counts as code 0."""
        return self._ids[level][codes.long().clamp(min=0)]

    def code_logits(self, features: Tensor, level: int) -> Tensor:
        """Returns float32 logits [..., C] of the codes of a level; -inf where a code has no token."""
        rows = self._rows[level]
        if self.slices_head:
            bias = None if self.head.bias is None else self.head.bias[rows]
            features = torch.nn.functional.linear(features, self.head.weight[rows], bias)
        else:
            features = features[..., rows]
        return self._without_absent(features.float(), level)

    def logits(self, features: Tensor) -> Tensor:
        """Returns float32 logits [..., V] of the whole vocabulary."""
        return (self.head(features) if self.slices_head else features).float()

    def code_log_probs(self, features: Tensor, level: int, temperature: float = 1.0) -> Tensor:
        """Returns float32 log-probabilities [..., C] of a level's codes over the whole vocabulary, as in `generate`."""
        logits = self.logits(features) / temperature
        log_probs = logits[..., self._rows[level]] - logits.logsumexp(-1, keepdim=True)
        return self._without_absent(log_probs, level)

    def _without_absent(self, logits: Tensor, level: int) -> Tensor:
        absent = self._absent[level]
        return logits if absent is None else logits.masked_fill(absent, -INF)

    @contextmanager
    def _head_sees(self, last: Tensor | None) -> Iterator[None]:
        """Lets the model's head compute one position a row alone: a prompt's other logits would fill the memory."""
        hook = self.head.register_forward_pre_hook(lambda _, inputs: (_at(inputs[0], last),))
        try:
            yield
        finally:
            hook.remove()


def _at(states: Tensor, last: Tensor | None) -> Tensor:
    if last is None:
        return states
    return states[torch.arange(len(last), device=states.device), last][:, None]


def _selection(ids: Tensor) -> Tensor | slice:
    """Returns the rows of the head for these tokens: a slice, which copies nothing, where they are neighbours."""
    first = int(ids[0])
    neighbours = torch.arange(first, first + len(ids), device=ids.device)
    return slice(first, first + len(ids)) if bool((ids == neighbours).all()) else ids
