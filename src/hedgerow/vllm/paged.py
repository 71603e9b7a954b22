"""The paged cache of vLLM: which layers can be read, and the prompts in them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hedgerow.errors import ArgumentError
from hedgerow.vllm.attention import BeamLayer, GatheredPrompt, LayerShape, PagedPrompt, merged, merged_by_kernel

CPU_BACKEND, GPU_BACKEND = "CPU_ATTN", "FLASH_ATTN"


def shape_of(name: str, layer: Any, num_levels: int) -> LayerShape:
    """What an attention layer of vLLM computes with.

    Args:
        name: of the layer.
        layer: the layer.
        num_levels: L.

    Raises:
        ArgumentError: the layer computes something that a search cannot.
    """
    from vllm.model_executor.layers.attention import Attention  # pyright: ignore[reportMissingImports]

    reasons = {
        "is no plain attention layer": type(layer) is not Attention,
        "is no decoder layer": getattr(layer, "attn_type", "decoder") != "decoder",
        "has attention sinks": bool(getattr(layer, "has_sink", False)),
        "shares the cache of another layer": getattr(layer, "kv_sharing_target_layer_name", None) is not None,
        "has values that are not as long as keys": getattr(layer, "head_size_v", 0) != getattr(layer, "head_size", 0),
        "has a quantized cache": getattr(layer, "kv_cache_dtype", "auto") not in ("auto", "bfloat16", "float16"),
    }
    impl = getattr(layer, "impl", None)
    reasons["has ALiBi"] = getattr(impl, "alibi_slopes", None) is not None
    reasons["caps its scores"] = bool(getattr(impl, "logits_soft_cap", None))
    window = getattr(layer, "sliding_window", None)
    reasons[f"has a window of {window} tokens"] = window is not None and window <= num_levels
    found = [reason for reason, holds in reasons.items() if holds]
    if found:
        raise ArgumentError(f"the layer {name} {' and '.join(found)}, so hedgerow cannot search this model in vLLM.")
    backend = layer.attn_backend.get_name()
    if backend not in (CPU_BACKEND, GPU_BACKEND):
        raise ArgumentError(
            f"the layer {name} has the attention backend {backend}; hedgerow reads the cache of {CPU_BACKEND} and "
            f"{GPU_BACKEND}. On a GPU, start vLLM with --attention-backend {GPU_BACKEND}."
        )
    return LayerShape(layer.num_heads, layer.num_kv_heads, layer.head_size, float(layer.impl.scale), window)


@dataclass(frozen=True)
class Prompts:
    """The prompts of a batch in the cache.

    Attributes:
        tables: for each layer the blocks [B, n] int32 of each prompt.
        lengths: [B] int64, on the device.
        longest: the largest length.
    """

    tables: Mapping[str, Tensor]
    lengths: Tensor
    longest: int

    @classmethod
    def of(cls, metadata: Mapping[str, Any], rows: list[int], lengths: list[int], device: torch.device) -> Prompts:
        """Some rows of what vLLM's attention had for a batch, and the lengths of their prompts.

        Raises:
            ArgumentError: the metadata is that of other prompts.
        """
        picked: dict[int, Tensor] = {}
        tables: dict[str, Tensor] = {}
        places = torch.tensor(rows, device=device)
        for name, of_layer in metadata.items():
            # The layers of a group have one object.
            if id(of_layer) not in picked:
                picked[id(of_layer)] = of_layer.block_table[places]
                if device.type == "cpu" and of_layer.seq_lens[places].tolist() != lengths:
                    raise ArgumentError("the cache holds other prompts than those that were asked for.")
            tables[name] = picked[id(of_layer)]
        return cls(tables, torch.tensor(lengths, device=device), max(lengths))


def beam_layer(layer: Any, shape: LayerShape, table: Tensor, prompts: Prompts) -> BeamLayer:
    """An attention layer for the search of prompts.

    Args:
        layer: vLLM's layer.
        shape: of the layer.
        table: the blocks of each prompt in its cache.
        prompts: the prompts.
    """
    if layer.attn_backend.get_name() == CPU_BACKEND:
        keys, values = read_cpu_cache(layer.kv_cache, table, prompts.longest, layer.isa)
        return BeamLayer(shape, GatheredPrompt(shape, keys, values, prompts.lengths), merged)
    keys, values = layer.kv_cache.transpose(1, 2).split(shape.head_size, dim=-1)
    lengths = prompts.lengths.int()
    part = PagedPrompt(shape, keys, values, table, lengths, prompts.longest, _flash_attention(shape.head_size))
    return BeamLayer(shape, part, merged_by_kernel)


@functools.cache
def _flash_attention(head_size: int) -> Callable[..., Any]:
    from vllm.v1.attention.backends.fa_utils import (  # pyright: ignore[reportMissingImports]
        flash_attn_varlen_func,
        get_flash_attn_version,
    )

    version = get_flash_attn_version(head_size=head_size)
    return functools.partial(flash_attn_varlen_func, fa_version=version)


def read_cpu_cache(cache: Tensor, table: Tensor, longest: int, isa: str) -> tuple[Tensor, Tensor]:
    """The keys and values [B, kv_heads, P, D] of prompts in the cache of the CPU backend.

    Args:
        cache: [blocks, kv_heads, block_size, 2 * D].
        table: [B, n], the blocks of each prompt.
        longest: P, the length of the longest prompt.
        isa: the name of the instructions for which the backend orders the elements of a block.
    """
    _, kv_heads, block_size, double = cache.shape
    num_blocks = -(-longest // block_size)
    blocks = table[:, :num_blocks]
    held = cache.view(len(cache), kv_heads, -1)[blocks.flatten().long()]
    orders = element_orders(cache.dtype, block_size, double // 2, isa)
    found = []
    for part, order in zip(held.chunk(2, dim=-1), orders, strict=True):
        # Of a single block, only the tokens that are needed.
        order = order[:longest] if num_blocks == 1 else order
        tokens = part.index_select(-1, order.flatten()).view(len(blocks), num_blocks, kv_heads, -1, double // 2)
        found.append(tokens.transpose(1, 2).flatten(2, 3)[:, :, :longest])
    return found[0], found[1]


@functools.cache
def element_orders(dtype: torch.dtype, block_size: int, head_size: int, isa: str) -> tuple[Tensor, Tensor]:
    """Where the elements of a block are in memory: of keys and of values, int64 [block_size, D].

    The backend orders them as its instructions need them. To find the order, it writes numbers into a block.
    """
    from vllm import _custom_ops as ops  # pyright: ignore[reportMissingImports, reportAttributeAccessIssue]

    numbers = torch.arange(block_size * head_size)

    def written(digits: Tensor) -> list[Tensor]:
        block = torch.zeros(1, 1, 2 * block_size, head_size, dtype=dtype)
        keys, values = block.chunk(2, dim=2)
        tokens = digits.to(dtype).view(block_size, 1, head_size)
        ops.cpu_attn_reshape_and_cache(tokens, tokens, keys, values, torch.arange(block_size), isa)
        return [part.flatten().long() for part in (keys, values)]

    # In two digits, because 16-bit types hold integers up to 256.
    low, high = written(numbers % 256), written(numbers // 256)
    orders = []
    for ones, others in zip(low, high, strict=True):
        order = (others * 256 + ones).argsort()
        orders.append(order.view(block_size, head_size))
    return orders[0], orders[1]
