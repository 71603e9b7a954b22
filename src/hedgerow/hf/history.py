"""Histories as prompts: the tokens of the items that a user has seen, oldest first."""

from __future__ import annotations

from typing import Any

import numpy as np

from hedgerow.catalog.ragged import with_ends
from hedgerow.errors import ArgumentError
from hedgerow.hf.prompts import Ids
from hedgerow.index.lookup import Missing, known_rows, leaves_of, rows_of_ids
from hedgerow.index.trie import Trie
from hedgerow.token_files import HistoryForm
from hedgerow.tokens import TokenMap

NO_TOKEN = -1


def codes_of_items(index: Trie, rows: np.ndarray) -> np.ndarray:
    """The codes of items, int64 [n, L], with the end codes of ragged SIDs."""
    return with_ends(index.sids(leaves_of(index, rows)), index.end_codes)


def tokens_of_items(tokens: TokenMap, index: Trie, rows: np.ndarray) -> np.ndarray:
    """The tokens of items, int64 [n, L]; -1 after the end of a ragged SID.

    Args:
        tokens: the token map of the index, with the tokens of end codes: `TokenMap.of_index`.
        index: the index.
        rows: int64 [n].
    """
    codes = codes_of_items(index, rows)
    ids = np.stack([table[column] for table, column in zip(tokens.token_ids, codes.T, strict=True)], axis=1)
    for level in range(1, index.num_levels):
        end = index.end_codes[level - 1]
        if end is not None:
            # One token ends a SID, whatever the number of levels after it.
            ids[codes[:, level - 1] == end, level] = NO_TOKEN
    return ids


def prompt_of_history(tokens: TokenMap, index: Trie, item_ids: Any, missing: Missing) -> Ids:
    """The token ids of a history: see `Retriever.history_prompt`.

    Args:
        tokens: as for `tokens_of_items`.
        index: the index.
        item_ids: the ids of the items.
        missing: "raise" an error for ids that are not in the index, or "ignore" them.

    Raises:
        ArgumentError: an id is not in the index, or none is left.
    """
    if missing == "raise":
        rows = known_rows(index, item_ids, "items of the history", error=ArgumentError)
    else:
        rows = rows_of_ids(index, item_ids, missing)
    form = tokens.history or HistoryForm()
    rows = rows[rows >= 0][-form.max_items if form.max_items else 0 :]
    if not len(rows):
        raise ArgumentError(
            "the history has no items of the index. Pass the items that the user has seen, oldest first; for a user "
            "without a history, recommend what is popular."
        )
    ids = list(form.start)
    for number, item in enumerate(tokens_of_items(tokens, index, rows)):
        ids += form.separator if number else ()
        ids += item[item != NO_TOKEN].tolist()
    return ids + list(form.separator)
