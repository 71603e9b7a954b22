"""Searcher: a model and one version of an index. What it computes does not change while it is used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hedgerow._arguments import whole_number
from hedgerow.candidates import CandidateIndex, candidate_index
from hedgerow.constraints.requests import (
    BatchRules,
    Candidates,
    Exclusions,
    Sets,
    batch_rules,
    joined_rules,
    of_one_request,
)
from hedgerow.constraints.sets import ConstraintSet
from hedgerow.decode.beams import Beams
from hedgerow.decode.device import DeviceIndex
from hedgerow.decode.ops import to_numpy
from hedgerow.decode.prepare import prepared
from hedgerow.errors import ArgumentError, ConstraintError
from hedgerow.hf.faults import Outcome, retried
from hedgerow.hf.graphs import Graphs, PaddedBatch
from hedgerow.hf.limits import max_positions
from hedgerow.hf.model import CodeModel
from hedgerow.hf.prefix import Prefix
from hedgerow.hf.probe import probe
from hedgerow.hf.prompts import Ids, checked
from hedgerow.hf.reading import reader_of
from hedgerow.hf.search import ModelSearch
from hedgerow.hf.tasks import Task
from hedgerow.index.lookup import check_is_list
from hedgerow.live.version import Version
from hedgerow.picking import Picking
from hedgerow.request import Request
from hedgerow.results import Results, batch_results
from hedgerow.tokens import TokenMap
from hedgerow.trie_index import TrieIndex


@dataclass(frozen=True, eq=False)
class Searcher:
    """A model, and one version of an index. A `Retriever` replaces it when it changes to another version.

    Attributes:
        search: the model, the index and the options of the search.
        version: the version of a live index that is searched; None if the index is not live.
        tokens: the token map, as given.
        tokenizer: the tokenizer, or None.
        add_special_tokens: as for `Retriever`.
        chat_template_kwargs: as for `Retriever`.
        graphs: the captured searches; None if searches are not captured.
    """

    search: ModelSearch
    version: Version | None
    tokens: TokenMap
    tokenizer: Any
    add_special_tokens: bool | None
    chat_template_kwargs: Mapping[str, Any]
    graphs: Graphs | None

    @property
    def index(self) -> TrieIndex:
        """The index that is searched."""
        return self.search.index

    @property
    def device_index(self) -> DeviceIndex:
        """The index on the model's device."""
        return self.search.device_index

    def of(self, index: TrieIndex, version: Version | None) -> Searcher:
        """The same model on another version of the index. The model is tried again only if codes have other tokens.

        Raises:
            ArgumentError: the index does not fit the tokens.
        """
        if index is self.index and version is self.version:
            return self
        model, tokens = self.search.model, self.tokens.of_index(index)
        if tokens != model.tokens:
            model = CodeModel(model.model, tokens, model.compiled)
            probe(model, self.search.decoding)
        device_index = (version or index).to("torch", model.device)
        search = replace(self.search, model=model, index=index, device_index=device_index)
        return replace(self, search=search, version=version)

    def with_prefix(self, prefix: Any) -> Searcher:
        """The same searches, with the keys and values of a prefix stored.

        Raises:
            ArgumentError: the prefix is not one prompt, or the model is not searched with a tree, or in CUDA graphs.
        """
        if self.search.way != "tree" or self.graphs is not None:
            given = "cuda_graphs=True" if self.graphs is not None else f"decoding={self.search.way!r}"
            raise ArgumentError(f"prefix needs decoding='tree' without CUDA graphs; got {given}.")
        ids = self.encode_one(prefix)
        return replace(self, search=replace(self.search, prefix=Prefix(ids)))

    def rules(self, prompts: int, constraints: Sets, exclude: Exclusions, candidates: Candidates = None) -> BatchRules:
        """Check the rules of a number of prompts, as `batch_rules`; removed items are not allowed."""
        restricted = constraints if self.version is None else self.version.restrict(constraints)
        exclude, candidates = of_one_request(exclude, prompts), of_one_request(candidates, prompts)
        return batch_rules(self.index, prompts, restricted, exclude, candidates)

    def encode(
        self,
        prompts: Any,
        *,
        num_codes: int = 0,
        add_special_tokens: bool | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> list[Ids]:
        """As `Retriever.encode`, for prompts that are followed by the tokens of some codes."""
        model = self.search.model
        read = reader_of(
            model,
            self.tokenizer,
            num_codes=num_codes,
            add_special_tokens=self.add_special_tokens if add_special_tokens is None else add_special_tokens,
            chat_template_kwargs={**self.chat_template_kwargs, **(chat_template_kwargs or {})},
        )
        return checked(
            read(prompts),
            begin=() if model.is_encoder_decoder else model.tokens.begin,
            vocabulary_size=model.vocabulary_size,
            max_length=self.max_length(),
            num_codes=num_codes,
        )

    def max_length(self) -> int | None:
        """The largest number of tokens of a prompt, with the begin delimiter; None if there is no limit."""
        model = self.search.model
        positions = max_positions(model.config)
        extra = 0 if model.probed is None else model.probed.extra
        # An encoder-decoder model writes the SID, with its begin delimiter, in the decoder.
        written = 0 if model.is_encoder_decoder else self.search.num_read + extra
        return None if positions is None else positions - written

    def encode_one(self, prompt: Any) -> Ids:
        """Convert one prompt to token ids.

        Raises:
            ArgumentError: there are several prompts, or as for `encode`.
        """
        ids = self.encode(prompt)
        if len(ids) != 1:
            raise ArgumentError(f"expected one prompt; got {len(ids)}.")
        return ids[0]

    def width(self, beam_width: int) -> int:
        """The number of beams of a search: more beams than SIDs would be dead, and take memory."""
        return min(whole_number(beam_width, "beam_width"), max(1, self.index.num_sids))

    def task(self, request: Request) -> Task:
        """Check a request alone.

        Raises:
            ArgumentError: it is not a `Request`, or its prompt is invalid.
            ConstraintError: its rules are invalid.
        """
        if not isinstance(request, Request):
            raise ArgumentError(f"expected a Request; got {type(request).__name__}. Make one with hr.Request(prompt).")
        if not isinstance(request.constraints, ConstraintSet | None):
            given = type(request.constraints).__name__
            raise ConstraintError(f"constraints of a request must be one constraint set or None; got {given}.")
        lists = {"exclude": request.exclude, "candidates": request.candidates}
        for name, ids in lists.items():
            if ids is not None and not (name == "exclude" and isinstance(ids, ConstraintSet)):
                check_is_list(ids, name, ConstraintError)
        rules = self.rules(1, request.constraints, *([ids] for ids in lists.values()))
        picking = Picking(request.k, request.order_by, request.caps)
        picking.check_attributes(self.index)
        # As a list of one prompt, an empty list of token ids is an empty prompt, and not no prompt.
        ids = self.encode_one(request.prompt if isinstance(request.prompt, Mapping) else [request.prompt])
        return Task(ids, rules, picking, self.width(request.beam_width), request.deadline, request.fill)

    def results(self, tasks: Sequence[Task], numbers: Sequence[int]) -> list[Results]:
        """Answer the tasks of a batch; their numbers are for errors."""
        rules, pickings = joined_rules([task.rules for task in tasks]), [task.picking for task in tasks]
        widths = [task.beam_width for task in tasks]
        candidates = None if rules.candidates is None else candidate_index(rules)
        prompts = [task.ids for task in tasks]
        beams = self.beams(prompts, max(widths), rules, numbers, widths=widths, candidates=candidates)[-1]
        return results_of(self.index, beams, rules, pickings, widths, candidates)

    def scores(self, prompt: Ids, leaves: np.ndarray) -> np.ndarray:
        """The scores float32 [R] of distinct SIDs, given by their leaves [R], ascending."""
        start, _ = self.index.rows_of(leaves)
        rules = BatchRules(self.index, 1, None, None, (start,))
        candidates = candidate_index(rules)
        beams = self.beams([prompt], len(leaves), rules, [0], candidates=candidates)[-1]
        scores = np.full(len(leaves), -np.inf, np.float32)
        states = to_numpy(beams.states[0])
        scores[states[states >= 0]] = to_numpy(beams.scores[0])[states >= 0]
        return scores

    @torch.inference_mode()
    def beams(
        self,
        prompts: list[Ids],
        beam_width: int,
        rules: BatchRules,
        rows: Sequence[int],
        *,
        widths: Sequence[int] = (),
        candidates: CandidateIndex | None = None,
        states: Sequence[Tensor] | None = None,
    ) -> list[Beams]:
        """The beams after every level of a search.

        Args:
            prompts: the token ids of B prompts.
            beam_width: M.
            rules: the rules of the requests, which are not applied to `candidates` again.
            rows: the numbers of the prompts, for errors.
            widths: the number of beams of each request, at most M. Default: M.
            candidates: the index to search. Default: that of the retriever.
            states: as for `ModelSearch.decoder`.
        """
        device = self.device_index.device
        if self.graphs is not None and candidates is None:
            return self._replayed(self.graphs, prompts, beam_width, rules, rows, widths)
        index = self.device_index if candidates is None else candidates.to("torch", device)
        constraints = prepared(index, rules) if candidates is None else None
        narrower = torch.tensor(widths, device=device) if len(set(widths)) > 1 else None

        def attempt(search: ModelSearch) -> Outcome[list[Beams]]:
            decoder, written = search.decoder(prompts, beam_width, states), search.written(prompts)
            search = replace(search, device_index=index)
            found = search.run(decoder, len(prompts), beam_width, constraints, written, narrower)
            return found.history, found.invalid, found.deviation

        return retried(self.search, attempt, rows)

    def _replayed(
        self,
        graphs: Graphs,
        prompts: list[Ids],
        beam_width: int,
        rules: BatchRules,
        rows: Sequence[int],
        widths: Sequence[int],
    ) -> list[Beams]:
        """As `beams`, by a captured search, whose batch is filled up with copies of the first request."""
        widths = widths or [beam_width] * len(prompts)
        beam_width = next((width for width in graphs.beam_widths if width >= beam_width), beam_width)
        batch = PaddedBatch.of(prompts, widths, beam_width)
        constraints = prepared(self.device_index, rules.take(batch.requests), graphs.room)

        def attempt(search: ModelSearch) -> Outcome[list[Beams]]:
            found = graphs.run(search, batch, beam_width, constraints)
            return found.history, found.invalid, found.deviation

        return retried(self.search, attempt, rows)

    @torch.inference_mode()
    def free(self, prompts: list[Ids], beam_width: int, rows: list[int]) -> tuple[Tensor, Tensor]:
        """SIDs [B, M, L], -1 after the end of a ragged SID, and scores [B, M] of an unconstrained search."""

        def attempt(search: ModelSearch) -> Outcome[Beams]:
            found = search.free(prompts, beam_width)
            return found.history[-1], found.invalid, found.deviation

        beams = retried(self.search, attempt, rows)
        columns = zip(beams.codes.unbind(-1), self.index.end_codes, strict=True)
        sids = [codes if end is None else codes.masked_fill(codes == end, -1) for codes, end in columns]
        return torch.stack(sids, dim=-1), beams.scores


def results_of(
    index: TrieIndex,
    beams: Beams,
    rules: BatchRules,
    pickings: Sequence[Picking],
    widths: Sequence[int],
    candidates: CandidateIndex | None,
) -> list[Results]:
    """The results of finished beams.

    Args:
        index: the index of the catalog.
        beams: the beams [B, M] of a search of the index, or of `candidates`.
        rules: the rules of the requests.
        pickings: the order and number of the items of each request.
        widths: the number of beams of each request.
        candidates: the index of the candidates, if the requests have any.
    """
    if candidates is None:
        return batch_results(index, beams, rules, pickings, widths=widths)
    return candidates._results(beams, pickings, widths)
