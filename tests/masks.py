"""The mask of a CatalogLogitsProcessor by brute force."""

from __future__ import annotations

import numpy as np
import torch
from tiny import TOKENS

import hedgerow as hr

DELIMITED = hr.TokenMap(TOKENS.token_ids, begin=(191, 192), end=(193,))


class BruteForce:
    """The tokens that may follow some ids, computed from the set of SIDs."""

    def __init__(self, sids, tokens: hr.TokenMap, vocabulary: int, *, prompt_length=None, codes_in_text=False) -> None:
        self.sids = set(map(tuple, tokens.encode(np.asarray(sids)).tolist()))
        self.tokens, self.prompt_length = tokens, prompt_length
        codes = set() if codes_in_text else {int(token) for table in tokens.token_ids for token in table}
        self.text = set(range(vocabulary)) - codes

    def __call__(self, ids: list[int]) -> set[int]:
        rest, levels, end = self.since_begin(ids), self.tokens.num_levels, self.tokens.end
        if rest is None:
            return self.text
        if len(rest) < levels:
            return {sid[len(rest)] for sid in self.sids if sid[: len(rest)] == rest} or self.text
        written = rest[levels:]
        if rest[:levels] in self.sids and len(written) < len(end) and written == end[: len(written)]:
            return {end[len(written)]}
        return self.text

    def is_path(self, ids: list[int]) -> bool:
        """Whether the last SID of ids without a begin delimiter is complete, or can be completed."""
        rest = self.since_begin(ids) or ()
        return any((*sid, *self.tokens.end)[: len(rest)] == rest for sid in self.sids)

    def is_padded(self, ids: list[int]) -> bool:
        assert self.prompt_length is not None
        whole = self.tokens.num_levels + len(self.tokens.end)
        for stop in range(self.prompt_length + whole, len(ids), whole):
            sid = tuple(ids[stop - whole : stop - len(self.tokens.end)])
            if sid in self.sids and len(set(ids[stop:])) == 1:
                return True
        return False

    def since_begin(self, ids: list[int]) -> tuple[int, ...] | None:
        if self.prompt_length is not None:
            written = len(ids) - self.prompt_length
            return tuple(ids[len(ids) - written % (self.tokens.num_levels + len(self.tokens.end)) :])
        width = len(self.tokens.begin)
        places = [at for at in range(len(ids) - width + 1) if tuple(ids[at : at + width]) == self.tokens.begin]
        return tuple(ids[places[-1] + width :]) if places else None

    def mask(self, rows, scores):
        allowed = torch.zeros(scores.shape, dtype=torch.bool)
        for row, ids in enumerate(rows.tolist()):
            allowed[row, sorted(self(ids))] = True
        return torch.where(allowed, scores, -torch.inf)
