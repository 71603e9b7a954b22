"""Models and tokenizers from a folder, as `hedgerow retrieve` takes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from hedgerow.errors import ArgumentError
from hedgerow.hf.retriever import Retriever
from hedgerow.hf.searched import Searched
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
    """Returns a retriever with the model and the tokenizer of a folder that `save_pretrained` wrote, or of a name.

    Args:
        source: the folder, or what else `from_pretrained` takes.
        index: the catalog's index, or a version of a live one.
        pattern: what its tokens of codes look like, as "<s_{level}_{code}>"; left out, they are detected.
        end: the token that ends a SID, as text or as a number; left out, what the pattern or the layout says.
        device: of PyTorch; left out, the CPU.
        dtype: of the weights.
        options: of `Retriever`.

    Raises:
        ArgumentError: there is no such model, or it has no such tokens, or cannot be put on the device.
    """
    # Progress bars of loading would stand in the middle of what a command prints.
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
        model: Any = AutoModelForCausalLM.from_pretrained(source, dtype=_dtype(dtype))
    except ArgumentError:
        raise
    except Exception as error:
        # Every kind of file in the folder has a reader, and errors, of its own.
        raise ArgumentError(f"{source} cannot be loaded as a causal language model of transformers: {error}") from None
    finally:
        if shown:
            logging.enable_progress_bar()
    tokens = TokenMap.detect(tokenizer) if pattern is None else TokenMap.from_tokenizer(tokenizer, pattern)
    if end is not None:
        tokens = tokens.ending_with(int(end) if end.isdecimal() else end, tokenizer)
    return Retriever(_on_device(model, device or "cpu"), index, tokens, tokenizer=tokenizer, **options)


def _on_device(model: Any, device: str) -> Any:
    try:
        return model.to(device)
    except (RuntimeError, AssertionError) as error:
        raise ArgumentError(f"the model cannot be put on device {device!r}: {error}") from None


def _dtype(name: str) -> torch.dtype:
    if name not in DTYPES:
        raise ArgumentError(f"dtype must be {', '.join(DTYPES[:-1])} or {DTYPES[-1]}; got {name!r}.")
    return getattr(torch, name)
