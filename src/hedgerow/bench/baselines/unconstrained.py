"""No constraint: the reference for the time that a method adds."""

from __future__ import annotations

from typing import Any

from hedgerow.bench.baselines.base import MaskBaseline, Promise, Search


class Unconstrained(MaskBaseline):
    """Log-softmax, then the best M of all M x C candidates. SIDs may match no item."""

    name = "unconstrained"
    promise = Promise.NONE

    def mask(self, tables: Any, search: Search, size: int) -> None:
        """Allow all codes."""

    @property
    def nbytes(self) -> int:
        """The method has no tables."""
        return 0
