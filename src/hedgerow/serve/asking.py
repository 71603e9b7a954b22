"""What clients ask of the engine, what they get, and why not."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hedgerow.constraints.sets import ConstraintSet
from hedgerow.errors import (
    DeadlineError,
    HedgerowError,
    PromptLengthError,
    VersionError,
)
from hedgerow.picking import OrderBy
from hedgerow.results import Results


class RefusedError(Exception):
    """A request that is not answered.

    Attributes:
        status: the status code of HTTP.
        code: what was wrong, for programs.
        message: what was wrong, for people.
        param: the field of the request; None if it is none.
        retry_after: the seconds after which to try again; None if that would not help.
    """

    def __init__(
        self, status: int, code: str, message: str, *, param: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
        self.param, self.retry_after = param, retry_after


@dataclass(frozen=True, eq=False)
class Ask:
    """A request of a client. Names of sets and versions are resolved when it is answered.

    Attributes:
        prompt: as for `hedgerow.Request`. None: there is a history.
        k: as for `hedgerow.Request`.
        beam_width: as for `hedgerow.Request`.
        history: the ids of the items that the user has seen, in place of a prompt; or None.
        repeat: whether items of the history may be returned.
        sets: the names of sets, all of which an item must be in.
        where: an SQL expression, or None.
        exclude: as for `hedgerow.Request`.
        candidates: as for `hedgerow.Request`.
        order_by: as for `hedgerow.Request`.
        caps: as for `hedgerow.Request`.
        deadline: as for `hedgerow.Request`.
        version: the number of the version to search. None: the current one, or the canary.
        key: decides between the current version and the canary: equal keys get the same.
        snapshot: the `Snapshot` that answers it, if that is decided already.
        where_set: the constraint set of `where` on this snapshot.
        where_seconds: the time to evaluate `where`, waiting included.
    """

    prompt: Any
    k: int
    beam_width: int
    history: list[Any] | None = None
    repeat: bool = False
    sets: tuple[str, ...] = ()
    where: str | None = None
    exclude: list[Any] | None = None
    candidates: list[Any] | None = None
    order_by: OrderBy = None
    caps: Mapping[str, int] | None = None
    deadline: float | None = None
    version: int | None = None
    key: str = ""
    snapshot: Any = None
    where_set: ConstraintSet | None = None
    where_seconds: float = 0.0


@dataclass(frozen=True, eq=False)
class Answered:
    """The answer of an ask.

    Attributes:
        version: the number of the version that was searched; None if the index is not live.
        results: the items.
        queue_seconds: the time before its batch began.
        check_seconds: the time to check it: its rules, its SQL expression and the tokens of its prompt.
        search_seconds: the time of its batch.
        batch_size: the number of requests in the batch.
        prompt_tokens: the number of tokens of the prompt.
        unknown: as `Snapshot.unknown`.
    """

    version: int | None
    results: Results
    queue_seconds: float = 0.0
    check_seconds: float = 0.0
    search_seconds: float = 0.0
    batch_size: int = 1
    prompt_tokens: int = 0
    unknown: tuple[int, list[Any]] | None = None


def refusal_of(error: HedgerowError, param: str | None = None) -> RefusedError:
    """The refusal of an error of the library.

    Args:
        error: the error.
        param: the field of the request that it is about, if that is known.
    """
    if isinstance(error, PromptLengthError):
        return RefusedError(413, "prompt_too_long", str(error), param="prompt")
    if isinstance(error, DeadlineError):
        return RefusedError(504, "deadline", str(error))
    if isinstance(error, VersionError):
        return RefusedError(404, "unknown_version", str(error), param="version")
    # The library counts prompts and requests; here there is one.
    message = re.sub(r"\b(prompt|request) 0\b", r"the \1", str(error))
    named = re.match(r"(?:the )?(prompt|history|exclude|candidates|caps|order_by|item_ids|item_id)\b", message)
    return RefusedError(400, "invalid_request", message, param=param or (named and named[1]))
