"""Inspection: what a `Retriever` shows of its searches, beside the items."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from hedgerow._arguments import whole_number
from hedgerow.candidates import CandidateIndex
from hedgerow.constraints.requests import BatchRules, Candidates, Exclusions, Sets, batch_rules
from hedgerow.decode.beams import Beams
from hedgerow.decode.device import DeviceIndex
from hedgerow.decode.prepare import prepared
from hedgerow.errors import ArgumentError
from hedgerow.hf.explain import Explanation, explained
from hedgerow.hf.faults import Outcome, retried
from hedgerow.hf.graphs import Captured, Size, captured_search
from hedgerow.hf.limits import max_positions
from hedgerow.hf.logits_fn import LogitsFn, logits_after
from hedgerow.hf.prompts import Ids, checked
from hedgerow.hf.reading import reader_of
from hedgerow.hf.search import ModelSearch
from hedgerow.live.version import Version
from hedgerow.tokens import TokenMap
from hedgerow.trie_index import TrieIndex


class Inspection:
    """The base of `Retriever`: its searches, and what they show beside the items."""

    model: Any
    index: TrieIndex
    version: Version | None
    device_index: DeviceIndex
    tokens: TokenMap
    tokenizer: Any
    max_tokens: int
    _search: ModelSearch
    _add_special_tokens: bool | None
    _chat_template_kwargs: dict[str, Any]
    _captured: dict[Size, Captured]
    _cuda_graphs: bool

    def trace(
        self, prompt: Any, *, beam_width: int = 50, constraints: Sets = None, exclude: Exclusions = None
    ) -> list[Beams]:
        """Run the search of one prompt and return the beams [1, M] after every level.

        Args:
            prompt: one prompt, as for `retrieve`.
            beam_width: as for `retrieve`.
            constraints: a constraint set, or a list of one.
            exclude: a list with one list of item ids.

        Raises:
            ArgumentError: as for `retrieve`, or there are several prompts.
            ConstraintError: as for `retrieve`.

        Examples:
            ```python
            import hedgerow as hr
            from hedgerow.demo.films import load_catalog, load_retriever

            retriever = load_retriever(hr.build_index(load_catalog()))
            history = retriever.trace("Recommend me a western", beam_width=5)
            assert [beams.level for beams in history] == [1, 2, 3, 4]
            ```
        """
        return self._beams([self._encode_one(prompt)], beam_width, self._rules(1, constraints, exclude), [0])

    def explain(
        self,
        prompt: Any,
        item_id: Any,
        *,
        beam_width: int = 50,
        k: int = 10,
        constraints: Sets = None,
        exclude: Exclusions = None,
    ) -> Explanation:
        """Explain why an item was or was not returned for a prompt: where its prefix left the beam, and at what score.

        Args:
            prompt: one prompt, as for `retrieve`.
            item_id: the id of the item, not its SID.
            beam_width: as for `retrieve`.
            k: as for `retrieve`; not None.
            constraints: a constraint set, or a list of one.
            exclude: a list with one list of item ids.

        Raises:
            ArgumentError: as for `retrieve`, or there are several prompts.
            ConstraintError: as for `retrieve`.

        Examples:
            ```python
            import hedgerow as hr
            from hedgerow.demo.films import load_catalog, load_retriever

            retriever = load_retriever(hr.build_index(load_catalog()))
            (results,) = retriever.retrieve("Recommend me a western")
            explanation = retriever.explain("Recommend me a western", results.item_ids[1])
            assert (explanation.outcome, explanation.rank) == ("returned", 2)
            ```
        """
        rules = self._rules(1, constraints, exclude)
        removed = None if self.version is None else self.version.removed
        prompt_ids = self._encode_one(prompt)
        return explained(self._search, prompt_ids, item_id, rules, removed, beam_width=beam_width, k=k)

    # Not torch.inference_mode, here and below: callers may change the tensors in place.
    @torch.no_grad()
    def free_search(self, prompts: Any, *, beam_width: int = 50) -> tuple[Tensor, Tensor]:
        """Run an unconstrained beam search over all codes of each level, to compare with `retrieve`.

        Scores are normalized as for `retrieve`, with `temperature` and `normalize`; "allowed" equals "codes" here.

        Args:
            prompts: B prompts, as for `retrieve`.
            beam_width: M.

        Returns:
            SIDs [B, M, L] int32 and their scores [B, M] float32, best first, on the model's device. A SID may match no
                item. A ragged SID has -1 after its end. If there are fewer than M combinations of codes, the last
                scores are -inf.

        Raises:
            ArgumentError: as for `retrieve`.

        Examples:
            ```python
            import hedgerow as hr
            from hedgerow.demo.films import load_catalog, load_retriever

            index = hr.build_index(load_catalog())
            retriever = load_retriever(index)
            sids, scores = retriever.free_search("Recommend me a western", beam_width=50)
            assert sids.shape == (1, 50, 4)
            assert not index.contains(sids[0].numpy()).all()
            ```
        """
        beam_width, ids = whole_number(beam_width, "beam_width"), self._encode(prompts)
        device = self._search.model.device
        sids = torch.empty((len(ids), beam_width, self.index.num_levels), dtype=torch.int32, device=device)
        scores = torch.empty((len(ids), beam_width), device=device)
        for rows in self._search.batches(ids, beam_width, self.max_tokens):
            sids[rows], scores[rows] = self._free([ids[row] for row in rows], beam_width, rows)
        return sids, scores

    def logits_fn(self, prompts: Any, *, beam_width: int) -> Callable[[Beams], Tensor]:
        """Create the function that computes the model's logits for beams, for a search loop of your own.

        Pass it to `hedgerow.beam_search` as it is, or call it between calls of `hedgerow.step` and change the logits.
        It must get the beams of each level in turn. The beams of `init_beams` start a new search.

        The logits are neither divided by the temperature nor normalized: pass `temperature` and `normalize` to
        `hedgerow.step`. They cover the codes of the index; if the model has more codes, `retrieve` with
        `normalize="codes"` counts these as well. NaN bans a code, and is an error in `retrieve` only. The length
        penalty, and the end that `retrieve` with `normalize="vocab"` scores after the longest ragged SIDs, are left
        to you.

        All prompts form one batch; `max_tokens` does not apply.

        Args:
            prompts: B prompts, as for `retrieve`.
            beam_width: M, the number of beams per prompt after level 0.

        Returns:
            A function that maps beams [B, m] before level l to logits [B, m, C] float32 of the codes of level l; -inf
                for codes without a token. m is 1 before level 0 and M after it.

        Raises:
            ArgumentError: as for `retrieve`.

        Examples:
            ```python
            import hedgerow as hr
            from hedgerow.demo.films import load_catalog, load_retriever

            index = hr.build_index(load_catalog())
            retriever = load_retriever(index)
            logits_fn = retriever.logits_fn("Recommend me a western", beam_width=20)
            beams = hr.beam_search(retriever.device_index, logits_fn, batch_size=1, beam_width=20)
            (results,) = retriever.retrieve("Recommend me a western", beam_width=20, k=3)
            assert index.results(beams, k=3)[0].item_ids == results.item_ids
            ```
        """
        return LogitsFn(self._search, self._encode(prompts), whole_number(beam_width, "beam_width"))

    @torch.no_grad()
    def code_logits(self, prompts: Any, level: int) -> Tensor:
        """Compute the model's logits for the codes of one level after each prompt, before the temperature.

        Args:
            prompts: B prompts, as for `retrieve`, each followed by the tokens of the codes of the levels before
                `level`. The begin delimiter goes before these tokens.
            level: 0 to L - 1.

        Returns:
            [B, C] float32, on the model's device; -inf for codes without a token.

        Raises:
            ArgumentError: as for `retrieve`, or a prompt has too few tokens.

        Examples:
            ```python
            import hedgerow as hr
            from hedgerow.demo.films import load_catalog, load_retriever

            retriever = load_retriever(hr.build_index(load_catalog()))
            prompts = ["Recommend me a western", "A French comedy"]
            assert retriever.code_logits(prompts, level=0).shape == (2, 256)
            (ids,) = retriever.encode("Recommend me a western")
            code = int(retriever.tokens.token_ids[0][7])
            assert retriever.code_logits([[*ids, code]], level=1).shape == (1, 256)
            ```
        """
        level = whole_number(level, "level", 0, self.index.num_levels - 1)
        ids = self._encode(prompts, num_codes=level)
        if not ids:
            return torch.empty((0, self.index.codebook_sizes[level]), device=self._search.model.device)
        return logits_after(self._search, ids, level)

    def _rules(self, prompts: int, constraints: Sets, exclude: Exclusions, candidates: Candidates = None) -> BatchRules:
        restricted = constraints if self.version is None else self.version.restrict(constraints)
        return batch_rules(self.index, prompts, restricted, exclude, candidates)

    def _encode(
        self,
        prompts: Any,
        *,
        num_codes: int = 0,
        add_special_tokens: bool | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> list[Ids]:
        """As `Retriever.encode`, for prompts that are followed by the tokens of some codes."""
        model = self._search.model
        read = reader_of(
            model,
            self.tokenizer,
            num_codes=num_codes,
            add_special_tokens=self._add_special_tokens if add_special_tokens is None else add_special_tokens,
            chat_template_kwargs=self._chat_template_kwargs | dict(chat_template_kwargs or {}),
        )
        positions = max_positions(model.config)
        extra = 0 if model.probed is None else model.probed.extra
        # An encoder-decoder model writes the SID, with its begin delimiter, in the decoder.
        written = 0 if model.is_encoder_decoder else self._search.num_read + extra
        return checked(
            read(prompts),
            begin=() if model.is_encoder_decoder else self.tokens.begin,
            vocabulary_size=model.vocabulary_size,
            max_length=None if positions is None else positions - written,
            num_codes=num_codes,
        )

    def _encode_one(self, prompt: Any) -> Ids:
        ids = self._encode(prompt)
        if len(ids) != 1:
            raise ArgumentError(f"expected one prompt; got {len(ids)}.")
        return ids[0]

    @torch.inference_mode()
    def _beams(
        self,
        prompts: list[Ids],
        beam_width: int,
        rules: BatchRules,
        rows: Sequence[int],
        *,
        widths: Sequence[int] = (),
        candidates: CandidateIndex | None = None,
    ) -> list[Beams]:
        """The beams after every level of a search.

        Args:
            prompts: the token ids of B prompts.
            beam_width: M.
            rules: the rules of the requests, which are not applied to `candidates` again.
            rows: the numbers of the prompts, for errors.
            widths: the number of beams of each request, at most M. Default: M.
            candidates: the index to search. Default: that of the retriever.
        """
        device = self.device_index.device
        index = self.device_index if candidates is None else candidates.to("torch", device)
        constraints = prepared(index, rules) if candidates is None else None
        narrower = torch.tensor(widths, device=device) if len(set(widths)) > 1 else None

        def attempt(search: ModelSearch) -> Outcome[list[Beams]]:
            # Graphs are captured only for searches without rules.
            if self._cuda_graphs and constraints is narrower is candidates is None:
                found = captured_search(search, self._captured, prompts, beam_width)
            else:
                decoder, written = search.decoder(prompts, beam_width), search.written(prompts)
                search = replace(search, device_index=index)
                found = search.run(decoder, len(prompts), beam_width, constraints, written, narrower)
            return found.history, found.invalid, found.deviation

        return retried(self._search, attempt, rows)

    def _free(self, prompts: list[Ids], beam_width: int, rows: list[int]) -> tuple[Tensor, Tensor]:
        """SIDs [B, M, L], -1 after the end of a ragged SID, and scores [B, M] of an unconstrained search."""

        def attempt(search: ModelSearch) -> Outcome[Beams]:
            found = search.free(prompts, beam_width)
            return found.history[-1], found.invalid, found.deviation

        beams = retried(self._search, attempt, rows)
        columns = zip(beams.codes.unbind(-1), self.index.end_codes, strict=True)
        sids = [codes if end is None else codes.masked_fill(codes == end, -1) for codes, end in columns]
        return torch.stack(sids, dim=-1), beams.scores
