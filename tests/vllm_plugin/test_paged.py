"""Reading the cache of vLLM's CPU backend, which orders its elements as its instructions need them."""

import pytest
import torch

pytest.importorskip("vllm")

from vllm import _custom_ops as ops  # pyright: ignore[reportMissingImports, reportAttributeAccessIssue]
from vllm.v1.attention.backends.cpu_attn import _get_attn_isa  # pyright: ignore[reportMissingImports]

from hedgerow.vllm.paged import element_orders, read_cpu_cache


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("block_size", "head_size"), [(32, 32), (128, 64), (64, 80), (32, 256)])
def test_keys_and_values_come_back_as_they_were_written(dtype, block_size, head_size):
    isa, kv_heads, blocks = _get_attn_isa(dtype, block_size, head_size, "auto"), 2, 7
    cache = torch.full((blocks, kv_heads, block_size, 2 * head_size), torch.nan, dtype=dtype)
    table, lengths = torch.tensor([[5, 2, 0], [1, 4, 6]], dtype=torch.int32), [block_size + 3, 2 * block_size + 1]
    written = []
    for blocks_of, length in zip(table, lengths, strict=True):
        keys, values = torch.randn(2, length, kv_heads, head_size).to(dtype)
        places = torch.arange(length)
        slots = blocks_of[places // block_size].long() * block_size + places % block_size
        parts = cache.view(blocks, kv_heads, 2 * block_size, -1).chunk(2, dim=2)
        ops.cpu_attn_reshape_and_cache(keys, values, *parts, slots, isa)
        written.append((keys, values))
    for longest in (max(lengths), 5):
        found = read_cpu_cache(cache, table, longest, isa)
        for row, of_prompt in enumerate(written):
            for part, wanted in zip(found, of_prompt, strict=True):
                size = min(longest, len(wanted))
                assert torch.equal(part[row, :, :size], wanted[:size].transpose(0, 1))


def test_every_element_has_a_place():
    for order in element_orders(torch.bfloat16, 128, 128, _get_attn_isa(torch.bfloat16, 128, 128, "auto")):
        assert order.flatten().sort().values.equal(torch.arange(128 * 128))
