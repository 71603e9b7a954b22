"""A language model of transformers as a search uses it: from token ids to logits of one level's codes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from hedgerow.errors import ArgumentError
from hedgerow.hf.compiled import CompiledLayers
from hedgerow.hf.layers import cache_argument, check_loaded, device_of, input_size, is_plain_linear
from hedgerow.hf.masking import Masking
from hedgerow.token_tables import NO_TOKEN
from hedgerow.tokens import TokenMap

INF = float("inf")
# What a search takes from the model: see `CodeModel`.
HeadUse = Literal["rows", "last", "all"]
# The largest difference between two ways of computing one logit, as a share of the largest logit.
TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4}
LOOSE = 0.05
# For one product of a head and a state, half precision rounds much less than it does over a whole model.
HEAD_TOLERANCE = TOLERANCE | {torch.float16: 0.004, torch.bfloat16: 0.02}
_REGISTRATION = threading.Lock()


class ModelChangedError(Exception):
    """The model does not behave as in its trial. Caught: the trial and the search are run again."""


@dataclass(frozen=True)
class Probed:
    """What a trial found.

    Attributes:
        key: the state of the model during the trial; another state needs another trial.
        head: see `CodeModel`.
        extra: the number of positions that the model adds to a sequence, for example virtual tokens of prompt tuning.
        masking: the masks of a tree of beams; None if the model is searched without a tree.
        cached: whether the decoder of an encoder-decoder model keeps a cache.
        crossed: the cross-attention layers of an encoder-decoder model, if the beams of a prompt share its keys and
            values; empty if each beam has a copy.
        alone: whether the logits of a sequence depend on the other ones of a batch, so that each is computed alone.
    """

    key: tuple[Any, ...]
    head: HeadUse
    extra: int
    masking: Masking | None = None
    cached: bool = False
    crossed: tuple[Any, ...] = ()
    alone: bool = False


class CodeModel:
    """A language model and the tokens of its codes.

    The output of the model at a position is kept as features, from which the logits of any level's codes can be
    computed. They are one of:

    - "rows": the input of the head, if it is a plain linear layer whose rows for some codes give the model's own
      logits. The head itself is then computed only once per prompt, to compare.
    - "last": the logits of the whole vocabulary. The head is computed only at the positions that are needed.
    - "all": the same, if the head cannot be found in the model's forward pass.

    Attributes:
        model: the model, as given.
        tokens: the tokens of each level's codes.
        cache_argument: the name of the model's argument for stored keys and values.
        probed: the result of the last trial; None: there was no trial.
        trusts_rows: whether "rows" may be used; False after a search in which they gave other logits than the model.
        compiled: the compiled layers; None if they are not compiled.
    """

    def __init__(self, model: Any, tokens: TokenMap, compiled: CompiledLayers | None = None) -> None:
        """Check that the model has a head and the tokens.

        Raises:
            ArgumentError: the model has no head or no weights, or a token is not in its vocabulary.
        """
        if getattr(model, "get_output_embeddings", lambda: None)() is None:
            raise ArgumentError(f"{type(model).__name__} has no language model head; load it as ...ForCausalLM.")
        check_loaded(model)
        self.model = model
        self.read_tokens(tokens)
        self.cache_argument = cache_argument(model)
        self.probed: Probed | None = None
        self.trusts_rows, self.compiled = True, compiled

    def read_tokens(self, tokens: TokenMap) -> None:
        """Put the tokens of each level's codes on the device.

        Raises:
            ArgumentError: a token is not in the vocabulary.
        """
        self.tokens = tokens
        self.check_vocabulary(self.vocabulary_size)
        # A code without a token uses token 0, and its logit is overwritten.
        self._ids = [torch.as_tensor(table.clip(min=0), device=self.device) for table in tokens.token_ids]
        self._rows = [_selection(ids) for ids in self._ids]
        absent = [torch.as_tensor(table == NO_TOKEN, device=self.device) for table in tokens.token_ids]
        self._absent = [codes if bool(codes.any()) else None for codes in absent]

    @property
    def head(self) -> Any:
        """The last layer, from hidden states to logits. The model may replace it, for example to resize it."""
        return self.model.get_output_embeddings()

    @property
    def head_use(self) -> HeadUse:
        """What a search takes from the model: see the class."""
        return "all" if self.probed is None else self.probed.head

    @property
    def vocabulary_size(self) -> int:
        """V, the number of tokens that the model reads."""
        return input_size(self.model)

    def check_vocabulary(self, size: int) -> None:
        """Check that the model has the tokens.

        Args:
            size: the number of tokens of the model.

        Raises:
            ArgumentError: a token is not in the vocabulary.
        """
        tokens = (*self.tokens.token_ids, self.tokens.begin, self.tokens.end)
        highest = max(max(map(int, ids), default=0) for ids in tokens)
        if highest >= size:
            raise ArgumentError(
                f"the token map names token {highest}, but the model has {size:,} tokens; "
                "add rows with model.resize_token_embeddings(len(tokenizer)), then train them."
            )

    @property
    def is_encoder_decoder(self) -> bool:
        """Whether an encoder reads the prompt, and a decoder writes the SID."""
        return bool(getattr(self.model.config, "is_encoder_decoder", False))

    @property
    def config(self) -> Any:
        """The configuration of the language model, also if the model has other parts."""
        return self.model.config if self.is_encoder_decoder else self.model.config.get_text_config(decoder=True)

    @property
    def device(self) -> torch.device:
        """The device of token ids."""
        return device_of(self.model)

    @property
    def dtype(self) -> torch.dtype:
        """The type in which the model computes."""
        weights = (weight.dtype for weight in self.model.parameters() if weight.is_floating_point())
        return next(weights, torch.float32)

    def features(self, ids: Tensor, *, last: Tensor | None = None, **inputs: Any) -> Tensor:
        """Compute the features [R, T, ...] of token ids [R, T]; with `last` [R], only of these positions: [R, 1, ...].

        Args:
            ids: [R, T] int64, sequences of T tokens; of the decoder, if the model has an encoder.
            last: [R] int64, one position per sequence. Default: all positions.
            inputs: further arguments of the model.

        Raises:
            ModelChangedError: the model does not behave as in its trial.
        """
        states, logits = self.run(ids, last=last, computes_logits=False, **inputs)
        return logits if states is None else states

    def compared_features(self, ids: Tensor, *, last: Tensor, **inputs: Any) -> tuple[Tensor, Tensor | None]:
        """As `features`, with the difference between the logits of "rows" and those of the model.

        Returns:
            The features, and one number on the device: the largest difference, as a share of the largest logit. None
                if there is nothing to compare.
        """
        states, logits = self.run(ids, last=last, computes_logits=True, **inputs)
        if states is None:
            return logits, None
        levels = range(self.tokens.num_levels)
        sliced = torch.cat([self.code_logits(states, level) for level in levels], dim=-1)
        own = torch.cat([self._without_absent(logits[..., self._rows[level]].float(), level) for level in levels], -1)
        return states, relative_difference(sliced, own.to(sliced.device))

    def run(
        self, ids: Tensor, *, last: Tensor | None, computes_logits: bool, **inputs: Any
    ) -> tuple[Tensor | None, Tensor]:
        """Run the model on token ids.

        Args:
            ids: as for `features`.
            last: as for `features`.
            computes_logits: whether to compute logits also if `head_use` is "rows".
            inputs: further arguments of the model.

        Returns:
            The inputs of the head at the positions of `last`, None unless `head_use` is "rows"; and the logits
                [R, T or 1, V], of no position if they are not computed.

        Raises:
            ModelChangedError: as for `features`.
        """
        extra, use, states = 0 if self.probed is None else self.probed.extra, self.head_use, []
        named = {"decoder_input_ids" if self.is_encoder_decoder else "input_ids": ids}
        if use == "all":
            logits = self.logits_of(**named, **inputs)
            if logits.shape[1] != ids.shape[1] + extra:
                raise ModelChangedError
            return None, _positions(logits, last, extra).to(ids.device)

        def cut(given: Tensor) -> Tensor:
            if given.ndim != 3 or given.shape[1] != ids.shape[1] + extra:
                raise ModelChangedError
            states.append(_positions(given, last, extra))
            return states[0] if computes_logits or use == "last" else states[0][:, :0]

        # The logits of all positions would fill the memory.
        with changed_input(self.head, cut):
            logits = self.logits_of(**named, **inputs)
        if len(states) != 1 or logits.shape[1] not in (0, states[0].shape[1]):
            raise ModelChangedError
        return (states[0].to(ids.device) if use == "rows" else None), logits.to(ids.device)

    def logits_of(self, **inputs: Any) -> Tensor:
        """Call the model for its logits [R, T, V].

        Raises:
            ArgumentError: the output has no such logits.
        """
        # Not as its owner has compiled it: the shapes of a search are new at every level, and the code sees no hooks.
        model = getattr(self.model, "_orig_mod", self.model)
        call = model if getattr(model, "_compiled_call_impl", None) is None else model._call_impl
        key = None if self.probed is None else self.probed.key
        with nullcontext() if self.compiled is None else self.compiled.applied(model, key):
            logits = getattr(call(**inputs), "logits", None)
        if not isinstance(logits, Tensor) or logits.ndim != 3:
            raise ArgumentError(
                f"the output of {type(self.model).__name__} has no logits [R, T, V]; pass a ...ForCausalLM of "
                "transformers, with config.return_dict=True."
            )
        return logits

    def token_ids(self, codes: Tensor, level: int) -> Tensor:
        """Look up the token ids of codes of one level. Code -1, of a dead beam, counts as code 0."""
        return self._ids[level][codes.long().clamp(min=0)]

    def code_logits(self, features: Tensor, level: int) -> Tensor:
        """Compute the float32 logits [..., C] of one level's codes; -inf if a code has no token."""
        return self.short_code_logits(features, level).float()

    def short_code_logits(self, features: Tensor, level: int) -> Tensor:
        """As `code_logits`, but 16-bit logits of the model are not widened, which would copy them."""
        rows = self._rows[level]
        if self.head_use == "rows":
            weight, bias = self.head.weight, self.head.bias
            features = torch.nn.functional.linear(features, weight[rows], None if bias is None else bias[rows])
        else:
            features = features[..., rows]
        return self._without_absent(features if features.dtype.itemsize == 2 else features.float(), level)

    def logits(self, features: Tensor) -> Tensor:
        """Compute the float32 logits [..., V] of the whole vocabulary."""
        return (self.head(features) if self.head_use == "rows" else features).float()

    def code_log_probs(self, logits: Tensor, level: int) -> Tensor:
        """Compute the log-probabilities [..., C] of one level's codes from the logits [..., V] of the vocabulary."""
        log_probs = logits[..., self._rows[level]] - logits.logsumexp(-1, keepdim=True)
        return self._without_absent(log_probs, level)

    def codes_of(self, scores: Tensor, level: int) -> Tensor:
        """Select the codes [..., C] of one level from scores [..., V] of the vocabulary; -inf if it has no token."""
        return self._without_absent(scores[..., self._rows[level]], level)

    def _without_absent(self, logits: Tensor, level: int) -> Tensor:
        absent = self._absent[level]
        return logits if absent is None else logits.masked_fill(absent, -INF)

    def has_plain_head(self) -> bool:
        """Whether rows of the head can be computed alone."""
        return self.trusts_rows and is_plain_linear(self.head)


