"""Searches with a trained checkpoint: free, within the catalog, within a set, with and without the prior."""

from __future__ import annotations

from collections.abc import Iterator
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
    """How codes are scored.

    Attributes:
        normalize: "codes", or "allowed".
        prior: how much of the log-probability that a code has without any history is taken off.
        item_prompts: asks once for each item of a history, and takes the mean of the probabilities. A history is then a
            mixture of what its items lead to, and not one state that has to stand for all of them.
        content: how much the cosine of an item's text with the nearest of the history adds to the score of what was
            found. It orders the items that the model found, and finds none.
    """

    normalize: Literal["codes", "allowed"] = "codes"
    prior: float = 0.0
    item_prompts: bool = False
    content: float = 0.0


@dataclass(frozen=True)
class PriorTable:
    """What a level's codes have without any history.

    Attributes:
        allowed: bool [nodes of the level before, C]: which codes share the probability.
        log_probs: the same shape.
    """

    allowed: Tensor
    log_probs: Tensor

    def corrected(self, logits: Tensor, beams: hr.Beams, scoring: Scoring) -> Tensor:
        """Returns log-probabilities [B, m, C] less the prior's part of them."""
        nodes = beams.states.long().clamp(min=0)
        found = _log_softmax(logits, self.allowed[nodes]) - scoring.prior * self.log_probs[nodes]
        return torch.where(self.allowed[nodes], found, -torch.inf)


def _log_softmax(logits: Tensor, allowed: Tensor) -> Tensor:
    """Returns the log-softmax over the codes that are allowed; 0, and not NaN, where there are none."""
    found = torch.where(allowed, logits, -torch.inf).log_softmax(-1)
    return torch.where(allowed, found, 0.0)


class Searcher:
    """A checkpoint over a catalog; items are called by their numbers."""

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
        """Returns the constraint set of items."""
        return self.index.constraint(ids=items.tolist())

    def prompts(self, histories: list[np.ndarray]) -> list[list[int]]:
        """Returns the tokens that the model reads for each history."""
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
        """Yields the items found for each question, in their order; those of its history left out where asked."""
        retriever = self.retriever
        for rows, prompts in self._batches(questions):
            seen = [questions.histories[row].tolist() for row in rows] if exclude else None
            rules = Rules(self.index, len(rows), constraints, seen)
            prepared = retriever.prepared(rules)
            with torch.inference_mode():
                decoder, beams = (
                    retriever.decoder(prompts, beam_width),
                    hr.init_beams(retriever.device_index, len(rows)),
                )
                tables = self._tables(scoring, constraints)
                for level in range(self.index.num_levels):
                    logits, normalize = retriever.scores_of(decoder(beams), level)[0], scoring.normalize
                    if tables:
                        logits, normalize = tables[level].corrected(logits, beams, scoring), None
                    options = {"beam_width": beam_width, "normalize": normalize, "constraints": prepared}
                    beams = hr.step(retriever.device_index, beams, logits, **options)
            yield from self.index.results(beams, constraints=constraints, exclude=seen)

    def mixed(
        self, questions: Questions, *, beam_width: int, scoring: Scoring, constraints: hr.ConstraintSet
    ) -> Iterator[list[int]]:
        """Yields the items found for each question, best first, where each item of its history is asked for alone."""
        items = np.unique(np.concatenate(questions.histories))
        alone = Questions([np.array([item]) for item in items], items)
        found = self.search(alone, beam_width=beam_width, scoring=scoring, constraints=constraints)
        of = {
            item: (results.item_ids, np.exp(results.scores))
            for item, results in zip(items.tolist(), found, strict=True)
        }
        for history in questions.histories:
            total: dict[int, float] = {}
            for item in history.tolist():
                for other, share in zip(*of[item], strict=True):
                    total[other] = total.get(other, 0.0) + share
            yield sorted(total, key=lambda other: (-total[other], other))

    def free(self, questions: Questions, *, beam_width: int) -> np.ndarray:
        """Returns the SIDs [Q, M, L] of a search that no catalog holds, best first."""
        found = [
            self.retriever.free_search(prompts, beam_width=beam_width)[0].cpu().numpy()
            for _, prompts in self._batches(questions)
        ]
        return np.concatenate(found)

    def _tables(self, scoring: Scoring, constraints: hr.ConstraintSet | None) -> list[PriorTable]:
        """Returns what is taken off at each level; nothing where nothing is."""
        if not scoring.prior:
            return []
        key = scoring.normalize, None if constraints is None else constraints.mask.tobytes()
        if key not in self._priors:
            self._priors[key] = list(self._made_tables(scoring, constraints))
        return self._priors[key]

    @torch.inference_mode()
    def _made_tables(self, scoring: Scoring, constraints: hr.ConstraintSet | None) -> Iterator[PriorTable]:
        tokens = offsets(self.index.codebook_sizes)
        items = np.asarray(self.index.item_ids)
        sids, alive = self.sids[items], self.sids[items if constraints is None else items[constraints.mask]]
        for level, size in enumerate(self.index.codebook_sizes):
            # The distinct prefixes in their order are the nodes of the level before, in theirs.
            prefixes = np.unique(sids[:, :level], axis=0) if level else np.zeros((1, 0), int)
            ids = np.column_stack([np.full(len(prefixes), BEGIN), prefixes + tokens[:level]])
            logits = self.retriever.code_logits(ids, level)
            allowed = torch.ones(len(prefixes), size, dtype=torch.bool, device=logits.device)
            if scoring.normalize == "allowed":
                nodes = {tuple(prefix): node for node, prefix in enumerate(prefixes.tolist())}
                allowed[:] = False
                allowed[[nodes[tuple(sid[:level])] for sid in alive.tolist()], alive[:, level].tolist()] = True
            yield PriorTable(allowed, _log_softmax(logits, allowed))

    def _batches(self, questions: Questions) -> Iterator[tuple[range, list[list[int]]]]:
        for begin in range(0, len(questions), BATCH):
            rows = range(begin, min(begin + BATCH, len(questions)))
            yield rows, self.prompts([questions.histories[row] for row in rows])
