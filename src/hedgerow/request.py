"""Request: what one user asks of a retriever."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

from hedgerow._arguments import whole_number
from hedgerow.constraints.sets import ConstraintSet
from hedgerow.errors import ArgumentError
from hedgerow.picking import OrderBy, Picking


@dataclass(frozen=True, eq=False)
class Request:
    """A request for `hedgerow.hf.Retriever.answer`. Each request of a batch has its own rules and sizes.

    Attributes:
        prompt: text, a chat (a list of messages), or token ids.
        k: the maximum number of items. None: all items of the beams.
        beam_width: M, the number of SIDs to follow; at least k for k items.
        constraints: a constraint set, or None for all items.
        exclude: the ids of items that are not returned, a constraint set of them, or None. Ids that no item has are
            ignored.
        candidates: the ids of the items that may be returned, or None for all items. Ids that no item has are ignored.
        order_by: as for `TrieIndex.results`.
        caps: as for `TrieIndex.results`.
        deadline: a moment of `time.monotonic()`, in seconds. A request whose search has not begun by then gets a
            `DeadlineError`. None: no deadline.
        fill: search again with twice the beams, and so on, until there are k items or the beams have found all items
            that may be returned. The results are those of a search with that many beams. By default, rules and caps can
            leave fewer items: `Results.complete` and `Results.reason` say so.

    Raises:
        ArgumentError: `k`, `beam_width`, `order_by`, `caps`, `deadline` or `fill` is invalid.

    Examples:
        ```python
        import hedgerow as hr

        request = hr.Request("Recommend me a western", k=3, exclude=[41483])
        assert (request.beam_width, request.candidates) == (50, None)
        ```
    """

    prompt: Any
    k: int | None = 10
    beam_width: int = 50
    constraints: ConstraintSet | None = None
    exclude: Any = None
    candidates: Any = None
    order_by: OrderBy = None
    caps: Mapping[str, int] | None = None
    deadline: float | None = None
    fill: bool = False

    def __post_init__(self) -> None:
        whole_number(self.beam_width, "beam_width")
        Picking(self.k, self.order_by, self.caps)
        check_fill(self.fill, self.k)
        deadline = self.deadline
        if deadline is not None and (
            isinstance(deadline, bool) or not isinstance(deadline, Real) or math.isnan(deadline)
        ):
            raise ArgumentError(
                f"deadline must be a moment of time.monotonic(), in seconds, or None; got {deadline!r}."
            )


def check_fill(fill: Any, k: Any) -> None:
    """Check the option `fill`, which needs a number of items.

    Raises:
        ArgumentError: `fill` is not a bool, or k is None.
    """
    if not isinstance(fill, bool):
        raise ArgumentError(f"fill must be True or False; got {fill!r}.")
    if fill and k is None:
        raise ArgumentError("fill needs k, the number of items to find; got k=None.")
