"""What a trial of a model runs: random token ids, and searches with random beams."""

from __future__ import annotations

import torch
from torch import Tensor

from hedgerow.decode.beams import Beams
from hedgerow.hf.model import LOOSE, TOLERANCE, CodeModel

# The lengths of the prompts.
PROMPTS = (5, 8)
WIDTH = 3
# The parent of each beam, at levels 1 and 2.
PARENTS = ((0, 0, 0), (1, 0, 2))


def random_searches(model: CodeModel, batch: int, *, shift: int = 0) -> list[Beams]:
    """Random beams of levels 0 to 2. `shift` changes the codes of the last beam, which no other beam continues."""
    generator = torch.Generator().manual_seed(7)
    codes = torch.zeros((batch, 1, 0), dtype=torch.int64)
    parents = torch.zeros((batch, 1), dtype=torch.int64)
    levels = [(codes, parents)]
    for size in model.tokens.codebook_sizes[: min(len(PARENTS), model.tokens.num_levels - 1)]:
        parents = torch.tensor(PARENTS[len(levels) - 1]).expand(batch, WIDTH)
        new = torch.randint(size, (batch, WIDTH, 1), generator=generator)
        new[:, -1] = (new[:, -1] + shift) % size
        codes = torch.cat([codes.gather(1, parents[..., None].expand(-1, -1, codes.shape[-1])), new], dim=-1)
        levels.append((codes, parents))
    return [_beams(codes.to(model.device), parents.to(model.device)) for codes, parents in levels]


def _beams(codes: Tensor, parents: Tensor) -> Beams:
    return Beams(codes.int(), torch.zeros_like(parents).float(), parents.int(), parents.int())


def other_padding(prompts: Tensor, lengths: Tensor) -> Tensor:
    """The same prompts [B, T] of these lengths [B], padded with token 0."""
    padding = torch.arange(prompts.shape[1], device=prompts.device) >= lengths[:, None]
    return prompts.masked_fill(padding, 0)


def unchanged(features: Tensor) -> Tensor:
    """Features without those of the last beam, which `shift` changes."""
    return features if features.shape[1] == 1 else features[:, :-1]


def random_ids(model: CodeModel, shape: tuple[int, int]) -> Tensor:
    """Token ids, the same in each trial."""
    generator = torch.Generator().manual_seed(3)
    return torch.randint(model.vocabulary_size, shape, generator=generator).to(model.device)


def tolerance_of(model: CodeModel) -> float:
    """The largest difference between two ways of computing one logit, as a share of the largest logit."""
    return TOLERANCE.get(model.dtype, LOOSE)
