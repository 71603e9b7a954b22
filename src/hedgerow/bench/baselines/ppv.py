"""PPV, parallel prefix verification: binary search over the sorted SID matrix, in three strengths."""

from __future__ import annotations

from typing import Any

import numpy as np

from hedgerow.bench.arrays import Array, Arrays
from hedgerow.bench.baselines.base import INF, Baseline, Problem, Promise, Search, extended, top_candidates

APPROXIMATE_CODES = 50


class PpvExact(Baseline):
    """Checks each of the C codes of each beam, every step from the prefix alone. Exact.

    A lexicographic binary search finds the rows [low, high) that start with the beam's prefix; then C binary
    searches within them find each code. The number of rounds is the least that suffices at the level, known when
    built, so that no loop waits for the data.
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
        """Returns the root, and, where ranges are carried, all rows."""
        search = super().start(batch)
        if not self.carries_range:
            return search
        xp = self.arrays.xp
        low = self.arrays.full((batch, 1), 0, xp.int32)
        return search._replace(carried=(low, low + self.num_sids))

    def step(self, tables: Any, search: Search, logits: Array, beam_width: int) -> Search:
        """Verifies candidates by binary search, and keeps the best M of those that are there."""
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
        at = self._bound(tables, level, low[..., None], high[..., None], codes, after=False)
        there = self._code(tables, xp.clip(at, 0, self.num_sids - 1), level) == codes
        there = there & (at < high[..., None])
        scores = xp.where(there, search.scores[..., None] + log_probs, -INF)
        best, place = top_candidates(arrays, scores, beam_width)
        parents = place // scores.shape[-1]
        chosen = arrays.along(xp.reshape(codes, (batch, -1)), place)
        carried = ()
        if self.carries_range:
            first = arrays.along(xp.reshape(at, (batch, -1)), place)
            end = self._bound(tables, level, first, arrays.along(high, parents), chosen, after=True)
            carried = (first, xp.where(best > -INF, end, first))
        return Search(extended(arrays, search.codes, parents, chosen), best, carried)

    def _range_of(self, tables: Any, prefixes: Array) -> tuple[Array, Array]:
        """Returns the rows [low, high) that start with each prefix, by comparing whole prefixes."""
        arrays, xp, depth = self.arrays, self.arrays.xp, prefixes.shape[-1]
        low = arrays.full(prefixes.shape[:2], 0, xp.int32)
        if depth == 0:
            return low, low + self.num_sids
        bounds = []
        for after in (False, True):

            def halve(bounds: tuple[Array, Array], after: bool = after) -> tuple[Array, Array]:
                first, end = bounds
                middle = (first + end) // 2
                row = xp.astype(arrays.take(tables, xp.clip(middle, 0, self.num_sids - 1))[..., :depth], xp.int32)
                less, same = row < prefixes, row == prefixes
                # Lexicographic: the first code that differs decides; if none does, `after` does.
                right = xp.zeros_like(less[..., 0]) | after
                for at in range(depth - 1, -1, -1):
                    right = less[..., at] | (same[..., at] & right)
                right = right & (first < end)
                return xp.where(right, middle + 1, first), xp.where(right, end, middle)

            bounds.append(arrays.loop(self.num_sids.bit_length(), halve, (low, low + self.num_sids))[0])
        return bounds[0], bounds[1]

    def _bound(self, tables: Any, level: int, low: Array, high: Array, codes: Array, *, after: bool) -> Array:
        """Returns the first row within [low, high) whose code of `level` is not less (with `after`: is greater)."""
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
    """Checks only the 50 most probable codes of each beam, as the paper's fast variant. Valid, not exact.

    A beam whose allowed codes are all less probable dies, so fewer than M SIDs may come back, or none.
    """

    name = "PPV top 50"
    promise = Promise.VALID
    checked_codes = APPROXIMATE_CODES


class PpvCarried(PpvExact):
    """Exact PPV that keeps each beam's [low, high) from step to step, so no prefix is searched again.

    Stronger than the paper's: the search within a range of r rows takes log2(r) rounds, which soon is one.
    """

    name = "PPV carried range"
    carries_range = True


def _rounds(sids: np.ndarray) -> list[int]:
    """Returns, per level, the rounds of binary search within the most rows that share a prefix of that length."""
    rounds = []
    starts = np.zeros(len(sids), bool)
    starts[:1] = True
    for level in range(sids.shape[1]):
        most = int(np.diff(np.append(np.flatnonzero(starts), len(sids))).max())
        rounds.append(most.bit_length())
        starts[1:] |= sids[1:, level] != sids[:-1, level]
    return rounds