def relative_difference(some: Tensor, others: Tensor) -> Tensor:
    """The largest difference, as a share of the largest absolute value of `others`; on the device.

    Infinity if one of the two has an infinite entry that the other does not have. NaN in `others` does not count. NaN
    if there are no other entries, or `some` has NaN.
    """
    finite = torch.isfinite(others)
    largest = torch.where(finite, others, 0).abs().amax().clamp(min=1e-30)
    difference = torch.where(finite, some - others, 0).abs().amax() / (largest * finite.any())
    # A model bans tokens with -inf.
    is_same = finite | others.isnan() | (some == others)
    return torch.where(is_same.all(), difference, INF)


@contextmanager
def changed_input(layer: Any, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Change the input of a layer in this thread. Other threads may use the layer at the same time, unchanged."""
    thread = threading.get_ident()

    def hook(_: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        return (change(inputs[0]), *inputs[1:]) if threading.get_ident() == thread else None

    # PyTorch gives two hooks the same id if they are registered at the same time, and one of them is lost.
    with _REGISTRATION:
        handle = layer.register_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def _positions(states: Tensor, last: Tensor | None, extra: int) -> Tensor:
    """Select one position [R, 1, ...] of each row of states [R, extra + T, ...]; the last T if `last` is None."""
    if last is None:
        return states[:, extra:]
    last = last.to(states.device)
    return states[torch.arange(len(last), device=states.device), last + extra][:, None]


def _selection(ids: Tensor) -> Tensor | slice:
    """The rows of the head for these tokens: a slice, which copies nothing, if they are consecutive."""
    first = int(ids[0])
    consecutive = torch.arange(first, first + len(ids), device=ids.device)
    return slice(first, first + len(ids)) if bool((ids == consecutive).all()) else ids
