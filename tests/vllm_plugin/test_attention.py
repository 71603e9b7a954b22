"""The attention of beams on a made paged cache: both ways of reading it, against attention over whole sequences."""

from itertools import pairwise

import pytest
import torch

from hedgerow.vllm.attention import BeamLayer, GatheredPrompt, LayerShape, PagedPrompt, merged

BLOCK, BLOCKS = 4, 12
INF = float("inf")


def stand_in(*, q, k, v, max_seqlen_q, cu_seqlens_q, max_seqlen_k, seqused_k, softmax_scale, causal, window_size,
             block_table, return_softmax_lse):  # fmt: skip
    """What `flash_attn_varlen_func` computes: queries [T, H, D] of sequences in blocks of [block_size, kv_heads, D]."""
    assert not causal
    assert return_softmax_lse
    outputs, sums = [], []
    for row, (begin, end) in enumerate(pairwise(cu_seqlens_q.tolist())):
        assert end - begin <= max_seqlen_q
        length = int(seqused_k[row])
        assert length <= max_seqlen_k
        keys, values = (x[block_table[row].long()].flatten(0, 1)[:length] for x in (k, v))
        groups = q.shape[1] // keys.shape[1]
        keys, values = keys.repeat_interleave(groups, 1), values.repeat_interleave(groups, 1)
        scores = torch.einsum("qhd,khd->hqk", q[begin:end].float(), keys.float()) * softmax_scale
        if window_size is not None:
            # The last query stands at the last key.
            places = torch.arange(length - (end - begin), length)[:, None]
            distance = places - torch.arange(length)
            scores = scores.masked_fill((distance > window_size[0]) | (-distance > window_size[1]), -INF)
        sums.append(scores.logsumexp(-1))
        outputs.append(torch.einsum("hqk,khd->qhd", scores.softmax(-1).nan_to_num(), values.float()).to(q.dtype))
    return torch.cat(outputs), torch.cat(sums, -1)


class Made:
    """A cache with prompts, and the beams of three levels with the parents of each."""

    def __init__(self, shape, lengths, widths):
        generator = torch.Generator().manual_seed(len(lengths) + sum(widths))

        def normal(*size):
            return torch.randn(*size, generator=generator)

        self.shape, self.lengths, self.widths = shape, lengths, widths
        # Memory that no token has written.
        self.cache = torch.full((BLOCKS, BLOCK, shape.kv_heads, 2, shape.head_size), torch.nan)
        self.table = torch.randperm(BLOCKS, generator=generator).view(len(lengths), -1).int()
        self.prompts = [normal(length, 2, shape.kv_heads, shape.head_size) for length in lengths]
        for blocks, prompt in zip(self.table, self.prompts, strict=True):
            for place, token in enumerate(prompt):
                self.cache[blocks[place // BLOCK], place % BLOCK] = token.transpose(0, 1)
        batch = len(lengths)
        self.queries = [normal(batch * width, shape.heads, shape.head_size) for width in widths]
        self.own = [normal(batch * width, 2, shape.kv_heads, shape.head_size) for width in widths]
        before = [1, *widths[:-1]]
        self.parents = [
            torch.randint(size, (batch, width), generator=generator) for size, width in zip(before, widths, strict=True)
        ]

    def gathered(self):
        longest = max(self.lengths)
        held = self.cache[self.table.long()].flatten(1, 2)[:, :longest]
        keys, values = held.permute(3, 0, 2, 1, 4).contiguous()
        return GatheredPrompt(self.shape, keys, values, torch.tensor(self.lengths))

    def paged(self):
        keys, values = self.cache.nan_to_num(7.0).unbind(3)
        lengths = torch.tensor(self.lengths).int()
        return PagedPrompt(self.shape, keys, values, self.table, lengths, max(self.lengths), stand_in)

    def found(self, prompt):
        """The outputs of a `BeamLayer`, level by level."""
        layer, outputs = BeamLayer(self.shape, prompt), []
        for level, (query, own) in enumerate(zip(self.queries, self.own, strict=True)):
            if level:
                layer.follow(self.parents[level])
            output = torch.empty_like(query)
            sizes = len(self.lengths), self.widths[level]
            layer.forward(layer, query, own[:, 0], own[:, 1], torch.empty(0), sizes, output)
            outputs.append(output)
        return outputs

    def wanted(self, level):
        """The outputs of each beam over its prompt and its path, written as one sequence."""
        rows = []
        for request, prompt in enumerate(self.prompts):
            for beam in range(self.widths[level]):
                path, at = [], beam
                for before in range(level, -1, -1):
                    path.insert(0, self.own[before][request * self.widths[before] + at])
                    at = int(self.parents[before][request, at])
                keys, values = torch.cat([prompt, torch.stack(path)])[-(self.shape.window or 1000) :].unbind(1)
                groups = self.shape.heads // self.shape.kv_heads
                query = self.queries[level][request * self.widths[level] + beam]
                keys, values = keys.repeat_interleave(groups, 1), values.repeat_interleave(groups, 1)
                weights = (torch.einsum("hd,khd->hk", query, keys) * self.shape.scale).softmax(-1)
                rows.append(torch.einsum("hk,khd->hd", weights, values))
        return torch.stack(rows)


@pytest.mark.parametrize("way", ["gathered", "paged"])
@pytest.mark.parametrize("window", [None, 5, 4])
@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (4, 2), (6, 1)])
def test_both_ways_equal_whole_sequences(way, window, heads, kv_heads):
    made = Made(LayerShape(heads, kv_heads, 8, 0.3, window), [1, 9, 16], [3, 5, 4])
    for level, output in enumerate(made.found(getattr(made, way)())):
        torch.testing.assert_close(output, made.wanted(level), atol=2e-5, rtol=1e-5)


def test_memory_that_no_token_has_written_does_not_matter():
    made = Made(LayerShape(2, 1, 8, 1.0), [3, 6], [2, 2])
    assert made.cache.isnan().any()
    assert all(torch.isfinite(output).all() for output in made.found(made.gathered()))


def test_half_precision_is_kept():
    made = Made(LayerShape(4, 2, 8, 0.3), [5, 9], [3, 3])
    exact = made.found(made.gathered())
    made.cache, made.queries = made.cache.bfloat16(), [query.bfloat16() for query in made.queries]
    made.own = [own.bfloat16() for own in made.own]
    for output, wanted in zip(made.found(made.gathered()), exact, strict=True):
        assert output.dtype == torch.bfloat16
        torch.testing.assert_close(output.float(), wanted, atol=0.05, rtol=0.05)


def test_a_part_without_keys_counts_nothing():
    some = torch.ones(1, 2, 3, 4), torch.zeros(1, 2, 3)
    none = torch.full((1, 2, 3, 4), 9.0), torch.full((1, 2, 3), -INF)
    assert torch.equal(merged(some, none), some[0])
    assert torch.equal(merged(none, some), some[0])
