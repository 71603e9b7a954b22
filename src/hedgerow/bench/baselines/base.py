"""What every baseline is: built once from a catalog, then stepped level by level."""

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
    """A method cannot run here, or not at this size; the message says why."""


def optional(module: str, package: str) -> Any:
    """Returns a module that hedgerow does not depend on.

    Raises:
        Unavailable: it is not installed, or does not load here.
    """
    try:
        return importlib.import_module(module)
    except (ImportError, AssertionError) as error:
        raise Unavailable(f"{package} is not importable: {error}") from None


class Promise(StrEnum):
    """What a method promises of the beams that it returns."""

    EXACT = "exact"
    """The scores are those of exact constrained beam search, and every SID is in the catalog."""
    VALID = "valid, not exact"
    """Every live SID is in the catalog, but better ones may have been dropped."""
    APPROXIMATE = "approximate"
    """SIDs that are in no catalog may be returned."""
    NONE = "no constraint"
    """Any SID may be returned."""


@dataclass(frozen=True, eq=False)
class Problem:
    """A catalog to search: its index, and its sorted SIDs for those who need them."""

    index: hr.TrieIndex
    _placed: dict[str, Array] = field(default_factory=dict)

    def placed_sids(self, arrays: Arrays) -> Array:
        """Returns `sids` where the arrays are; one copy, however many methods ask."""
        if arrays.name not in self._placed:
            self._placed[arrays.name] = arrays.put(self.sids)
        return self._placed[arrays.name]

    @cached_property
    def sids(self) -> np.ndarray:
        """[S, L], the distinct SIDs in lexicographic order, in the narrowest type."""
        index = self.index
        narrow = np.empty((index.num_sids, index.num_levels), np.min_scalar_type(max(index.codebook_sizes) - 1))
        for first in range(0, len(narrow), CHUNK):
            leaves = np.arange(first, min(first + CHUNK, len(narrow)))
            narrow[leaves] = index.sids(leaves)
        return narrow


class Search(NamedTuple):
    """The state of a masked search, a pytree.

    Attributes:
        codes: [B, m, l] int32.
        scores: [B, m] float32; -inf where the beam is dead.
        carried: arrays [B, m] that a method keeps from step to step.
    """

    codes: Array
    scores: Array
    carried: tuple[Array, ...] = ()


@dataclass(frozen=True)
class Found:
    """What a search returned, on the host: codes [B, M, L], and scores [B, M] where the method tells them."""

    codes: np.ndarray
    scores: np.ndarray | None

    @property
    def live(self) -> np.ndarray:
        """[B, M] bool, the beams that the method says are there."""
        if self.scores is None:
            return np.ones(self.codes.shape[:2], bool)
        return self.scores > -INF


class Baseline(ABC):
    """A method of constrained beam search.

    Class attributes:
        name: what tables call it.
        promise: what its results are; checked before it is timed.
        on_host: it walks Python or host memory in a step, so a step cannot be compiled whole.
        most_items: the largest catalog it is tried on, for its time or memory to build; None is any.
    """

    name: ClassVar[str]
    promise: ClassVar[Promise]
    on_host: ClassVar[bool] = False
    most_items: ClassVar[int | None] = None

    def __init__(self, problem: Problem, arrays: Arrays) -> None:
        self.arrays = arrays
        self.num_levels = problem.index.num_levels
        self.codebook_sizes = problem.index.codebook_sizes
        self.tables: Any = ()

    @property
    def nbytes(self) -> int | None:
        """Bytes that the constraint takes; None where it cannot be told."""
        return None

    def start(self, batch: int) -> Any:
        """Returns the state before level 0, one beam a request."""
        return Search(
            codes=self.arrays.put(np.zeros((batch, 1, 0), np.int32)),
            scores=self.arrays.put(np.zeros((batch, 1), np.float32)),
        )

    @abstractmethod
    def step(self, tables: Any, search: Any, logits: Array, beam_width: int) -> Any:
        """Returns the state after one more level; a pure function of `tables` and arrays unless `on_host`."""

    def found(self, search: Any) -> Found:
        """Returns what a finished search found."""
        return Found(self.arrays.get(search.codes), self.arrays.get(search.scores))


class MaskBaseline(Baseline):
    """A method that says which codes are allowed; all of M x C candidates are then ranked."""

    def __init__(self, problem: Problem, arrays: Arrays) -> None:
        super().__init__(problem, arrays)
        self._rank = arrays.jit(self._rank_all, static_argnums=3)

    @abstractmethod
    def mask(self, tables: Any, search: Search, size: int) -> Array | None:
        """Returns allowed [B, m, C] bool, C being `size`, or None where all are."""

    def step(self, tables: Any, search: Search, logits: Array, beam_width: int) -> Search:
        """Masks, normalises, and keeps the best M of all candidates."""
        return self._rank(search, logits, self.mask(tables, search, logits.shape[-1]), beam_width)

    def _rank_all(self, search: Search, logits: Array, allowed: Array | None, beam_width: int) -> Search:
        scores = search.scores[..., None] + self.arrays.log_softmax(logits)
        if allowed is not None:
            scores = self.arrays.xp.where(allowed, scores, -INF)
        return select(self.arrays, search, scores, beam_width)


def select(arrays: Arrays, search: Search, scores: Array, beam_width: int) -> Search:
    """Returns the best M of the candidates `scores` [B, m, C], whose place along the last axis is their code."""
    best, at = top_candidates(arrays, scores, beam_width)
    codes = arrays.xp.astype(at % scores.shape[-1], arrays.xp.int32)
    return Search(extended(arrays, search.codes, at // scores.shape[-1], codes), best)


def top_candidates(arrays: Arrays, scores: Array, beam_width: int) -> tuple[Array, Array]:
    """Returns the M best of [B, m, n] scores and their flat places; -inf at place 0 where there are fewer."""
    xp = arrays.xp
    flat = xp.reshape(scores, (scores.shape[0], scores.shape[1] * scores.shape[2]))
    missing = beam_width - flat.shape[1]
    if missing > 0:
        fill = arrays.full((flat.shape[0], missing), -INF, xp.float32)
        flat = xp.concat([flat, fill], axis=1)
    best, at = arrays.top_k(flat, beam_width)
    return best, xp.where(best > -INF, at, 0)


def extended(arrays: Arrays, history: Array, parents: Array, codes: Array) -> Array:
    """Returns the codes so far [B, M, l + 1] of beams that continue `parents` [B, M] by `codes` [B, M]."""
    xp = arrays.xp
    rows = xp.broadcast_to(parents[..., None], (*parents.shape, history.shape[-1]))
    return xp.concat([arrays.along(history, rows, axis=1), codes[..., None]], axis=-1)
