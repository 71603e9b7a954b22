"""Requests as documents: objects of JSON lines, and rows of tables.

A document has keys of KEYS. It becomes a `Request` with the options of all requests.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import and_
from types import MappingProxyType
from typing import Any, Protocol

from hedgerow._arguments import advice_on_name, json_text
from hedgerow.constraints.sets import ConstraintSet
from hedgerow.errors import ArgumentError, ConstraintError, HedgerowError
from hedgerow.index.lookup import as_ids
from hedgerow.picking import OrderBy, Picking
from hedgerow.request import Request
from hedgerow.results import Results
from hedgerow.trie_index import TrieIndex

# The keys of a request. "id" and "extra" are not used, but printed with the items.
KEYS = ("prompt", "history", "where", "exclude", "candidates", "k", "beam_width", "caps", "order_by", "id", "extra")


def checked_document(document: dict[str, Any], where: str, keys: Sequence[str] = KEYS) -> dict[str, Any]:
    """Check the keys of a request.

    Args:
        document: the request.
        where: its place, for messages.
        keys: the keys that it may have.

    Raises:
        ArgumentError: a key is unknown, or there is no prompt or history, or both.
    """
    prompt = document.get("prompt", "")
    if not isinstance(prompt, str | list):
        raise ArgumentError(
            f"{where}: a prompt must be text, or a list of token ids or messages; got {json_text(prompt)[:50]}."
        )
    given = [name for name in ("prompt", "history") if document.get(name) is not None]
    if len(given) != 1:
        wrong = 'both "prompt" and "history"; pass one' if given else 'neither "prompt" nor "history"'
        raise ArgumentError(f"{where} has {wrong}; it has {', '.join(document) or 'nothing'}.")
    unknown = next((key for key in document if key not in keys), None)
    if unknown is not None:
        advice = advice_on_name(unknown, keys, "keys")
        raise ArgumentError(f'{where}: unknown key {unknown!r}{advice} Keys of your own belong in "extra".')
    return document


@dataclass(frozen=True, kw_only=True)
class RequestOptions:
    """The rules and sizes of all requests. A request can have sizes of its own, and more rules.

    Attributes:
        k: as for `Request`.
        beam_width: as for `Request`.
        where: an SQL expression.
        exclude: item ids.
        candidates: item ids; None: all items.
        caps: as for `Request`.
        order_by: as for `Request`.
        repeat: whether items of a history may be returned.
        fill: as for `Request`.
    """

    k: int | None = 10
    beam_width: int = 50
    where: str | None = None
    exclude: Sequence[Any] = ()
    candidates: Sequence[Any] | None = None
    caps: Mapping[str, int] = field(default_factory=dict)
    order_by: OrderBy = None
    repeat: bool = False
    fill: bool = False


class Searcher(Protocol):
    """What answers requests: a `Retriever`."""

    @property
    def index(self) -> TrieIndex:
        """The index."""
        ...

    def history_prompt(self, item_ids: Any) -> Any:
        """The prompt of a history."""
        ...

    def answer(self, requests: Iterable[Request]) -> list[Results | HedgerowError]:
        """An answer for each request."""
        ...


def request_of(
    searcher: Searcher,
    document: Mapping[str, Any],
    options: RequestOptions,
    sets: Mapping[str, ConstraintSet] = MappingProxyType({}),
) -> Request:
    """The request of a document: its own rules and sizes, and the options for those that it does not have.

    An item must fulfil the rules of both: "where", "exclude" and "candidates" of the document and of the options.

    Args:
        searcher: answers the request.
        document: the prompt or history, and its rules. None is as no value.
        options: those of all requests.
        sets: named sets, for the key "sets".

    Raises:
        ArgumentError: a value has another type or is out of range.
        ConstraintError: an expression is invalid, an id is not of the type of the index's ids, or there is no such
            attribute or set.
    """
    index = searcher.index
    own = {name: value for name, value in document.items() if value is not None}
    for name in ("exclude", "candidates", "history", "sets"):
        if not isinstance(own.get(name, []), list):
            raise ArgumentError(f'"{name}" must be a list of {_ENTRIES.get(name, "item ids")}; got {own[name]!r}.')
    order_by = own.get("order_by", options.order_by)
    history = own.get("history", [])
    request = Request(
        own["prompt"] if "prompt" in own else searcher.history_prompt(history),
        k=own.get("k", options.k),
        beam_width=own.get("beam_width", options.beam_width),
        constraints=_constraints(index, (options.where, own.get("where")), own.get("sets", []), sets),
        exclude=[*options.exclude, *own.get("exclude", []), *([] if options.repeat else history)],
        candidates=_candidates(index, options.candidates, own.get("candidates")),
        order_by=tuple(order_by) if isinstance(order_by, list) else order_by,
        caps={**options.caps, **_checked_caps(own.get("caps", {}))} or None,
        fill=options.fill,
    )
    # The search would find this out at its end.
    Picking(request.k, request.order_by, request.caps).check_attributes(index)
    return request


_ENTRIES = {"sets": "names of sets"}


def _constraints(
    index: TrieIndex, expressions: Iterable[str | None], names: Sequence[str], sets: Mapping[str, ConstraintSet]
) -> ConstraintSet | None:
    """The set of the items in all named sets for which all expressions are true; None if there is neither."""
    unknown = next((name for name in names if name not in sets), None)
    if unknown is not None:
        raise ConstraintError(f"there is no set {unknown!r}; the sets are {', '.join(sets) or 'none'}.")
    found = [index.where(expression) for expression in expressions if expression is not None]
    found += [sets[name] for name in names]
    return reduce(and_, found) if found else None


def _candidates(index: TrieIndex, shared: Sequence[Any] | None, own: list[Any] | None) -> list[Any] | None:
    """The ids in both lists; None if there is neither."""
    if shared is None or own is None:
        return own if shared is None else list(shared)
    ids = as_ids(index, own, "candidates", skip_too_large=True).to_pylist()
    return [item_id for item_id in ids if item_id in shared]


def _checked_caps(caps: Any) -> Mapping[str, int]:
    """Check that "caps" of a request is an object.

    Raises:
        ArgumentError: it is not.
    """
    if not isinstance(caps, Mapping):
        raise ArgumentError(f'"caps" must map attributes to counts: {{"director": 1}}; got {caps!r}.')
    return caps


def answers_of(searcher: Searcher, requests: Sequence[Request | HedgerowError]) -> list[Results | HedgerowError]:
    """The answers of requests. What is wrong with a request that could not be made is its answer."""
    answers = iter(searcher.answer([request for request in requests if isinstance(request, Request)]))
    return [next(answers) if isinstance(request, Request) else request for request in requests]
