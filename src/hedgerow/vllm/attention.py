"""Attention of beams: M queries over the keys of a prompt in vLLM's cache, and over the few keys of their own path.

The prompt's part and the path's part are computed apart, each with its log-sum-exp, and merged. So no beam needs a mask
over the keys of other beams, and the prompt's keys are read once for all beams of a request.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

# The output [B, m, H, D] of one part of an attention, and its log-sum-exp float32 [B, m, H].
Part = tuple[Tensor, Tensor]
INF = float("inf")
LOWEST, SMALLEST = -1e30, 1e-30


@dataclass(frozen=True)
class LayerShape:
    """What an attention layer computes with.

    Attributes:
        heads: H, the number of query heads.
        kv_heads: the number of heads of keys and values.
        head_size: D.
        scale: multiplies the scores.
        window: the number of last positions, its own included, that a token sees. None: all.
    """

    heads: int
    kv_heads: int
    head_size: int
    scale: float
    window: int | None = None


class PromptPart(Protocol):
    """The attention of the beams of a level over the prompts."""

    def __call__(self, query: Tensor, level: int) -> Part:
        """Attend to the prompts.

        Args:
            query: [B, m, H, D], of tokens `level` - 1 positions after the last one of the prompt plus one.
            level: the number of codes that each beam has, at least 1.
        """
        ...


def attend(scores: Tensor, values: Tensor) -> Part:
    """The output and the log-sum-exp of scores float32 [..., Q, P], which are overwritten, over values [..., P, D].

    A row without a score above -inf has output 0 and a log-sum-exp that counts nothing beside others.
    """
    # In place and with one exponential: `logsumexp` and `softmax` would take twice as long.
    top = scores.amax(-1, keepdim=True).clamp_(min=LOWEST)
    weights = scores.sub_(top).exp_()
    total = weights.sum(-1, keepdim=True).clamp_(min=SMALLEST)
    # Divided first: in half precision, the sum of many values could overflow.
    return weights.div_(total).to(values.dtype) @ values, (top + total.log()).squeeze(-1)


def merged(one: Part, other: Part) -> Tensor:
    """The attention over the keys of both parts: [B, m, H, D]. At least one part has a key."""
    (first, first_lse), (second, second_lse) = one, other
    both = torch.logaddexp(first_lse, second_lse)
    share, rest = (first_lse - both).exp()[..., None], (second_lse - both).exp()[..., None]
    return (first * share + second * rest).to(first.dtype)


class GatheredPrompt:
    """Attends to the keys and values of prompts that were gathered from the cache. For CPUs.

    Args:
        shape: of the layer.
        keys: [B, kv_heads, P, D].
        values: [B, kv_heads, P, D].
        lengths: [B] int64, the number of tokens of each prompt.
    """

    def __init__(self, shape: LayerShape, keys: Tensor, values: Tensor, lengths: Tensor) -> None:
        places = torch.arange(keys.shape[2], device=keys.device)
        self._shape, self._lengths, self._places = shape, lengths[:, None], places
        # Memory of the cache that no token has written can hold anything, also NaN.
        hidden = self._hidden(0)[:, None, :, None]
        self._keys = keys.masked_fill(hidden, 0).transpose(-1, -2).contiguous()
        self._values = values.masked_fill(hidden, 0)

    def _hidden(self, level: int) -> Tensor:
        """bool [B, P]: the positions that the beams of a level do not see; of level 0, the last token of the prompt."""
        hidden = self._places >= self._lengths
        if self._shape.window is not None:
            hidden = hidden | (self._places < self._lengths + level - self._shape.window)
        return hidden

    def __call__(self, query: Tensor, level: int) -> Part:
        """As `PromptPart`."""
        batch, width, heads, size = query.shape
        kv_heads = self._shape.kv_heads
        # The heads of a group, of all beams, are queries over the same keys.
        grouped = query.view(batch, width, kv_heads, -1, size).permute(0, 2, 3, 1, 4).reshape(batch, kv_heads, -1, size)
        scores = (grouped @ self._keys).float() * self._shape.scale
        scores.masked_fill_(self._hidden(level)[:, None, None], -INF)
        output, lse = attend(scores, self._values)
        output = output.view(batch, kv_heads, -1, width, size).permute(0, 3, 1, 2, 4)
        lse = lse.view(batch, kv_heads, -1, width).permute(0, 3, 1, 2)
        return output.reshape(batch, width, heads, size), lse.reshape(batch, width, heads)


class PagedPrompt:
    """Attends to the prompts in the paged cache, which is not copied. For GPUs.

    Args:
        shape: of the layer.
        keys: [blocks, block_size, kv_heads, D], all keys of the cache.
        values: as `keys`.
        block_table: [B, n] int32, the blocks of each prompt.
        lengths: [B] int32, the number of tokens of each prompt.
        longest: the largest of them, as a number: reading it would wait for the device.
        varlen: `flash_attn_varlen_func`.
    """

    def __init__(
        self,
        shape: LayerShape,
        keys: Tensor,
        values: Tensor,
        block_table: Tensor,
        lengths: Tensor,
        longest: int,
        varlen: Callable[..., Any],
    ) -> None:
        self._shape, self._keys, self._values, self._varlen = shape, keys, values, varlen
        self._block_table, self._lengths, self._longest = block_table, lengths, longest

    def __call__(self, query: Tensor, level: int) -> Part:
        """As `PromptPart`."""
        batch, width, heads, _ = query.shape
        block_table, lengths, each, window = self._block_table, self._lengths, width, None
        if self._shape.window is not None:
            # The window counts from the position of a query. As the only query of a sequence, a beam counts as its last
            # token, and it is `level` positions behind that one.
            block_table, lengths = (part.repeat_interleave(width, 0) for part in (block_table, lengths))
            each, window = 1, [self._shape.window - 1 - level, 0]
        starts = torch.arange(0, batch * width + 1, each, dtype=torch.int32, device=query.device)
        output, lse = self._varlen(
            q=query.flatten(0, 1),
            k=self._keys,
            v=self._values,
            max_seqlen_q=each,
            cu_seqlens_q=starts,
            max_seqlen_k=self._longest,
            seqused_k=lengths,
            softmax_scale=self._shape.scale,
            causal=False,
            window_size=window,
            block_table=block_table,
            return_softmax_lse=True,
        )
        return output.view_as(query), lse.transpose(0, 1).reshape(batch, width, heads)


class BeamLayer:
    """One attention layer during a search. vLLM's attention finds it in place of its own layer, and calls `forward`.

    Args:
        shape: of the layer.
        prompt: attends to the prompts.
        merge: merges two parts. Default: `merged`.
    """

    def __init__(self, shape: LayerShape, prompt: PromptPart, merge: Callable[[Part, Part], Tensor] = merged) -> None:
        self.impl, self.kv_cache = self, torch.empty(0)
        self._shape, self._prompt, self._merge = shape, prompt, merge
        # [B, m, level, kv_heads, D]: those of the path of each beam.
        self._keys: Tensor | None = None
        self._values: Tensor | None = None

    def follow(self, parents: Tensor) -> None:
        """Let the beams [B, m] of the next level continue those of the level before."""
        assert self._keys is not None
        assert self._values is not None
        places = parents.long()[..., None, None, None].expand(-1, -1, *self._keys.shape[2:])
        self._keys, self._values = self._keys.gather(1, places), self._values.gather(1, places)

    def forward(
        self,
        layer: Any,  # noqa: ARG002
        query: Tensor,
        key: Tensor,
        value: Tensor,
        kv_cache: Tensor,  # noqa: ARG002
        attn_metadata: tuple[int, int],
        output: Tensor,
        **_: Any,
    ) -> Tensor:
        """Compute the attention of the beams of a level, as vLLM's attention backends do.

        Args:
            layer: this object.
            query: [B * m, H, D].
            key: [B * m, kv_heads, D].
            value: as `key`.
            kv_cache: nothing.
            attn_metadata: B and m.
            output: [B * m, H, D], which is written.
        """
        batch, width = attn_metadata
        query = query.view(batch, width, self._shape.heads, self._shape.head_size)
        self._keys, self._values = self._extended(self._keys, key, batch), self._extended(self._values, value, batch)
        part = self._prompt(query, self._keys.shape[2])
        output.view(query.shape).copy_(self._merge(part, self._own(query, self._keys, self._values)))
        return output

    def _extended(self, before: Tensor | None, added: Tensor, batch: int) -> Tensor:
        added = added.reshape(batch, -1, 1, self._shape.kv_heads, self._shape.head_size)
        return added.clone() if before is None else torch.cat([before, added], dim=2)

    def _own(self, query: Tensor, keys: Tensor, values: Tensor) -> Part:
        """The attention of each beam to its own path."""
        grouped = query.view(*query.shape[:2], self._shape.kv_heads, -1, self._shape.head_size)
        scores = (grouped @ keys.permute(0, 1, 3, 4, 2)).float() * self._shape.scale
        output, lse = attend(scores, values.transpose(2, 3))
        return output.reshape(query.shape), lse.flatten(2)


def merged_by_kernel(one: Part, other: Part) -> Tensor:
    """As `merged`, by vLLM's kernel. For GPUs."""
    from vllm.v1.attention.ops.merge_attn_states import (  # pyright: ignore[reportMissingImports]
        merge_attn_states,
    )

    outputs, sums = zip(one, other, strict=True)
    output = torch.empty_like(outputs[0])
    states = [part.flatten(0, 1) for part in outputs]
    # Log-sum-exps are [H, tokens] there.
    lses = [lse.flatten(0, 1).transpose(0, 1).contiguous() for lse in sums]
    merge_attn_states(output.flatten(0, 1), states[0], lses[0], states[1], lses[1])
    return output
