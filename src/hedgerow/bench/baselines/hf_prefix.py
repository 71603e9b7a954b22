"""Hugging Face's `prefix_allowed_tokens_fn`, with the trie that its users write for it."""

from __future__ import annotations

from typing import Any

from hedgerow.bench.arrays import Array, Arrays
from hedgerow.bench.baselines.base import Baseline, Problem, Promise, Search, Unavailable, optional, select
from hedgerow.bench.baselines.cpu_trie import trie_of


class HuggingFacePrefix(Baseline):
    """`PrefixConstrainedLogitsProcessor` over a trie of dicts: a Python call a beam. Exact; PyTorch only.

    The function must give a dead beam some code, or the processor raises; the beam's score stays -inf.
    """

    name = "HF prefix function"
    promise = Promise.EXACT
    on_host = True
    most_items = 2_000_000

    def __init__(self, problem: Problem, arrays: Arrays) -> None:
        super().__init__(problem, arrays)
        if arrays.name != "torch":
            raise Unavailable("it takes PyTorch tensors alone")
        self.processor_class = optional("transformers", "transformers").PrefixConstrainedLogitsProcessor
        self.trie = trie_of(problem.sids)

    def allowed_after(self, _request: int, prefix: Any) -> list[int]:
        """The user's function: request, codes so far -> allowed codes."""
        node = self.trie
        for code in prefix.tolist():
            node = node.get(code, {})
        return list(node) or [0]

    def step(self, tables: Any, search: Search, logits: Array, beam_width: int) -> Search:  # noqa: ARG002
        """As `generate` does: log-softmax, processor, running score, top-M."""
        batch, width, size = logits.shape
        processor = self.processor_class(self.allowed_after, num_beams=width)
        log_probs = self.arrays.log_softmax(logits).view(batch * width, size)
        log_probs = processor(search.codes.view(batch * width, -1), log_probs)
        scores = search.scores[..., None] + log_probs.view(batch, width, size)
        return select(self.arrays, search, scores, beam_width)
