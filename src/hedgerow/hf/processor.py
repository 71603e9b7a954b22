"""CatalogLogitsProcessor: constrains `generate()` of transformers to Semantic IDs of the catalog."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor

from hedgerow.constraints.requests import Exclusions, Sets
from hedgerow.decode.beams import DEAD
from hedgerow.decode.prepare import prepared
from hedgerow.decode.prepared import PreparedConstraints
from hedgerow.errors import ConstraintError
from hedgerow.hf.model import INF
from hedgerow.hf.processor_checks import RowCheck, can_read, check_inputs, check_scores, check_start, rules_of
from hedgerow.hf.processor_tables import Tables
from hedgerow.hf.searched import Searched, check_token_map, trie_of
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

    A row whose tokens after `prompt_length` are on no path of the catalog is an error, which names the row. Padding
    after a complete SID is none. With a begin delimiter, tokens on no path count as text, because prompts may mention
    SIDs that do not exist. If a catalog has fewer items than beams, beam search fills up with repetitions of score
    -1e9; beam sampling chooses tokens at random then, which is an error at the next token. `Retriever` returns fewer
    items instead.

    Under `torch.compile` the processor runs as it is, outside of the graph, so `fullgraph=True` does not accept it.
    `model.generate_batch` (continuous batching) ignores all processors that are passed to it.

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

    # Continuous batching calls processors with rows of several requests one after another.
    supports_continuous_batching = False

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
        check_start(tokens, prompt_length)
        self.index, self.tokens, self.prompt_length, self.codes_in_text = trie, tokens, prompt_length, codes_in_text
        self._tables: dict[tuple[torch.device, int], Tables] = {}
        restricted = constraints if version is None else version.restrict(constraints)
        self._rules = rules_of(trie, restricted, exclude)
        self._prepared: dict[tuple[torch.device, int], PreparedConstraints | None] = {}
        self._check = RowCheck(trie, self._index_tokens, prompt_length)

    def __getstate__(self) -> dict[str, Any]:
        """Copy and pickle without the tables on devices, which are computed again."""
        return self.__dict__ | {"_tables": {}, "_prepared": {}}

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # type: ignore[override]
        """Set the scores of all tokens that may not follow to -inf. `generate()` calls this.

        Args:
            input_ids: [R, T] int64, the tokens so far.
            scores: [R, V], the scores of the next token; not changed.

        Returns:
            The scores [R, V].

        Raises:
            ArgumentError: `input_ids` or `scores` has another type or shape, the token map has a token beyond V,
                `prompt_length` is larger than T, a row has left the paths of the catalog, or other processors exclude
                all tokens that may follow in any row.
            ConstraintError: R is not a multiple of the number of requests, or a row has left the items of its request.

        Warns:
            UserWarning: other processors exclude all tokens that may follow in some rows, or their scores are NaN.

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
        return _outside_of_graphs(self._mask, input_ids, scores)  # pyright: ignore[reportCallIssue]

    def _mask(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        check_inputs(input_ids, scores)
        tables = replace(self._tables_on(scores), constraints=self._prepared_on(scores))
        if self.prompt_length is None:
            return self._within_text(tables, input_ids, scores)
        if self.index.ragged and input_ids.shape[1] > self.prompt_length:
            # A SID begins after the end of the SID before it.
            since = _since(input_ids[:, self.prompt_length :], self.tokens.end)
            written = input_ids.shape[1] - self.prompt_length
            return self._within_text(tables, input_ids, scores, torch.where(since >= 0, since, written))
        return self._sids_alone(tables, input_ids, scores)

    def _sids_alone(self, tables: Tables, ids: Tensor, scores: Tensor) -> Tensor:
        """Mask rows that consist of SIDs after the prompt: all rows are at the same level."""
        assert self.prompt_length is not None
        self._check.length(ids)
        num_levels, end = self.index.num_levels, self.tokens.end
        level = (ids.shape[1] - self.prompt_length) % (num_levels + len(end))
        states = torch.zeros(len(ids), dtype=torch.int32, device=ids.device)
        for place, tokens in enumerate(ids[:, ids.shape[1] - level :].unbind(1)):
            states = self._next_states(tables, place, states, tokens)
        out = self._text(tables, ids, scores, states == DEAD)
        if level < num_levels:
            self._allow(tables, ids, scores, out, level, states)
        else:
            self._force(out, scores, end[level - num_levels], states > DEAD)
        return out

    def _within_text(self, tables: Tables, ids: Tensor, scores: Tensor, since: Tensor | None = None) -> Tensor:
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
            return self._text(tables, ids, scores, torch.ones(len(ids), dtype=torch.bool, device=ids.device))
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
        out = self._text(tables, ids, scores, (states == DEAD) | (ended >= len(end)))
        for level, level_states in enumerate(states_by_level):
            self._allow(tables, ids, scores, out, level, level_states)
        for place, token in enumerate(end):
            self._force(out, scores, token, (ended == place) & (states > DEAD))
        return out

    def _next_states(self, tables: Tables, place: int, states: Tensor, tokens: Tensor) -> Tensor:
        """The states [R] after the token at a place of a SID, or of the end delimiter that follows it."""
        if place < self.index.num_levels:
            return tables.child(place, states, tokens)
        return torch.where(tokens == self.tokens.end[place - self.index.num_levels], states, DEAD)

    def _text(self, tables: Tables, ids: Tensor, scores: Tensor, rows: Tensor) -> Tensor:
        """The scores of the words in rows of text, and -inf elsewhere.

        Raises:
            ArgumentError: rows consist of SIDs alone, but one of the rows of text is not padded after a SID.
        """
        # Reading a value makes a GPU wait. The check is worth it; on a CPU, it saves a pass over the scores.
        if can_read(rows) and (self.prompt_length is not None or rows.device.type == "cpu"):
            if not rows.any():
                return torch.full_like(scores, -INF)
            if self.prompt_length is not None:
                self._check.on_path(ids, rows)
        allowed = rows[:, None] if self.codes_in_text else rows[:, None] & tables.words
        return torch.where(allowed, scores, -INF)

    def _allow(self, tables: Tables, ids: Tensor, scores: Tensor, out: Tensor, level: int, states: Tensor) -> None:
        """Write to `out` the scores of the tokens that may follow the `states` [R], and check that there are some."""
        best = tables.allow(out, scores, level, states)
        stuck = (states > DEAD) & ~(best > -INF)
        if not can_read(stuck) or not stuck.any():
            return
        if tables.constraints is not None:
            unrestricted = replace(tables, constraints=None).allow(scores.clone(), scores, level, states)
            self._check.in_set(ids, stuck & (unrestricted > -INF))
        check_scores(best, stuck)

    def _force(self, out: Tensor, scores: Tensor, token: int, rows: Tensor) -> None:
        """Write to `out` the score of one token in some rows."""
        out[:, token] = torch.where(rows, scores[:, token], out[:, token])
        stuck = rows & ~(scores[:, token] > -INF)
        if can_read(stuck) and stuck.any():
            check_scores(scores[:, token], stuck)

    def _prepared_on(self, scores: Tensor) -> PreparedConstraints | None:
        """The constraints of every row, on the device of the scores."""
        if self._rules is None:
            return None
        key = (scores.device, len(scores))
        constraints = self._prepared
        if key not in constraints:
            requests = self._rules.batch_size
            if len(scores) % requests:
                raise ConstraintError(
                    f"the scores have {len(scores)} rows, which is not a multiple of the {requests} requests of the "
                    "constraints; pass one set and one list of excluded ids, or None, per request."
                )
            rules = self._rules.take([row * requests // len(scores) for row in range(len(scores))])
            constraints = self._prepared = {key: prepared(self._tables_on(scores).index, rules)}
        return constraints[key]

    def _tables_on(self, scores: Tensor) -> Tables:
        key = (scores.device, scores.shape[-1])
        if key not in self._tables:
            self._tables[key] = Tables.of(self.index, self._index_tokens, *key)
        return self._tables[key]


# Dynamo cannot trace compiled functions, the caches and the checks.
@torch.compiler.disable
def _outside_of_graphs(mask: Callable[[Tensor, Tensor], Tensor], ids: Tensor, scores: Tensor) -> Tensor:
    with torch.no_grad():
        return mask(ids, scores)


def _since(tail: Tensor, begin: tuple[int, ...]) -> Tensor:
    """The number of tokens [R] after the last begin delimiter of each row; -1 if there is none."""
    length = tail.shape[1] - len(begin) + 1
    matches = torch.ones((len(tail), length), dtype=torch.bool, device=tail.device)
    for offset, token in enumerate(begin):
        matches &= tail[:, offset : offset + length] == token
    distance = torch.arange(length - 1, -1, -1, device=tail.device)
    nearest = torch.where(matches, distance, length).amin(1)
    return torch.where(nearest < length, nearest, -1)
