"""CatalogLogitsProcessor: keeps any `generate()` of transformers to Semantic IDs of the catalog."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import ModuleType

import torch
from torch import Tensor
from transformers import LogitsProcessor

from hedgerow._arguments import is_whole
from hedgerow.constraints.requests import BatchRules, Exclusions, Sets, batch_rules
from hedgerow.constraints.sets import ConstraintSet
from hedgerow.decode.beams import DEAD
from hedgerow.decode.device import DeviceIndex, to_device
from hedgerow.decode.kernels.dispatch import HAS_NUMBA
from hedgerow.decode.kernels.walk import allowed_children, child_by_code
from hedgerow.decode.prepare import prepared
from hedgerow.decode.prepared import PreparedConstraints
from hedgerow.errors import ArgumentError, ConstraintError
from hedgerow.hf.searched import Searched, trie_of
from hedgerow.index.trie import Trie
from hedgerow.tokens import NO_TOKEN, TokenMap

INF = float("inf")


class CatalogLogitsProcessor(LogitsProcessor):
    """Lets `generate()` write only SIDs of the catalog: `model.generate(..., logits_processor=[processor])`.

    Greedy, sampling and beam search, decoder-only and encoder-decoder models. It keeps no state: at every call it
    finds each row's place from its last few tokens, by a vectorised walk of the index on the device, so that beams may
    be reordered at will.

    Where the token map has a begin delimiter, the model writes text as it likes; after the delimiter it writes one
    SID, then the end delimiter if there is one, then text again, and perhaps another SID. Outside of a SID, tokens of
    codes are not to be had. Without a begin delimiter, all that is generated is SIDs, one after another, each followed
    by the end delimiter if there is one; then `prompt_length` says where they begin.

    Where SIDs are ragged, the end token may follow every prefix that is itself a SID, and ends it.

    A row that is on no path of the catalog (a prompt that holds a SID that does not exist, or the filling of a row that
    has ended) is taken for text. What `generate` does when a catalog has fewer items than beams is its own: it fills
    up with repetitions of score -1e9 or -inf. `Retriever` does not.

    Args:
        index: the catalog's index. Or a version of a live one, whose removed items are then never written; of a
            `LiveIndex`, the version that is current now.
        tokens: the tokens of each level's codes.
        prompt_length: how many tokens, padding included, stand before the first SID: `input_ids.shape[1]` of a
            decoder-only model, 1 of an encoder-decoder (its start token). Only without a begin delimiter.
        codes_in_text: whether tokens of codes may stand outside of SIDs too: where they are words of a language.
        constraints: one set of the index's items for all requests, or for each its set or None. The rows of a request
            are neighbours, as `num_beams` and `num_return_sequences` lay them out: as many rows for each.
        exclude: for each request the ids of items that it is not to be shown, or None.

    Raises:
        ArgumentError: the tokens do not fit the index, or it cannot be known where a SID begins.
        ConstraintError: a set is another index's, or the two lists are of different lengths.
    """

    def __init__(
        self,
        index: Searched,
        tokens: TokenMap,
        *,
        prompt_length: int | None = None,
        codes_in_text: bool = False,
        constraints: Sets = None,
        exclude: Exclusions = None,
    ) -> None:
        trie, version = trie_of(index)
        self._coded = tokens.of_index(trie)
        if bool(tokens.begin) == (prompt_length is not None):
            raise ArgumentError(
                "where does a SID begin? Give prompt_length=input_ids.shape[1] (1 for an encoder-decoder), or a token "
                "map with a begin delimiter; and not both."
            )
        if prompt_length is not None and not is_whole(prompt_length, 0):
            raise ArgumentError(f"prompt_length must be an integer from 0 on; got {prompt_length!r}.")
        # One token of its own is enough: then the delimiter cannot come about within a SID.
        if tokens.begin and set(tokens.begin) <= {*tokens.end, *(int(id_) for ids in tokens.token_ids for id_ in ids)}:
            raise ArgumentError(
                "the begin delimiter is made of tokens of codes or of the end delimiter, so that it can stand within a "
                "SID; one of its tokens must be another."
            )
        self.index, self.tokens, self.prompt_length, self.codes_in_text = trie, tokens, prompt_length, codes_in_text
        self._placed: dict[tuple[torch.device, int], _Tables] = {}
        left = constraints if version is None else version.restrict(constraints)
        self._rules = _rules_of(trie, left, exclude)
        self._bound: dict[tuple[torch.device, int], PreparedConstraints | None] = {}

    @torch.no_grad()
    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # type: ignore[override]
        """Returns the scores [R, V] with all tokens at -inf that may not follow the ids [R, T]."""
        tables = replace(self._tables_on(scores), bound=self._bound_on(scores))
        if self.prompt_length is None:
            return self._within_text(tables, input_ids, scores)
        if self.index.ragged and input_ids.shape[1] > self.prompt_length:
            # A SID begins where the one before it has ended.
            since = _since(input_ids[:, self.prompt_length :], self.tokens.end)
            written = input_ids.shape[1] - self.prompt_length
            return self._within_text(tables, input_ids, scores, torch.where(since >= 0, since, written))
        return self._sids_alone(tables, input_ids, scores)

    def _sids_alone(self, tables: _Tables, ids: Tensor, scores: Tensor) -> Tensor:
        assert self.prompt_length is not None
        written = ids.shape[1] - self.prompt_length
        if written < 0:
            raise ArgumentError(f"prompt_length is {self.prompt_length}, but the ids have {ids.shape[1]} tokens.")
        levels, end = self.index.num_levels, self.tokens.end
        at = written % (levels + len(end))
        states = torch.zeros(len(ids), dtype=torch.int32, device=ids.device)
        for place, tokens in enumerate(ids[:, ids.shape[1] - at :].unbind(1)):
            if place < levels:
                states = tables.child(place, states, tokens)
            else:
                states = torch.where(tokens == end[place - levels], states, DEAD)
        out = self._text(tables, scores, states == DEAD)
        if at < levels:
            tables.allow(out, scores, at, states)
        else:
            _force(out, scores, end[at - levels], states > DEAD)
        return out

    def _within_text(self, tables: _Tables, ids: Tensor, scores: Tensor, since: Tensor | None = None) -> Tensor:
        """As `__call__`; `since` [R]: how many tokens ago each SID began, where no begin delimiter says so."""
        begin, end, levels = self.tokens.begin, self.tokens.end, self.index.num_levels
        if ids.shape[1] < len(begin):
            return self._text(tables, scores, torch.ones(len(ids), dtype=torch.bool, device=ids.device))
        # Of a row that began earlier than this, the SID is over.
        tail = ids[:, -(len(begin) + levels + len(end)) :]
        since = _since(tail, begin) if since is None else since
        states = torch.where(since >= 0, 0, DEAD).int()
        start = tail.shape[1] - since
        per_level = []
        for place in range(levels + len(end)):
            tokens = tail.gather(1, (start + place).clamp(0, tail.shape[1] - 1)[:, None])[:, 0]
            if place < levels:
                per_level.append(torch.where(since == place, states, DEAD))
                after = tables.child(place, states, tokens)
            else:
                after = torch.where(tokens == end[place - levels], states, DEAD)
            states = torch.where(since > place, after, states)
        ended = since - levels
        out = self._text(tables, scores, (states == DEAD) | (ended >= len(end)))
        for level, at_level in enumerate(per_level):
            tables.allow(out, scores, level, at_level)
        for at, token in enumerate(end):
            _force(out, scores, token, (ended == at) & (states > DEAD))
        return out

    def _text(self, tables: _Tables, scores: Tensor, rows: Tensor) -> Tensor:
        """Returns the scores of rows of text, and -inf for the others."""
        # Asking a GPU would stop it; a CPU saves a pass over the scores.
        if scores.device.type == "cpu" and not bool(rows.any()):
            return torch.full_like(scores, -INF)
        kept = rows[:, None] if self.codes_in_text else rows[:, None] & tables.words
        return torch.where(kept, scores, -INF)

    def _bound_on(self, scores: Tensor) -> PreparedConstraints | None:
        """Returns the constraints of every row, on the device of the scores."""
        if self._rules is None:
            return None
        key = (scores.device, len(scores))
        if key not in self._bound:
            requests = self._rules.batch_size
            if len(scores) % requests:
                raise ConstraintError(
                    f"the scores have {len(scores)} rows, which {requests} requests do not share evenly; give one set "
                    "and one list of excluded ids, or None, for each request."
                )
            rules = self._rules.take([row * requests // len(scores) for row in range(len(scores))])
            self._bound = {key: prepared(self._tables_on(scores).index, rules)}
        return self._bound[key]

    def _tables_on(self, scores: Tensor) -> _Tables:
        key = (scores.device, scores.shape[-1])
        if key not in self._placed:
            self._placed[key] = _Tables.of(self.index, self._coded, *key)
        return self._placed[key]


@dataclass(frozen=True)
class _Tables:
    """The index and the tokens on a device.

    Attributes:
        index: the trie.
        codes: for each level the code [V + 1] int32 of each token, -1 where it is none; the last is that of all ids
            beyond V, which models that see images have.
        token_ids: for each level the token [C] of each code, 0 where it has none.
        present: for each level whether each code [C] has a token.
        words: bool [V], the tokens that are no code at all.
        bound: the constraints of every row; None where there are none.
    """

    index: DeviceIndex
    codes: tuple[Tensor, ...]
    token_ids: tuple[Tensor, ...]
    present: tuple[Tensor, ...]
    words: Tensor
    bound: PreparedConstraints | None = None

    @classmethod
    def of(cls, index: Trie, tokens: TokenMap, device: torch.device, vocabulary_size: int) -> _Tables:
        highest = max(max(map(int, ids), default=0) for ids in (*tokens.token_ids, tokens.begin, tokens.end))
        if highest >= vocabulary_size:
            raise ArgumentError(f"the token map names token {highest}, but the scores have {vocabulary_size:,} tokens.")
        codes, words = [], torch.ones(vocabulary_size, dtype=torch.bool)
        for table in _without_ends(index, tokens):
            known = (table != NO_TOKEN).nonzero()[:, 0]
            inverse = torch.full((vocabulary_size + 1,), -1, dtype=torch.int32)
            inverse[table[known]] = known.int()
            words[table[known]] = False
            codes.append(inverse.to(device))
        # The index may have more codes than the map, all of them unused.
        padded = [
            torch.nn.functional.pad(torch.tensor(table[:size]), (0, max(0, size - len(table))), value=NO_TOKEN)
            for table, size in zip(tokens.token_ids, index.codebook_sizes, strict=True)
        ]
        return cls(
            to_device(index, "torch", device),
            tuple(codes),
            tuple(table.clamp(min=0).to(device) for table in padded),
            tuple((table != NO_TOKEN).nonzero()[:, 0].to(device) for table in padded),
            words.to(device),
        )

    @property
    def compiled(self) -> bool:
        """Whether Numba's kernels walk the index: on a CPU, where Numba is installed."""
        return HAS_NUMBA and self.words.device.type == "cpu"

    def child(self, level: int, states: Tensor, tokens: Tensor) -> Tensor:
        """Returns the child [R] of each state by each token; dead where there is none."""
        if self.compiled:
            arrays = (self.codes[level].numpy(), tokens.numpy(), states.numpy())
            return torch.from_numpy(walk_numba().child_by_token(self.index.levels[level], *arrays))
        codes = self.codes[level][tokens.clamp(max=len(self.words))]
        return child_by_code(self.index._ops, self.index.levels[level], states, codes)

    def allow(self, out: Tensor, scores: Tensor, at: int, states: Tensor) -> None:
        """Writes to `out` the scores of the tokens that may follow live `states` [R] of a level."""
        level = self.index.levels[at]
        bound = None if self.bound is None else self.bound.levels[at]
        if self.compiled and bound is None and scores.dtype in (torch.float32, torch.float64):
            arrays = (self.token_ids[at].numpy(), states.numpy(), scores.numpy(), out.numpy())
            walk_numba().write_allowed(level, *arrays)
            return
        codes, valid = (x[:, 0] for x in allowed_children(self.index._ops, level, states[:, None], bound))
        if level.allowed is not None:
            codes, valid = codes[:, self.present[at]], valid[:, self.present[at]]
        # Where a row has fewer children than others, its first stands again, so that writing it twice does no harm.
        tokens = self.token_ids[at][codes.long()]
        out.scatter_(1, tokens, torch.where(valid, scores.gather(1, tokens), out.gather(1, tokens)))


