"""The types of the documents of responses. The routes build them, and the OpenAPI document describes them."""

from __future__ import annotations

from typing import Any, Literal, NotRequired

# Pydantic needs this TypedDict before Python 3.12.
from typing_extensions import TypedDict

from hedgerow.results import Reason


class ErrorBody(TypedDict):
    """What was wrong."""

    message: str
    type: str
    param: str | None
    code: str


class Error(TypedDict):
    """An error, in the form of OpenAI's."""

    error: ErrorBody


class Item(TypedDict):
    """An item of an answer. A score that is not finite is null."""

    item_id: Any
    score: float | None
    sid: list[int]
    attributes: dict[str, Any]


class Timings(TypedDict):
    """The milliseconds of each phase, and the number of requests that were searched together."""

    queue_ms: NotRequired[float]
    check_ms: NotRequired[float]
    search_ms: float
    total_ms: float
    batch_size: int


class UnknownIds(TypedDict):
    """The number of ids of a history that the index does not have, and the first of them. They are not read."""

    count: int
    first: list[Any]


class Answer(TypedDict):
    """The answer of one of several requests. `reason` says why there are fewer than k items.

    `unknown_history` is null if the index has all items of the history, or there is none.
    """

    version: int | None
    items: list[Item]
    num_valid: int | None
    complete: bool
    reason: Reason | None
    beam_width: int
    unknown_history: UnknownIds | None
    timings: Timings


class Retrieved(Answer):
    """The answer of a request."""

    id: str


class RetrievedAll(TypedDict):
    """The answers of several requests, in their order. One that is refused has an error."""

    id: str
    results: list[Answer | Error]


class ItemScore(TypedDict):
    """The log-probability of an item."""

    item_id: Any
    score: float | None


class Scored(TypedDict):
    """The scores of given items."""

    id: str
    version: int | None
    scores: list[ItemScore]
    timings: Timings


class LevelTrace(TypedDict):
    """The prefix of an item at one level of a search, which ends with `code`."""

    code: int
    score: float | None
    rank: int | None
    candidates: int
    kept: int
    to_beat: float | None


class Explanation(TypedDict):
    """Why an item was or was not returned. `text` says it in a sentence."""

    item_id: Any
    outcome: str
    sid: list[int]
    rank: int | None
    level: int | None
    levels: list[LevelTrace]
    beam_width: int
    k: int
    score: float | None
    capped: tuple[str, Any, int] | None
    name: str | None
    rules: list[str]
    attributes: dict[str, Any]
    text: str


class Explained(TypedDict):
    """The explanation of an item."""

    id: str
    version: int | None
    explanation: Explanation
    unknown_history: UnknownIds | None


class TracedBeam(TypedDict):
    """A beam of one level. `parent` is its position among the beams of the level before; -1 at the first level."""

    code: int
    prefix: list[int]
    parent: int
    score: float | None
    probability: float
    survives: bool
    rank: int


class TracedLevel(TypedDict):
    """A level of a search, and the probability that the catalog and the rules remove, and the rules alone."""

    level: int
    beams: list[TracedBeam]
    masked_probability: float
    rules_probability: float


class Traced(TypedDict):
    """A search, level by level, and its items."""

    id: str
    version: int | None
    levels: list[TracedLevel]
    items: list[Item]
    unknown_history: UnknownIds | None


class NamedSet(TypedDict):
    """A named set of items."""

    name: str
    rule: str
    num_items: int


class Attribute(TypedDict):
    """An attribute of the items, with its Arrow type."""

    name: str
    type: str


class Canary(TypedDict):
    """The version that answers a share of the requests."""

    version: int | None
    share: float


class Refused(TypedDict):
    """A version that was not served, and since when."""

    error: str
    since: str


class Index(TypedDict):
    """What is served."""

    model: str
    index: str
    live: bool
    version: int | None
    versions: list[int]
    num_items: int
    num_levels: int
    codebook_sizes: list[int]
    created: str | None
    age_seconds: float | None
    sets: list[NamedSet]
    item_id_type: str
    attributes: list[Attribute]
    allows_where: bool
    beam_widths: list[int]
    default_beam_width: int
    max_k: int
    canary: Canary | None
    refused: Refused | None


class Health(TypedDict):
    """The state of the service."""

    status: Literal["live", "cold", "ready", "draining", "failed"]


class Model(TypedDict):
    """The model, in the form of OpenAI's."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class Models(TypedDict):
    """The list of models, in the form of OpenAI's."""

    object: Literal["list"]
    data: list[Model]


class ChoiceItem(Item):
    """The item of a choice. `prompt_index` is the position of its prompt, if there are several."""

    prompt_index: NotRequired[int]


class Usage(TypedDict):
    """The numbers of tokens."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Served(TypedDict):
    """The version that answered, and for each prompt the number of SIDs that the search found."""

    version: int | None
    num_valid: list[int | None]


class TokenLogprob(TypedDict):
    """A token of a SID with its log-probability."""

    token: str
    logprob: float | None
    bytes: list[int]
    top_logprobs: list[Any]


class ChatLogprobs(TypedDict):
    """The tokens of a choice of a chat completion."""

    content: list[TokenLogprob]
    refusal: None


class ChatMessage(TypedDict):
    """The tokens of an item as a message."""

    role: Literal["assistant"]
    content: str
    refusal: None


class TextLogprobs(TypedDict):
    """The tokens of a choice of a completion."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: None
    text_offset: list[int]


class Choice(TypedDict):
    """One item of a completion."""

    index: int
    finish_reason: Literal["stop"]
    hedgerow: ChoiceItem


class ChatChoice(Choice):
    """One item of a chat completion."""

    message: ChatMessage
    logprobs: ChatLogprobs | None


class TextChoice(Choice):
    """One item of a text completion."""

    text: str
    logprobs: TextLogprobs | None


class OfCompletion(TypedDict):
    """What both kinds of completions share."""

    id: str
    created: int
    model: str
    usage: Usage
    hedgerow: Served


class ChatCompletion(OfCompletion):
    """Items, in the form of OpenAI's chat completions."""

    object: Literal["chat.completion"]
    choices: list[ChatChoice]


class Completion(OfCompletion):
    """Items, in the form of OpenAI's completions."""

    object: Literal["text_completion"]
    choices: list[TextChoice]


class KServeServer(TypedDict):
    """The server, in the form of KServe v2."""

    name: str
    version: str
    extensions: list[str]


class TensorType(TypedDict):
    """The type of a tensor; a size of -1 varies."""

    name: str
    datatype: str
    shape: list[int]


class KServeModel(TypedDict):
    """The model, in the form of KServe v2."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorType]
    outputs: list[TensorType]


class KServeReady(TypedDict):
    """Whether the model is ready, in the form of KServe v2."""

    name: str
    ready: bool


class OutputTensor(TensorType):
    """A tensor of an answer, its values in row-major order."""

    data: list[Any]


class Inferred(TypedDict):
    """Items as tensors, in the form of KServe v2."""

    model_name: str
    id: str
    outputs: list[OutputTensor]
    model_version: NotRequired[str]
