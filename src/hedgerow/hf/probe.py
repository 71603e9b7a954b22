"""Tries a model on a few random tokens, to know which way of running it is right for it."""

from __future__ import annotations

import torch
from torch import Tensor

from hedgerow.decode.beams import Beams
from hedgerow.errors import ArgumentError
from hedgerow.hf.model import CodeModel
from hedgerow.hf.plain import PlainDecoder
from hedgerow.hf.tree import Masking, TreeDecoder

# How far two ways of computing one logit may lie apart, as a share of the largest logit.
TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4}
LOOSE = 0.05
# What another beam may change, as a share of that: its mask hides it, so what is left is the order of sums.
LEAK = 0.02
# The trial of the head makes its logits so much larger that a cap on them shows, however small they are.
LOUDER = 64
PROMPTS = (5, 8)
WIDTH = 3
# Which beam each comes from, at levels 1 and 2.
PARENTS = ((0, 0, 0), (1, 0, 2))
# A window no longer than this is tried whole; of a longer one, the configuration is believed.
LONGEST_WINDOW = 256


def find_slicing(model: CodeModel) -> bool:
    """Returns whether the head's rows for some codes give the model's own logits of them."""
    ids = _random_ids(model, (1, PROMPTS[-1]))
    last = torch.tensor([PROMPTS[-1] - 1], device=model.device)
    model.slices_head = True
    try:
        sliced = _all_logits(model, model.features(ids, last=last, use_cache=False) * LOUDER)
    except (RuntimeError, AttributeError, TypeError):
        return False
    model.slices_head = False
    hook = model.head.register_forward_pre_hook(lambda _, inputs: (inputs[0] * LOUDER,))
    try:
        whole = _all_logits(model, model.features(ids, last=last, use_cache=False))
    finally:
        hook.remove()
    return _difference(sliced, whole) <= _tolerance(model)


def _all_logits(model: CodeModel, features: Tensor) -> Tensor:
    levels = (model.code_logits(features, level) for level in range(model.tokens.num_levels))
    return torch.cat([model.logits(features), *levels], dim=-1)


def find_masking(model: CodeModel) -> Masking:
    """Returns how the model takes the masks of a tree of beams.

    Raises:
        ArgumentError: it does not, or gives other logits than for the plain sequences; it says what was found.
    """
    masking = Masking.of(model.config)
    extra = masking.window if masking.window <= LONGEST_WINDOW else 0
    lengths = [length + extra for length in PROMPTS]
    prompts = _random_ids(model, (len(lengths), max(lengths)))
    ends = torch.tensor(lengths, device=model.device)
    plain = PlainDecoder(model, [row[:length].tolist() for row, length in zip(prompts, lengths, strict=True)])
    try:
        tree, other = (
            TreeDecoder(model, masking, ids, ends, WIDTH) for ids in (prompts, _other_padding(prompts, ends))
        )
        for beams, beside in zip(_searches(model, len(lengths)), _searches(model, len(lengths), last=1), strict=True):
            found = tree(beams)
            difference, leak = _difference(found, plain(beams)), _difference(_kept(other(beside)), _kept(found))
            if difference > _tolerance(model) or leak > _tolerance(model) * LEAK:
                raise ArgumentError(
                    f"its logits in a tree of beams differ from the plain ones by {difference:.1e} of the largest, and "
                    f"by {leak:.1e} when another beam changes."
                )
    except (RuntimeError, TypeError, ValueError, AttributeError, IndexError, KeyError, NotImplementedError) as error:
        if isinstance(error, ArgumentError):
            raise
        raise ArgumentError(f"it cannot run with 4-D masks and position ids: {type(error).__name__}: {error}") from None
    return masking


def _searches(model: CodeModel, batch: int, *, last: int = 0) -> list[Beams]:
    """Returns random beams of levels 0 to 2; of the last, which no other comes from, `last` changes the codes."""
    generator = torch.Generator().manual_seed(7)
    codes = torch.zeros((batch, 1, 0), dtype=torch.int64)
    parents = torch.zeros((batch, 1), dtype=torch.int64)
    found = [(codes, parents)]
    for size in model.tokens.codebook_sizes[: min(len(PARENTS), model.tokens.num_levels - 1)]:
        parents = torch.tensor(PARENTS[len(found) - 1]).expand(batch, WIDTH)
        new = torch.randint(size, (batch, WIDTH, 1), generator=generator)
        new[:, -1] = (new[:, -1] + last) % size
        codes = torch.cat([codes.gather(1, parents[..., None].expand(-1, -1, codes.shape[-1])), new], dim=-1)
        found.append((codes, parents))
    return [_beams(codes.to(model.device), parents.to(model.device)) for codes, parents in found]


def _beams(codes: Tensor, parents: Tensor) -> Beams:
    return Beams(codes.int(), torch.zeros_like(parents).float(), parents.int(), parents.int())


def _other_padding(prompts: Tensor, ends: Tensor) -> Tensor:
    padding = torch.arange(prompts.shape[1], device=prompts.device) >= ends[:, None]
    return prompts.masked_fill(padding, 0)


def _kept(features: Tensor) -> Tensor:
    """Leaves out the beam that was changed."""
    return features if features.shape[1] == 1 else features[:, :-1]


def _random_ids(model: CodeModel, shape: tuple[int, int]) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(model.vocabulary_size, shape, generator=generator).to(model.device)


def _tolerance(model: CodeModel) -> float:
    return TOLERANCE.get(model.dtype, LOOSE)


def _difference(some: Tensor, others: Tensor) -> float:
    """Returns the largest difference as a share of the largest number."""
    finite = torch.isfinite(others)
    if not bool(finite.any()):
        return float("inf")
    largest = others[finite].abs().max().clamp(min=1e-30)
    return float(((some - others)[finite].abs().max() / largest).nan_to_num(float("inf")))
