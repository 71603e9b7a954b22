"""RecTokens: a Triton re-implementation of STATIC, on PyPI. It imports only where there is a CUDA device."""

from __future__ import annotations

from typing import Any

import numpy as np

from hedgerow.bench.arrays import Array, Arrays
from hedgerow.bench.baselines.base import (
    INF,
    Baseline,
    Problem,
    Promise,
    Search,
    Unavailable,
    extended,
    optional,
    top_candidates,
)


class RecTokens(Baseline):
    """Its `constrained_node_transition` kernel between log-softmax and top-M. Exact in that form; CUDA only."""

    name = "rectokens"
    promise = Promise.EXACT
    on_host = True
    most_items = 20_000_000

    def __init__(self, problem: Problem, arrays: Arrays) -> None:
        super().__init__(problem, arrays)
        if arrays.name != "torch" or arrays.device.type != "cuda":
            raise Unavailable("it runs on CUDA tensors alone")
        if len(set(self.codebook_sizes)) > 1:
            raise Unavailable("it needs one codebook size")
        transition = optional("rectokens.ops.constrained_node_transition", "rectokens")
        tries = optional("rectokens.schemas.compact_csr_trie", "rectokens")
        self.transition = transition.constrained_node_transition
        self.state_class = optional("rectokens.schemas.state", "rectokens").ConstraintState
        sids = arrays.put(problem.sids.astype(np.int64))
        self.tables = tries.CompactCSRTrie.from_sorted_batch(sids, self.codebook_sizes[0])

    def start(self, batch: int) -> Search:
        """Returns the root, node 0."""
        node = self.arrays.full((batch, 1), 0, self.arrays.xp.int64)
        return super().start(batch)._replace(carried=(node,))

    def step(self, tables: Any, search: Search, logits: Array, beam_width: int) -> Search:
        """Normalises, asks for the children of every beam, keeps the best M."""
        arrays, xp, level = self.arrays, self.arrays.xp, search.codes.shape[-1]
        batch, width, size = logits.shape
        log_probs = arrays.log_softmax(logits).reshape(-1, size)
        nodes = search.carried[0].reshape(-1)
        following, codes, _ = self.transition(log_probs, self.state_class(level, tables, nodes))
        there = codes >= 0
        codes = xp.where(there, codes, 0)
        scores = xp.where(there, arrays.along(log_probs, codes), -INF).reshape(batch, width, -1)
        best, at = top_candidates(arrays, search.scores[..., None] + scores, beam_width)
        chosen = xp.astype(arrays.along(codes.reshape(batch, -1), at), xp.int32)
        history = extended(arrays, search.codes, at // scores.shape[-1], chosen)
        nodes = xp.where(best > -INF, arrays.along(following.reshape(batch, -1), at), 0)
        return Search(history, best, (nodes,))
