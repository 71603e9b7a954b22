"""The plain path: every beam's whole sequence, prompt and codes, each time anew. Slow, and right for any model."""

from __future__ import annotations

import torch
from torch import Tensor

from hedgerow.decode.beams import Beams
from hedgerow.hf.model import CodeModel

# Sequences of one call, in tokens, so that a long prompt with many beams does not fill the memory.
MOST_TOKENS = 16_384


class PlainDecoder:
    """As `TreeDecoder`, without a cache, masks, padding or position ids: rows of one length go together."""

    def __init__(self, model: CodeModel, prompts: list[list[int]]) -> None:
        """Prepares a search of B prompts."""
        self.model = model
        self.prompts = [torch.tensor(prompt, device=model.device) for prompt in prompts]

    def __call__(self, beams: Beams) -> Tensor:
        """Returns the features [B, m, ...] of the last token of every beam."""
        batch, width, level = beams.codes.shape
        codes = [self.model.token_ids(beams.codes[..., at], at) for at in range(level)]
        answers = torch.stack(codes, dim=-1) if codes else beams.codes.long()
        rows = [torch.cat([self.prompts[b].expand(width, -1), answers[b]], dim=-1) for b in range(batch)]
        by_length: dict[int, list[int]] = {}
        for request, row in enumerate(rows):
            by_length.setdefault(row.shape[1], []).append(request)
        features: list[Tensor] = [torch.empty(0)] * batch
        for requests in by_length.values():
            found = self._last(torch.cat([rows[request] for request in requests]))
            for request, part in zip(requests, found.split(width), strict=True):
                features[request] = part
        return torch.stack(features)

    def _last(self, ids: Tensor) -> Tensor:
        """Returns the features [R, ...] of the last token of each row of ids [R, T]."""
        parts = ids.split(max(1, MOST_TOKENS // ids.shape[1]))
        ends = (torch.full((len(part),), ids.shape[1] - 1, device=ids.device) for part in parts)
        return torch.cat(
            [
                self.model.features(part, last=last, use_cache=False)[:, 0]
                for part, last in zip(parts, ends, strict=True)
            ]
        )
