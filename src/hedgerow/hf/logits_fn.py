"""LogitsFn: the model's logits for search loops of your own."""

from __future__ import annotations

import torch
from torch import Tensor

from hedgerow.decode.beams import Beams
from hedgerow.decode.search import init_beams
from hedgerow.errors import ArgumentError
from hedgerow.hf.encoded import EncodedDecoder
from hedgerow.hf.faults import Outcome, retried
from hedgerow.hf.plain import PlainDecoder
from hedgerow.hf.prompts import Ids
from hedgerow.hf.search import Decoder, ModelSearch


class LogitsFn:
    """Maps the beams of each level in turn to logits [B, m, C]: see `Retriever.logits_fn`.

    Beams before level 0 start a new search.
    """

    def __init__(self, search: ModelSearch, prompts: list[Ids], beam_width: int) -> None:
        """Prepare searches of B prompts."""
        self._search, self._prompts, self._beam_width = search, prompts, beam_width
        self._started = search
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
            self._next_level = 0
        self._check(beams)
        self._next_level = beams.level + 1
        if beams.level == 0:
            return retried(self._search, lambda search: self._start(search, beams), range(len(self._prompts)))
        assert self._decoder is not None
        return _logits(self._started, self._decoder, beams, beams.level)

    def _start(self, search: ModelSearch, beams: Beams) -> Outcome[Tensor]:
        with torch.inference_mode():
            self._started, self._decoder = search, search.decoder(self._prompts, self._beam_width)
        logits = _logits(search, self._decoder, beams, 0)
        return logits, _none_invalid(logits), self._decoder.deviation

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


def logits_after(search: ModelSearch, prompts: list[Ids], num_codes: int) -> Tensor:
    """Compute the logits [B, C] of the level after `num_codes` codes, whose tokens end each prompt."""

    def attempt(search: ModelSearch) -> Outcome[Tensor]:
        decoder: Decoder
        if search.model.is_encoder_decoder:
            texts = [prompt[: len(prompt) - num_codes] for prompt in prompts]
            written = [prompt[len(prompt) - num_codes :] for prompt in prompts]
            with torch.inference_mode():
                decoder = EncodedDecoder(search.model, texts, has_cache=False, written=written)
        else:
            decoder = PlainDecoder(search.model, prompts)
        beams = init_beams(search.device_index, len(prompts))
        logits = _logits(search, decoder, beams, num_codes)[:, 0]
        return logits, _none_invalid(logits), decoder.deviation

    return retried(search, attempt, range(len(prompts)))


def _logits(search: ModelSearch, decoder: Decoder, beams: Beams, level: int) -> Tensor:
    """The logits of a level. The model runs in inference mode, as in every search; callers may change the logits."""
    with torch.inference_mode():
        features = decoder(beams)
    logits = search.logits_of(features, level)
    return logits.clone() if logits.is_inference() else logits


def _none_invalid(logits: Tensor) -> Tensor:
    """Callers see these logits themselves, so invalid ones are no error."""
    return torch.zeros((len(logits), 1), dtype=torch.bool, device=logits.device)
