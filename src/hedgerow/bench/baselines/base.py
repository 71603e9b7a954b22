"""Base classes of the compared methods: each is built once from a catalog, then runs level by level."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import numpy as np

import hedgerow as hr
from hedgerow.bench.arrays import Array, Arrays

INF = float("inf")
CHUNK = 1 << 20


class Unavailable(Exception):  # noqa: N818
    """A method cannot run here, or not at this size. The message states the reason."""


def optional(module: str, package: str) -> Any:
    """Import a module that hedgerow does not depend on.

    Raises:
        Unavailable: the package is not installed, or cannot be imported here.
    """
    try:
        return importlib.import_module(module)
    except (ImportError, AssertionError) as error:
        raise Unavailable(f"{package} cannot be imported: {error}") from None


class Promise(StrEnum):
    """The property that the results of a method must have."""

    EXACT = "exact"
    """The scores are those of exact constrained beam search, and every SID is in the catalog."""
    VALID = "valid, not exact"
    """Every live SID is in the catalog, but better SIDs may be missing."""
    APPROXIMATE = "approximate"
    """Some SIDs may not be in the catalog."""
    NONE = "no constraint"
    """Any SID may be returned."""


@dataclass(frozen=True, eq=False)
class Problem:
    """A catalog to search: its index, and its sorted SIDs for the methods that need them."""

    index: hr.TrieIndex
    _placed: dict[str, Array] = field(default_factory=dict)

    def placed_sids(self, arrays: Arrays) -> Array:
        """The SIDs `sids` on the device of the arrays. All methods share one copy."""
        if arrays.name not in self._placed:
            self._placed[arrays.name] = arrays.put(self.sids)
        return self._placed[arrays.name]

    @cached_property
    def sids(self) -> np.ndarray:
        """The distinct SIDs [S, L] in lexicographic order, in the narrowest dtype."""
        index = self.index
        sids = np.empty((index.num_sids, index.num_levels), np.min_scalar_type(max(index.codebook_sizes) - 1))
        for start in range(0, len(sids), CHUNK):
            leaves = np.arange(start, min(start + CHUNK, len(sids)))
            sids[leaves] = index.sids(leaves)
        return sids


class Search(NamedTuple):
    """The beams of a search, a pytree.

    Attributes:
        codes: [B, m, l] int32.
        scores: [B, m] float32; -inf for dead beams.
        carried: further arrays [B, m] that a method keeps between steps.
    """

    codes: Array
    scores: Array
    carried: tuple[Array, ...] = ()


@dataclass(frozen=True)
class SearchResult:
    """The result of a search, on the host.

    Attributes:
        codes: [B, M, L].
        scores: [B, M]; None if the method does not return scores.
    """

    codes: np.ndarray
    scores: np.ndarray | None

    @property
    def live(self) -> np.ndarray:
        """The beams that are live, [B, M] bool. Without scores, all beams."""
        if self.scores is None:
            return np.ones(self.codes.shape[:2], bool)
        return self.scores > -INF


class Baseline(ABC):
    """A method of constrained beam search.

    Class attributes:
        name: name of the method in tables.
        promise: the property that its results must have; checked before it is timed.
        on_host: whether a step runs Python code or reads host memory, so that it cannot be compiled.
        max_items: the largest catalog on which the method is run, because of its build time or memory. None: no limit.
    """

    name: ClassVar[str]
    promise: ClassVar[Promise]
    on_host: ClassVar[bool] = False
    max_items: ClassVar[int | None] = None

    def __init__(self, problem: Problem, arrays: Arrays) -> None:
        self.arrays = arrays
        self.num_levels = problem.index.num_levels
        self.codebook_sizes = problem.index.codebook_sizes
        self.tables: Any = ()

    @property
    def nbytes(self) -> int | None:
        """Bytes of the constraint; None if unknown."""
        return None

    def start(self, batch: int) -> Any:
        """The state before level 0: one beam per request."""
        return Search(
            codes=self.arrays.put(np.zeros((batch, 1, 0), np.int32)),
            scores=self.arrays.put(np.zeros((batch, 1), np.float32)),
        )

    @abstractmethod
    def step(self, tables: Any, search: Any, logits: Array, beam_width: int) -> Any:
        """The state after one more level. Unless `on_host`, a pure function of `tables` and the arrays."""

    def result(self, search: Any) -> SearchResult:
        """The result of a search, copied to the host."""
        return SearchResult(self.arrays.get(search.codes), self.arrays.get(search.scores))


class MaskBaseline(Baseline):
    """A method that computes a mask of the allowed codes. All M x C candidates are then ranked."""

    def __init__(self, problem: Problem, arrays: Arrays) -> None:
        super().__init__(problem, arrays)
        self._rank = arrays.jit(self._rank_all, static_argnums=3)

    @abstractmethod
    def mask(self, tables: Any, search: Search, size: int) -> Array | None:
        """The mask of the allowed codes [B, m, C] bool, where C is `size`; None if all codes are allowed."""

    def step(self, tables: Any, search: Search, logits: Array, beam_width: int) -> Search:
        """Normalise, mask, and keep the best M of all candidates."""
        return self._rank(search, logits, self.mask(tables, search, logits.shape[-1]), beam_width)

    def _rank_all(self, search: Search, logits: Array, allowed: Array | None, beam_width: int) -> Search:
        scores = search.scores[..., None] + self.arrays.log_softmax(logits)
        if allowed is not None:
            scores = self.arrays.xp.where(allowed, scores, -INF)
        return select(self.arrays, search, scores, beam_width)[0]


class Winners(NamedTuple):
    """The candidates that `select` keeps for each request.

    Attributes:
        parents: [B, M], the beam that each one continues.
        positions: [B, M], their positions in the flattened candidates [B, m * n] of a request.
    """

    parents: Array
    positions: Array


def select(
    arrays: Arrays, search: Search, scores: Array, beam_width: int, codes: Array | None = None
) -> tuple[Search, Winners]:
    """Keep the best M candidates of each request.

    Args:
        arrays: the library and device.
        search: the beams before the step.
        scores: [B, m, n], total scores of n candidates per beam; -inf for those that are not allowed.
        beam_width: M.
        codes: [B, m, n], the codes of the candidates. Default: their positions along the last axis.

    Returns:
        The next beams, without carried arrays, and which candidates they are. If there are fewer than M candidates,
        the last beams have score -inf, and continue beam 0 by its first candidate.
    """
    xp = arrays.xp
    best, positions = _top_candidates(arrays, scores, beam_width)
    parents = positions // scores.shape[-1]
    if codes is None:
        next_codes = positions % scores.shape[-1]
    else:
        next_codes = arrays.along(xp.reshape(codes, (codes.shape[0], -1)), positions)
    next_codes = xp.astype(next_codes, xp.int32, copy=False)
    return Search(_extended(arrays, search.codes, parents, next_codes), best), Winners(parents, positions)


def _top_candidates(arrays: Arrays, scores: Array, beam_width: int) -> tuple[Array, Array]:
    """The M best scores of [B, m, n] and their flat positions; -inf at position 0 if there are fewer."""
    xp = arrays.xp
    flat = xp.reshape(scores, (scores.shape[0], scores.shape[1] * scores.shape[2]))
    missing = beam_width - flat.shape[1]
    if missing > 0:
        fill = arrays.full((flat.shape[0], missing), -INF, xp.float32)
        flat = xp.concat([flat, fill], axis=1)
    best, positions = arrays.top_k(flat, beam_width)
    return best, xp.where(best > -INF, positions, 0)


def _extended(arrays: Arrays, history: Array, parents: Array, codes: Array) -> Array:
    """The codes [B, M, l + 1] of beams that continue `parents` [B, M] by `codes` [B, M]."""
    xp = arrays.xp
    rows = xp.broadcast_to(parents[..., None], (*parents.shape, history.shape[-1]))
    return xp.concat([arrays.along(history, rows, axis=1), codes[..., None]], axis=-1)
