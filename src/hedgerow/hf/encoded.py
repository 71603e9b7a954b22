"""Decoders of encoder-decoder models: the encoder reads every prompt once, and the beams are rows of the decoder."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers.cache_utils import DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

from hedgerow.decode.beams import Beams
from hedgerow.errors import ArgumentError
from hedgerow.hf.crossed import SharedStates
from hedgerow.hf.model import CodeModel
from hedgerow.hf.plain import suffixes_of
from hedgerow.hf.prompts import Ids, padded


def decoder_start(model: Any) -> int:
    """Find the token with which the decoder of a model starts, as `generate` does.

    Raises:
        ArgumentError: the model names none.
    """
    configs = (getattr(model, "generation_config", None), model.config)
    for name in ("decoder_start_token_id", "bos_token_id"):
        for config in configs:
            token = getattr(config, name, None)
            if isinstance(token, int):
                return token
    raise ArgumentError(
        f"{type(model).__name__} names no token with which its decoder starts; set "
        "model.generation_config.decoder_start_token_id."
    )


class EncodedDecoder:
    """Follows one search, as `TreeDecoder`, with an encoder-decoder model.

    With a cache, each level computes one position per beam; the rows of the cache follow the parents of the beams.
    The beams of a prompt share its keys and values, if the cross-attention of the model lets them. Without a cache, it
    computes every beam's whole sequence in the decoder.
    """

    def __init__(
        self,
        model: CodeModel,
        prompts: list[Ids],
        *,
        has_cache: bool,
        crossed: tuple[Any, ...] = (),
        written: list[Ids] | None = None,
        states: Sequence[Tensor] | None = None,
    ) -> None:
        """Prepare a search.

        Args:
            model: the language model.
            prompts: B prompts, which the encoder reads.
            has_cache: see above.
            crossed: the cross-attention layers of the model, whose keys and values beams share. Default: every beam has
                a copy of its prompt's. Only with a cache.
            written: for each prompt as many tokens that the decoder has written already. Default: none.
            states: for each prompt what the encoder gave [T, D]. Default: it reads the prompts.
        """
        self.model = model
        ids, lengths = padded(prompts, model.device)
        positions = torch.arange(ids.shape[1], device=ids.device)
        self.mask = (positions < lengths[:, None]).long()
        if states is None:
            encoder = model.model.get_encoder()
            self.encoded: Any = encoder(input_ids=ids, attention_mask=self.mask, return_dict=True)
        else:
            given: Any = pad_sequence(list(states), batch_first=True)
            self.encoded = BaseModelOutput(last_hidden_state=given)
        start = [decoder_start(model.model), *model.tokens.begin]
        begun = [[*start, *tokens] for tokens in written or [[]] * len(prompts)]
        self.start = torch.tensor(begun, device=ids.device)[:, None]
        self.cache = EncoderDecoderCache(DynamicCache(), DynamicCache()) if has_cache else None
        self.width, self.crossed = 1, crossed
        self.shared: SharedStates | None = None
        self.deviation: Tensor | None = None

    def __call__(self, beams: Beams) -> Tensor:
        """Compute the features [B, m, ...] of the last token of every beam."""
        batch, width = beams.states.shape
        written = torch.cat([self.start.expand(-1, width, -1), suffixes_of(self.model, beams)], dim=-1).flatten(0, 1)
        if width != self.width:
            self._widen(width)
        elif self.cache is not None and width > 1:
            first = torch.arange(batch, device=beams.parents.device)[:, None] * width
            # The prompt is the same for all beams of a request, so what the encoder gave stays in place.
            self.cache.self_attention_cache.reorder_cache((first + beams.parents.long()).flatten())
        if self.cache is not None and beams.level:
            written = written[:, -1:]
        inputs: dict[str, Any] = {
            "encoder_outputs": self.encoded,
            "attention_mask": self.mask,
            "use_cache": self.cache is not None,
        }
        if self.cache is not None:
            inputs[self.model.cache_argument] = self.cache
        last = torch.full((len(written),), written.shape[1] - 1, device=written.device)
        if beams.level:
            with nullcontext() if self.shared is None else self.shared.applied():
                features = self.model.features(written, last=last, **inputs)
        else:
            features, self.deviation = self.model.compared_features(written, last=last, **inputs)
        return features.reshape(batch, width, *features.shape[2:])

    def _widen(self, width: int) -> None:
        """Give each beam a row. Before level 1 each request has one row, the parent of all of its beams."""
        states, self.width = self.encoded.last_hidden_state, width
        self.mask = self.mask.repeat_interleave(width, dim=0)
        if self.crossed:
            assert self.cache is not None
            self.shared = SharedStates.of(self.crossed, states, width)
            self.encoded.last_hidden_state = self.shared.states
            self.cache.self_attention_cache.batch_repeat_interleave(width)
            return
        self.encoded.last_hidden_state = states.repeat_interleave(width, dim=0)
        if self.cache is not None:
            self.cache.batch_repeat_interleave(width)
