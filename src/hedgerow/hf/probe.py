"""Trial runs of a model on a few random tokens, which find out how to run it."""

from __future__ import annotations

import copy
import warnings
from typing import Literal

import torch
from torch import Tensor

from hedgerow.decode.beams import Beams
from hedgerow.errors import ArgumentError
from hedgerow.hf.model import CodeModel, changed_input
from hedgerow.hf.plain import PlainDecoder
from hedgerow.hf.tree import Masking, TreeDecoder

Decoding = Literal["auto", "tree", "plain"]
DECODING = ("auto", "tree", "plain")
# The largest difference between two ways of computing one logit, as a share of the largest logit.
TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4}
LOOSE = 0.05
# The largest change by another beam, as a share of the tolerance. The mask hides that beam, so only the order of sums
# can change.
LEAK = 0.02
# The trial of the head makes its logits so much larger that a cap on them shows, however small they are.
LOUDER = 64
PROMPTS = (5, 8)
WIDTH = 3
# The parent of each beam, at levels 1 and 2.
PARENTS = ((0, 0, 0), (1, 0, 2))
# The trial covers a window up to this length. For a longer one, it relies on the configuration.
MAX_WINDOW = 256


def probe_head(model: CodeModel) -> None:
    """Check the head of a model and set `slices_head`, if it was replaced or resized since the last trial.

    Raises:
        ArgumentError: a token is not in the vocabulary.
    """
    current = (model.head, model.vocabulary_size)
    if current != model.probed:
        model.check_vocabulary()
        model.slices_head = find_slicing(model)
        model.probed = current


def find_slicing(model: CodeModel) -> bool:
    """Whether the head's rows for some codes give the model's own logits of these codes."""
    ids = _random_ids(model, (1, PROMPTS[-1]))
    last = torch.tensor([PROMPTS[-1] - 1], device=model.device)
    # Another thread may use the model during the trial.
    slicing, whole_head = copy.copy(model), copy.copy(model)
    slicing.slices_head, whole_head.slices_head = True, False
    try:
        sliced = _all_logits(slicing, slicing.features(ids, last=last, use_cache=False) * LOUDER)
    except (RuntimeError, AttributeError, TypeError):
        return False
    with changed_input(model.head, lambda states: states * LOUDER):
        whole = _all_logits(whole_head, whole_head.features(ids, last=last, use_cache=False))
    return _difference(sliced, whole) <= _tolerance(model)


def _all_logits(model: CodeModel, features: Tensor) -> Tensor:
    levels = (model.code_logits(features, level) for level in range(model.tokens.num_levels))
    return torch.cat([model.logits(features), *levels], dim=-1)


def choose_masking(model: CodeModel, decoding: Decoding) -> Masking | None:
    """Choose how a `Retriever` computes beams: the masks of a tree, or None for "plain".

    Raises:
        ArgumentError: `decoding` is "tree", and the model does not support it.
    """
    if decoding == "plain":
        return None
    try:
        return find_masking(model)
    except ArgumentError as error:
        name = type(model.model).__name__
        if decoding == "tree":
            raise ArgumentError(f"{name} does not support decoding='tree': {error} Use decoding='plain'.") from None
        # Level 3 is the caller of Retriever().
        warnings.warn(f"{name} is searched with decoding='plain', which is slow: {error}", stacklevel=3)
        return None


def find_masking(model: CodeModel) -> Masking:
    """Find the form in which the model takes the masks of a tree of beams.

    Raises:
        ArgumentError: the model does not take such masks, or its logits differ from those of the plain sequences. The
            message is a predicate about "it", the model.
    """
    masking = Masking.of(model.config)
    extra = masking.window if masking.window <= MAX_WINDOW else 0
    lengths = [length + extra for length in PROMPTS]
    prompts = _random_ids(model, (len(lengths), max(lengths)))
    prompt_lengths = torch.tensor(lengths, device=model.device)
    plain = PlainDecoder(model, [row[:length].tolist() for row, length in zip(prompts, lengths, strict=True)])
    try:
        tree, other = (
            TreeDecoder(model, masking, ids, prompt_lengths, WIDTH)
            for ids in (prompts, _other_padding(prompts, prompt_lengths))
        )
        searches = zip(_searches(model, len(lengths)), _searches(model, len(lengths), shift=1), strict=True)
        for beams, shifted in searches:
            features = tree(beams)
            difference = _difference(features, plain(beams))
            leak = _difference(_unchanged(other(shifted)), _unchanged(features))
            if difference > _tolerance(model) or leak > _tolerance(model) * LEAK:
                raise ArgumentError(
                    f"its logits in a tree of beams differ from the plain ones by {difference:.1e} of the largest, and "
                    f"by {leak:.1e} when another beam changes."
                )
    except (RuntimeError, TypeError, ValueError, AttributeError, IndexError, KeyError, NotImplementedError) as error:
        if isinstance(error, ArgumentError):
            raise
        message = f"it cannot run with 4-D masks and position ids: {type(error).__name__}: {error}".rstrip(".")
        raise ArgumentError(f"{message}.") from None
    return masking


def _searches(model: CodeModel, batch: int, *, shift: int = 0) -> list[Beams]:
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


def _other_padding(prompts: Tensor, lengths: Tensor) -> Tensor:
    padding = torch.arange(prompts.shape[1], device=prompts.device) >= lengths[:, None]
    return prompts.masked_fill(padding, 0)


def _unchanged(features: Tensor) -> Tensor:
    """Features without those of the last beam, which `shift` changes."""
    return features if features.shape[1] == 1 else features[:, :-1]


def _random_ids(model: CodeModel, shape: tuple[int, int]) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(model.vocabulary_size, shape, generator=generator).to(model.device)


def _tolerance(model: CodeModel) -> float:
    return TOLERANCE.get(model.dtype, LOOSE)


def _difference(some: Tensor, others: Tensor) -> float:
    """The largest difference, as a share of the largest absolute value of `others`."""
    finite = torch.isfinite(others)
    if not bool(finite.any()):
        return float("inf")
    largest = others[finite].abs().max().clamp(min=1e-30)
    return float(((some - others)[finite].abs().max() / largest).nan_to_num(float("inf")))
