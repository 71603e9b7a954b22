"""The generation configuration of a model, as far as it changes the scores of `generate` in beam search."""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Sequence
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

from hedgerow._arguments import is_whole
from hedgerow.errors import ArgumentError
from hedgerow.hf.layers import input_size
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

    def check(self, *, stacklevel: int) -> None:
        """Check the options that the search applies, and warn of the others, once for each set of them.

        Raises:
            ArgumentError: an option has an invalid value.
        """
        config, applied = self._config, self.names
        for name in applied:
            _check(config, name, input_size(self._model))
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
        return [made[name](_value(config, name)) for name in names]


def _value(config: Any, name: str) -> Any:
    """The value of an option; of an array or a tensor, its numbers."""
    value: Any = getattr(config, name, None)
    return value.tolist() if hasattr(value, "tolist") else value


def _is_set(config: Any, name: str) -> bool:
    value = _value(config, name)
    if name in TOKENS or name == "repetition_penalty":
        # A penalty of 0 is invalid.
        return value is not None and not (name in FACTORS and value == 1)
    return bool(value) and not (name in FACTORS and value == 1)


def _check(config: Any, name: str, vocabulary: int) -> None:
    """Check an option of APPLIED. Some values that transformers accepts have no meaning.

    Raises:
        ArgumentError: the option cannot be applied.
    """
    value, tokens = _value(config, name), f"token ids from 0 to {vocabulary - 1:,}"
    if name == "repetition_penalty":
        valid, expected = isinstance(value, float) and 0 < value < math.inf, "a float above 0, for example 1.2"
    elif name == "no_repeat_ngram_size":
        valid, expected = is_whole(value), "a positive integer, or 0 for no limit"
    elif name == "bad_words_ids":
        ends = _value(config, "eos_token_id")
        ends = ends if isinstance(ends, list) else [ends]
        valid = isinstance(value, list) and all(_is_sequence(word, list, vocabulary) for word in value)
        # As in transformers, the end is no bad word.
        valid = valid and any(word not in [[end] for end in ends] for word in value)
        expected = f"a list of lists of {tokens}, and not only of the end token"
    elif name == "sequence_bias":
        valid, expected = _is_bias(value, vocabulary), f"a list of pairs of a list of {tokens}, and a float"
    else:
        is_list = isinstance(value, Collection) and not isinstance(value, str | dict)
        valid, expected = is_list and _are_tokens(value, vocabulary), f"a list of {tokens}"
    if not valid:
        raise ArgumentError(
            f"model.generation_config.{name} must be {expected}; got {value!r:.80}. To search without it, "
            "set it to None."
        )


def _are_tokens(ids: Collection[Any], vocabulary: int) -> bool:
    return all(is_whole(token, 0, vocabulary - 1) for token in ids)


def _is_sequence(ids: Any, type_: type, vocabulary: int) -> bool:
    """Whether a value is a sequence of at least one token."""
    return isinstance(ids, type_) and len(ids) > 0 and _are_tokens(ids, vocabulary)


def _is_bias(value: Any, vocabulary: int) -> bool:
    """Whether a value is what transformers takes as sequences with biases: pairs, or a mapping of tuples."""
    is_mapping = isinstance(value, dict)
    pairs = list(value.items()) if is_mapping else value
    return isinstance(pairs, list) and all(
        isinstance(pair, tuple if is_mapping else list)
        and len(pair) == 2
        and _is_sequence(pair[0], tuple if is_mapping else list, vocabulary)
        and isinstance(pair[1], float)
        and pair[1] < math.inf
        for pair in pairs
    )
