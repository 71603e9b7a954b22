"""The JSON documents of requests: their fields, types and sizes."""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal, cast

import orjson
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, StrictStr

from hedgerow.serve.asking import Ask, RefusedError
from hedgerow.serve.settings import Settings

# The sizes below are those of the OpenAPI document; `Limits` sets those of a service, which are smaller or equal.
ItemId = StrictStr | StrictInt | StrictFloat | StrictBool
ItemIds = Annotated[list[ItemId], Field(max_length=1_000_000)]
Tokens = Annotated[list[Annotated[StrictInt, Field(ge=0, lt=2**31)]], Field(max_length=1_000_000)]


class Document(BaseModel):
    """A JSON object without unknown fields: a misspelt rule must not be ignored."""

    model_config = ConfigDict(extra="forbid")


class TextPart(Document):
    """A part of the content of a message. Parts that are no text are not supported."""

    type: Literal["text"]
    text: StrictStr


class Message(BaseModel):
    """A message of a chat."""

    model_config = ConfigDict(extra="allow")

    role: Annotated[StrictStr, Field(max_length=100)]
    content: StrictStr | Annotated[list[TextPart], Field(max_length=1_000)] | None = None

    @property
    def plain(self) -> dict[str, Any]:
        """The message with its content as text."""
        content = self.content
        if isinstance(content, list):
            content = "".join(part.text for part in content)
        return self.model_dump() | {"content": content}


Prompt = StrictStr | Tokens | Annotated[list[Message], Field(max_length=10_000)]


class Searched(Document):
    """The fields that all searches have."""

    prompt: Prompt | None = Field(
        default=None, description="Text, a chat (a list of messages), or token ids. A request has this or a history."
    )
    history: Annotated[list[ItemId], Field(min_length=1, max_length=1_000_000)] | None = Field(
        default=None,
        description="Ids of the items that the user has seen, oldest first, in place of a prompt. They are not "
        "returned. Ids that no item has are ignored.",
    )
    repeat: StrictBool = Field(default=False, description="Items of the history may be returned.")
    sets: Annotated[list[StrictStr], Field(max_length=1_000)] = Field(
        default=[], description="Names of sets; an item must be in all of them."
    )
    where: StrictStr | None = Field(default=None, description="An SQL expression, if the operator allows it.")
    exclude: ItemIds | None = Field(default=None, description="Ids of items that are not returned.")
    beam_width: Annotated[StrictInt, Field(ge=1, lt=2**31)] | None = Field(
        default=None, description="The number of SIDs to follow. Default: that of the service."
    )
    version: Annotated[StrictInt, Field(ge=1, lt=2**63)] | None = Field(
        default=None, description="The number of a served version. Default: the current one."
    )
    user: Annotated[StrictStr, Field(max_length=1_000)] | None = Field(
        default=None, description="Requests of one user get the same version while there is a canary."
    )


class Picked(Searched):
    """The fields of searches that pick items."""

    k: Annotated[StrictInt, Field(ge=1, lt=2**31)] = Field(default=10, description="The maximum number of items.")
    candidates: ItemIds | None = Field(default=None, description="Ids of the items that may be returned.")
    order_by: StrictStr | tuple[StrictStr, Literal["ascending", "descending"]] | None = Field(
        default=None,
        description="The order of items that share a SID: an attribute, largest first, or with a direction.",
    )
    caps: dict[StrictStr, Annotated[StrictInt, Field(ge=1)]] | None = Field(
        default=None, description="The maximum number of items per value of an attribute."
    )


class RetrieveRequest(Picked):
    """A request for items."""

    fields: Annotated[list[StrictStr], Field(max_length=1_000)] | None = Field(
        default=None, description="The attributes to return. Default: all."
    )
    deadline_ms: Annotated[StrictFloat, Field(gt=0, le=3_600_000)] | None = Field(
        default=None, description="Milliseconds until the search must have begun."
    )


class RetrieveRequests(Document):
    """Several requests."""

    requests: Annotated[list[Any], Field(min_length=1, max_length=10_000)] = Field(
        description="Requests as for one; each is answered, or gets its error."
    )


class ScoreRequest(Document):
    """A request for the scores of items."""

    prompt: Prompt
    item_ids: Annotated[ItemIds, Field(min_length=1)]
    user: Annotated[StrictStr, Field(max_length=1_000)] | None = None
    version: Annotated[StrictInt, Field(ge=1, lt=2**63)] | None = None


