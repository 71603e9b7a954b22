"""The generation configuration of a model, as far as it changes the scores of `generate` in beam search."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.generation.logits_process import (
    LogitsProcessor,
    NoBadWordsLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    SuppressTokensAtBeginLogitsProcessor,
    SuppressTokensLogitsProcessor,
)

from hedgerow.hf.prompts import Ids

# The options that a search with normalize="vocab" applies, in the order of `generate`.
APPLIED = (
    "sequence_bias",
    "repetition_penalty",
    "no_repeat_ngram_size",
    "bad_words_ids",
    "suppress_tokens",
    "begin_suppress_tokens",
)
OTHERS = (
    "encoder_repetition_penalty",
    "encoder_no_repeat_ngram_size",
    "min_length",
    "min_new_tokens",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "exponential_decay_length_penalty",
    "guidance_scale",
    "renormalize_logits",
    "watermarking_config",
    "diversity_penalty",
    "num_beam_groups",
    "force_words_ids",
    "constraints",
    "penalty_alpha",
    "dola_layers",
)
SAMPLING = (
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "top_h",
    "typical_p",
    "epsilon_cutoff",
    "eta_cutoff",
)
# 0 is a token, and 1 is no penalty.
TOKENS = ("forced_bos_token_id", "forced_eos_token_id")
FACTORS = (
    "repetition_penalty",
    "encoder_repetition_penalty",
    "guidance_scale",
    "num_beam_groups",
    "temperature",
    "top_p",
    "typical_p",
)


class GenerationScores:
    """Changes log-probabilities over the vocabulary as the generation configuration of a model says."""

    def __init__(self, model: Any, *, applies: bool) -> None:
        """Read the configuration.

        Args:
            model: the language model.
            applies: whether the search applies the options of APPLIED: with normalize="vocab".
        """
        self._model, self._applies = model, applies
        self._warned: list[str] = []

    @property
    def _config(self) -> Any:
        """The configuration as it is now."""
        return getattr(self._model, "generation_config", None)

    @property
    def names(self) -> tuple[str, ...]:
        """The options that are applied."""
        return tuple(name for name in APPLIED if self._applies and _is_set(self._config, name))

    def warn(self, *, stacklevel: int) -> None:
        """Warn of the options that the search does not apply, once for each set of them."""
        config, applied = self._config, self.names
        ignored = [name for name in (*APPLIED, *OTHERS) if name not in applied and _is_set(config, name)]
        if getattr(config, "do_sample", False):
            ignored += [name for name in SAMPLING if _is_set(config, name)]
        if ignored and ignored != self._warned:
            listed = ", ".join(f"{name}={str(getattr(config, name))[:30]}" for name in ignored)
            can_apply = not self._applies and any(name in APPLIED for name in ignored)
            advice = f"pass normalize='vocab', which applies {', '.join(APPLIED)}, or " if can_apply else ""
            warnings.warn(
                f"model.generation_config has {listed}: generate() obeys it, and this Retriever does not. To compare "
                f"with generate(), {advice}set it to None or to its default there.",
                stacklevel=stacklevel + 1,
            )
        self._warned = ignored

    def __bool__(self) -> bool:
        return bool(self.names)

    def __call__(self, log_probs: Tensor, prompts: Sequence[Ids], suffixes: Tensor) -> Tensor:
        """Change log-probabilities.

        Args:
            log_probs: [B, m, V].
            prompts: the token ids of B prompts; of an encoder-decoder model those that start the decoder.
            suffixes: [B, m, l], the tokens after them.

        Returns:
            [B, m, V], new.
        """
        rows, names = [], self.names
        for prompt, scores, suffix in zip(prompts, log_probs, suffixes, strict=True):
            ids = torch.tensor(prompt, device=suffix.device).expand(len(suffix), -1)
            ids, changed = torch.cat([ids, suffix], dim=-1), scores.clone()
            for processor in self._processors(names, len(prompt), str(log_probs.device)):
                changed = processor(ids, changed)  # pyright: ignore[reportArgumentType]
            rows.append(changed)
        return torch.stack(rows)

    def _processors(self, names: Sequence[str], begin: int, device: str) -> list[LogitsProcessor]:
        config = self._config
        made = {
            "sequence_bias": lambda value: SequenceBiasLogitsProcessor(sequence_bias=value),
            "repetition_penalty": lambda value: RepetitionPenaltyLogitsProcessor(penalty=value),
            "no_repeat_ngram_size": NoRepeatNGramLogitsProcessor,
            "bad_words_ids": lambda value: NoBadWordsLogitsProcessor(value, config.eos_token_id),
            "suppress_tokens": lambda value: SuppressTokensLogitsProcessor(value, device=device),
            "begin_suppress_tokens": lambda value: SuppressTokensAtBeginLogitsProcessor(value, begin, device=device),
        }
        return [made[name](getattr(config, name)) for name in names]


def _is_set(config: Any, name: str) -> bool:
    value = getattr(config, name, None)
    if name in TOKENS:
        return value is not None
    return bool(value) and not (name in FACTORS and value == 1)
