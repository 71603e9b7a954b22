"""hedgerow with the interface of a baseline: one method per kernel."""

from __future__ import annotations

from typing import Any

import numpy as np

import hedgerow as hr
from hedgerow.bench.arrays import Array, Arrays
from hedgerow.bench.baselines.base import Baseline, Problem, Promise, SearchResult, Unavailable
from hedgerow.decode.kernels.dispatch import KernelName
from hedgerow.index.trie import in_layout

KERNELS = {"numpy": ("array", "native"), "torch": ("array", "native", "triton"), "jax": ("array",)}
LABELS = {"array": "hedgerow, array", "native": "hedgerow, native", "triton": "hedgerow, Triton"}


class Hedgerow(Baseline):
    """`hr.step` with the array kernel. Exact."""

    promise = Promise.EXACT
    kernel: KernelName = "array"

    def __init__(self, problem: Problem, arrays: Arrays) -> None:
        super().__init__(problem, arrays)
        if self.kernel not in KERNELS[arrays.name]:
            raise Unavailable(f"the {self.kernel} kernel does not support {arrays.name}")
        index = self._index(problem)
        self.tables = index.to(arrays.name, device=arrays.device)
        self._nbytes = index.nbytes
        self._try_kernel()

    def _index(self, problem: Problem) -> hr.TrieIndex:
        return problem.index

    @property
    def nbytes(self) -> int:
        """Bytes of the trie."""
        return self._nbytes

    def start(self, batch: int) -> hr.Beams:
        """The beams at the root."""
        return hr.init_beams(self.tables, batch_size=batch)

    def step(self, tables: Any, search: hr.Beams, logits: Array, beam_width: int) -> hr.Beams:
        """Run one level."""
        return hr.step(tables, search, logits, beam_width=beam_width, kernel=self.kernel)

    def _try_kernel(self) -> None:
        """Run one small step: `hr.step` raises if the kernel cannot run here."""
        logits = self.arrays.put(np.zeros((1, 1, self.codebook_sizes[0]), np.float32))
        try:
            self.step(self.tables, self.start(1), logits, 1)
        except (hr.BackendError, hr.ArgumentError) as error:
            raise Unavailable(str(error)) from None

    def result(self, search: hr.Beams) -> SearchResult:
        """The codes and scores of the beams."""
        return SearchResult(self.arrays.get(search.codes), self.arrays.get(search.scores))


class HedgerowNative(Hedgerow):
    """`hr.step` with the CPU kernel."""

    kernel = "native"


class HedgerowCompact(HedgerowNative):
    """`hr.step` with the CPU kernel, on the same index in the compact layout."""

    def _index(self, problem: Problem) -> hr.TrieIndex:
        return hr.TrieIndex._of(in_layout(problem.index, "compact"))


class HedgerowTriton(Hedgerow):
    """`hr.step` with the GPU kernel."""

    kernel = "triton"


for _method in (Hedgerow, HedgerowNative, HedgerowTriton):
    _method.name = LABELS[_method.kernel]
HedgerowCompact.name = f"{LABELS['native']}, compact"
