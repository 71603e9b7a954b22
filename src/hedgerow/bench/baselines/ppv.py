"""PPV, parallel prefix verification: binary search over the sorted matrix of SIDs, in three variants."""

from __future__ import annotations

from typing import Any

import numpy as np

from hedgerow.bench.arrays import Array, Arrays
from hedgerow.bench.baselines.base import INF, Baseline, Problem, Promise, Search, select

APPROXIMATE_CODES = 50


class PpvExact(Baseline):
    """Checks each of the C codes of each beam, in every step from the whole prefix. Exact.

    A lexicographic binary search finds the rows [low, high) that start with the prefix of a beam, then C binary
    searches find each code within them. The number of rounds is the smallest that suffices for the level. It is
    computed at build time, so no loop depends on the data.
    """

    name = "PPV exact"
    promise = Promise.EXACT
    checked_codes: int | None = None
    carries_range = False

    def __init__(self, problem: Problem, arrays: Arrays) -> None:
        super().__init__(problem, arrays)
        self.num_sids = len(problem.sids)
        self.rounds = _rounds(problem.sids)
        self.tables = problem.placed_sids(arrays)
        self._nbytes = problem.sids.nbytes

    @property
    def nbytes(self) -> int:
        """Bytes of the sorted matrix."""
        return self._nbytes

    def start(self, batch: int) -> Search:
        """The root; if ranges are carried, with the range of all rows."""
        search = super().start(batch)
        if not self.carries_range:
            return search
        xp = self.arrays.xp
        low = self.arrays.full((batch, 1), 0, xp.int32)
        return search._replace(carried=(low, low + self.num_sids))

    def step(self, tables: Any, search: Search, logits: Array, beam_width: int) -> Search:
        """Find the candidates by binary search, and keep the best M of those that exist."""
        arrays, xp, level = self.arrays, self.arrays.xp, search.codes.shape[-1]
        log_probs = arrays.log_softmax(logits)
        low, high = search.carried if self.carries_range else self._range_of(tables, search.codes)
        batch, width, size = log_probs.shape
        if self.checked_codes is not None and self.checked_codes < size:
            flat, codes = arrays.top_k(xp.reshape(log_probs, (batch * width, size)), self.checked_codes)
            log_probs = xp.reshape(flat, (batch, width, -1))
            codes = xp.reshape(xp.astype(codes, xp.int32), log_probs.shape)
        else:
            codes = xp.broadcast_to(arrays.arange(size), log_probs.shape)
        rows = self._bound(tables, level, low[..., None], high[..., None], codes, after=False)
        exists = self._code(tables, xp.clip(rows, 0, self.num_sids - 1), level) == codes
        exists = exists & (rows < high[..., None])
        scores = xp.where(exists, search.scores[..., None] + log_probs, -INF)
        following, winners = select(arrays, search, scores, beam_width, codes)
        if not self.carries_range:
            return following
        start = arrays.along(xp.reshape(rows, (batch, -1)), winners.positions)
        parent_stop = arrays.along(high, winners.parents)
        stop = self._bound(tables, level, start, parent_stop, following.codes[..., -1], after=True)
        return following._replace(carried=(start, xp.where(following.scores > -INF, stop, start)))

    def _range_of(self, tables: Any, prefixes: Array) -> tuple[Array, Array]:
        """The rows [low, high) that start with each prefix, found by comparing whole prefixes."""
        arrays, xp, depth = self.arrays, self.arrays.xp, prefixes.shape[-1]
        low = arrays.full(prefixes.shape[:2], 0, xp.int32)
        if depth == 0:
            return low, low + self.num_sids
        bounds = []
        for after in (False, True):

            def halve(bounds: tuple[Array, Array], *, after: bool = after) -> tuple[Array, Array]:
                start, stop = bounds
                middle = (start + stop) // 2
                row = xp.astype(arrays.take(tables, xp.clip(middle, 0, self.num_sids - 1))[..., :depth], xp.int32)
                less, same = row < prefixes, row == prefixes
                # Lexicographic order: the first code that differs decides. If all are equal, `after` decides.
                right = xp.zeros_like(less[..., 0]) | after
                for position in range(depth - 1, -1, -1):
                    right = less[..., position] | (same[..., position] & right)
                right = right & (start < stop)
                return xp.where(right, middle + 1, start), xp.where(right, stop, middle)

            bounds.append(arrays.loop(self.num_sids.bit_length(), halve, (low, low + self.num_sids))[0])
        return bounds[0], bounds[1]

    def _bound(self, tables: Any, level: int, low: Array, high: Array, codes: Array, *, after: bool) -> Array:
        """The first row in [low, high) whose code at `level` is not less than `codes`; with `after`, greater."""
        xp = self.arrays.xp

        def halve(bounds: tuple[Array, Array]) -> tuple[Array, Array]:
            low, high = bounds
            middle = (low + high) // 2
            code = self._code(tables, xp.clip(middle, 0, self.num_sids - 1), level)
            right = ((code <= codes) if after else (code < codes)) & (low < high)
            return xp.where(right, middle + 1, low), xp.where(right, high, middle)

        bounds = xp.broadcast_to(low, codes.shape), xp.broadcast_to(high, codes.shape)
        return self.arrays.loop(self.rounds[level], halve, bounds)[0]

    def _code(self, tables: Any, rows: Array, level: int) -> Array:
        return self.arrays.xp.astype(tables[self.arrays.index(rows), level], self.arrays.xp.int32)


class PpvApproximate(PpvExact):
    """Checks only the 50 most probable codes of each beam, like the fast variant of the paper. Valid, not exact.

    A beam dies if all its allowed codes are less probable, so the search can return fewer than M SIDs, or none.
    """

    name = "PPV top 50"
    promise = Promise.VALID
    checked_codes = APPROXIMATE_CODES


class PpvCarried(PpvExact):
    """Exact PPV that carries the range [low, high) of each beam between steps, so no prefix is searched again.

    It is faster than the variants of the paper: a search within n rows takes log2(n) rounds, soon only one.
    """

    name = "PPV carried range"
    carries_range = True


def _rounds(sids: np.ndarray) -> list[int]:
    """Rounds of binary search per level: enough for the largest number of rows that share a prefix."""
    rounds = []
    starts = np.zeros(len(sids), bool)
    starts[:1] = True
    for level in range(sids.shape[1]):
        largest_range = int(np.diff(np.append(np.flatnonzero(starts), len(sids))).max())
        rounds.append(largest_range.bit_length())
        starts[1:] |= sids[1:, level] != sids[:-1, level]
    return rounds
