"""Snapshot: one version of an index that is ready to be searched: warmed up, with the sets of all named rules."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import and_
from typing import Any

from hedgerow.constraints.sets import ConstraintSet
from hedgerow.errors import ArgumentError
from hedgerow.hf import Retriever, Shapes
from hedgerow.hf.history import unknown_items
from hedgerow.hf.warming import warm_up_index
from hedgerow.index.lookup import as_ids, row_of_value
from hedgerow.live.version import Version
from hedgerow.request import Request
from hedgerow.serve.asking import Ask, RefusedError
from hedgerow.serve.rules import Rule, sets_of
from hedgerow.serve.settings import Settings
from hedgerow.trie_index import TrieIndex

Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A version that is served.

    Attributes:
        retriever: searches this version only.
        rules: the named rules.
        sets: the set of each rule.
        kept: the items of this version that the current one has not removed; None: all.
        evaluated: the time, of `time.monotonic()`, at which the sets were computed.
    """

    retriever: Retriever
    rules: Mapping[str, Rule]
    sets: Mapping[str, ConstraintSet]
    kept: ConstraintSet | None = None
    evaluated: float = field(default_factory=time.monotonic)

    @property
    def version(self) -> Version | None:
        """The version of a live index; None if the index is not live."""
        return self.retriever.version

    @property
    def number(self) -> int | None:
        """The number of the version; None if the index is not live."""
        return None if self.version is None else self.version.number

    @property
    def index(self) -> TrieIndex:
        """The index, which may contain removed items."""
        return self.retriever.index

    @property
    def num_items(self) -> int:
        """The number of items, without removed items."""
        return self.index.num_items if self.version is None else self.version.num_items

    def constraints(self, ask: Ask, settings: Settings) -> ConstraintSet | None:
        """The set of the items that are in all sets of an ask, and for which its SQL expression is true.

        Raises:
            RefusedError: there is no such set.
            ConstraintError: the expression is invalid.
        """
        unknown = [name for name in ask.sets if name not in self.sets]
        if unknown:
            known = ", ".join(sorted(self.sets)) or "none"
            raise RefusedError(
                404, "unknown_set", f"there is no set {unknown[0]!r}; the sets are {known}.", param="sets"
            )
        sets = [self.sets[name] for name in dict.fromkeys(ask.sets)]
        if ask.where is not None:
            sets.append(self.where(ask.where, settings) if ask.where_set is None else ask.where_set)
        # Who names a version gets it as it was.
        if self.kept is not None and ask.version is None:
            sets.append(self.kept)
        return reduce(and_, sets) if sets else None

    def named(self, item: Any) -> tuple[Any, str | None]:
        """The id of an item, and the value that names it; None if its id does.

        Args:
            item: its id; or a dict of an attribute and the value that only this item has.

        Raises:
            ArgumentError: no item or several items have the value.
        """
        if not isinstance(item, dict):
            return item, None
        ((name, value),) = item.items()
        row = row_of_value(self.index, name, value, "item")
        return self.index.item_ids[row].as_py(), str(value)

    def where(self, expression: str, settings: Settings) -> ConstraintSet:
        """The set of an SQL expression, which is cached.

        Raises:
            RefusedError: the index has more items than the limit.
            ConstraintError: the expression is invalid, or takes too much time.
        """
        limits = settings.limits
        if self.index.num_items > limits.where_items:
            raise RefusedError(
                400,
                "where_limit",
                f"where is evaluated for at most {limits.where_items:,} items; this index has "
                f"{self.index.num_items:,}. Use a named set.",
                param="where",
            )
        return self.index.where(expression, timeout=limits.where_seconds)

    def request(self, ask: Ask, settings: Settings) -> Request:
        """The request of an ask on this version.

        Raises:
            RefusedError: as for `constraints`.
            HedgerowError: the request is invalid.
        """
        return Request(
            self.prompt(ask),
            k=ask.k,
            beam_width=ask.beam_width,
            constraints=self.constraints(ask, settings),
            exclude=self.excluded(ask),
            candidates=ask.candidates,
            order_by=ask.order_by,
            caps=ask.caps,
            deadline=ask.deadline,
        )

    def prompt(self, ask: Ask) -> Any:
        """The prompt of an ask, or that of its history, whose items can be those of another version.

        Raises:
            ArgumentError: no item of the history is in the index.
        """
        if ask.history is None:
            return ask.prompt
        # Here, because the library calls them ids.
        as_ids(self.index, ask.history, "history", error=ArgumentError, skip_too_large=True)
        return self.retriever.history_prompt(ask.history, missing="ignore")

    def unknown(self, ask: Ask) -> tuple[int, list[Any]] | None:
        """The number of ids of a history that the index does not have, and the first ones; None if it has all."""
        if ask.history is None:
            return None
        found = unknown_items(self.index.rows(ask.history, missing="ignore"), ask.history)
        return found if found[0] else None

    def excluded(self, ask: Ask) -> list[Any] | None:
        """The ids that are not returned for an ask; None if there are none."""
        if ask.history is None or ask.repeat:
            return ask.exclude
        return [*(ask.exclude or ()), *ask.history]

    def with_new_sets(self) -> Snapshot:
        """The same version, with its rules evaluated again, because the time has passed."""
        return Snapshot(self.retriever, self.rules, sets_of(self.index, self.rules), self.kept)

    def without_removed(self, current: Snapshot) -> Snapshot:
        """The same version as a canary beside a later one, without the items that this one has removed."""
        if self.version is None or current.version is None or (self.number or 0) > (current.number or 0):
            return replace(self, kept=None)
        rows = current.index.rows(self.index.item_ids, missing="ignore")
        is_kept = (rows >= 0) & ~current.version.removed[rows]
        return replace(
            self, kept=self.index.constraint(is_kept, order="index", name=f"items of version {current.number}")
        )


def snapshot_of(retriever: Retriever, index: Any, rules: Mapping[str, Rule]) -> Snapshot:
    """A snapshot of a version. The model is shared with the retriever, which does not change.

    Args:
        retriever: a retriever of another version.
        index: the index or version.
        rules: the named rules.

    Raises:
        ArgumentError: the index does not fit the tokens, or a rule does not fit the index.
    """
    own = copy.copy(retriever)
    own.refresh(index)
    return Snapshot(own, rules, sets_of(own.index, rules))


def warm_up(snapshot: Snapshot, settings: Settings, progress: Progress | None = None) -> None:
    """Prepare a snapshot for all traffic that the settings allow."""
    longest = snapshot.retriever._searcher.max_length()
    length = settings.limits.prompt_tokens
    shapes = Shapes(
        beam_widths=settings.beam_widths,
        batch_size=settings.max_batch,
        prompt_length=length if longest is None else min(longest, length),
        sets=settings.max_batch if snapshot.rules or settings.allow_where else 0,
        excluded=256,
        candidates=True,
    )
    snapshot.retriever.warm_up(shapes, progress=progress)


def warm_up_next(snapshot: Snapshot, before: Snapshot, settings: Settings) -> None:
    """Prepare the version after another one. What was compiled or captured for that one serves this one as well."""
    graphs, capacity = snapshot.retriever._searcher.graphs, snapshot.retriever.device_index.capacity
    if graphs is not None and (capacity is None or capacity != before.retriever.device_index.capacity):
        warm_up(snapshot, settings)
        return
    warm_up_index(snapshot.retriever._searcher, settings.beam_widths[0])
