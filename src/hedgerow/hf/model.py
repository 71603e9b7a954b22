"""A causal language model of transformers as a search uses it: from token ids to logits of one level's codes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from hedgerow.errors import ArgumentError
from hedgerow.token_tables import NO_TOKEN
from hedgerow.tokens import TokenMap

INF = float("inf")
_REGISTRATION = threading.Lock()


class CodeModel:
    """A causal language model and the tokens of its codes.

    The output of the model at a position is kept as features, from which the logits of any level's codes can be
    computed. Features are the last hidden states if the head's rows for some codes give the model's own logits
    (`slices_head`). Otherwise, for a model that scales or caps its logits, they are the logits over the whole
    vocabulary.

    Attributes:
        model: `...ForCausalLM`.
        tokens: the tokens of each level's codes.
        slices_head: see above; set after a trial (`probe_head`).
        probed: the head of that trial, and V. None: there was no trial.
    """

    def __init__(self, model: Any, tokens: TokenMap) -> None:
        """Check that the model is causal and has the tokens.

        Raises:
            ArgumentError: the model is an encoder-decoder or has no head, or a token is not in its vocabulary.
        """
        if getattr(model.config, "is_encoder_decoder", False):
            raise ArgumentError(
                f"{type(model).__name__} is an encoder-decoder model, but Retriever needs a decoder-only model; "
                "use hedgerow.hf.CatalogLogitsProcessor with generate()."
            )
        if getattr(model, "get_output_embeddings", lambda: None)() is None:
            raise ArgumentError(f"{type(model).__name__} has no language model head; load it as ...ForCausalLM.")
        self.model, self.tokens = model, tokens
        self.check_vocabulary()
        # A code without a token uses token 0, and its logit is overwritten.
        self._ids = [torch.as_tensor(table.clip(min=0), device=self.device) for table in tokens.token_ids]
        self._rows = [_selection(ids) for ids in self._ids]
        absent = [torch.as_tensor(table == NO_TOKEN, device=self.device) for table in tokens.token_ids]
        self._absent = [codes if bool(codes.any()) else None for codes in absent]
        self.slices_head = False
        self.probed: tuple[Any, int] | None = None

    @property
    def head(self) -> Any:
        """The last layer, from hidden states to logits. The model may replace it, for example to resize it."""
        return self.model.get_output_embeddings()

    @property
    def vocabulary_size(self) -> int:
        """V, the number of tokens of the model."""
        return int(self.head.weight.shape[0])

    def check_vocabulary(self) -> None:
        """Check that the model has the tokens.

        Raises:
            ArgumentError: a token is not in the vocabulary.
        """
        tokens = (*self.tokens.token_ids, self.tokens.begin, self.tokens.end)
        highest = max(max(map(int, ids), default=0) for ids in tokens)
        if highest >= self.vocabulary_size:
            raise ArgumentError(
                f"the token map names token {highest}, but the model has {self.vocabulary_size:,} tokens; "
                "add rows with model.resize_token_embeddings(len(tokenizer)), then train them."
            )

    @property
    def config(self) -> Any:
        """The configuration of the language model, also if the model has other parts."""
        return self.model.config.get_text_config(decoder=True)

    @property
    def device(self) -> torch.device:
        """The device of token ids."""
        return self.model.get_input_embeddings().weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The type of the head's weights."""
        return self.head.weight.dtype

    def features(self, ids: Tensor, *, last: Tensor | None = None, **inputs: Any) -> Tensor:
        """Compute the features [R, T, ...] of token ids [R, T]; with `last` [R], only of these positions: [R, 1, ...].

        Args:
            ids: [R, T] int64, sequences of T tokens.
            last: [R] int64, one position per sequence. Default: all positions.
            inputs: further arguments of the model.
        """
        if self.slices_head:
            return _positions(self.model.base_model(input_ids=ids, **inputs).last_hidden_state, last)
        # The logits of all positions would fill the memory.
        with changed_input(self.head, lambda states: _positions(states, last)):
            return self.model(input_ids=ids, **inputs).logits

    def token_ids(self, codes: Tensor, level: int) -> Tensor:
        """Look up the token ids of codes of one level. Code -1, of a dead beam, counts as code 0."""
        return self._ids[level][codes.long().clamp(min=0)]

    def code_logits(self, features: Tensor, level: int) -> Tensor:
        """Compute the float32 logits [..., C] of one level's codes; -inf if a code has no token."""
        rows = self._rows[level]
        if self.slices_head:
            head = self.head
            bias = None if head.bias is None else head.bias[rows]
            features = torch.nn.functional.linear(features, head.weight[rows], bias)
        else:
            features = features[..., rows]
        return self._without_absent(features.float(), level)

    def logits(self, features: Tensor) -> Tensor:
        """Compute the float32 logits [..., V] of the whole vocabulary."""
        return (self.head(features) if self.slices_head else features).float()

    def code_log_probs(self, logits: Tensor, level: int) -> Tensor:
        """Compute the log-probabilities [..., C] of one level's codes from the logits [..., V] of the vocabulary."""
        log_probs = logits[..., self._rows[level]] - logits.logsumexp(-1, keepdim=True)
        return self._without_absent(log_probs, level)

    def _without_absent(self, logits: Tensor, level: int) -> Tensor:
        absent = self._absent[level]
        return logits if absent is None else logits.masked_fill(absent, -INF)


@contextmanager
def changed_input(layer: Any, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Change the input of a layer in this thread. Other threads may use the layer at the same time, unchanged."""
    thread = threading.get_ident()

    def hook(_: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        return (change(inputs[0]),) if threading.get_ident() == thread else None

    # PyTorch gives two hooks the same id if they are registered at the same time, and one of them is lost.
    with _REGISTRATION:
        handle = layer.register_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def _positions(states: Tensor, last: Tensor | None) -> Tensor:
    """Select one position [R, 1, ...] of each row of states [R, T, ...]; all of them if `last` is None."""
    if last is None:
        return states
    return states[torch.arange(len(last), device=states.device), last][:, None]


def _selection(ids: Tensor) -> Tensor | slice:
    """The rows of the head for these tokens: a slice, which copies nothing, if they are consecutive."""
    first = int(ids[0])
    consecutive = torch.arange(first, first + len(ids), device=ids.device)
    return slice(first, first + len(ids)) if bool((ids == consecutive).all()) else ids
