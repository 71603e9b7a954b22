"""The tokenizer and the tokens of codes of a model to train: a new one, or that of a base model with new tokens."""

from __future__ import annotations

from dataclasses import replace
from string import ascii_lowercase
from typing import Any

import numpy as np
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from hedgerow.catalog.codes import KNOWN_PATTERNS
from hedgerow.errors import ArgumentError
from hedgerow.hf.history import codes_of_items, tokens_of_items
from hedgerow.token_files import HistoryForm
from hedgerow.tokens import TokenMap
from hedgerow.training.batches import ItemTokens
from hedgerow.trie_index import TrieIndex

PAD, START, SEPARATOR, END, UNKNOWN = "<|pad|>", "<|history|>", "<|item|>", "<|sid_end|>", "<|unknown|>"
PATTERN = KNOWN_PATTERNS[0]


def level_names(levels: int) -> list[str]:
    """The labels of levels in the names of tokens: letters, or numbers if there are too many."""
    return list(ascii_lowercase[:levels]) if levels <= len(ascii_lowercase) else list(map(str, range(levels)))


def code_sizes(index: TrieIndex) -> list[int]:
    """The number of codes of each level, without the end codes of ragged SIDs."""
    return [size - (end is not None) for size, end in zip(index.codebook_sizes, index.end_codes, strict=True)]


def names_of_tokens(index: TrieIndex, *, separator: bool) -> list[str]:
    """The names of all tokens to add for an index."""
    names = [START] + [SEPARATOR] * separator + [END] * index.ragged
    for label, size in zip(level_names(index.num_levels), code_sizes(index), strict=True):
        names += [PATTERN.replace("{level}", label).replace("{code}", str(code)) for code in range(size)]
    return names


def new_tokenizer(index: TrieIndex, *, separator: bool) -> PreTrainedTokenizerFast:
    """A tokenizer of only the tokens of an index. Text that contains other words has unknown tokens."""
    names = [PAD, UNKNOWN, *names_of_tokens(index, separator=separator)]
    backend = Tokenizer(models.WordLevel({name: number for number, name in enumerate(names)}, unk_token=UNKNOWN))
    # Tokens stand without spaces between them.
    backend.pre_tokenizer = pre_tokenizers.Split(">", "merged_with_previous")
    special = {"pad_token": PAD, "unk_token": UNKNOWN, "bos_token": START}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **special)


def extend_tokenizer(tokenizer: Any, index: TrieIndex, *, separator: bool) -> int:
    """Add the tokens of an index to the tokenizer of a base model, and return their number.

    Raises:
        ArgumentError: it has tokens of codes already, for other codebooks.
    """
    vocabulary = tokenizer.get_vocab()
    names = names_of_tokens(index, separator=separator)
    found = sum(name in vocabulary for name in names)
    if 0 < found < len(names):
        raise ArgumentError(
            f"the tokenizer of the base model has {found:,} of the {len(names):,} tokens of this index already: it was "
            "made for other codebooks. Use the model before it was trained, or an index with the same codebook sizes."
        )
    return tokenizer.add_tokens([AddedToken(name, normalized=False, special=False) for name in names])


def token_map(tokenizer: Any, index: TrieIndex, *, separator: bool, max_items: int) -> TokenMap:
    """The token map of a tokenizer that has the tokens of an index, with the form of histories."""
    labels, sizes = level_names(index.num_levels), code_sizes(index)
    end = END if index.ragged else ()
    tokens = TokenMap.from_tokenizer(tokenizer, PATTERN, levels=labels, codebook_sizes=sizes, end=end)
    vocabulary = tokenizer.get_vocab()
    form = HistoryForm((vocabulary[START],), (vocabulary[SEPARATOR],) if separator else (), max_items)
    return replace(tokens, history=form)


def item_tokens(tokens: TokenMap, index: TrieIndex) -> ItemTokens:
    """The tokens and codes of all items of an index, in the order of its rows."""
    form, rows = tokens.history or HistoryForm(), np.arange(index.num_items)
    ids = tokens_of_items(tokens.of_index(index), index, rows)
    return ItemTokens(ids, codes_of_items(index, rows), form.start, form.separator)
