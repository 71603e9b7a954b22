"""ModelSearch: a beam search whose logits come from a language model."""

from __future__ import annotations

import copy
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from hedgerow.decode.beams import Beams
from hedgerow.decode.device import DeviceIndex
from hedgerow.decode.kernels.dispatch import KernelName
from hedgerow.decode.paths import with_code_scores
from hedgerow.decode.prepared import PreparedConstraints
from hedgerow.decode.search import init_beams
from hedgerow.decode.step import step, tempered
from hedgerow.errors import ArgumentError
from hedgerow.hf.encoded import EncodedDecoder, decoder_start
from hedgerow.hf.finish import finished, has_all_codes
from hedgerow.hf.generation import GenerationScores
from hedgerow.hf.layers import put_into_evaluation_mode
from hedgerow.hf.limits import reset_rope, rope_growth, rope_switch
from hedgerow.hf.masking import Masking
from hedgerow.hf.model import INF, CodeModel
from hedgerow.hf.plain import PlainDecoder, suffixes_of
from hedgerow.hf.prefix import Prefix
from hedgerow.hf.probe import Decoding, probe
from hedgerow.hf.prompts import Ids, batches, padded
from hedgerow.hf.tree import TreeDecoder
from hedgerow.trie_index import TrieIndex

Normalize = Literal["codes", "vocab", "allowed"]
NORMALIZE = ("codes", "vocab", "allowed")
# A model with "longrope" has one set of angles for short sequences and one for long ones. The stored keys of a prompt
# have the angles of the length that its batch had, so a search must stay on one side of the switch.
SHORT, CROSSING, LONG = range(3)


class Decoder(Protocol):
    """Maps the beams of each level in turn to the features [B, m, ...] of their last tokens.

    `deviation`: after level 0, the difference that `CodeModel.compared_features` gives.
    """

    deviation: Tensor | None

    def __call__(self, beams: Beams) -> Tensor:
        """Compute the features of the beams."""
        ...


@dataclass(frozen=True)
class LevelScores:
    """The scores of one level.

    Attributes:
        values: [B, m, C], logits or log-probabilities over the codes of the index; logits in the model's 16-bit type,
            or float32.
        normalize: for `hedgerow.step`.
        peak: [B, m], the largest logit of the model; NaN if one is NaN.
    """

    values: Tensor
    normalize: Any
    peak: Tensor


@dataclass(frozen=True)
class Searched:
    """A search that has run, on the device.

    Attributes:
        history: the beams after every level.
        invalid: bool [B, levels], whether a prompt had NaN or infinite logits at a level.
        deviation: as for `Decoder`.
    """

    history: list[Beams]
    invalid: Tensor
    deviation: Tensor | None


