"""Tries of Python objects that are walked on the host, the most common implementation."""

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
    """A mask that is computed row by row on the host from the codes of the beams, then copied to the device."""

    promise = Promise.EXACT
    on_host = True

    @abstractmethod
    def allowed_after(self, prefix: list[int]) -> Iterable[int]:
        """The codes that may follow a prefix of the catalog."""

    def mask(self, tables: Any, search: Search, size: int) -> Array:  # noqa: ARG002
        """Copy the beams to the host, fill the mask, copy it to the device: two transfers per step."""
        codes = self.arrays.get(search.codes)
        live = self.arrays.get(search.scores) > -INF
        mask = np.zeros((*live.shape, size), bool)
        for row, prefix, alive in zip(mask.reshape(-1, size), _rows(codes), live.ravel(), strict=True):
            if alive:
                row[list(self.allowed_after(prefix))] = True
        return self.arrays.put(mask)


class CpuTrie(HostMask):
    """The CPU trie of the paper: one dict per node, walked from the root for every beam. Exact."""

    name = "CPU trie"
    max_items = 2_000_000

    def __init__(self, problem: Problem, arrays: Arrays) -> None:
        super().__init__(problem, arrays)
        self.trie = trie_of(problem.sids)

    def allowed_after(self, prefix: list[int]) -> Iterable[int]:
        """Walk from the root."""
        return walk(self.trie, prefix)


def trie_of(sids: np.ndarray) -> Trie:
    """Build the trie of SIDs as nested dicts."""
    root: Trie = {}
    for start in range(0, len(sids), CHUNK):
        for sid in sids[start : start + CHUNK].tolist():
            node = root
            for code in sid:
                node = node.setdefault(code, {})
    return root


def walk(trie: Trie, prefix: list[int]) -> Trie:
    """The node of a prefix."""
    for code in prefix:
        trie = trie[code]
    return trie


def _rows(codes: np.ndarray) -> list[list[int]]:
    return codes.reshape(-1, codes.shape[-1]).tolist() if codes.shape[-1] else [[]] * (codes.shape[0] * codes.shape[1])
