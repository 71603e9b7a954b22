"""Beams as a tree over one prompt: the keys and values of each prompt are stored once, and no beam copies them.

At each level, the M beams of a request are M queries over one sequence. A 4-D mask shows each beam the prompt and its
own ancestors, and position ids count along its own path. So a model computes the same as for the path alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from hedgerow.decode.beams import Beams
from hedgerow.hf.masking import Masking
from hedgerow.hf.model import CodeModel
from hedgerow.hf.stored import Stored, TreeLayer


class TreeDecoder:
    """Follows one search: called with the beams of each level in turn, it computes the features for the next level.

    Prompts are padded on the right: no prompt token sees the tokens after it, so the first pass needs no mask, and the
    levels after it do not attend to the padding.
    """

    def __init__(
        self,
        model: CodeModel,
        masking: Masking,
        prompts: Tensor,
        lengths: Tensor,
        beam_width: int,
        num_read: int | None = None,
        prefix: Sequence[Stored] = (),
    ) -> None:
        """Prepare a search.

        Args:
            model: the language model.
            masking: the form of its masks.
            prompts: [B, T] int64, token ids, padded on the right.
            lengths: [B] int64, the number of tokens of each prompt.
            beam_width: M.
            num_read: the number of codes of a SID that the model reads. Default: all but the last.
            prefix: for each layer the keys and values of P tokens before every prompt. Default: there are none.
        """
        self.model, self.masking, self.prompts = model, masking, prompts
        self.num_before = prefix[0][0].shape[-2] if prefix else 0
        self.lengths = lengths + self.num_before
        num_read = model.tokens.num_levels - 1 if num_read is None else num_read
        capacity = self.num_before + prompts.shape[1] + num_read * beam_width
        self.deviation: Tensor | None = None
        if prefix:
            self.cache = Cache(layers=[TreeLayer(capacity, stored) for stored in prefix])
        else:
            self.cache = Cache(layer_class_to_replicate=partial(TreeLayer, capacity))  # type: ignore[arg-type]
        self.ancestors: Tensor | None = None

    def __call__(self, beams: Beams) -> Tensor:
        """Compute the features [B, m, ...] of the last token of every beam; before level 0, of every prompt."""
        return self._prefill() if beams.level == 0 else self._advance(beams)

    def _prefill(self) -> Tensor:
        # Padding gets the last position, because a model with a table of positions has none beyond its longest prompt.
        places = torch.arange(self.prompts.shape[1], device=self.prompts.device) + self.num_before
        positions = places.minimum(self.lengths[:, None] - 1)
        features, self.deviation = self.model.compared_features(
            self.prompts,
            last=self.lengths - self.num_before - 1,
            position_ids=positions,
            **self._after_prefix(places),
            **self._cached(),
        )
        return features

    def _after_prefix(self, places: Tensor) -> dict[str, Any]:
        """The mask of the first pass, if there is a prefix: each token sees those before it."""
        if not self.num_before:
            return {}
        distance = places[:, None] - torch.arange(int(self.num_before) + len(places), device=places.device)
        visible = (distance >= 0).expand(len(self.prompts), -1, -1)
        return {"attention_mask": self.masking.masks(visible, distance[None], self.model.dtype)}

    def _advance(self, beams: Beams) -> Tensor:
        level, (batch, width) = beams.level, beams.states.shape
        itself = torch.arange(width, device=self.lengths.device).expand(batch, width)[..., None]
        if self.ancestors is None:
            self.ancestors = itself
        else:
            history = beams.parents.long()[..., None].expand(-1, -1, level - 1)
            self.ancestors = torch.cat([self.ancestors.gather(1, history), itself], dim=-1)
        return self.model.features(
            self.model.token_ids(beams.codes[..., -1], level - 1),
            attention_mask=self._mask(batch, width, level),
            position_ids=(self.lengths[:, None] + level - 1).expand(batch, width),
            **self._cached(),
        )

    def _cached(self) -> dict[str, Any]:
        return {self.model.cache_argument: self.cache, "use_cache": True}

    def _mask(self, batch: int, width: int, level: int) -> Tensor | dict[str, Tensor]:
        """Show each beam its prompt, and at each earlier level the one beam that it continues."""
        device = self.lengths.device
        positions = torch.arange(self.num_before + self.prompts.shape[1], device=device)
        prompt = (positions < self.lengths[:, None])[:, None].expand(batch, width, -1)
        assert self.ancestors is not None
        path = (self.ancestors[..., None] == torch.arange(width, device=device)).flatten(2)
        to_prompt = (self.lengths[:, None] + level - 1 - positions)[:, None]
        to_path = torch.arange(level - 1, -1, -1, device=device).repeat_interleave(width).expand(batch, 1, -1)
        visible = torch.cat([prompt, path], dim=-1)
        return self.masking.masks(visible, torch.cat([to_prompt, to_path], dim=-1), self.model.dtype)
