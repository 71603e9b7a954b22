"""STATIC as published, implemented from the paper: the baseline of the ratios in the documentation.

This is not the authors' code. `original.py` measures theirs, if it is available.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hedgerow.bench.arrays import Array, Arrays
from hedgerow.bench.baselines.base import INF, Baseline, Problem, Promise, Search, Unavailable, select

TOKENS_PER_BEAM = 30
LARGEST_HEAD = 1 << 28


class Tables(NamedTuple):
    """The published layout.

    Attributes:
        first: [C] bool, whether a code of level 0 exists.
        second: [C, C] bool, whether a pair of codes of levels 0 and 1 exists.
        head: [C, C] int32, the state of such a pair.
        pairs: [transitions, 2] int32, (code, next state) of every transition from level 2 on, ordered by state.
        rows: [states + 1] int32, the first transition of each state.
    """

    first: Array
    second: Array
    head: Array
    pairs: Array
    rows: Array


class StaticPublished(Baseline):
    """Dense tables for two levels, then rows of (code, next state), padded to the level's largest branch factor K.

    At level 1, only the 30 best candidates of each beam (`tokens_per_beam`) are kept before the beams are merged, so
    better candidates can be lost: valid, not exact. From level 2 on, all K children of each beam are candidates.
    """

    name = "STATIC as published"
    promise = Promise.VALID
    max_items = 20_000_000

    def __init__(self, problem: Problem, arrays: Arrays) -> None:
        super().__init__(problem, arrays)
        sizes = problem.index.codebook_sizes
        if len(sizes) < 3 or len(set(sizes)) > 1:
            raise Unavailable("its tables need at least three levels of one codebook size")
        if sizes[0] ** 2 > LARGEST_HEAD:
            raise Unavailable(f"its tables of {sizes[0]:,} x {sizes[0]:,} states would not fit in memory")
        tables = build_tables(problem.sids, problem.index.nodes_per_level, sizes[0])
        self.branches = problem.index.max_branch_factors
        self._nbytes = sum(table.nbytes for table in tables)
        self.tables = Tables(*(arrays.put(table) for table in tables))

    @property
    def nbytes(self) -> int:
        """Bytes of all tables."""
        return self._nbytes

    def start(self, batch: int) -> Search:
        """The root, with the state of each beam as carried array."""
        search = super().start(batch)
        return search._replace(carried=(self.arrays.full((batch, 1), 0, self.arrays.xp.int32),))

    def step(self, tables: Tables, search: Search, logits: Array, beam_width: int) -> Search:
        """Normalise, look up the candidates in the tables of the level, and keep the best M."""
        log_probs = self.arrays.log_softmax(logits)
        level = search.codes.shape[-1]
        if level > 1:
            scores, codes, states = self._sparse(tables, search, log_probs, level)
        else:
            scores, codes, states = self._dense(tables, search, log_probs, level, beam_width)
        arrays = self.arrays
        following, winners = select(arrays, search, search.scores[..., None] + scores, beam_width, codes)
        flat_states = arrays.xp.reshape(states, (states.shape[0], -1))
        return following._replace(carried=(arrays.along(flat_states, winners.positions),))

    def _dense(
        self, tables: Tables, search: Search, log_probs: Array, level: int, beam_width: int
    ) -> tuple[Array, Array, Array]:
        arrays, xp, size = self.arrays, self.arrays.xp, log_probs.shape[-1]
        first_codes = search.carried[0]
        allowed = tables.first if level == 0 else arrays.take(tables.second, first_codes)
        kept = min(beam_width if level == 0 else TOKENS_PER_BEAM, size)
        masked = xp.where(allowed, log_probs, -INF)
        scores, codes = arrays.top_k(xp.reshape(masked, (-1, size)), kept)
        shape = (*log_probs.shape[:-1], kept)
        scores, codes = xp.reshape(scores, shape), xp.reshape(xp.astype(codes, xp.int32), shape)
        if level == 0:
            return scores, codes, codes
        return scores, codes, tables.head[arrays.index(first_codes)[..., None], arrays.index(codes)]

    def _sparse(self, tables: Tables, search: Search, log_probs: Array, level: int) -> tuple[Array, Array, Array]:
        arrays, xp = self.arrays, self.arrays.xp
        states = search.carried[0]
        start = arrays.take(tables.rows, states)
        count = arrays.take(tables.rows, states + 1) - start
        offset = arrays.arange(self.branches[level])
        rows = xp.clip(start[..., None] + offset, 0, tables.pairs.shape[0] - 1)
        children = arrays.take(tables.pairs, rows)
        codes, next_states = children[..., 0], children[..., 1]
        scores = xp.where(offset < count[..., None], arrays.along(log_probs, codes), -INF)
        return scores, codes, next_states


def build_tables(sids: np.ndarray, nodes: tuple[int, ...], size: int) -> tuple[np.ndarray, ...]:
    """Build the tables of sorted, distinct SIDs. States number the nodes of levels 1 to L - 2 consecutively."""
    last = sids.shape[1] - 1
    first_state = np.concatenate(([0, 0], np.cumsum(nodes[1:last])))
    num_states = int(first_state[last])
    first, second = np.zeros(size, bool), np.zeros((size, size), bool)
    head = np.zeros((size, size), np.int32)
    starts = np.ones(len(sids), bool)
    starts[1:] = (sids[1:, :2] != sids[:-1, :2]).any(axis=1)
    heads = sids[starts, :2]
    first[heads[:, 0]] = True
    second[heads[:, 0], heads[:, 1]] = True
    head[heads[:, 0], heads[:, 1]] = np.arange(len(heads))
    pairs = np.empty((sum(nodes[2:]), 2), np.int32)
    counts = np.zeros(num_states + 1, np.int32)
    parent_of = np.cumsum(starts) - 1
    stop = 0
    for level in range(2, last + 1):
        starts[1:] |= sids[1:, level] != sids[:-1, level]
        block = slice(stop, stop + nodes[level])
        pairs[block, 0] = sids[starts, level]
        pairs[block, 1] = first_state[level] + np.arange(nodes[level]) if level < last else 0
        parents = first_state[level - 1] + parent_of[starts]
        counts[:num_states] += np.bincount(parents, minlength=num_states).astype(np.int32)
        parent_of = np.cumsum(starts) - 1
        stop = block.stop
    rows = np.zeros(num_states + 1, np.int32)
    np.cumsum(counts[:num_states], out=rows[1:])
    return first, second, head, pairs, rows
