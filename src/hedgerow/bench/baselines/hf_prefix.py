"""`prefix_allowed_tokens_fn` of Hugging Face transformers, with a trie of dicts as users write it."""

from __future__ import annotations

from typing import Any

from hedgerow.bench.arrays import Array, Arrays
from hedgerow.bench.baselines.base import Baseline, Problem, Promise, Search, Unavailable, optional, select
from hedgerow.bench.baselines.cpu_trie import trie_of


class HuggingFacePrefix(Baseline):
    """`PrefixConstrainedLogitsProcessor` over a trie of dicts: one Python call per beam. Exact; PyTorch only.

    The processor raises if the function returns no code, so a dead beam gets code 0; its score stays -inf.
    """

    name = "HF prefix function"
    promise = Promise.EXACT
    on_host = True
    max_items = 2_000_000

    def __init__(self, problem: Problem, arrays: Arrays) -> None:
        super().__init__(problem, arrays)
        if arrays.name != "torch":
            raise Unavailable("it needs PyTorch tensors")
        self.processor_class = optional("transformers", "transformers").PrefixConstrainedLogitsProcessor
        self.trie = trie_of(problem.sids)

    def allowed_after(self, _request: int, prefix: Any) -> list[int]:
        """The function of the user: maps the codes of a beam to the allowed codes."""
        node = self.trie
        for code in prefix.tolist():
            node = node.get(code, {})
        return list(node) or [0]

    def step(self, tables: Any, search: Search, logits: Array, beam_width: int) -> Search:  # noqa: ARG002
        """Run the operations of `generate`: log-softmax, processor, sum of scores, top-M."""
        batch, width, size = logits.shape
        processor = self.processor_class(self.allowed_after, num_beams=width)
        log_probs = self.arrays.log_softmax(logits).view(batch * width, size)
        log_probs = processor(search.codes.view(batch * width, -1), log_probs)
        scores = search.scores[..., None] + log_probs.view(batch, width, size)
        return select(self.arrays, search, scores, beam_width)[0]
