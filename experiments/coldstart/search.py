"""Searches with a trained checkpoint: unconstrained, in the catalog, or in a set, with or without the prior."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from transformers import Qwen3ForCausalLM

import hedgerow as hr
from coldstart.content import Content
from coldstart.network import BEGIN, offsets, token_map
from coldstart.split import Questions
from hedgerow.hf import Retriever

BATCH = 64


@dataclass(frozen=True)
class Scoring:
    """The options of a score.

    Attributes:
        normalize: "codes" or "allowed", as for `hedgerow.step`.
        prior: weight of the prior, which is subtracted: the log-probability of a code with an empty history.
        item_prompts: search once for each item of a history, and average the probabilities. A history is then a
            mixture of the continuations of its items, instead of a single state of the model.
        content: weight of the cosine between the text of a result and the nearest text of the history. It reorders
            the results of the search and adds none.
    """

    normalize: Literal["codes", "allowed"] = "codes"
    prior: float = 0.0
    item_prompts: bool = False
    content: float = 0.0


@dataclass(frozen=True)
class PriorTable:
    """The log-probabilities of the codes of a level with an empty history.

    Attributes:
        allowed: bool [P, C], the codes over which the probability of each parent node is normalized.
        log_probs: float32 [P, C].
    """

    allowed: Tensor
    log_probs: Tensor

    def corrected(self, logits: Tensor, beams: hr.Beams, scoring: Scoring) -> Tensor:
        """Log-probabilities [B, m, C] of logits [B, m, C], minus the weighted prior."""
        nodes = beams.states.long().clamp(min=0)
        scores = _log_softmax(logits, self.allowed[nodes]) - scoring.prior * self.log_probs[nodes]
        return torch.where(self.allowed[nodes], scores, -torch.inf)


def _log_softmax(logits: Tensor, allowed: Tensor) -> Tensor:
    """The log-softmax over the allowed codes; 0 for the other codes."""
    log_probs = torch.where(allowed, logits, -torch.inf).log_softmax(-1)
    return torch.where(allowed, log_probs, 0.0)


class Searcher:
    """A checkpoint and an index of a catalog whose item ids are the numbers of the items."""

    def __init__(self, folder: Path, content: Content, known: np.ndarray) -> None:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model = torch.nn.Module.to(Qwen3ForCausalLM.from_pretrained(folder), device)
        items = np.flatnonzero(known)
        sizes = content.codebook_sizes
        self.index = hr.build_index(hr.Catalog(content.sids[items], codebook_sizes=sizes, item_ids=items))
        self.retriever = Retriever(model, self.index, token_map(sizes))
        self.first_item = int(offsets(sizes)[-1])
        self.sids = content.sids
        self._priors: dict[tuple[str, bytes | None], list[PriorTable]] = {}

    def set_of(self, items: np.ndarray) -> hr.ConstraintSet:
        """The constraint set of the items."""
        return self.index.constraint(ids=items.tolist())

    def prompts(self, histories: list[np.ndarray]) -> list[list[int]]:
        """The prompt tokens of each history."""
        return [[BEGIN, *(self.first_item + history).tolist()] for history in histories]

    def search(
        self,
        questions: Questions,
        *,
        beam_width: int,
        scoring: Scoring,
        constraints: hr.ConstraintSet | None = None,
        exclude: bool = False,
    ) -> Iterator[hr.Results]:
        """Search for each question in turn.

        Args:
            questions: the questions.
            beam_width: M.
            scoring: the score.
            constraints: the set of items to search.
            exclude: exclude the items of a question's history.
        """
        for rows, prompts in self._batches(questions):
            excluded = [questions.histories[row].tolist() for row in rows] if exclude else None
            with torch.inference_mode():
                beams = hr.beam_search(
                    self.retriever.device_index,
                    self._logits_fn(prompts, beam_width, scoring, constraints),
                    batch_size=len(rows),
                    beam_width=beam_width,
                    normalize=None if scoring.prior else scoring.normalize,
                    constraints=constraints,
                    exclude=excluded,
                )
            yield from self.index.results(beams, constraints=constraints, exclude=excluded)

    def _logits_fn(
        self, prompts: list[list[int]], beam_width: int, scoring: Scoring, constraints: hr.ConstraintSet | None
    ) -> Callable[[hr.Beams], Tensor]:
        """A function from beams to logits; with a prior, to log-probabilities minus the prior."""
        logits_fn = self.retriever.logits_fn(prompts, beam_width=beam_width)
        if not scoring.prior:
            return logits_fn
        tables = self._prior_tables(scoring, constraints)
        return lambda beams: tables[beams.level].corrected(logits_fn(beams), beams, scoring)

    def mixed(
        self, questions: Questions, *, beam_width: int, scoring: Scoring, constraints: hr.ConstraintSet
    ) -> Iterator[list[int]]:
        """The items found for each question, best first, when each item of its history is a prompt of its own."""
        items = np.unique(np.concatenate(questions.histories))
        single_items = Questions([np.array([item]) for item in items], items)
        results_of_items = self.search(single_items, beam_width=beam_width, scoring=scoring, constraints=constraints)
        probabilities = {
            item: (results.item_ids, np.exp(results.scores))
            for item, results in zip(items.tolist(), results_of_items, strict=True)
        }
        for history in questions.histories:
            totals: dict[int, float] = {}
            for item in history.tolist():
                for result, probability in zip(*probabilities[item], strict=True):
                    totals[result] = totals.get(result, 0.0) + probability
            yield sorted(totals, key=lambda result: (-totals[result], result))

    def free(self, questions: Questions, *, beam_width: int) -> np.ndarray:
        """The SIDs [Q, M, L] of an unconstrained search, best first."""
        sids = [
            self.retriever.free_search(prompts, beam_width=beam_width)[0].cpu().numpy()
            for _, prompts in self._batches(questions)
        ]
        return np.concatenate(sids)

    def _prior_tables(self, scoring: Scoring, constraints: hr.ConstraintSet | None) -> list[PriorTable]:
        """The tables of all levels, computed once for each set and normalization."""
        key = scoring.normalize, None if constraints is None else constraints.mask.tobytes()
        if key not in self._priors:
            self._priors[key] = list(self._compute_prior(scoring, constraints))
        return self._priors[key]

    def _compute_prior(self, scoring: Scoring, constraints: hr.ConstraintSet | None) -> Iterator[PriorTable]:
        tokens = offsets(self.index.codebook_sizes)
        items = np.asarray(self.index.item_ids)
        sids, allowed_sids = self.sids[items], self.sids[items if constraints is None else items[constraints.mask]]
        for level, size in enumerate(self.index.codebook_sizes):
            # The sorted distinct prefixes are the parent nodes, in the order of their numbers.
            prefixes = np.unique(sids[:, :level], axis=0) if level else np.zeros((1, 0), int)
            prompts = np.column_stack([np.full(len(prefixes), BEGIN), prefixes + tokens[:level]])
            logits = self.retriever.code_logits(prompts, level)
            allowed = torch.ones(len(prefixes), size, dtype=torch.bool, device=logits.device)
            if scoring.normalize == "allowed":
                nodes = {tuple(prefix): node for node, prefix in enumerate(prefixes.tolist())}
                parents = [nodes[tuple(sid[:level])] for sid in allowed_sids.tolist()]
                allowed[:] = False
                allowed[parents, allowed_sids[:, level].tolist()] = True
            yield PriorTable(allowed, _log_softmax(logits, allowed))

    def _batches(self, questions: Questions) -> Iterator[tuple[range, list[list[int]]]]:
        for start in range(0, len(questions), BATCH):
            rows = range(start, min(start + BATCH, len(questions)))
            yield rows, self.prompts([questions.histories[row] for row in rows])