@dataclass(frozen=True, eq=False)
class ModelSearch:
    """A model, an index and the options of a search.

    Attributes:
        model: the language model and the tokens of its codes.
        index: the index that is searched.
        device_index: the index on the device of the model.
        decoding: as for `Retriever`.
        normalize: "codes", "vocab" or "allowed", as for `Retriever`.
        temperature: divides the logits before they are normalized.
        length_penalty: as for `Retriever`.
        kernel: as for `hedgerow.step`.
        generation: what the model's generation configuration changes; None: nothing.
        prefix: the tokens that many prompts begin with, or None.
    """

    model: CodeModel
    index: TrieIndex
    device_index: DeviceIndex
    decoding: Decoding
    normalize: Normalize
    temperature: float
    length_penalty: float
    kernel: KernelName
    generation: GenerationScores | None
    prefix: Prefix | None = None

    @property
    def masking(self) -> Masking | None:
        """The masks of a tree of beams; None if the model is searched without a tree."""
        return None if self.model.probed is None else self.model.probed.masking

    @property
    def way(self) -> str:
        """The way beams are computed: "tree", "plain" or "cached"."""
        if self.masking is not None:
            return "tree"
        return "cached" if self.model.probed is not None and self.model.probed.cached else "plain"

    @property
    def scores_last_end(self) -> bool:
        """Whether the end after a SID of the full length has a score, as in `generate`.

        With another `normalize` it has probability 1: there is no code that could follow instead.
        """
        return self.index.ragged and self.normalize == "vocab"

    @property
    def num_read(self) -> int:
        """The number of codes of a SID that the model reads."""
        return self.index.num_levels - (0 if self.scores_last_end else 1)

    def ready(self) -> ModelSearch:
        """Prepare the model for a search, and try it if it has changed.

        Returns:
            This search, with the result of the trial as it is now: another thread may try the model again meanwhile.

        Raises:
            ArgumentError: the model has moved to another device, or as for `probe`.
        """
        # Training code may have put the model back into training mode.
        put_into_evaluation_mode(self.model.model)
        probe(self.model, self.decoding)
        # Level 6 is the caller of Retriever.retrieve().
        if self.generation is not None:
            self.generation.check(stacklevel=6)
        if self.model.device != self.device_index.device:
            raise ArgumentError(
                f"the model was on {self.device_index.device} when the Retriever was created, and is on "
                f"{self.model.device} now; create a new Retriever."
            )
        return replace(self, model=copy.copy(self.model))

    def rope_group(self, prompt: Ids) -> Hashable:
        """What prompts of one batch must have in common, so that a search has the angles of the prompt alone."""
        switch, end = rope_switch(self.model.config), len(prompt) + self.num_read
        if rope_growth(self.model.config) < end:
            return "dynamic", len(prompt)
        return int(len(prompt) > switch) + int(end > switch)

    def batches(self, prompts: list[Ids], beam_width: int, max_tokens: int) -> list[list[int]]:
        """Group the rows of prompts into batches of at most `max_tokens` tokens, each of one `rope_group`."""
        beam_tokens = self.num_read * beam_width
        if self.model.is_encoder_decoder and (self.model.probed is None or not self.model.probed.crossed):
            # The decoder keeps a prompt for each beam.
            beam_tokens, max_tokens = self.num_read, max(1, max_tokens // beam_width)
        groups: dict[Hashable, list[int]] = {}
        for row, prompt in enumerate(prompts):
            groups.setdefault((self.rope_group(prompt), self._num_stored([prompt]) > 0), []).append(row)
        of_all = []
        for rows in groups.values():
            lengths = [prompts[row] for row in rows]
            of_group = batches(lengths, beam_tokens=beam_tokens, max_tokens=max_tokens)
            of_all += [[rows[position] for position in batch] for batch in of_group]
        return of_all

    def decoder(self, prompts: list[Ids], beam_width: int, states: Sequence[Tensor] | None = None) -> Decoder:
        """Start a search of prompts.

        Args:
            prompts: the token ids of B prompts.
            beam_width: M.
            states: for each prompt what the encoder of the model gave [T, D]. Default: it reads the prompts.
        """
        if rope_growth(self.model.config) < INF:
            reset_rope(self.model.model)
        assert self.model.probed is not None
        if self.model.is_encoder_decoder:
            cached, crossed = self.model.probed.cached, self.model.probed.crossed
            return EncodedDecoder(self.model, prompts, has_cache=cached, crossed=crossed, states=states)
        groups = {self.rope_group(prompt) for prompt in prompts}
        if self.masking is None or CROSSING in groups or len(groups) > 1:
            return PlainDecoder(self.model, prompts)
        count = self._num_stored(prompts)
        stored = self.prefix.stored(self.model, count) if self.prefix is not None and count else ()
        inputs = padded([prompt[count:] for prompt in prompts], self.model.device)
        return TreeDecoder(self.model, self.masking, *inputs, beam_width, self.num_read, stored)

    def _num_stored(self, prompts: list[Ids]) -> int:
        """The number of tokens at the beginning of prompts whose keys and values are stored."""
        if (
            self.prefix is None
            or self.masking is None
            or min(rope_switch(self.model.config), rope_growth(self.model.config)) < INF
        ):
            return 0
        return self.prefix.common(prompts)

    def logits_of(self, features: Tensor, level: int) -> Tensor:
        """Logits [B, m, C] over the codes of the index, before the temperature."""
        return _sized(self.model.code_logits(features, level), self.index.codebook_sizes[level])

    def scores_of(self, features: Tensor, beams: Beams, prompts: Sequence[Ids]) -> LevelScores:
        """The scores of the level after beams, over the codes of the index.

        Args:
            features: [B, m, ...] of the beams.
            beams: the beams before the level.
            prompts: the token ids of the prompts. Only read if the generation configuration changes scores.
        """
        level = beams.level
        size = self.index.codebook_sizes[level]
        if self.normalize == "vocab":
            log_probs, peak = self._vocab_log_probs(features, beams, prompts)
            return LevelScores(_sized(log_probs, size), None, peak)
        # The kernels of the step read 16-bit logits as they are.
        logits = self.model.short_code_logits(features, level)
        peak, logits = logits.amax(-1), self._tempered(logits)
        if self.normalize == "codes" and logits.shape[-1] > size:
            # Codes that only the model has cannot be chosen, but count for the normalization.
            return LevelScores(logits.log_softmax(-1, dtype=torch.float32)[..., :size], None, peak)
        return LevelScores(_sized(logits, size), self.normalize, peak)

    def run(
        self,
        decoder: Decoder,
        batch_size: int,
        beam_width: int,
        prepared: PreparedConstraints | None,
        prompts: Sequence[Ids] = (),
        widths: Tensor | None = None,
    ) -> Searched:
        """Run a search. It never waits for the device.

        Args:
            decoder: of the prompts.
            batch_size: B.
            beam_width: M.
            prepared: the constraints.
            prompts: as for `scores_of`.
            widths: [B], the number of beams of each request, at most M. Default: M.
        """
        beams, history, invalid = init_beams(self.device_index, batch_size), [], []
        for _ in range(self.index.num_levels):
            scores = self.scores_of(decoder(beams), beams, prompts)
            invalid.append(self.invalid(scores.peak, beams))
            options = {"beam_width": beam_width, "normalize": scores.normalize, "kernel": self.kernel}
            beams = step(self.device_index, beams, scores.values, constraints=prepared, **options)
            history.append(beams if widths is None else _narrowed(beams, widths))
            beams = history[-1]
        beams = with_code_scores(self.device_index._ops, history)
        history[-1], of_end = self.finish(decoder, beams, prompts)
        return Searched(history, torch.stack([*invalid, *of_end], dim=-1), decoder.deviation)

    def finish(self, decoder: Decoder, beams: Beams, prompts: Sequence[Ids]) -> tuple[Beams, list[Tensor]]:
        """The final scores of beams, in their order; and for the end after the last code, what `invalid` gives."""
        end, invalid = None, []
        if self.scores_last_end:
            end, peak = self.end_log_probs(decoder(beams), beams, prompts)
            full = has_all_codes(self.index, beams.codes) & (beams.scores > -INF)
            invalid.append((~(peak < INF) & full).any(-1))
        if end is None and not self.length_penalty:
            return beams, invalid
        return finished(self.index, beams, end, self.length_penalty), invalid

    def end_log_probs(self, features: Tensor, beams: Beams, prompts: Sequence[Ids]) -> tuple[Tensor, Tensor]:
        """The log-probability [B, M] of the end after finished beams, and the largest logit [B, M]."""
        logits, token = self.model.logits(features), self.model.tokens.end[0]
        peak, logits = logits.amax(-1), self._tempered(logits)
        if not self.generation:
            return logits[..., token] - logits.logsumexp(-1), peak
        return self._as_generated(logits, beams, prompts)[..., token], peak

    def invalid(self, peak: Tensor, beams: Beams) -> Tensor:
        """bool [B]: whether a beam has NaN or infinite logits. Dead beams and beams that have ended do not count."""
        counts = beams.scores > -INF
        end = self.index.end_codes[beams.level - 1] if beams.level else None
        if end is not None:
            counts &= beams.codes[..., -1] != end
        return (~(peak < INF) & counts).any(-1)

    def free(self, prompts: list[Ids], beam_width: int) -> Searched:
        """Run an unconstrained search. Its beams have no states, and scores of -inf if there are too few codes."""
        decoder, beams = self.decoder(prompts, beam_width), init_beams(self.device_index, len(prompts))
        written, invalid = self.written(prompts), []
        for _ in range(self.index.num_levels):
            log_probs, peak = self._free_log_probs(decoder(beams), beams, written)
            invalid.append(self.invalid(peak, beams))
            beams = _best_of_all(beams, self._only_ends(beams, log_probs), beam_width)
        beams, of_end = self.finish(decoder, beams, written)
        return Searched([beams], torch.stack([*invalid, *of_end], dim=-1), decoder.deviation)

    def written(self, prompts: list[Ids]) -> list[Ids]:
        """The tokens before each SID in the sequence that the model writes: the prompt, unless an encoder reads it."""
        if not self.model.is_encoder_decoder:
            return prompts
        return [[decoder_start(self.model.model), *self.model.tokens.begin]] * len(prompts)

    def _tempered(self, logits: Tensor) -> Tensor:
        return tempered(self.device_index, logits, self.temperature, "codes")

    def _vocab_log_probs(self, features: Tensor, beams: Beams, prompts: Sequence[Ids]) -> tuple[Tensor, Tensor]:
        """Log-probabilities [B, m, C] of the model's codes over the whole vocabulary, and the largest logits [B, m]."""
        logits = self.model.logits(features)
        peak, logits = logits.amax(-1), self._tempered(logits)
        if not self.generation:
            return self.model.code_log_probs(logits, beams.level), peak
        return self.model.codes_of(self._as_generated(logits, beams, prompts), beams.level), peak

    def _as_generated(self, logits: Tensor, beams: Beams, prompts: Sequence[Ids]) -> Tensor:
        assert self.generation is not None
        return self.generation(logits.log_softmax(-1), prompts, suffixes_of(self.model, beams))

    def _free_log_probs(self, features: Tensor, beams: Beams, prompts: Sequence[Ids]) -> tuple[Tensor, Tensor]:
        """Log-probabilities [B, m, C] over all codes of the model, and the largest logits [B, m]."""
        if self.normalize == "vocab":
            return self._vocab_log_probs(features, beams, prompts)
        logits = self.model.code_logits(features, beams.level)
        return self._tempered(logits).log_softmax(-1), logits.amax(-1)

    def _only_ends(self, beams: Beams, log_probs: Tensor) -> Tensor:
        """Log-probabilities with 0 at the end code and -inf elsewhere, for beams that have ended."""
        level = beams.level
        before, end = self.index.end_codes[level - 1] if level else None, self.index.end_codes[level]
        if before is None or end is None:
            return log_probs
        ended = torch.full_like(log_probs[0, 0], -INF)
        ended[end] = 0.0
        return torch.where((beams.codes[..., -1] == before)[..., None], ended, log_probs)


def _narrowed(beams: Beams, widths: Tensor) -> Beams:
    """The first beams [B] of each request. As beams are sorted, they are those of a search with fewer beams."""
    dead = torch.arange(beams.states.shape[1], device=widths.device) >= widths[:, None]
    return Beams(
        beams.codes.masked_fill(dead[..., None], -1),
        beams.scores.masked_fill(dead, -INF),
        beams.states.masked_fill(dead, -1),
        beams.parents.masked_fill(dead, 0),
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
