"""Models and tokenizers from a folder, as `hedgerow retrieve` takes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from hedgerow.errors import ArgumentError
from hedgerow.hf.retriever import Retriever
from hedgerow.index.trie import TrieIndex
from hedgerow.tokens import TokenMap


def load_retriever(
    source: str | Path,
    index: TrieIndex,
    *,
    pattern: str | None = None,
    device: str | None = None,
    dtype: str = "float32",
    **options: Any,
) -> Retriever:
    """Returns a retriever with the model and the tokenizer of a folder that `save_pretrained` wrote, or of a name.

    Args:
        source: the folder, or what else `from_pretrained` takes.
        index: the catalog's index.
        pattern: what its tokens of codes look like, as "<s_{level}_{code}>"; left out, they are detected.
        device: of PyTorch; left out, the CPU.
        dtype: of the weights.
        options: of `Retriever`.

    Raises:
        ArgumentError: there is no such model, or it has no such tokens.
    """
    # Progress bars of loading would stand in the middle of what a command prints.
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
        model: Any = AutoModelForCausalLM.from_pretrained(source, dtype=_dtype(dtype))
    except (OSError, ValueError, KeyError) as error:
        raise ArgumentError(f"{source} cannot be loaded as a causal language model of transformers: {error}") from None
    finally:
        if shown:
            logging.enable_progress_bar()
    tokens = TokenMap.detect(tokenizer) if pattern is None else TokenMap.from_tokenizer(tokenizer, pattern)
    return Retriever(model.to(device or "cpu"), index, tokens, tokenizer=tokenizer, **options)


def _dtype(name: str) -> torch.dtype:
    found = getattr(torch, name, None)
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ArgumentError(f"dtype must be float32, bfloat16 or float16; got {name!r}.")
    return found
