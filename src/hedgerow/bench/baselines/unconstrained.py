"""No constraint: the floor that every method's added time is counted from."""

from __future__ import annotations

from typing import Any

from hedgerow.bench.baselines.base import MaskBaseline, Promise, Search


class Unconstrained(MaskBaseline):
    """Log-softmax, then the best M of all M x C candidates. Promises nothing of the catalog."""

    name = "unconstrained"
    promise = Promise.NONE

    def mask(self, tables: Any, search: Search, size: int) -> None:
        """Allows all."""

    @property
    def nbytes(self) -> int:
        """None are needed."""
        return 0
