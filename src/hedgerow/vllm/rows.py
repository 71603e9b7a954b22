"""RowMasks: the tokens that may follow in rows of a batch, each with rules and a place of its own.

Engines other than transformers call a processor with rows of many requests. An error in it would end the engine for
all of them, so nothing here raises: a row without an allowed token may only end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from hedgerow.constraints.requests import NO_ROWS, BatchRules, joined_rules, rules_of_rows
from hedgerow.decode.beams import DEAD
from hedgerow.decode.prepare import prepared
from hedgerow.decode.prepared import PreparedConstraints
from hedgerow.hf.model import INF
from hedgerow.hf.processor import CatalogLogitsProcessor
from hedgerow.hf.processor_tables import Tables
from hedgerow.hf.searched import Searched
from hedgerow.tokens import TokenMap

MAX_PREPARED = 8


@dataclass(frozen=True, eq=False)
class RowRules:
    """What one request asks of its rows.

    Attributes:
        rules: its rules, as a batch of one request; None: there are none.
        written: the number of codes at the end of the prompt that its first SID begins with.
        log_probs: whether scores become log-probabilities over the vocabulary.
    """

    rules: BatchRules | None = None
    written: int = 0
    log_probs: bool = False


class RowMasks(CatalogLogitsProcessor):
    """Masks rows of several requests.

    Args:
        index: as for `CatalogLogitsProcessor`.
        tokens: as for `CatalogLogitsProcessor`.
        ends: the tokens that end a text. A row without another token may write these.
        codes_in_text: as for `CatalogLogitsProcessor`.
    """

    def __init__(self, index: Searched, tokens: TokenMap, ends: Sequence[int], *, codes_in_text: bool = False) -> None:
        # The rows say themselves where their SIDs begin.
        start = None if tokens.begin else 0
        super().__init__(index, tokens, prompt_length=start, codes_in_text=codes_in_text)
        self._ends = sorted(set(ends))
        self._batches: dict[tuple[int, ...], tuple[Any, PreparedConstraints | None]] = {}

    @property
    def tail(self) -> int:
        """The number of last tokens that decide what may follow."""
        return len(self.tokens.begin) + self.index.num_levels + len(self.tokens.end)

    def last_tokens(self, prompt: Sequence[int], output: Sequence[int]) -> list[int]:
        """The last `tail` tokens of a row, with -1 in front if it has fewer."""
        size = self.tail
        tail = [*prompt[-size:], *output[-size:]][-size:]
        return [-1] * (size - len(tail)) + tail

    def masked(self, ids: Tensor, written: Tensor, scores: Tensor, asked: Sequence[RowRules]) -> Tensor:
        """The scores [R, V] of the tokens that may follow, and -inf elsewhere.

        Args:
            ids: [R, T] int64, the last `tail` tokens of each row, -1 where it has fewer.
            written: [R] int64, the number of tokens since the first SID of each row began. Not read if the token map
                has a begin delimiter.
            scores: [R, V]; not changed.
            asked: for each row what its request asks.
        """
        scores = scores.float()
        with_log_probs = [row for row, each in enumerate(asked) if each.log_probs]
        if with_log_probs:
            rows = torch.tensor(with_log_probs, device=scores.device)
            scores = scores.index_copy(0, rows, scores[rows].log_softmax(-1))
        tables = self._tables_on(scores)
        tables = replace(tables, constraints=self._constraints(tables, asked))
        return self._within_text(tables, ids, scores, None if self.tokens.begin else self._since(ids, written))

    def ended(self, scores: Tensor) -> Tensor:
        """The scores [R, V] of the tokens that end a text, and -inf elsewhere."""
        rows = torch.ones(len(scores), dtype=torch.bool, device=scores.device)
        return self._ended(torch.full_like(scores, -INF), scores, rows)

    def _since(self, ids: Tensor, written: Tensor) -> Tensor:
        """The number of tokens [R] since the SID of each row began, if rows consist of SIDs."""
        if not self.index.ragged:
            return written % (self.index.num_levels + len(self.tokens.end))
        places = torch.arange(ids.shape[1] - 1, -1, -1, device=ids.device)
        is_end = (ids == self.tokens.end[-1]) & (places < written[:, None])
        return torch.where(is_end, places, written[:, None]).amin(1)

    def _constraints(self, tables: Tables, asked: Sequence[RowRules]) -> PreparedConstraints | None:
        """The rules of all rows, on the device. They stay the same for as many steps as the batch does."""
        key = tuple(id(each.rules) for each in asked)
        if key not in self._batches:
            none = rules_of_rows(self.index, [None], [NO_ROWS], [None])
            rules = [none if each.rules is None else each.rules for each in asked]
            while len(self._batches) >= MAX_PREPARED:
                self._batches.pop(next(iter(self._batches)))
            # The rules are kept, so that no others get their ids.
            self._batches[key] = rules, prepared(tables.index, joined_rules(rules))
        return self._batches[key][1]

    def _text(self, tables: Tables, ids: Tensor, scores: Tensor, rows: Tensor) -> Tensor:  # noqa: ARG002
        if not self.tokens.begin:
            return self._ended(torch.full_like(scores, -INF), scores, rows)
        allowed = rows[:, None] if self.codes_in_text else rows[:, None] & tables.words
        return torch.where(allowed, scores, -INF)

    def _allow(self, tables: Tables, ids: Tensor, scores: Tensor, out: Tensor, level: int, states: Tensor) -> None:  # noqa: ARG002
        best = tables.allow(out, scores, level, states)
        self._ended(out, scores, (states > DEAD) & ~(best > -INF))

    def _force(self, out: Tensor, scores: Tensor, token: int, rows: Tensor) -> None:
        # Also if another processor has banned it: after a SID only its end is right.
        values = scores[:, token].nan_to_num(nan=0.0, neginf=0.0)
        out[:, token] = torch.where(rows, values, out[:, token])

    def _ended(self, out: Tensor, scores: Tensor, rows: Tensor) -> Tensor:
        """Let rows only end: 0 is a score as good as any if there is no other."""
        for token in self._ends:
            values = scores[:, token].nan_to_num(nan=0.0, neginf=0.0)
            out[:, token] = torch.where(rows, values, out[:, token])
        return out
