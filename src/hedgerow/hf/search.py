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
from hedgerow.decode.step import step, tempered
from hedgerow.errors import ArgumentError
from hedgerow.hf.model import INF, CodeModel
from hedgerow.hf.plain import PlainDecoder
from hedgerow.hf.probe import probe_head
from hedgerow.hf.prompts import Ids, batches, padded
from hedgerow.hf.tree import Masking, TreeDecoder, rope_switch
from hedgerow.trie_index import TrieIndex

Normalize = Literal["codes", "vocab", "allowed"]
NORMALIZE = ("codes", "vocab", "allowed")
Decoder = Callable[[Beams], Tensor]
# A model with "longrope" has one set of angles for short sequences and one for long ones. The stored keys of a prompt
# have the angles of the length that its batch had, so a search must stay on one side of the switch.
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

    def rope_side(self, prompt: Ids) -> int:
        """Whether a search of this prompt stays below the switch of angles (SHORT), above it (LONG), or crosses it."""
        switch = rope_switch(self.model.config)
        return int(len(prompt) > switch) + int(len(prompt) + self.index.num_levels - 1 > switch)

    def batches(self, prompts: list[Ids], beam_width: int, max_tokens: int) -> list[list[int]]:
        """Group the rows of prompts into batches of at most `max_tokens` tokens, each on one side of the switch."""
        beam_tokens, of_all = (self.index.num_levels - 1) * beam_width, []
        for side in (SHORT, CROSSING, LONG):
            rows = [row for row, prompt in enumerate(prompts) if self.rope_side(prompt) == side]
            of_side = batches([prompts[row] for row in rows], beam_tokens=beam_tokens, max_tokens=max_tokens)
            of_all += [[rows[position] for position in batch] for batch in of_side]
        return of_all

    def decoder(self, prompts: list[Ids], beam_width: int) -> Decoder:
        """A function that maps the beams of each level in turn to the features [B, m, ...] of their last tokens."""
        # Training code may have put the model back into training mode.
        self.model.model.eval()
        probe_head(self.model)
        if self.masking is None or {self.rope_side(prompt) for prompt in prompts} not in ({SHORT}, {LONG}):
            return PlainDecoder(self.model, prompts)
        return TreeDecoder(self.model, self.masking, *padded(prompts, self.model.device), beam_width)

    def logits_of(self, features: Tensor, level: int) -> Tensor:
        """Logits [B, m, C] over the codes of the index, before the temperature."""
        return _sized(self.model.code_logits(features, level), self.index.codebook_sizes[level])

    def scores_of(self, features: Tensor, level: int) -> tuple[Tensor, Any]:
        """Logits or log-probabilities [B, m, C] over the codes of the index, and `normalize` for `hedgerow.step`."""
        size = self.index.codebook_sizes[level]
        if self.normalize == "vocab":
            return _sized(self._vocab_log_probs(features, level), size), None
        logits = self._tempered(self.model.code_logits(features, level))
        if self.normalize == "codes" and logits.shape[-1] > size:
            # Codes that only the model has cannot be chosen, but count for the normalization.
            return logits.log_softmax(-1)[..., :size], None
        return _sized(logits, size), self.normalize

    def run(
        self, decoder: Decoder, batch_size: int, beam_width: int, prepared: PreparedConstraints | None
    ) -> list[Beams]:
        """Run a search and return the beams after every level. It never waits for the device."""
        beams, history = init_beams(self.device_index, batch_size), []
        for level in range(self.index.num_levels):
            logits, normalize = self.scores_of(decoder(beams), level)
            options = {"beam_width": beam_width, "normalize": normalize, "kernel": self.kernel}
            beams = step(self.device_index, beams, logits, constraints=prepared, **options)
            history.append(beams)
        return history

    def free(self, prompts: list[Ids], beam_width: int) -> tuple[Tensor, Tensor]:
        """Run an unconstrained search: SIDs [B, M, L], -1 after the end of a ragged SID, and scores [B, M]."""
        decoder, beams = self.decoder(prompts, beam_width), init_beams(self.device_index, len(prompts))
        for level in range(self.index.num_levels):
            log_probs = self._only_ends(beams, self._free_log_probs(decoder(beams), level))
            beams = _best_of_all(beams, log_probs, beam_width)
        columns = zip(beams.codes.unbind(-1), self.index.end_codes, strict=True)
        sids = [codes if end is None else codes.masked_fill(codes == end, -1) for codes, end in columns]
        return torch.stack(sids, dim=-1), beams.scores

    def _tempered(self, logits: Tensor) -> Tensor:
        return tempered(self.device_index, logits, self.temperature, "codes")

    def _vocab_log_probs(self, features: Tensor, level: int) -> Tensor:
        """Log-probabilities [B, m, C] of the model's codes over the whole vocabulary."""
        return self.model.code_log_probs(self._tempered(self.model.logits(features)), level)

    def _free_log_probs(self, features: Tensor, level: int) -> Tensor:
        """Log-probabilities [B, m, C] over all codes of the model."""
        if self.normalize == "vocab":
            return self._vocab_log_probs(features, level)
        return self._tempered(self.model.code_logits(features, level)).log_softmax(-1)

    def _only_ends(self, beams: Beams, log_probs: Tensor) -> Tensor:
        """Log-probabilities with 0 at the end code and -inf elsewhere, for beams that have ended."""
        level = beams.level
        before, end = self.index.end_codes[level - 1] if level else None, self.index.end_codes[level]
        if before is None or end is None:
            return log_probs
        ended = torch.full_like(log_probs[0, 0], -INF)
        ended[end] = 0.0
        return torch.where((beams.codes[..., -1] == before)[..., None], ended, log_probs)


