"""Tries in Python objects, walked on the host: what most deployed code does."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import Any

import numpy as np

from hedgerow.bench.arrays import Array, Arrays
from hedgerow.bench.baselines.base import INF, MaskBaseline, Problem, Promise, Search

Trie = dict[int, Any]
CHUNK = 1 << 16


class HostMask(MaskBaseline):
    """A mask written row by row on the host from the beams' codes, then taken to the device."""

    promise = Promise.EXACT
    on_host = True

    @abstractmethod
    def allowed_after(self, prefix: list[int]) -> Iterable[int]:
        """Returns the codes that may follow a prefix of the catalog."""

    def mask(self, tables: Any, search: Search, size: int) -> Array:  # noqa: ARG002
        """Fetches the beams, fills a mask, sends it back: two transfers a step."""
        codes = self.arrays.get(search.codes)
        live = self.arrays.get(search.scores) > -INF
        mask = np.zeros((*live.shape, size), bool)
        for row, prefix, alive in zip(mask.reshape(-1, size), _rows(codes), live.ravel(), strict=True):
            if alive:
                row[list(self.allowed_after(prefix))] = True
        return self.arrays.put(mask)


class CpuTrie(HostMask):
    """Dicts of dicts, one a node, walked from the root for every beam: the paper's CPU trie. Exact."""

    name = "CPU trie"
    most_items = 2_000_000

    def __init__(self, problem: Problem, arrays: Arrays) -> None:
        super().__init__(problem, arrays)
        self.trie = trie_of(problem.sids)

    def allowed_after(self, prefix: list[int]) -> Iterable[int]:
        """Walks from the root."""
        return walk(self.trie, prefix)


def trie_of(sids: np.ndarray) -> Trie:
    """Returns the SIDs as dicts of dicts."""
    root: Trie = {}
    for first in range(0, len(sids), CHUNK):
        for sid in sids[first : first + CHUNK].tolist():
            node = root
            for code in sid:
                node = node.setdefault(code, {})
    return root


def walk(trie: Trie, prefix: list[int]) -> Trie:
    """Returns the node of a prefix."""
    for code in prefix:
        trie = trie[code]
    return trie


def _rows(codes: np.ndarray) -> list[list[int]]:
    return codes.reshape(-1, codes.shape[-1]).tolist() if codes.shape[-1] else [[]] * (codes.shape[0] * codes.shape[1])
