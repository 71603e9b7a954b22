"""Masking: the form in which a model takes the masks of a tree of beams."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hedgerow.errors import ArgumentError

FULL, SLIDING = "full_attention", "sliding_attention"
# A model applies any other window of a configuration itself, to positions in its cache. In a tree of beams, these are
# not distances.
KNOWN_WINDOWS = ("sliding_window", "use_sliding_window", "max_window_layers")


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
