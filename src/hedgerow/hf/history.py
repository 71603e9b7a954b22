"""Histories as prompts: the tokens of the items that a user has seen, oldest first."""

from __future__ import annotations

import warnings
from typing import Any, Literal

import numpy as np

from hedgerow._arguments import check_choice
from hedgerow.catalog.ragged import with_ends
from hedgerow.errors import ArgumentError
from hedgerow.hf.prompts import Ids
from hedgerow.index.lookup import known_rows, leaves_of, rows_of_ids
from hedgerow.index.trie import Trie
from hedgerow.token_files import HistoryForm
from hedgerow.tokens import TokenMap

NO_TOKEN = -1
MissingItems = Literal["raise", "warn", "ignore"]
MISSING_ITEMS = ("raise", "warn", "ignore")
# The number of ids that a warning and an answer name.
SHOWN_IDS = 3


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


def unknown_items(rows: np.ndarray, item_ids: Any) -> tuple[int, list[Any]]:
    """The number of items of a history that the index does not have, and the first of their ids.

    Args:
        rows: [R] the row of each item, -1 if the index does not have it.
        item_ids: R ids.
    """
    unknown = np.flatnonzero(rows < 0)
    # Arrow, then NumPy and pandas: values of Python.
    name = next((name for name in ("to_pylist", "tolist") if hasattr(item_ids, name)), None)
    ids = list(item_ids) if name is None else getattr(item_ids, name)()
    return len(unknown), [ids[position] for position in unknown[:SHOWN_IDS].tolist()]


def prompt_of_history(tokens: TokenMap, index: Trie, item_ids: Any, missing: MissingItems) -> Ids:
    """The token ids of a history: see `Retriever.history_prompt`.

    Args:
        tokens: as for `tokens_of_items`.
        index: the index.
        item_ids: the ids of the items.
        missing: "raise" an error for ids that are not in the index, skip them with a warning, "warn", or "ignore" them.

    Raises:
        ArgumentError: an id is not in the index, or none is left.
    """
    check_choice(missing, "missing", MISSING_ITEMS)
    if missing == "raise":
        rows = known_rows(index, item_ids, "items of the history", error=ArgumentError)
    else:
        item_ids = item_ids if hasattr(item_ids, "__len__") else list(item_ids)
        rows = rows_of_ids(index, item_ids, "ignore")
    if missing == "warn" and (rows < 0).any():
        count, first = unknown_items(rows, item_ids)
        ids = ", ".join(map(repr, first))
        warnings.warn(
            f"{count:,} of {len(rows):,} items of the history are not in the index and were skipped; the first: {ids}.",
            UserWarning,
            stacklevel=3,
        )
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
