"""results_of(): the items that `generate()` of transformers has written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hedgerow._arguments import check_unmasked, whole_number
from hedgerow.constraints.requests import BatchRules
from hedgerow.decode.beams import DEAD, Beams
from hedgerow.decode.ops import to_numpy
from hedgerow.errors import ArgumentError
from hedgerow.index.trie import Trie, codes_of_leaves
from hedgerow.picking import OrderBy, Picking
from hedgerow.results import Results, batch_results
from hedgerow.tokens import TokenMap


def results_of(
    index: Trie,
    tokens: TokenMap,
    generated: Any,
    *,
    prompt_length: int,
    num_return_sequences: int = 1,
    k: int | None = None,
    order_by: OrderBy = None,
    caps: Mapping[str, int] | None = None,
) -> list[Results]:
    """Map the output of `model.generate()` to items: one `Results` per prompt.

    The SID of a row is the tokens after its first `prompt_length` tokens. Rows that are no SID of the index are left
    out, and so is the second of two rows with the same SID. Constraint sets are not applied: of items that share a SID,
    all are returned.

    Args:
        index: the index of the catalog.
        tokens: the tokens of the codes.
        generated: token ids [R, T], or the output of `generate(..., return_dict_in_generate=True)`.
        prompt_length: the number of tokens before the SIDs, padding and begin delimiter included:
            `input_ids.shape[1]` for a decoder-only model, 1 for most encoder-decoder models.
        num_return_sequences: as for `generate`: the number of consecutive rows of each prompt.
        k: as for `TrieIndex.results`.
        order_by: as for `TrieIndex.results`.
        caps: as for `TrieIndex.results`.

    Returns:
        Results, best first. `scores` are the `sequences_scores` of `generate`, which divides them by the length if its
        `length_penalty` is not 0; NaN, in the order of the rows, if there are none.

    Raises:
        ArgumentError: the rows are no matrix of token ids, are no multiple of `num_return_sequences`, or have no token
            after the prompt; or the tokens do not fit the index.
        ConstraintError: there is no such attribute.

    Examples:
        ```python
        import hedgerow as hr

        index = hr.build_index(hr.Catalog([[0, 1], [2, 0]], item_ids=["a", "b"]))
        tokens = hr.TokenMap.from_offsets([10, 20], codebook_sizes=3)
        written = [[5, 6, 12, 20], [5, 6, 12, 21], [5, 6, 10, 21]]
        (results,) = hr.results_of(index, tokens, written, prompt_length=2, num_return_sequences=3)
        assert results.item_ids == ["b", "a"]
        ```
    """
    picking = Picking(k, order_by, caps)
    width = whole_number(num_return_sequences, "num_return_sequences")
    whole_number(prompt_length, "prompt_length", 0)
    ids = _matrix(getattr(generated, "sequences", generated))
    if ids.shape[1] <= prompt_length or len(ids) % width:
        raise ArgumentError(
            f"expected rows of more than prompt_length={prompt_length} tokens, and a multiple of num_return_sequences="
            f"{width} of them; got {list(ids.shape)}."
        )
    leaves = _leaves(index, tokens, ids[:, prompt_length:]).reshape(-1, width)
    given = getattr(generated, "sequences_scores", None)
    scores = np.full(leaves.shape, np.nan, np.float32) if given is None else to_numpy(given).reshape(leaves.shape)
    order = np.argsort(-scores, axis=1, kind="stable")
    leaves, scores = (np.take_along_axis(array, order, axis=1) for array in (_distinct(leaves), scores))
    codes = np.where(
        leaves[..., None] >= 0, codes_of_leaves(index, leaves.clip(0).ravel()).reshape(*leaves.shape, -1), -1
    )
    beams = Beams(codes.astype(np.int32), scores.astype(np.float32), leaves, np.zeros_like(leaves))
    # How many beams generate had is not known, so none counts as dead.
    return batch_results(index, beams, BatchRules(index, len(leaves), None, None), picking, widths=[0] * len(leaves))


def _matrix(sequences: Any) -> np.ndarray:
    check_unmasked(sequences, "generated", "Fill them with the padding token.")
    try:
        ids = to_numpy(sequences)
    except ValueError:
        ids = np.zeros(0)
    if ids.ndim != 2 or (ids.dtype.kind not in "iu" and ids.size):
        raise ArgumentError(
            "generated must be token ids [R, T], or the output of generate(..., return_dict_in_generate=True); got "
            f"{type(sequences).__name__}."
        )
    return ids


def _leaves(index: Trie, tokens: TokenMap, ids: np.ndarray) -> np.ndarray:
    """The leaf [R] of the SID that each row of `ids` [R, T] begins with; -1 if it is none of the index."""
    if not index.num_sids:
        return np.full(len(ids), DEAD)
    with_ends = tokens.of_index(index)
    written = np.full((len(ids), index.num_levels), -1, np.int64)
    count = min(ids.shape[1], index.num_levels)
    written[:, :count] = ids[:, :count]
    codes = with_ends.decode(written)
    # After its end, a row is padded. The code after an end is the end.
    for level, end in enumerate(index.end_codes[1:], start=1):
        previous = index.end_codes[level - 1]
        if previous is not None:
            codes[codes[:, level - 1] == previous, level] = end
    is_sid = np.all(codes >= 0, axis=1)
    return np.where(is_sid, index.find(np.where(is_sid[:, None], codes, 0)), DEAD)


def _distinct(leaves: np.ndarray) -> np.ndarray:
    """Leaves [B, M] with -1 for those that occur earlier in their row."""
    distinct = leaves.copy()
    for row in distinct:
        _, first = np.unique(row, return_index=True)
        again = np.ones(len(row), bool)
        again[first] = False
        row[again] = DEAD
    return distinct
