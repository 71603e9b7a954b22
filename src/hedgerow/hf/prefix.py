"""Prefix: the keys and values of tokens that many prompts begin with, computed once."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from hedgerow.hf.layers import capture_key, modules_of
from hedgerow.hf.model import CodeModel
from hedgerow.hf.prompts import Ids
from hedgerow.hf.stored import Stored, TreeLayer

# Shorter beginnings are not worth another mask.
MIN_TOKENS = 8


class Prefix:
    """The tokens that many prompts begin with, and their keys and values, which are computed on first use.

    A prompt uses as many of them as it begins with. They are computed again if the model changes: its modules, hooks,
    adapters, or the values of its weights and buffers. If PyTorch does not count changes of values, as for tensors of
    inference mode, they are computed for each batch.

    Args:
        ids: the tokens.
    """

    def __init__(self, ids: Sequence[int]) -> None:
        self.ids = tuple(ids)
        self._lock = threading.Lock()
        self._key: Any = None
        self._stored: list[Stored] = []

    def common(self, prompts: Sequence[Ids]) -> int:
        """The number of tokens that all prompts begin with; 0 if there are too few. One token is left of each."""
        count = min(_common(self.ids, prompt[:-1]) for prompt in prompts)
        return count if count >= MIN_TOKENS else 0

    def stored(self, model: CodeModel, count: int) -> list[Stored]:
        """The keys and values [1, heads, count, D] of each layer for the first tokens."""
        assert model.probed is not None
        with self._lock:
            key = model.probed.key, capture_key(model.model), _versions(model.model), _hooks(model)
            if key != self._key or None in key:
                self._stored, self._key = self._computed(model), key
            return [(keys[:, :, :count], values[:, :, :count]) for keys, values in self._stored]

    def _computed(self, model: CodeModel) -> list[Stored]:
        ids = torch.tensor([self.ids], device=model.device)
        cache = Cache(layer_class_to_replicate=partial(TreeLayer, len(self.ids)))  # type: ignore[arg-type]
        positions = torch.arange(len(self.ids), device=model.device)[None]
        last = positions[:, -1]
        model.features(ids, last=last, position_ids=positions, use_cache=True, **{model.cache_argument: cache})
        return [(_tensor(layer, "keys"), _tensor(layer, "values")) for layer in cache.layers]


def _common(some: Sequence[int], others: Sequence[int]) -> int:
    """The number of equal tokens at the beginning."""
    pairs = enumerate(zip(some, others, strict=False))
    return next((number for number, (one, other) in pairs if one != other), min(len(some), len(others)))


def _versions(model: Any) -> int | None:
    """A number that grows when weights or buffers are changed in place, as optimizers do; None if that is not known."""
    tensors = [tensor for module in modules_of(model) for tensor in _tensors(module)]
    if any(tensor.is_inference() for tensor in tensors):
        return None
    return sum(tensor._version for tensor in tensors)


def _tensors(module: Any) -> list[Tensor]:
    attributes = module.__dict__
    return [
        tensor for name in ("_parameters", "_buffers") for tensor in attributes[name].values() if tensor is not None
    ]


def _hooks(model: CodeModel) -> tuple[int, ...]:
    """The hooks before modules, without the one that a search has on the head."""
    modules = (module for module in modules_of(model.model) if module is not model.head)
    return tuple(id(hook) for module in modules for hook in module.__dict__["_forward_pre_hooks"].values())


def _tensor(layer: Any, name: str) -> Tensor:
    value = getattr(layer, name)
    assert isinstance(value, Tensor)
    return value
