"""Beams as a tree over one prompt: the keys and values of each prompt are stored once, and no beam copies them.

At each level, the M beams of a request are M queries over one sequence. A 4-D mask shows each beam the prompt and its
own ancestors, and position ids count along its own path. So a model computes the same as for the path alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

from hedgerow.decode.beams import Beams
from hedgerow.errors import ArgumentError
from hedgerow.hf.model import INF, CodeModel

FULL, SLIDING = "full_attention", "sliding_attention"
# A model applies any other window of a configuration itself, to positions in its cache. In a tree of beams, these are
# not distances.
KNOWN_WINDOWS = ("sliding_window", "use_sliding_window", "max_window_layers")


class TreeLayer(DynamicLayer):
    """Keys and values of one layer, in memory that is allocated once, so that each level is written in place."""

    def __init__(self, capacity: int) -> None:
        """Create an empty layer for `capacity` positions."""
        super().__init__()
        self.capacity, self.used = capacity, 0

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Add T positions [R, heads, T, D], and return all positions so far."""
        if self.keys is None or self.values is None:
            self.keys, self.values = self._empty(key_states), self._empty(value_states)
            self.dtype, self.device, self.is_initialized = key_states.dtype, key_states.device, True
        start, self.used = self.used, self.used + key_states.shape[-2]
        self.keys[:, :, start : self.used] = key_states
        self.values[:, :, start : self.used] = value_states
        return self.keys[:, :, : self.used], self.values[:, :, : self.used]

    def _empty(self, states: Tensor) -> Tensor:
        return states.new_empty((*states.shape[:2], self.capacity, states.shape[-1]))

    def get_seq_length(self) -> int:
        """Number of positions so far."""
        return self.used


@dataclass(frozen=True)
class Masking:
    """The form in which a model takes its masks.

    Attributes:
        kinds: the kinds of its attention layers, FULL and SLIDING.
        window: the number of positions that a sliding layer sees, including the query's own; 0 if there is no such
            layer.
        additive: whether a mask is added to the attention scores (eager) or boolean (sdpa).
    """

    kinds: tuple[str, ...]
    window: int
    additive: bool

    @classmethod
    def of(cls, config: Any) -> Masking:
        """Read the form from a configuration.

        Raises:
            ArgumentError: a mask cannot describe the layers, or the attention implementation takes no such masks.
        """
        implementation = config._attn_implementation
        if implementation not in ("sdpa", "eager"):
            raise ArgumentError(
                f"attention {implementation!r} takes no 4-D masks; load the model with attn_implementation='sdpa'."
            )
        windows = (
            name for name, value in vars(config).items() if "window" in name and isinstance(value, int) and value
        )
        unknown = [name for name in windows if name not in KNOWN_WINDOWS and not name.endswith("_pattern")]
        if unknown:
            raise ArgumentError(f"its configuration has an attention window, {unknown[0]}, that a mask cannot change.")
        window = getattr(config, "sliding_window", None) or 0
        kinds = tuple(sorted(set(getattr(config, "layer_types", None) or ()))) or ((SLIDING,) if window else (FULL,))
        if not {FULL, SLIDING}.issuperset(kinds) or (SLIDING in kinds and not window):
            raise ArgumentError(f"its layers ({', '.join(kinds)}) do not all take a mask over positions.")
        return cls(kinds, window, implementation == "eager")

    def masks(self, visible: Tensor, distance: Tensor, dtype: torch.dtype) -> Tensor | dict[str, Tensor]:
        """Build the masks for a model: one mask, or one per kind of layer.

        Args:
            visible: bool [B, M, keys], whether a query may attend to a key.
            distance: [B or 1, M or 1, keys], the number of positions from the key to the query.
            dtype: the type of the model.
        """
        masks = {kind: self._mask(visible, distance, kind, dtype) for kind in self.kinds}
        return masks if len(masks) > 1 else masks[self.kinds[0]]

    def _mask(self, visible: Tensor, distance: Tensor, kind: str, dtype: torch.dtype) -> Tensor:
        attends = visible & (distance < self.window) if kind == SLIDING else visible
        mask = attends[:, None]
        if not self.additive:
            return mask
        hidden = torch.finfo(dtype).min
        return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, hidden)


def rope_switch(config: Any) -> float:
    """The length above which a model uses other rotary angles for all keys ("longrope"); infinity for most models."""
    rope = getattr(config, "rope_parameters", None) or {}
    groups = (rope, *(value for value in rope.values() if isinstance(value, Mapping)))
    lengths = (
        group.get("original_max_position_embeddings") for group in groups if group.get("rope_type") == "longrope"
    )
    return min((length for length in lengths if length), default=INF)


class TreeDecoder:
    """Follows one search: called with the beams of each level in turn, it computes the features for the next level.

    Prompts are padded on the right: no prompt token sees the tokens after it, so the first pass needs no mask, and the
    levels after it do not attend to the padding.
    """

    def __init__(self, model: CodeModel, masking: Masking, prompts: Tensor, lengths: Tensor, beam_width: int) -> None:
        """Prepare a search.

        Args:
            model: the language model.
            masking: the form of its masks.
            prompts: [B, T] int64, token ids, padded on the right.
            lengths: [B] int64, the number of tokens of each prompt.
            beam_width: M.
        """
        self.model, self.masking, self.prompts, self.lengths = model, masking, prompts, lengths
        # The model never reads the last code of a SID.
        capacity = prompts.shape[1] + (model.tokens.num_levels - 1) * beam_width
        self.cache = Cache(layer_class_to_replicate=partial(TreeLayer, capacity))  # type: ignore[arg-type]
        self.ancestors: Tensor | None = None

    def __call__(self, beams: Beams) -> Tensor:
        """Compute the features [B, m, ...] of the last token of every beam; before level 0, of every prompt."""
        return self._prefill() if beams.level == 0 else self._advance(beams)

    def _prefill(self) -> Tensor:
        # Padding gets the last position, because a model with a table of positions has none beyond its longest prompt.
        positions = torch.arange(self.prompts.shape[1], device=self.prompts.device).minimum(self.lengths[:, None] - 1)
        return self.model.features(
            self.prompts,
            last=self.lengths - 1,
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
        )

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
            past_key_values=self.cache,
            use_cache=True,
        )

    def _mask(self, batch: int, width: int, level: int) -> Tensor | dict[str, Tensor]:
        """Show each beam its prompt, and at each earlier level the one beam that it continues."""
        device = self.lengths.device
        positions = torch.arange(self.prompts.shape[1], device=device)
        prompt = (positions < self.lengths[:, None])[:, None].expand(batch, width, -1)
        assert self.ancestors is not None
        path = (self.ancestors[..., None] == torch.arange(width, device=device)).flatten(2)
        to_prompt = (self.lengths[:, None] + level - 1 - positions)[:, None]
        to_path = torch.arange(level - 1, -1, -1, device=device).repeat_interleave(width).expand(batch, 1, -1)
        visible = torch.cat([prompt, path], dim=-1)
        return self.masking.masks(visible, torch.cat([to_prompt, to_path], dim=-1), self.model.dtype)
