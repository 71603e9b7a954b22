"""Validation: Recall@10 of a constrained search, for the next items of users that the model was not trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import hedgerow.metrics as metrics
from hedgerow.hf.retriever import Retriever
from hedgerow.tokens import TokenMap
from hedgerow.training.outcome import Progress
from hedgerow.training.splits import Questions
from hedgerow.trie_index import TrieIndex

K = 10
NORMALIZE = "allowed"


@dataclass(frozen=True, eq=False)
class Validation:
    """The questions of a validation.

    Attributes:
        index: the index.
        tokens: the tokens of the model.
        questions: the questions.
        beam_width: M.
        progress: called with "validation", the number of finished questions, and the number of all.
    """

    index: TrieIndex
    tokens: TokenMap
    questions: Questions
    beam_width: int
    progress: Progress

    def metrics(self, model: Any) -> dict[str, float]:
        """Recall@10 and NDCG@10 of a model. The items of a history are excluded from the results."""
        retriever = Retriever(model, self.index, self.tokens, normalize=NORMALIZE)
        ids = self.index.item_ids
        seen = [ids.take(history).to_pylist() for history in self.questions.histories]
        found = retriever.retrieve(
            [retriever.history_prompt(items) for items in seen],
            beam_width=self.beam_width,
            k=K,
            exclude=seen,
            progress=lambda done, count: self.progress("validation", done, count),
        )
        ranks = metrics.ranks(found, ids.take(self.questions.targets))
        return {
            f"recall@{K}": float(metrics.recall(ranks, K).mean()),
            f"ndcg@{K}": float(metrics.ndcg(ranks, K).mean()),
        }
