"""RecTokens: a Triton implementation of STATIC on PyPI. It can only be imported with a CUDA device."""

from __future__ import annotations

from typing import Any

import numpy as np

from hedgerow.bench.arrays import Array, Arrays
from hedgerow.bench.baselines.base import INF, Baseline, Problem, Promise, Search, Unavailable, optional, select


class RecTokens(Baseline):
    """The `constrained_node_transition` kernel between log-softmax and top-M. Exact in this form; CUDA only."""

    name = "rectokens"
    promise = Promise.EXACT
    on_host = True
    max_items = 20_000_000

    def __init__(self, problem: Problem, arrays: Arrays) -> None:
        super().__init__(problem, arrays)
        if arrays.name != "torch" or arrays.device.type != "cuda":
            raise Unavailable("it needs CUDA tensors")
        if len(set(self.codebook_sizes)) > 1:
            raise Unavailable("all levels must have the same codebook size")
        transition = optional("rectokens.ops.constrained_node_transition", "rectokens")
        tries = optional("rectokens.schemas.compact_csr_trie", "rectokens")
        self.transition = transition.constrained_node_transition
        self.state_class = optional("rectokens.schemas.state", "rectokens").ConstraintState
        sids = arrays.put(problem.sids.astype(np.int64))
        self.tables = tries.CompactCSRTrie.from_sorted_batch(sids, self.codebook_sizes[0])

    def start(self, batch: int) -> Search:
        """The root, node 0."""
        node = self.arrays.full((batch, 1), 0, self.arrays.xp.int64)
        return super().start(batch)._replace(carried=(node,))

    def step(self, tables: Any, search: Search, logits: Array, beam_width: int) -> Search:
        """Normalise, compute the children of every beam, and keep the best M."""
        arrays, xp, level = self.arrays, self.arrays.xp, search.codes.shape[-1]
        batch, width, size = logits.shape
        log_probs = arrays.log_softmax(logits).reshape(-1, size)
        nodes = search.carried[0].reshape(-1)
        children, codes, _ = self.transition(log_probs, self.state_class(level, tables, nodes))
        exists = codes >= 0
        codes = xp.where(exists, codes, 0)
        scores = xp.where(exists, arrays.along(log_probs, codes), -INF).reshape(batch, width, -1)
        totals = search.scores[..., None] + scores
        following, winners = select(arrays, search, totals, beam_width, codes.reshape(batch, width, -1))
        nodes = arrays.along(children.reshape(batch, -1), winners.positions)
        return following._replace(carried=(xp.where(following.scores > -INF, nodes, 0),))
