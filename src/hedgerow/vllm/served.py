"""vLLM's model as a search uses it: features of beams, and the logits of one level's codes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from hedgerow.decode.beams import Beams
from hedgerow.hf.model import CodeModel, Probed
from hedgerow.tokens import TokenMap
from hedgerow.vllm.attention import LayerShape
from hedgerow.vllm.paged import Prompts, beam_layer


class ServedModel(CodeModel):
    """A language model of vLLM and the tokens of its codes.

    Args:
        model: the model, with `states`, which computes hidden states without noting what vLLM's attention gets.
        tokens: the tokens of each level's codes.
        config: vLLM's configuration.
        shapes: its attention layers.
    """

    def __init__(self, model: Any, tokens: TokenMap, config: Any, shapes: Mapping[str, LayerShape]) -> None:
        self.model, self._config, self.shapes = model, config, shapes
        self.read_tokens(tokens)
        # Rows of the head can be computed alone if the head is a plain product.
        rows = type(self.head.quant_method).__name__ == "UnquantizedEmbeddingMethod"
        processor = model.logits_processor
        rows &= processor.scale == 1.0 and processor.soft_cap is None and self.head.weight.dtype == self.dtype
        self.probed = Probed((), "rows" if rows else "last", 0)

    def with_tokens(self, tokens: TokenMap) -> ServedModel:
        """The same model, with other tokens."""
        return self if tokens == self.tokens else ServedModel(self.model, tokens, self._config, self.shapes)

    @property
    def head(self) -> Any:
        """The last layer."""
        return self.model.lm_head

    @property
    def vocabulary_size(self) -> int:
        """V."""
        return self._config.model_config.get_vocab_size()

    @property
    def is_encoder_decoder(self) -> bool:
        """False: decoders only."""
        return False

    @property
    def config(self) -> Any:
        """The configuration of the language model."""
        return self._config.model_config.hf_text_config

    @property
    def device(self) -> torch.device:
        """The device of the head."""
        return self.head.weight.device

    def features_of(self, states: Tensor) -> Tensor:
        """Features [R, ...] of hidden states [R, hidden]: themselves, or logits if rows of the head cannot be used."""
        return states if self.head_use == "rows" else self.model.compute_logits(states)

    def logits(self, features: Tensor) -> Tensor:
        """Compute the float32 logits [..., V] of the whole vocabulary."""
        if self.head_use != "rows":
            return features.float()
        logits = self.model.compute_logits(features.flatten(0, -2))
        return logits.float().view(*features.shape[:-1], -1)

    def beam_states(self, layers: Mapping[str, Any], ids: Tensor, positions: Tensor) -> Tensor:
        """Compute the hidden states of beams.

        Args:
            layers: for each attention layer of the model the `BeamLayer` of the search.
            ids: [B, m] the last token of every beam.
            positions: [B, m].

        Returns:
            [B, m, hidden].
        """
        from vllm.forward_context import (  # pyright: ignore[reportMissingImports]
            create_forward_context,
            override_forward_context,
        )

        # vLLM's attention finds its layer, and what the attention needs, by its name in the context.
        context = create_forward_context(dict.fromkeys(layers, tuple(ids.shape)), self._config)
        context = replace(context, no_compile_layers=context.no_compile_layers | dict(layers))
        with override_forward_context(context):
            # A stride of 0 ends the process in the kernel of rotary angles.
            states = self.model.states(ids.flatten().contiguous(), positions.flatten().contiguous())
        return states.view(*ids.shape, -1)


class PagedDecoder:
    """Follows one search over prompts in vLLM's cache: see `hedgerow.hf.search.Decoder`.

    Args:
        model: the model.
        prompts: the prompts in the cache.
        states: [B, hidden], the hidden states of the last tokens of the prompts.
    """

    def __init__(self, model: ServedModel, prompts: Prompts, states: Tensor) -> None:
        self.deviation: Tensor | None = None
        self._model, self._prompts, self._states = model, prompts, states
        self._layers: dict[str, Any] = {}

    def __call__(self, beams: Beams) -> Tensor:
        """Compute the features [B, m, ...] of the beams."""
        if beams.level == 0:
            return self._model.features_of(self._states)[:, None]
        level = beams.level
        if level == 1:
            self._layers = {
                name: beam_layer(self._layer(name), shape, self._prompts.tables[name], self._prompts)
                for name, shape in self._model.shapes.items()
            }
        else:
            for layer in self._layers.values():
                layer.follow(beams.parents)
        ids = self._model.token_ids(beams.codes[..., -1], level - 1)
        positions = (self._prompts.lengths[:, None] + level - 1).expand(ids.shape)
        states = self._model.beam_states(self._layers, ids, positions)
        return self._model.features_of(states.flatten(0, 1)).view(*ids.shape, -1)

    def _layer(self, name: str) -> Any:
        return self._model._config.compilation_config.static_forward_context[name]
