"""Retrievers from folders and hub names, for the command line and the demo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer
from transformers.utils import logging

from hedgerow import token_files
from hedgerow.errors import ArgumentError
from hedgerow.hf.known_sids import check_sids
from hedgerow.hf.retriever import Retriever
from hedgerow.hf.searched import Searched, trie_of
from hedgerow.tokens import TokenMap

DTYPES = ("float32", "bfloat16", "float16")


def load_retriever(
    source: str | Path,
    index: Searched,
    *,
    pattern: str | None = None,
    end: str | None = None,
    device: str | None = None,
    dtype: str = "float32",
    **options: Any,
) -> Retriever:
    """Load a model and its tokenizer, and create a retriever with them.

    Args:
        source: a folder that `save_pretrained` wrote, or another source that `from_pretrained` accepts.
        index: as for `Retriever`.
        pattern: the form of the tokens of codes, for example "<s_{level}_{code}>". Default: those of tokens.json in the
            folder, which `hedgerow train` writes; without it, they are detected.
        end: the token that ends a SID, as text or as a token id. Default: that of the detected layout.
        device: the PyTorch device. Default: the CPU.
        dtype: the type of the weights: "float32", "bfloat16" or "float16".
        options: further arguments of `Retriever`. The default of `normalize` is that of tokens.json, or "codes".

    Raises:
        ArgumentError: the model cannot be loaded or moved to the device, its tokenizer has no such tokens, or
            `hedgerow train` wrote it for an index with other SIDs.
    """
    # Progress bars of the loader would mix with the output of a command.
    enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
        kinds = {True: AutoModelForSeq2SeqLM, False: AutoModelForCausalLM}
        kind = kinds[bool(getattr(AutoConfig.from_pretrained(source), "is_encoder_decoder", False))]
        model: Any = kind.from_pretrained(source, dtype=_dtype(dtype))
    except ArgumentError:
        raise
    except Exception as error:
        # Each kind of file in the folder has its own reader and its own exceptions.
        raise ArgumentError(f"{source} cannot be loaded as a language model of transformers: {error}") from None
    finally:
        if enabled:
            logging.enable_progress_bar()
    tokens, normalize = load_tokens(source, tokenizer, pattern)
    options = options | {"normalize": options.get("normalize") or normalize}
    if end is not None:
        tokens = tokens.ending_with(int(end) if end.isdecimal() else end, tokenizer)
    check_sids(source, trie_of(index)[0])
    return Retriever(_on_device(model, device or "cpu"), index, tokens, tokenizer=tokenizer, **options)


def load_tokenizer(source: str | Path) -> Any:
    """Load the tokenizer of a model.

    Raises:
        ArgumentError: it cannot be loaded.
    """
    try:
        return AutoTokenizer.from_pretrained(source)
    except Exception as error:
        raise ArgumentError(f"the tokenizer of {source} cannot be loaded: {error}") from None


def load_tokens(source: str | Path, tokenizer: Any, pattern: str | None) -> tuple[TokenMap, Any]:
    """Find the tokens of the codes of a model, and the `normalize` that it was trained for.

    Args:
        source: as for `load_retriever`.
        tokenizer: its tokenizer.
        pattern: as for `load_retriever`.

    Raises:
        ArgumentError: the tokenizer has no such tokens, or tokens.json is damaged.
    """
    file = token_files.file_of(source)
    if pattern is not None:
        return TokenMap.from_tokenizer(tokenizer, pattern), "codes"
    if file.is_file():
        return TokenMap.load(file), token_files.read(file).get("normalize", "codes")
    return TokenMap.detect(tokenizer), "codes"


def _on_device(model: Any, device: str) -> Any:
    try:
        return model.to(device)
    except (RuntimeError, AssertionError) as error:
        raise ArgumentError(f"the model cannot be moved to device {device!r}: {error}") from None


def _dtype(name: str) -> torch.dtype:
    if name not in DTYPES:
        raise ArgumentError(f"dtype must be one of {', '.join(DTYPES)}; got {name!r}.")
    return getattr(torch, name)
