"""Models to train: new ones by size, and base models with the tokens of codes and, as an option, adapters."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen3Config
from transformers.utils import logging

from hedgerow.errors import ArgumentError, MissingDependencyError
from hedgerow.tokens import TokenMap
from hedgerow.training.content import Content
from hedgerow.training.loss import SidLoss
from hedgerow.training.network import BaseNetwork, CodeNetwork
from hedgerow.training.options import SIZES, TrainingOptions
from hedgerow.training.vocabulary import END, PAD, START, extend_tokenizer, new_tokenizer, token_map
from hedgerow.trie_index import TrieIndex


def vocabulary(index: TrieIndex, options: TrainingOptions) -> tuple[Any, TokenMap]:
    """The tokenizer and the token map of a model to train.

    Raises:
        ArgumentError: the base model has no tokenizer, or one for other codebooks.
    """
    if options.base is None:
        tokenizer = new_tokenizer(index, separator=options.separator)
    else:
        folder = check_base(options.base)
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder)
        except Exception as error:
            # Each kind of tokenizer has its own reader and its own exceptions.
            raise ArgumentError(f"the tokenizer of {options.base} cannot be loaded: {error}") from None
        extend_tokenizer(tokenizer, index, separator=options.separator)
    return tokenizer, token_map(tokenizer, index, separator=options.separator, max_items=options.max_items)


def new_network(
    index: TrieIndex, tokenizer: Any, tokens: TokenMap, content: Content, options: TrainingOptions
) -> CodeNetwork:
    """A new network of a size."""
    size, vocabulary = SIZES[options.size], tokenizer.get_vocab()
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=size.hidden,
        intermediate_size=2 * size.hidden,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.heads,
        head_dim=size.hidden // size.heads,
        max_position_embeddings=longest(index, options),
        tie_word_embeddings=False,
        bos_token_id=vocabulary[START],
        pad_token_id=vocabulary[PAD],
        eos_token_id=vocabulary[END] if index.ragged else None,
    )
    return CodeNetwork(config, tokens.of_index(index).token_ids, content, options.dropout, _allowed(index, options))


def base_network(index: TrieIndex, tokenizer: Any, tokens: TokenMap, options: TrainingOptions) -> BaseNetwork:
    """A base model with embeddings for the tokens of codes, and adapters if there are to be some.

    Raises:
        ArgumentError: the folder has no causal language model, or its context is too short.
        MissingDependencyError: peft is not installed.
    """
    folder = check_base(options.base)
    enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    except Exception as error:
        # Each kind of file in the folder has its own reader and its own exceptions.
        raise ArgumentError(f"{options.base} cannot be loaded as a causal language model: {error}") from None
    finally:
        if enabled:
            logging.enable_progress_bar()
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if positions is not None and positions < longest(index, options):
        raise ArgumentError(
            f"the base model takes {positions:,} tokens, but a history of {options.max_items} items needs "
            f"{longest(index, options):,}. Pass a smaller max_items, or --max-items."
        )
    if len(tokenizer) > model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    if options.lora is not None:
        model = _with_adapters(model, options)
    return BaseNetwork(model, tokens.of_index(index).token_ids, _allowed(index, options))


def _allowed(index: TrieIndex, options: TrainingOptions) -> SidLoss | None:
    """The loss among the codes that may follow, if the options ask for it."""
    return SidLoss(index) if options.loss == "allowed" else None


def longest(index: TrieIndex, options: TrainingOptions) -> int:
    """The number of tokens of the longest training sequence."""
    return 1 + (options.max_items + 1) * (index.num_levels + options.separator)


def check_base(base: str | Path | None) -> Path:
    """Check that a base model is a folder, and return it: nothing is downloaded.

    Raises:
        ArgumentError: it is not.
    """
    folder = Path(base or "").expanduser()
    if base is None or not folder.is_dir():
        raise ArgumentError(
            f"base must be the folder of a causal language model and its tokenizer, as save_pretrained writes it; got "
            f"{str(base)!r}. Download the model first: hf download OWNER/NAME --local-dir FOLDER."
        )
    return folder


def _with_adapters(model: Any, options: TrainingOptions) -> Any:
    try:
        from peft import LoraConfig, get_peft_model
    except ModuleNotFoundError as error:
        raise MissingDependencyError.of("lora", str(error.name).partition(".")[0], "train") from error
    adapters = LoraConfig(
        r=options.lora or 0, lora_alpha=2 * (options.lora or 0), target_modules="all-linear", task_type="CAUSAL_LM"
    )
    with warnings.catch_warnings():
        # peft reads names that transformers will remove.
        warnings.simplefilter("ignore", FutureWarning)
        return get_peft_model(model, adapters)
