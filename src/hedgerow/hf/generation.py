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
FACTORS = ("repetition_penalty", "encoder_repetition_penalty", "guidance_scale", "temperature", "top_p", "typical_p")


class GenerationScores:
    """Changes log-probabilities over the vocabulary as the generation configuration of a model says."""

    def __init__(self, model: Any, *, applies: bool) -> None:
        """Read the configuration as it is now, and warn of the options that a search does not apply.

        Args:
            model: the language model.
            applies: whether the search applies the options of APPLIED: with normalize="vocab".
        """
        config = getattr(model, "generation_config", None)
        self._config: Any = config
        self.names = tuple(name for name in APPLIED if applies and _is_set(config, name))
        ignored = [name for name in (*APPLIED, *OTHERS) if name not in self.names and _is_set(config, name)]
        if getattr(config, "do_sample", False):
            ignored += [name for name in SAMPLING if _is_set(config, name)]
        if ignored:
            listed = ", ".join(f"{name}={str(getattr(config, name))[:30]}" for name in ignored)
            can_apply = not applies and any(name in APPLIED for name in ignored)
            advice = f"pass normalize='vocab', which applies {', '.join(APPLIED)}, or " if can_apply else ""
            # Level 3 is the caller of Retriever().
            warnings.warn(
                f"model.generation_config has {listed}: generate() obeys it, and this Retriever does not. To compare "
                f"with generate(), {advice}set it to None or to its default there.",
                stacklevel=3,
            )

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
        rows = []
        for prompt, scores, suffix in zip(prompts, log_probs, suffixes, strict=True):
            ids = torch.tensor(prompt, device=suffix.device).expand(len(suffix), -1)
            ids, changed = torch.cat([ids, suffix], dim=-1), scores.clone()
            for processor in self._processors(len(prompt), str(log_probs.device)):
                changed = processor(ids, changed)  # pyright: ignore[reportArgumentType]
            rows.append(changed)
        return torch.stack(rows)

    def _processors(self, begin: int, device: str) -> list[LogitsProcessor]:
        made = {
            "sequence_bias": lambda value: SequenceBiasLogitsProcessor(sequence_bias=value),
            "repetition_penalty": lambda value: RepetitionPenaltyLogitsProcessor(penalty=value),
            "no_repeat_ngram_size": NoRepeatNGramLogitsProcessor,
            "bad_words_ids": lambda value: NoBadWordsLogitsProcessor(value, self._config.eos_token_id),
            "suppress_tokens": lambda value: SuppressTokensLogitsProcessor(value, device=device),
            "begin_suppress_tokens": lambda value: SuppressTokensAtBeginLogitsProcessor(value, begin, device=device),
        }
        return [made[name](getattr(self._config, name)) for name in self.names]


def _is_set(config: Any, name: str) -> bool:
    value = getattr(config, name, None)
    if name in TOKENS:
        return value is not None
    return bool(value) and not (name in FACTORS and value == 1)
