"""Cross-attention in which the beams of a prompt are queries of one row, so that they share its keys and values."""

from __future__ import annotations

import inspect
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from hedgerow.hf.layers import modules_of
from hedgerow.hf.temporary import is_replaceable, replaced

# The names that transformers gives to the states of an encoder where an attention layer reads them.
STATES = {"key_value_states", "encoder_hidden_states"}


def cross_attentions(model: Any) -> tuple[Any, ...]:
    """Find the innermost modules that take the states of an encoder: the attention layers.

    Returns:
        The modules; none if another library has replaced the method of one.
    """
    takers = [module for module in modules_of(model) if STATES & _parameters(type(module))]
    innermost = [module for module in takers if not any(inner in takers for inner in modules_of(module)[1:])]
    return tuple(innermost) if all(map(is_replaceable, innermost)) else ()


@dataclass(frozen=True, eq=False)
class SharedStates:
    """The states of prompts for the beams of each, when the keys and values are stored already.

    Attributes:
        layers: what `cross_attentions` found.
        batch: B, the number of prompts.
        width: M, the number of beams of each.
        states: [B * M, T, D], what the model gets as the states of its encoder. They are NaN, which takes no memory:
            the cross-attention has its keys and values, and a model that reads more of a prompt shows it in its trial.
    """

    layers: tuple[Any, ...]
    batch: int
    width: int
    states: Tensor

    @classmethod
    def of(cls, layers: tuple[Any, ...], states: Tensor, width: int) -> SharedStates:
        """Prepare calls of a model with `width` beams for each prompt, whose states [B, T, D] the encoder gave."""
        batch, *rest = states.shape
        return cls(layers, batch, width, states.new_full((1, 1, 1), torch.nan).expand(batch * width, *rest))

    def applied(self) -> AbstractContextManager[None]:
        """Within it, this thread's calls of the model share the keys and values of a prompt."""
        return replaced(list(enumerate(self.layers)), self._run)

    def _run(self, layer: Any, _: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a layer, with the queries [B * M, 1, D] of beams as [B, M, D] if it reads the encoder's states."""
        forward = type(layer).forward
        if not any(value is self.states for value in (*args, *kwargs.values())):
            return forward(layer, *args, **kwargs)
        if args:
            args = self._together(args[0]), *map(self._of_prompts, args[1:])
        queries = {name: self._together(value) for name, value in kwargs.items() if name == "hidden_states"}
        others = {name: self._of_prompts(value) for name, value in kwargs.items() if name not in queries}
        output = forward(layer, *args, **queries, **others)
        if isinstance(output, Tensor):
            return self._apart(output)
        return self._apart(output[0]), *output[1:]

    def _together(self, rows: Tensor) -> Tensor:
        return rows.reshape(self.batch, self.width, -1)

    def _apart(self, rows: Tensor) -> Tensor:
        return rows.reshape(self.batch * self.width, 1, -1)

    def _of_prompts(self, value: Any) -> Any:
        """Of a mask or states of all beams, those of the first beam of each prompt; other values as they are."""
        if isinstance(value, Tensor) and value.ndim > 1 and len(value) == self.batch * self.width:
            return value[:: self.width]
        return value


@lru_cache
def _parameters(of_class: type) -> frozenset[str]:
    return frozenset(inspect.signature(of_class.forward).parameters)  # pyright: ignore
