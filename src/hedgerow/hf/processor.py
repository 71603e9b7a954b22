"""CatalogLogitsProcessor: constrains `generate()` of transformers to Semantic IDs of the catalog."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import ModuleType

import numpy as np
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
from hedgerow.hf.model import INF
from hedgerow.hf.searched import Searched, check_token_map, trie_of
from hedgerow.index.trie import Trie
from hedgerow.token_tables import NO_TOKEN
from hedgerow.tokens import TokenMap


class CatalogLogitsProcessor(LogitsProcessor):
    """Makes `generate()` write only SIDs of the catalog: `model.generate(..., logits_processor=[processor])`.

    It works with greedy decoding, sampling and beam search, and with decoder-only and encoder-decoder models. It keeps
    no state between calls: each call finds the node of each row from its last few tokens, by a vectorized walk of the
    index on the device. So beams can be reordered freely.

    If the token map has a begin delimiter, the model writes text freely. After each delimiter, it writes one SID, then
    the end delimiter if there is one, then text again. Outside of SIDs, tokens of codes are not allowed. Without a
    begin delimiter, everything that is generated consists of SIDs, each followed by the end delimiter if there is one;
    `prompt_length` is where they begin.

    If SIDs are ragged, the end token may follow each prefix that is itself a SID, and ends that SID.

    A row that is not on a path of the catalog counts as text: for example if its prompt contains a SID that does not
    exist, or if it has ended and is padded. If a catalog has fewer items than beams, `generate` fills up with
    repetitions of score -1e9 or -inf. `Retriever` does not.

    Args:
        index: the index of the catalog; or a `Version` of a live index, whose removed items are then never written; or
            a `LiveIndex`, of which the current version is used.
        tokens: the tokens of each level's codes.
        prompt_length: the number of tokens, including padding, before the first SID: `input_ids.shape[1]` for a
            decoder-only model, 1 for an encoder-decoder model (its start token). Only without a begin delimiter.
        codes_in_text: whether tokens of codes may also occur outside of SIDs, because they are words of the language.
        constraints: one constraint set for all requests, or for each request its set or None. Each request has the
            same number of consecutive rows, as `num_beams` and `num_return_sequences` lay them out.
        exclude: for each request the ids of items to exclude, or None.

    Raises:
        ArgumentError: the tokens do not fit the index, or the start of SIDs is not defined, or defined twice.
        ConstraintError: a set belongs to another index, a request has no item left to write, or the two lists are empty
            or have different lengths.

    Examples:
        ```python
        import torch
        import hedgerow as hr
        from hedgerow.hf import CatalogLogitsProcessor
        from transformers import Qwen3Config, Qwen3ForCausalLM

        sizes = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_key_value_heads": 2}
        model = Qwen3ForCausalLM(Qwen3Config(vocab_size=32, num_hidden_layers=2, head_dim=16, **sizes))
        index = hr.build_index(hr.Catalog([[0, 1], [2, 0], [2, 2]], codebook_sizes=4))
        tokens = hr.TokenMap.from_offsets([10, 14], codebook_sizes=4)

        prompt = torch.tensor([[1, 2, 3]])
        processor = CatalogLogitsProcessor(index, tokens, prompt_length=3)
        options = {"max_new_tokens": 2, "do_sample": True, "pad_token_id": 0, "eos_token_id": None}
        written = model.generate(prompt, logits_processor=[processor], **options)
        assert index.contains(tokens.decode(written[:, 3:])).all()
        ```
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
        check_token_map(tokens)
        self._index_tokens = tokens.of_index(trie)
        _check_start(tokens, prompt_length)
        self.index, self.tokens, self.prompt_length, self.codes_in_text = trie, tokens, prompt_length, codes_in_text
        self._tables: dict[tuple[torch.device, int], _Tables] = {}
        restricted = constraints if version is None else version.restrict(constraints)
        self._rules = _rules_of(trie, restricted, exclude)
        self._prepared: dict[tuple[torch.device, int], PreparedConstraints | None] = {}

    @torch.no_grad()
    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # type: ignore[override]
        """Set the scores of all tokens that may not follow to -inf. `generate()` calls this.

        Args:
            input_ids: [R, T] int64, the tokens so far.
            scores: [R, V], the scores of the next token; not changed.

        Returns:
            The scores [R, V].

        Raises:
            ArgumentError: the token map has a token beyond V, or `prompt_length` is larger than T.
            ConstraintError: R is not a multiple of the number of requests.

        Examples:
            ```python
            import torch
            import hedgerow as hr
            from hedgerow.hf import CatalogLogitsProcessor

            index = hr.build_index(hr.Catalog([[0, 1], [2, 0], [2, 2]], codebook_sizes=4))
            tokens = hr.TokenMap.from_offsets([10, 14], codebook_sizes=4)
            processor = CatalogLogitsProcessor(index, tokens, prompt_length=1)
            # Token 12 is code 2 of level 0; codes 0 and 2 of level 1 may follow it.
            scores = processor(torch.tensor([[5, 12]]), torch.zeros(1, 32))
            assert torch.isfinite(scores).nonzero()[:, 1].tolist() == [14, 16]
            ```
        """
        tables = replace(self._tables_on(scores), constraints=self._prepared_on(scores))
        if self.prompt_length is None:
            return self._within_text(tables, input_ids, scores)
        if self.index.ragged and input_ids.shape[1] > self.prompt_length:
            # A SID begins after the end of the SID before it.
            since = _since(input_ids[:, self.prompt_length :], self.tokens.end)
            written = input_ids.shape[1] - self.prompt_length
            return self._within_text(tables, input_ids, scores, torch.where(since >= 0, since, written))
        return self._sids_alone(tables, input_ids, scores)

    def _sids_alone(self, tables: _Tables, ids: Tensor, scores: Tensor) -> Tensor:
        """Mask rows that consist of SIDs after the prompt: all rows are at the same level."""
        assert self.prompt_length is not None
        written = ids.shape[1] - self.prompt_length
        if written < 0:
            raise ArgumentError(
                f"prompt_length is {self.prompt_length}, but input_ids has {ids.shape[1]} tokens; pass the number of "
                "tokens before the first SID."
            )
        num_levels, end = self.index.num_levels, self.tokens.end
        level = written % (num_levels + len(end))
        states = torch.zeros(len(ids), dtype=torch.int32, device=ids.device)
        for place, tokens in enumerate(ids[:, ids.shape[1] - level :].unbind(1)):
            states = self._next_states(tables, place, states, tokens)
        out = self._text(tables, scores, states == DEAD)
        if level < num_levels:
            tables.allow(out, scores, level, states)
        else:
            _force(out, scores, end[level - num_levels], states > DEAD)
        return out

    def _within_text(self, tables: _Tables, ids: Tensor, scores: Tensor, since: Tensor | None = None) -> Tensor:
        """Mask rows of text and SIDs, each at its own level.

        Args:
            tables: the index and the tokens on the device.
            ids: [R, T].
            scores: [R, V].
            since: [R], the number of tokens since each row's SID began, -1 in text. Default: found from the begin
                delimiter.
        """
        begin, end, num_levels = self.tokens.begin, self.tokens.end, self.index.num_levels
        if ids.shape[1] < len(begin):
            return self._text(tables, scores, torch.ones(len(ids), dtype=torch.bool, device=ids.device))
        # A SID that began before this tail is over.
        tail = ids[:, -(len(begin) + num_levels + len(end)) :]
        since = _since(tail, begin) if since is None else since
        states = torch.where(since >= 0, 0, DEAD).int()
        start = tail.shape[1] - since
        states_by_level = []
        for place in range(num_levels + len(end)):
            tokens = tail.gather(1, (start + place).clamp(0, tail.shape[1] - 1)[:, None])[:, 0]
            if place < num_levels:
                states_by_level.append(torch.where(since == place, states, DEAD))
            states = torch.where(since > place, self._next_states(tables, place, states, tokens), states)
        ended = since - num_levels
        out = self._text(tables, scores, (states == DEAD) | (ended >= len(end)))
        for level, level_states in enumerate(states_by_level):
            tables.allow(out, scores, level, level_states)
        for place, token in enumerate(end):
            _force(out, scores, token, (ended == place) & (states > DEAD))
        return out

    def _next_states(self, tables: _Tables, place: int, states: Tensor, tokens: Tensor) -> Tensor:
        """The states [R] after the token at a place of a SID, or of the end delimiter that follows it."""
        if place < self.index.num_levels:
            return tables.child(place, states, tokens)
        return torch.where(tokens == self.tokens.end[place - self.index.num_levels], states, DEAD)

    def _text(self, tables: _Tables, scores: Tensor, rows: Tensor) -> Tensor:
        """The scores of the words in rows of text, and -inf elsewhere."""
        # Reading a value would make a GPU wait; on a CPU it saves a pass over the scores.
        if scores.device.type == "cpu" and not bool(rows.any()):
            return torch.full_like(scores, -INF)
        allowed = rows[:, None] if self.codes_in_text else rows[:, None] & tables.words
        return torch.where(allowed, scores, -INF)

    def _prepared_on(self, scores: Tensor) -> PreparedConstraints | None:
        """The constraints of every row, on the device of the scores."""
        if self._rules is None:
            return None
        key = (scores.device, len(scores))
        if key not in self._prepared:
            requests = self._rules.batch_size
            if len(scores) % requests:
                raise ConstraintError(
                    f"the scores have {len(scores)} rows, which is not a multiple of the {requests} requests of the "
                    "constraints; pass one set and one list of excluded ids, or None, per request."
                )
            rules = self._rules.take([row * requests // len(scores) for row in range(len(scores))])
            self._prepared = {key: prepared(self._tables_on(scores).index, rules)}
        return self._prepared[key]

    def _tables_on(self, scores: Tensor) -> _Tables:
        key = (scores.device, scores.shape[-1])
        if key not in self._tables:
            self._tables[key] = _Tables.of(self.index, self._index_tokens, *key)
        return self._tables[key]


@dataclass(frozen=True)
class _Tables:
    """The index and the tokens on a device.

    Attributes:
        index: the trie.
        codes: per level, the code [V + 1] int32 of each token, -1 if it has none. The last entry is for all ids beyond
            V, which models that read images have.
        token_ids: per level, the token [C] of each code, 0 if it has none.
        present: per level, the codes that have a token.
        words: bool [V], the tokens that stand for no code.
        constraints: the constraints of every row, or None.
    """

    index: DeviceIndex
    codes: tuple[Tensor, ...]
    token_ids: tuple[Tensor, ...]
    present: tuple[Tensor, ...]
    words: Tensor
    constraints: PreparedConstraints | None = None

    @classmethod
    def of(cls, index: Trie, tokens: TokenMap, device: torch.device, vocabulary_size: int) -> _Tables:
        highest = max(max(map(int, ids), default=0) for ids in (*tokens.token_ids, tokens.begin, tokens.end))
        if highest >= vocabulary_size:
            raise ArgumentError(
                f"the token map names token {highest}, but the scores have {vocabulary_size:,} tokens; it belongs to "
                "another model, or the embeddings of the model were not resized."
            )
        codes, words = [], torch.ones(vocabulary_size, dtype=torch.bool)
        for table in _without_ends(index, tokens):
            present = (table != NO_TOKEN).nonzero()[:, 0]
            inverse = torch.full((vocabulary_size + 1,), -1, dtype=torch.int32)
            inverse[table[present]] = present.int()
            words[table[present]] = False
            codes.append(inverse.to(device))
        # The index may have more codes than the map; no SID uses them.
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
        """Whether Numba's kernels walk the index: on a CPU, if Numba is installed."""
        return HAS_NUMBA and self.words.device.type == "cpu"

    def child(self, level: int, states: Tensor, tokens: Tensor) -> Tensor:
        """The child [R] of each state by each token; dead if there is none."""
        if self.compiled:
            arrays = (self.codes[level].numpy(), tokens.numpy(), states.numpy())
            return torch.from_numpy(_walk_numba().child_by_token(self.index.levels[level], *arrays))
        codes = self.codes[level][tokens.clamp(max=len(self.words))]
        return child_by_code(self.index._ops, self.index.levels[level], states, codes)

    def allow(self, out: Tensor, scores: Tensor, level: int, states: Tensor) -> None:
        """Write to `out` the scores of the tokens that may follow the live `states` [R] before a level."""
        trie_level = self.index.levels[level]
        masks = None if self.constraints is None else self.constraints.levels[level]
        if self.compiled and masks is None and scores.dtype in (torch.float32, torch.float64):
            arrays = (self.token_ids[level].numpy(), states.numpy(), scores.numpy(), out.numpy())
            _walk_numba().write_allowed(trie_level, *arrays)
            return
        codes, valid = (array[:, 0] for array in allowed_children(self.index._ops, trie_level, states[:, None], masks))
        if trie_level.allowed is not None:
            codes, valid = codes[:, self.present[level]], valid[:, self.present[level]]
        # A row with fewer children than others repeats its first child, so writing it twice does no harm.
        tokens = self.token_ids[level][codes.long()]
        out.scatter_(1, tokens, torch.where(valid, scores.gather(1, tokens), out.gather(1, tokens)))


def _walk_numba() -> ModuleType:
    """The compiled walk; imported on first use."""
    from hedgerow.decode.kernels import walk_numba

    return walk_numba


def _check_start(tokens: TokenMap, prompt_length: int | None) -> None:
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


def _rules_of(index: Trie, constraints: Sets, exclude: Exclusions) -> BatchRules | None:
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


def _since(tail: Tensor, begin: tuple[int, ...]) -> Tensor:
    """The number of tokens [R] after the last begin delimiter of each row; -1 if there is none."""
    length = tail.shape[1] - len(begin) + 1
    matches = torch.ones((len(tail), length), dtype=torch.bool, device=tail.device)
    for offset, token in enumerate(begin):
        matches &= tail[:, offset : offset + length] == token
    distance = torch.arange(length - 1, -1, -1, device=tail.device)
    nearest = torch.where(matches, distance, length).amin(1)
    return torch.where(nearest < length, nearest, -1)


def _without_ends(index: Trie, tokens: TokenMap) -> list[Tensor]:
    """The tokens [C] of each level's codes without the end token, which counts as text, so that text follows it."""
    tables = [torch.tensor(table) for table in tokens.token_ids]
    for table, end in zip(tables, index.end_codes, strict=True):
        if end is not None:
            table[end] = NO_TOKEN
    return tables


def _force(out: Tensor, scores: Tensor, token: int, rows: Tensor) -> None:
    """Write to `out` the score of one token in some rows."""
    out[:, token] = torch.where(rows, scores[:, token], out[:, token])