class ExplainRequest(Picked):
    """A request for the reason why an item is or is not returned."""

    item_id: ItemId | None = Field(default=None, description="The id of the item. A request has this or item.")
    item: Annotated[dict[StrictStr, ItemId], Field(min_length=1, max_length=1)] | None = Field(
        default=None, description='An attribute, and the value that only this item has: {"title": "Alien"}.'
    )

    @property
    def asked(self) -> ItemId | dict[str, ItemId]:
        """The id of the item, or the attribute that names it.

        Raises:
            RefusedError: the request has neither, or both.
        """
        if (self.item_id is None) == (self.item is None):
            given = "neither" if self.item is None else "both"
            raise RefusedError(400, "invalid_request", f"pass item_id or item; got {given}.", param="item_id")
        return self.item or cast("ItemId", self.item_id)


class TraceRequest(Searched):
    """A request for the beams of every level."""

    k: Annotated[StrictInt, Field(ge=1, lt=2**31)] = 10


class RollbackRequest(Document):
    """A request for an earlier version."""

    to: Annotated[StrictInt, Field(ge=1, lt=2**63)] | None = Field(
        default=None, description="The number of the version. Default: the one that the current one was made from."
    )


class CanaryRequest(Document):
    """A request for a canary."""

    version: Annotated[StrictInt, Field(ge=1, lt=2**63)] | None = Field(description="Its number; null: no canary.")
    share: Annotated[float, Field(ge=0, le=1)] = Field(default=0.05, description="Its share of the requests.")


def ask_of(document: Searched, settings: Settings, key: str) -> Ask:
    """The ask of a document.

    Raises:
        RefusedError: a field exceeds a limit of the service.
    """
    limits = settings.limits
    if (document.prompt is None) == (document.history is None):
        given = "neither" if document.prompt is None else "both"
        raise RefusedError(400, "invalid_request", f"pass a prompt or a history; got {given}.", param="prompt")
    width = document.beam_width or settings.default_beam_width or settings.beam_widths[0]
    k = getattr(document, "k", 10)
    prompt = checked_prompt(document.prompt, settings)
    _check(width, settings.beam_widths[-1], "beam_width", "beams")
    _check(k, limits.k, "k", "items")
    _check(len(document.sets), limits.sets, "sets", "names")
    candidates, deadline_ms = getattr(document, "candidates", None), getattr(document, "deadline_ms", None)
    for name, ids in (("exclude", document.exclude), ("candidates", candidates), ("history", document.history)):
        _check(len(ids or ()), limits.ids, name, "ids")
    if document.where is not None:
        if not settings.allow_where:
            message = "SQL expressions are not allowed in requests of this service; use sets."
            raise RefusedError(400, "where_not_allowed", message, param="where")
        _check(len(document.where), limits.where_characters, "where", "characters")
    return Ask(
        prompt,
        k=k,
        beam_width=width,
        history=document.history,
        repeat=document.repeat,
        sets=tuple(document.sets),
        where=document.where,
        exclude=document.exclude,
        candidates=candidates,
        order_by=getattr(document, "order_by", None),
        caps=getattr(document, "caps", None),
        # It counts from the arrival: SQL expressions are evaluated before the queue.
        deadline=time.monotonic() + (deadline_ms or settings.deadline_ms) / 1e3,
        version=document.version,
        key=document.user or key,
    )


def plain_prompt(prompt: Any) -> Any:
    """A prompt without models of Pydantic."""
    if isinstance(prompt, list) and prompt and isinstance(prompt[0], BaseModel):
        return [message.plain for message in prompt if isinstance(message, Message)]
    return prompt


def checked_prompt(prompt: Any, settings: Settings) -> Any:
    """A prompt without models of Pydantic. The number of its tokens is checked when it is encoded.

    Raises:
        RefusedError: it is too long.
    """
    limit, plain = settings.limits.prompt_characters, plain_prompt(prompt)
    size = len(plain) if isinstance(plain, str) else 0
    if isinstance(plain, list) and plain and isinstance(plain[0], dict):
        # All that a message has: chat templates read other keys as well.
        size = len(orjson.dumps(plain).decode())
    if size > limit:
        message = f"the prompt has {size:,} characters; this service takes {limit:,}."
        raise RefusedError(413, "prompt_too_long", message, param="prompt")
    return plain


def check_ids(ids: list[Any], settings: Settings) -> None:
    """Check the number of ids to score.

    Raises:
        RefusedError: there are too many.
    """
    _check(len(ids), settings.limits.scored, "item_ids", "ids")


def _check(given: int, limit: int, name: str, unit: str) -> None:
    if given > limit:
        message = f"{name} has at most {limit:,} {unit} in this service; got {given:,}."
        raise RefusedError(400, "limit", message, param=name)
