"""The plain path: every beam's whole sequence, prompt and codes, is computed anew at every level.

It is slow, and gives correct logits for any causal model.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hedgerow.decode.beams import Beams
from hedgerow.hf.model import CodeModel
from hedgerow.hf.prompts import Ids

# The maximum number of tokens in one call of the model, which limits the memory for long prompts with many beams.
MAX_TOKENS = 16_384


class PlainDecoder:
    """As `TreeDecoder`, without a cache, masks, padding or position ids: sequences of one length form a batch."""

    def __init__(self, model: CodeModel, prompts: list[Ids]) -> None:
        """Prepare a search of B prompts."""
        self.model = model
        self.prompts = [torch.tensor(prompt, device=model.device) for prompt in prompts]
        self.deviation: Tensor | None = None

    def __call__(self, beams: Beams) -> Tensor:
        """Compute the features [B, m, ...] of the last token of every beam."""
        batch, width, num_codes = beams.codes.shape
        suffixes = suffixes_of(self.model, beams)
        sequences = [torch.cat([self.prompts[b].expand(width, -1), suffixes[b]], dim=-1) for b in range(batch)]
        by_length: dict[int, list[int]] = {}
        for request, rows in enumerate(sequences):
            by_length.setdefault(rows.shape[1], []).append(request)
        features: list[Tensor] = [torch.empty(0)] * batch
        for requests in by_length.values():
            computed = self._last(torch.cat([sequences[request] for request in requests]), compares=not num_codes)
            for request, part in zip(requests, computed.split(width), strict=True):
                features[request] = part
        return torch.stack(features)

    def _last(self, ids: Tensor, *, compares: bool) -> Tensor:
        """Compute the features [R, ...] of the last token of each row of ids [R, T]."""
        alone, computed = self.model.probed is not None and self.model.probed.alone, []
        for part in ids.split(1 if alone else max(1, MAX_TOKENS // ids.shape[1])):
            last = torch.full((len(part),), ids.shape[1] - 1, device=ids.device)
            if compares:
                features, deviation = self.model.compared_features(part, last=last, use_cache=False)
                self.deviation = larger(self.deviation, deviation)
            else:
                features = self.model.features(part, last=last, use_cache=False)
            computed.append(features[:, 0])
        return torch.cat(computed)


def suffixes_of(model: CodeModel, beams: Beams) -> Tensor:
    """The tokens [B, m, l] of the codes of beams."""
    tokens = [model.token_ids(beams.codes[..., level], level) for level in range(beams.level)]
    return torch.stack(tokens, dim=-1) if tokens else beams.codes.long()


def larger(some: Tensor | None, other: Tensor | None) -> Tensor | None:
    """The larger of two differences, either of which may be missing."""
    if some is None or other is None:
        return other if some is None else some
    return torch.maximum(some, other)
