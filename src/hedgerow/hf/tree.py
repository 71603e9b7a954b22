"""Beams as a tree over one prompt: each prompt's keys and values are stored once, and no beam copies them.

At a level all M beams of a request are M queries of one sequence. A 4-D mask shows each beam the prompt and its own
ancestors, and position ids count along its own path, so a model computes for it what it would for the path alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

from hedgerow.decode.beams import Beams
from hedgerow.errors import ArgumentError
from hedgerow.hf.model import CodeModel

FULL, SLIDING = "full_attention", "sliding_attention"
# Any other window of a configuration is one that the model applies by itself, to places in its cache; in a tree of
# beams these are no distances.
KNOWN_WINDOWS = ("sliding_window", "use_sliding_window", "max_window_layers")


class TreeLayer(DynamicLayer):
    """Keys and values of one layer in memory that was set aside at once, so that a level's are written in place."""

    def __init__(self, capacity: int) -> None:
        """Makes an empty layer for `capacity` positions."""
        super().__init__()
        self.capacity, self.used = capacity, 0

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Adds T positions [R, heads, T, D], and returns all that there are."""
        if self.keys is None or self.values is None:
            self.keys, self.values = self._room_for(key_states), self._room_for(value_states)
            self.dtype, self.device, self.is_initialized = key_states.dtype, key_states.device, True
        start, self.used = self.used, self.used + key_states.shape[-2]
        self.keys[:, :, start : self.used] = key_states
        self.values[:, :, start : self.used] = value_states
        return self.keys[:, :, : self.used], self.values[:, :, : self.used]

    def _room_for(self, states: Tensor) -> Tensor:
        return states.new_empty((*states.shape[:2], self.capacity, states.shape[-1]))

    def get_seq_length(self) -> int:
        """Returns how many positions there are."""
        return self.used


@dataclass(frozen=True)
class Masking:
    """How a model wants its masks.

    Attributes:
        kinds: the kinds of attention layers it has, FULL and SLIDING.
        window: positions that a sliding layer sees, the query's own included; 0 where there is no such layer.
        additive: whether a mask is added to the attention scores (eager), rather than boolean (sdpa).
    """

    kinds: tuple[str, ...]
    window: int
    additive: bool

    @classmethod
    def of(cls, config: Any) -> Masking:
        """Returns what a configuration says.

        Raises:
            ArgumentError: layers or an attention implementation for which no such mask can be made.
        """
        implementation = config._attn_implementation
        if implementation not in ("sdpa", "eager"):
            raise ArgumentError(
                f"attention {implementation!r} takes no 4-D masks; load the model with attn_implementation='sdpa'."
            )
        named = (name for name, value in vars(config).items() if "window" in name and isinstance(value, int) and value)
        own = [name for name in named if name not in KNOWN_WINDOWS and not name.endswith("_pattern")]
        if own:
            raise ArgumentError(f"it has an attention window of its own, {own[0]}, that no mask can widen.")
        window = getattr(config, "sliding_window", None) or 0
        kinds = tuple(sorted(set(getattr(config, "layer_types", None) or ()))) or ((SLIDING,) if window else (FULL,))
        if not {FULL, SLIDING}.issuperset(kinds) or (SLIDING in kinds and not window):
            raise ArgumentError(f"layers of {', '.join(kinds)} do not all attend to positions by a mask.")
        return cls(kinds, window, implementation == "eager")

    def masks(self, visible: Tensor, distance: Tensor, dtype: torch.dtype) -> Tensor | dict[str, Tensor]:
        """Returns the masks for a model: one, or one a kind of layer.

        Args:
            visible: bool [B, M, K], whether a query may attend to a key.
            distance: [B or 1, M or 1, K], how many positions the key is before the query.
            dtype: of the model.
        """
        made = {kind: self._mask(visible, distance, kind, dtype) for kind in self.kinds}
        return made if len(made) > 1 else made[self.kinds[0]]

    def _mask(self, visible: Tensor, distance: Tensor, kind: str, dtype: torch.dtype) -> Tensor:
        seen = visible & (distance < self.window) if kind == SLIDING else visible
        mask = seen[:, None]
        if not self.additive:
            return mask
        hidden = torch.finfo(dtype).min
        return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, hidden)


class TreeDecoder:
    """Follows one search: called with the beams of each level in turn, it returns features [B, m, ...] for the next.

    Prompts are padded on the right: no prompt token can see what comes after it, so the first pass needs no mask, and
    the levels after it do not look at the padding.
    """

    def __init__(self, model: CodeModel, masking: Masking, prompts: Tensor, lengths: Tensor, beam_width: int) -> None:
        """Prepares a search with `beam_width` beams of each of the prompts [B, P], of `lengths` [B] tokens."""
        self.model, self.masking, self.prompts, self.lengths = model, masking, prompts, lengths
        # The last code of a SID is never fed back.
        capacity = prompts.shape[1] + (model.tokens.num_levels - 1) * beam_width
        self.cache = Cache(layer_class_to_replicate=partial(TreeLayer, capacity))  # type: ignore[arg-type]
        self.ancestors: Tensor | None = None

    def __call__(self, beams: Beams) -> Tensor:
        """Returns the features of the last token of every beam; of the prompts, before level 0."""
        return self._prefill() if beams.level == 0 else self._advance(beams)

    def _prefill(self) -> Tensor:
        # Padding counts as the last position: a model with a table of positions has none beyond its longest prompt.
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
        own = torch.arange(width, device=self.lengths.device).expand(batch, width)[..., None]
        if self.ancestors is None:
            self.ancestors = own
        else:
            history = beams.parents.long()[..., None].expand(-1, -1, level - 1)
            self.ancestors = torch.cat([self.ancestors.gather(1, history), own], dim=-1)
        return self.model.features(
            self.model.token_ids(beams.codes[..., -1], level - 1),
            attention_mask=self._mask(batch, width, level),
            position_ids=(self.lengths[:, None] + level - 1).expand(batch, width),
            past_key_values=self.cache,
            use_cache=True,
        )

    def _mask(self, batch: int, width: int, level: int) -> Tensor | dict[str, Tensor]:
        """Shows each beam its prompt, and in each earlier level the one beam that it comes from."""
        device = self.lengths.device
        at = torch.arange(self.prompts.shape[1], device=device)
        prompt = (at < self.lengths[:, None])[:, None].expand(batch, width, -1)
        assert self.ancestors is not None
        path = (self.ancestors[..., None] == torch.arange(width, device=device)).flatten(2)
        before_prompt = (self.lengths[:, None] + level - 1 - at)[:, None]
        before_path = torch.arange(level - 1, -1, -1, device=device).repeat_interleave(width).expand(batch, 1, -1)
        visible = torch.cat([prompt, path], dim=-1)
        return self.masking.masks(visible, torch.cat([before_prompt, before_path], dim=-1), self.model.dtype)
