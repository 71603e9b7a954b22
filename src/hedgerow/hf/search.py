"""ModelSearch: a beam search whose logits come from a causal language model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from hedgerow.decode.beams import Beams
from hedgerow.decode.device import DeviceIndex
from hedgerow.decode.kernels.dispatch import KernelName
from hedgerow.decode.prepared import PreparedConstraints
from hedgerow.decode.search import init_beams
from hedgerow.decode.step import step
from hedgerow.hf.model import INF, CodeModel
from hedgerow.hf.plain import PlainDecoder
from hedgerow.hf.prompts import Ids, padded
from hedgerow.hf.tree import Masking, TreeDecoder, switches_at
from hedgerow.trie_index import TrieIndex

Normalize = Literal["codes", "vocab", "allowed"]
Decoder = Callable[[Beams], Tensor]
# A model with "longrope" has one set of angles for short sequences and one for long ones. The stored keys of a prompt
# have the angles of the length that its batch had, so a search must stay on one side.
SHORT, CROSSING, LONG = range(3)


@dataclass(frozen=True, eq=False)
class ModelSearch:
    """A model, an index and the options of a search.

    Attributes:
        model: the language model and the tokens of its codes.
        index: the index that is searched.
        device_index: the index on the device of the model.
        masking: the masks of a tree of beams; None if every beam's whole sequence is computed at every level.
        normalize: "codes", "vocab" or "allowed", as for `Retriever`.
        temperature: divides the logits before they are normalized.
        kernel: as for `hedgerow.step`.
    """

    model: CodeModel
    index: TrieIndex
    device_index: DeviceIndex
    masking: Masking | None
    normalize: Normalize
    temperature: float
    kernel: KernelName

    def rope_of(self, prompt: Ids) -> int:
        """On which side of the length where the model's angles switch a search of this prompt stays, or CROSSING."""
        switch = switches_at(self.model.config)
        return int(len(prompt) > switch) + int(len(prompt) + self.index.num_levels - 1 > switch)

    def decoder(self, prompts: list[Ids], beam_width: int) -> Decoder:
        """A function that maps the beams of each level in turn to the features of their last tokens."""
        if self.masking is None or {self.rope_of(prompt) for prompt in prompts} not in ({SHORT}, {LONG}):
            return PlainDecoder(self.model, prompts)
        return TreeDecoder(self.model, self.masking, *padded(prompts, self.model.device), beam_width)

    def logits_of(self, features: Tensor, level: int) -> Tensor:
        """Logits [B, m, C] over the codes of the index, before the temperature."""
        return _sized(self.model.code_logits(features, level), self.index.codebook_sizes[level])

    def scores_of(self, features: Tensor, level: int) -> tuple[Tensor, Any]:
        """Logits or log-probabilities [B, m, C] over the codes of the index, and `normalize` for `hedgerow.step`."""
        size = self.index.codebook_sizes[level]
        if self.normalize == "vocab":
            return _sized(self.model.code_log_probs(features, level, self.temperature), size), None
        logits = self.model.code_logits(features, level)
        if self.temperature != 1.0:
            logits = logits / self.temperature
        if self.normalize == "codes" and logits.shape[-1] > size:
            # Codes that only the model has cannot be chosen, but count for the normalization.
            return logits.log_softmax(-1)[..., :size], None
        return _sized(logits, size), self.normalize

    def run(
        self, decoder: Decoder, batch_size: int, beam_width: int, prepared: PreparedConstraints | None
    ) -> list[Beams]:
        """Runs a search and returns the beams of every level. It never waits for the device."""
        beams, history = init_beams(self.device_index, batch_size), []
        for level in range(self.index.num_levels):
            logits, normalize = self.scores_of(decoder(beams), level)
            options = {"beam_width": beam_width, "normalize": normalize, "kernel": self.kernel}
            beams = step(self.device_index, beams, logits, constraints=prepared, **options)
            history.append(beams)
        return history

    def free(self, prompts: list[Ids], beam_width: int) -> tuple[Tensor, Tensor]:
        """An unconstrained search: SIDs [B, M, L] and their scores [B, M], best first."""
        decoder, beams = self.decoder(prompts, beam_width), init_beams(self.device_index, len(prompts))
        for level in range(self.model.tokens.num_levels):
            log_probs = self.model.code_logits(decoder(beams), level).log_softmax(-1)
            beams = _best_of_all(beams, log_probs, beam_width)
        return beams.codes, beams.scores


def _best_of_all(beams: Beams, log_probs: Tensor, beam_width: int) -> Beams:
    """The best `beam_width` of all continuations. If there are fewer, the last beams score -inf."""
    totals, size = beams.scores[..., None] + log_probs, log_probs.shape[-1]
    flat = torch.nn.functional.pad(totals.flatten(1), (0, max(0, beam_width - totals[0].numel())), value=-INF)
    scores, places = flat.topk(beam_width)
    places = torch.where(scores > -INF, places, 0)
    parents, codes = (places // size).int(), (places % size).int()
    history = beams.codes.gather(1, parents.long()[..., None].expand(-1, -1, beams.level))
    return Beams(torch.cat([history, codes[..., None]], dim=-1), scores, torch.zeros_like(parents), parents)


def _sized(logits: Tensor, size: int) -> Tensor:
    """Logits over `size` codes: those that only the model has are cut, those that it lacks get -inf."""
    missing = size - logits.shape[-1]
    return torch.nn.functional.pad(logits, (0, missing), value=-INF) if missing > 0 else logits[..., :size]