class LogitsFn:
    """Maps the beams of each level in turn to logits [B, m, C]: see `Retriever.logits_fn`.

    Beams before level 0 start a new search.
    """

    def __init__(self, search: ModelSearch, prompts: list[Ids], beam_width: int) -> None:
        """Prepare searches of B prompts."""
        self._search, self._prompts, self._beam_width = search, prompts, beam_width
        self._decoder: Decoder | None = None
        self._next_level = 0

    # Not torch.inference_mode: callers may change the logits in place.
    @torch.no_grad()
    def __call__(self, beams: Beams) -> Tensor:
        """Compute the logits [B, m, C] float32 of the next level.

        Raises:
            ArgumentError: the beams are not of this search, or of a level out of turn.
        """
        if beams.level == 0:
            self._decoder = self._search.decoder(self._prompts, self._beam_width)
            self._next_level = 0
        self._check(beams)
        assert self._decoder is not None
        self._next_level = beams.level + 1
        return self._search.logits_of(self._decoder(beams), beams.level)

    def _check(self, beams: Beams) -> None:
        if beams.level != self._next_level:
            raise ArgumentError(
                f"logits_fn expected the beams before level {self._next_level}, but got those before level "
                f"{beams.level}; call it once per level, starting with the beams of hr.init_beams."
            )
        if beams.level >= self._search.index.num_levels:
            raise ArgumentError(
                f"these beams are finished: they have all {beams.level} codes; call index.results(beams)."
            )
        expected = (len(self._prompts), self._beam_width if beams.level else 1)
        if tuple(beams.states.shape) != expected:
            raise ArgumentError(
                f"logits_fn is for {expected[0]} prompts with beam_width={self._beam_width}, so the beams before level "
                f"{beams.level} must be {list(expected)}; got {list(beams.states.shape)}. Pass the same beam_width to "
                "logits_fn and to hr.step."
            )


def _best_of_all(beams: Beams, log_probs: Tensor, beam_width: int) -> Beams:
    """The best `beam_width` of all continuations. If there are fewer, the last beams have score -inf."""
    totals, size = beams.scores[..., None] + log_probs, log_probs.shape[-1]
    flat = torch.nn.functional.pad(totals.flatten(1), (0, max(0, beam_width - totals[0].numel())), value=-INF)
    scores, places = flat.topk(beam_width)
    places = torch.where(scores > -INF, places, 0)
    parents, codes = (places // size).int(), (places % size).int()
    history = beams.codes.gather(1, parents.long()[..., None].expand(-1, -1, beams.level))
    return Beams(torch.cat([history, codes[..., None]], dim=-1), scores, torch.zeros_like(parents), parents)


def _sized(logits: Tensor, size: int) -> Tensor:
    """Logits over `size` codes: those of further codes are removed, missing ones are -inf."""
    missing = size - logits.shape[-1]
    return torch.nn.functional.pad(logits, (0, missing), value=-INF) if missing > 0 else logits[..., :size]