def walk_numba() -> ModuleType:
    """Returns the compiled walk, loaded when it is first needed."""
    from hedgerow.decode.kernels import walk_numba

    return walk_numba


def _rules_of(index: Trie, constraints: Sets, exclude: Exclusions) -> BatchRules | None:
    """Returns the rules of the requests, of which there are as many as the lists say; one where there is no list."""
    if constraints is None and exclude is None:
        return None
    sets = [constraints] if isinstance(constraints, ConstraintSet) else list(constraints or ())
    for items in sets:
        if isinstance(items, ConstraintSet) and items.num_items == 0:
            raise ConstraintError(f"{items!r}: generate() has to write something; leave such a request out.")
    lists = [given for given in (constraints, exclude) if given is not None and not isinstance(given, ConstraintSet)]
    requests = len(lists[0]) if lists and hasattr(lists[0], "__len__") else 1
    return batch_rules(index, requests, constraints, exclude)


def _since(tail: Tensor, begin: tuple[int, ...]) -> Tensor:
    """Returns how many tokens [R] stand after the last begin delimiter of each row; -1 where there is none."""
    length = tail.shape[1] - len(begin) + 1
    found = torch.ones((len(tail), length), dtype=torch.bool, device=tail.device)
    for offset, token in enumerate(begin):
        found &= tail[:, offset : offset + length] == token
    distance = torch.arange(length - 1, -1, -1, device=tail.device)
    nearest = torch.where(found, distance, length).amin(1)
    return torch.where(nearest < length, nearest, -1)


def _without_ends(index: Trie, tokens: TokenMap) -> list[Tensor]:
    """Returns the tokens [C] of each level's codes, the end left out: it is read as text, so that text follows it."""
    tables = [torch.tensor(table) for table in tokens.token_ids]
    for table, end in zip(tables, index.end_codes, strict=True):
        if end is not None:
            table[end] = NO_TOKEN
    return tables


def _force(out: Tensor, scores: Tensor, token: int, rows: Tensor) -> None:
    """Writes to `out` the score of one token in some rows."""
    out[:, token] = torch.where(rows, scores[:, token], out[:, token])
