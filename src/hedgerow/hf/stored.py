"""The keys and values of a layer, stored once per request for all of its beams."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers.cache_utils import DynamicLayer

# The keys and the values of one layer, [1, heads, P, D] each.
Stored = tuple[Tensor, Tensor]


class TreeLayer(DynamicLayer):
    """Keys and values of one layer, in memory that is allocated once, so that each level is written in place."""

    def __init__(self, capacity: int, prefix: Stored | None = None) -> None:
        """Create a layer for `capacity` positions, of which the first are those of a prefix [1, heads, P, D]."""
        super().__init__()
        self.capacity, self.used, self.prefix = capacity, 0 if prefix is None else prefix[0].shape[-2], prefix

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Add T positions [R, heads, T, D], and return all positions so far."""
        if self.keys is None or self.values is None:
            self._allocate(key_states, value_states)
        assert self.keys is not None
        assert self.values is not None
        start, self.used = self.used, self.used + key_states.shape[-2]
        self.keys[:, :, start : self.used] = key_states
        self.values[:, :, start : self.used] = value_states
        return self.keys[:, :, : self.used], self.values[:, :, : self.used]

    def begin(self, rows: int) -> None:
        """Allocate the memory for R rows, if there is a prefix and it has not been done: it tells the other sizes."""
        if self.prefix is not None and self.keys is None:
            self._allocate(*(stored.expand(rows, -1, -1, -1) for stored in self.prefix))

    def _allocate(self, keys: Tensor, values: Tensor) -> None:
        self.keys, self.values = self._empty(keys), self._empty(values)
        if self.prefix is not None:
            self.keys[:, :, : self.used], self.values[:, :, : self.used] = self.prefix
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True

    def _empty(self, states: Tensor) -> Tensor:
        return states.new_empty((*states.shape[:2], self.capacity, states.shape[-1]))

    def get_seq_length(self) -> int:
        """Number of positions so far."""
        return self.used
