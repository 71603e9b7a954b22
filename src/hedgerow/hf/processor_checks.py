"""Checks of a CatalogLogitsProcessor: where SIDs begin, what the requests may write, rows that leave the catalog."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hedgerow._arguments import is_whole
from hedgerow.constraints.requests import BatchRules, Exclusions, Sets, batch_rules
from hedgerow.constraints.sets import ConstraintSet
from hedgerow.errors import ArgumentError, ConstraintError
from hedgerow.index.trie import Trie
from hedgerow.tokens import TokenMap


def check_start(tokens: TokenMap, prompt_length: int | None) -> None:
    """Check that it is defined, once, where SIDs begin.

    Raises:
        ArgumentError: it is not defined, or defined twice, or the begin delimiter can occur within a SID.
    """
    if bool(tokens.begin) == (prompt_length is not None):
        given = "both are given" if tokens.begin else "neither is given"
        raise ArgumentError(
            "either prompt_length or a token map with a begin delimiter defines where a SID begins, but "
            f"{given}; prompt_length is input_ids.shape[1], or 1 for an encoder-decoder model."
        )
    if prompt_length is not None and not is_whole(prompt_length, 0):
        raise ArgumentError(f"prompt_length must be an integer from 0; got {prompt_length!r}.")
    # One token that occurs in no SID is enough: the delimiter cannot occur within a SID then.
    if tokens.begin and set(tokens.begin) <= {*tokens.end, *(int(id_) for ids in tokens.token_ids for id_ in ids)}:
        raise ArgumentError(
            f"the begin delimiter {tokens.begin} consists of tokens of codes or of the end delimiter, so it could "
            "occur within a SID; use a delimiter with at least one other token."
        )


def check_inputs(ids: Any, scores: Any) -> None:
    """Check what `generate()` passes to a processor: tokens [R, T] and scores [R, V].

    Raises:
        ArgumentError: they are something else.
    """
    for name, given in (("input_ids", ids), ("scores", scores)):
        if not isinstance(given, Tensor):
            raise ArgumentError(
                f"{name} must be a torch tensor; got {type(given).__name__}. Use torch.as_tensor(...), or for a search "
                "of NumPy or JAX arrays hr.step."
            )
    if (ids.ndim, scores.ndim) != (2, 2) or len(ids) != len(scores):
        raise ArgumentError(
            f"expected input_ids [R, T] and scores [R, V], one row per sequence; got {list(ids.shape)} and "
            f"{list(scores.shape)}. For one sequence, R is 1: input_ids[None], scores[None]."
        )
    if (
        ids.dtype not in (torch.int32, torch.int64)
        or not scores.dtype.is_floating_point
        or scores.layout != torch.strided
    ):
        raise ArgumentError(
            f"expected input_ids of int64 and dense scores of floats; got {ids.dtype} and {scores.dtype} "
            f"({scores.layout})."
        )
    if ids.device != scores.device:
        raise ArgumentError(f"input_ids are on {ids.device}, but the scores are on {scores.device}. Move one of them.")


def rules_of(index: Trie, constraints: Sets, exclude: Exclusions) -> BatchRules | None:
    """The rules of the requests; their number is the length of the lists, or 1 if there is no list."""
    if constraints is None and exclude is None:
        return None
    lists = [rules for rules in (constraints, exclude) if rules is not None and not isinstance(rules, ConstraintSet)]
    # An array without dimensions has no length either; batch_rules refuses it.
    is_list = bool(lists) and hasattr(lists[0], "__len__") and getattr(lists[0], "ndim", 1) > 0
    requests = len(lists[0]) if is_list else 1
    rules = batch_rules(index, requests, constraints, exclude)
    if requests == 0:
        raise ConstraintError(
            "constraints and exclude have no entries; pass one entry per request, or None if no request has any."
        )
    _check_items_left(rules)
    return rules


def _check_items_left(rules: BatchRules) -> None:
    """Check that every request has an item to write.

    Raises:
        ConstraintError: the set of a request is empty, or all its items are excluded.
    """
    for request in range(rules.batch_size):
        items, excluded = rules.set_of(request), rules.excluded_by(request)
        num_items = rules.index.num_items if items is None else items.num_items
        # Fewer exclusions than items leave some of them.
        if num_items > len(excluded):
            continue
        left = np.ones(rules.index.num_items, bool) if items is None else np.array(items.mask)
        left[excluded] = False
        if not left.any():
            of_set = "the index" if items is None else repr(items)
            state = f"exclude contains every item of {of_set}" if num_items else f"{of_set} has no items"
            raise ConstraintError(
                f"request {request} has no item to write: {state}, but generate() must write a SID. Use another set, "
                "exclude fewer items, or remove the request."
            )


@dataclass(frozen=True)
class RowCheck:
    """Checks of the rows that `generate()` passes. They read values back from the device.

    Attributes:
        index: the trie.
        tokens: the token map of the index, with its end codes.
        prompt_length: the number of tokens before the first SID, or None if a delimiter begins SIDs.
    """

    index: Trie
    tokens: TokenMap
    prompt_length: int | None

    def length(self, ids: Tensor) -> None:
        """Check that the rows [R, T] are not shorter than the prompt.

        Raises:
            ArgumentError: they are.
        """
        if self.prompt_length is not None and ids.shape[1] < self.prompt_length:
            raise ArgumentError(
                f"prompt_length is {self.prompt_length}, but input_ids has {ids.shape[1]} tokens; pass the number of "
                "tokens before the first SID. If generate() forces tokens after the start token of a decoder "
                "(forced_bos_token_id), pass them as decoder_input_ids, and set forced_bos_token_id to None."
            )

    def on_path(self, ids: Tensor, is_text: Tensor) -> None:
        """Check that rows without a node of the trie are padded after a complete SID.

        Args:
            ids: [R, T].
            is_text: bool [R], the rows without a node.

        Raises:
            ArgumentError: a row is not on a path of the catalog.
        """
        for row in is_text.nonzero()[:, 0].tolist():
            written = ids[row].tolist()
            start = self._start_of_sid(written)
            if not self._is_padded(written, start):
                raise ArgumentError(
                    f"row {row} of input_ids has left the paths of the catalog: no SID begins with its tokens "
                    f"{written[start:]}, from position {start} on. Check three things: prompt_length is "
                    f"{self.prompt_length} and must be the number of tokens, including padding and the start tokens of "
                    "a decoder, before the first SID; no setting of generate() may force or suppress tokens "
                    "(forced_bos_token_id, forced_eos_token_id, suppress_tokens); and beam sampling (do_sample=True) "
                    "needs as many SIDs, and as many different first codes, as beams: use do_sample=False or fewer "
                    "beams."
                )

    def in_set(self, ids: Tensor, is_outside: Tensor) -> None:
        """Check that rows whose request has no item below their node are padded after a complete SID.

        Args:
            ids: [R, T].
            is_outside: bool [R], the rows whose request has no such item.

        Raises:
            ConstraintError: a row is not padded.
        """
        for row in is_outside.nonzero()[:, 0].tolist():
            written = ids[row].tolist()
            if self.prompt_length is None or not self._is_padded(written, self._start_of_sid(written)):
                raise ConstraintError(
                    f"row {row} of input_ids begins a SID of the catalog, but no such SID belongs to an item that the "
                    "constraints and exclusions of its request allow. Check that prompt_length is the number of tokens "
                    "before the first SID, that the prompt ends before or after a SID, and that no setting of "
                    "generate() forces tokens."
                )

    def _start_of_sid(self, row: list[int]) -> int:
        """The position where the last SID of a row begins."""
        begin, end = self.prompt_length or 0, self.tokens.end
        if not self.index.ragged:
            return len(row) - (len(row) - begin) % (self.index.num_levels + len(end))
        return next((at for at in range(len(row), begin, -1) if row[at - 1] == end[0]), begin)

    def _is_padded(self, row: list[int], start: int) -> bool:
        """Whether a row consists, from the end of a complete SID to its last token, of one repeated token.

        Args:
            row: [T] tokens.
            start: the position where its last SID would begin.
        """
        begin, end = self.prompt_length or 0, len(self.tokens.end)
        same = next((at for at in range(len(row), begin, -1) if row[at - 1] != row[-1]), begin)
        if self.index.ragged:
            stop, before = start, self._start_of_sid(row[: start - 1])
        else:
            period = self.index.num_levels + end
            stop = begin + max(1, -(-(same - begin) // period)) * period
            before = stop - period
        return begin < stop <= start and same <= stop and self._is_sid(row[before : stop - end])

    def _is_sid(self, tokens: list[int]) -> bool:
        tables = [table.tolist() for table in self.tokens.token_ids[: len(tokens)]]
        if not tokens or not all(token in table for token, table in zip(tokens, tables, strict=True)):
            return False
        codes = [table.index(token) for token, table in zip(tokens, tables, strict=True)]
        return bool(self.index.contains([codes])[0])


def can_read(tensor: Tensor) -> bool:
    """Whether values of a tensor can be read: not on the meta device, and not while a CUDA graph is captured."""
    kind = tensor.device.type
    return kind != "meta" and not (kind == "cuda" and torch.cuda.is_current_stream_capturing())


def check_scores(best: Tensor, stuck: Tensor) -> None:
    """Check rows that may write none of the tokens that the catalog allows. In a beam search, other rows go on.

    Args:
        best: [R], the best score of the tokens that may follow.
        stuck: bool [R], the rows where it is not a number; at least one.

    Raises:
        ArgumentError: these are all rows.

    Warns:
        UserWarning: these are some rows.
    """
    row = int(stuck.nonzero()[0, 0])
    reason = "a score is NaN" if bool(best[row].isnan()) else "other processors exclude all of them (score -inf)"
    message = (
        f"row {row}: of the tokens that the catalog allows, {reason}, so generate() would write a token that is not "
        "allowed. Check the model, and the settings of generate() that force or exclude tokens, for example "
        "forced_bos_token_id, forced_eos_token_id, suppress_tokens, no_repeat_ngram_size and min_new_tokens."
    )
    if bool(stuck.all()):
        raise ArgumentError(message)
    warnings.warn(message, stacklevel=5)
