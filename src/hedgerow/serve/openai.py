"""Routes in the form of OpenAI's: the beams as choices, the items in an extension of each choice."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, StrictStr

from hedgerow.serve import schemas
from hedgerow.serve.asking import Answered, Ask, RefusedError
from hedgerow.serve.documents import Document, ItemIds, Message, RetrieveRequest, Tokens
from hedgerow.serve.responses import items_of
from hedgerow.serve.web import Web, parsed, respond, route

# Options of sampling and of text, which a search for items does not have. Their defaults are accepted.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "stream": (False, None),
    "top_p": (1, None),
    "presence_penalty": (0, None),
    "frequency_penalty": (0, None),
    "logit_bias": ({}, None),
    "tools": ([], None),
    "tool_choice": ("none", "auto", None),
    "response_format": ({"type": "text"}, None),
    "stop": ([], None),
    "echo": (False, None),
    "suffix": ("", None),
}
# Options that change nothing here.
IGNORED = (
    "max_tokens",
    "max_completion_tokens",
    "seed",
    "metadata",
    "store",
    "service_tier",
    "stream_options",
    "parallel_tool_calls",
    "temperature",
    "best_of",
    "top_logprobs",
)


class Extension(Document):
    """The fields of `/v1/retrieve` that OpenAI's documents lack, under the key "hedgerow"."""

    sets: Annotated[list[StrictStr], Field(max_length=1_000)] = Field(default_factory=list)
    where: StrictStr | None = None
    exclude: ItemIds | None = None
    candidates: ItemIds | None = None
    beam_width: Annotated[StrictInt, Field(ge=1, lt=2**31)] | None = None
    order_by: Any = None
    caps: dict[StrictStr, StrictInt] | None = None
    fields: list[StrictStr] | None = None
    version: Annotated[StrictInt, Field(ge=1, lt=2**63)] | None = None
    deadline_ms: Annotated[StrictFloat, Field(gt=0, le=3_600_000)] | None = None


class Completions(BaseModel):
    """What requests for completions and for chat completions share."""

    model_config = ConfigDict(extra="allow")

    model: StrictStr
    n: Annotated[StrictInt, Field(ge=1, lt=2**31)] | None = Field(default=None, description="The number of items.")
    user: Annotated[StrictStr, Field(max_length=1_000)] | None = None
    hedgerow: Extension = Extension()


class ChatRequest(Completions):
    """A request for chat completions."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=10_000)]
    logprobs: StrictBool | None = None


class CompletionRequest(Completions):
    """A request for completions."""

    prompt: StrictStr | Annotated[list[StrictStr], Field(min_length=1)] | Tokens | list[Tokens]
    logprobs: StrictInt | None = None


def add_routes(app: FastAPI, web: Web) -> None:
    """Add the routes."""
    service = web.service

    def ask(request: Request, given: Completions, prompt: Any) -> tuple[RetrieveRequest, Ask]:
        web.check_model(given.model)
        _check_options(given.model_extra or {})
        fields = given.hedgerow.model_dump(exclude_unset=True)
        return web.ask(request, {"prompt": prompt, "k": given.n or 1, "user": given.user} | fields)

    @route(app, "POST", "/v1/chat/completions")
    async def chat(request: Request) -> Response:
        given = parsed(ChatRequest, await web.body(request))
        document, asked = ask(request, given, [message.model_dump() for message in given.messages])
        found = await web.answer(asked)
        request.state.version = found.version
        choices = [
            schemas.ChatChoice(
                **choice,
                message={"role": "assistant", "content": text, "refusal": None},
                logprobs={"content": _logprobs(parts), "refusal": None} if given.logprobs else None,
            )
            for choice, text, parts in _choices(web, found, document, 0)
        ]
        shared = _completion(web, request, "chatcmpl", choices, [found])
        return respond(schemas.ChatCompletion(object="chat.completion", choices=choices, **shared))

    @route(app, "POST", "/v1/completions")
    async def complete(request: Request) -> Response:
        given = parsed(CompletionRequest, await web.body(request))
        prompts = _prompts(given.prompt)
        if len(prompts) > (limit := service.settings.limits.requests):
            raise RefusedError(400, "limit", f"at most {limit} prompts; got {len(prompts)}.", param="prompt")
        pairs = [ask(request, given, prompt) for prompt in prompts]
        outcomes = await web.answer_together([asked for _, asked in pairs], request.state.id)
        choices: list[schemas.TextChoice] = []
        for number, ((document, _), found) in enumerate(zip(pairs, outcomes, strict=True)):
            request.state.version = found.version
            choices += [
                schemas.TextChoice(
                    **choice, text=text, logprobs=None if given.logprobs is None else _text_logprobs(parts)
                )
                for choice, text, parts in _choices(
                    web, found, document, len(choices), number if len(pairs) > 1 else None
                )
            ]
        shared = _completion(web, request, "cmpl", choices, outcomes)
        return respond(schemas.Completion(object="text_completion", choices=choices, **shared))

    @route(app, "GET", "/v1/models")
    async def models(_: Request) -> Response:
        return respond(schemas.Models(object="list", data=[_model(web)]))

    @route(app, "GET", "/v1/models/{name:path}")
    async def model(request: Request) -> Response:
        web.check_model(request.path_params["name"])
        return respond(_model(web))


def _model(web: Web) -> schemas.Model:
    return {
        "id": web.service.source.model,
        "object": "model",
        "created": int(web.service.started),
        "owned_by": "hedgerow",
    }


def _check_options(options: dict[str, Any]) -> None:
    """Refuse options that would change the answer of another server, and options that nobody knows."""
    for name, value in options.items():
        if name in IGNORED or value in NEUTRAL.get(name, ()):
            continue
        if name in NEUTRAL:
            message = f"{name}={value!r:.50} is not supported: the answer is the exact result of a beam search."
            raise RefusedError(400, "unsupported", message, param=name)
        raise RefusedError(400, "invalid_request", f"{name[:100]}: unknown field.", param=name[:100])


def _prompts(prompt: Any) -> list[Any]:
    """The prompts of a request for completions: one or several, as text or as token ids."""
    if isinstance(prompt, str) or (prompt and isinstance(prompt[0], int)):
        return [prompt]
    return prompt or [[]]


def _choices(
    web: Web, found: Answered, document: RetrieveRequest, first: int, prompt: int | None = None
) -> list[tuple[schemas.Choice, str, list[tuple[str, float]]]]:
    """For each item: the choice without its text, the text of its tokens, and each token with its log-probability."""
    results, text_of = found.results, web.service.engine.token_text
    items = items_of(results, document.fields)
    scores = results.code_scores
    choices = []
    for number, item in enumerate(items):
        texts = [text_of(level, code) for level, code in enumerate(item["sid"])]
        of_codes = [0.0] * len(texts) if scores is None else scores[number].tolist()[: len(texts)]
        of_choice = schemas.ChoiceItem(**item)
        if prompt is not None:
            of_choice["prompt_index"] = prompt
        choice: schemas.Choice = {"index": first + number, "finish_reason": "stop", "hedgerow": of_choice}
        choices.append((choice, "".join(texts), list(zip(texts, of_codes, strict=True))))
    return choices


def _logprobs(parts: list[tuple[str, float]]) -> list[schemas.TokenLogprob]:
    return [
        {"token": text, "logprob": value, "bytes": list(text.encode()), "top_logprobs": []} for text, value in parts
    ]


def _text_logprobs(parts: list[tuple[str, float]]) -> schemas.TextLogprobs:
    offsets = [sum(len(text) for text, _ in parts[:number]) for number in range(len(parts))]
    return {
        "tokens": [text for text, _ in parts],
        "token_logprobs": [value for _, value in parts],
        "top_logprobs": None,
        "text_offset": offsets,
    }


def _completion(
    web: Web, request: Request, prefix: str, choices: Sequence[schemas.Choice], outcomes: list[Answered]
) -> schemas.OfCompletion:
    prompt_tokens = sum(found.prompt_tokens for found in outcomes)
    written = sum(len(choice["hedgerow"]["sid"]) for choice in choices)
    return {
        "id": f"{prefix}-{request.state.id}",
        "created": int(time.time()),
        "model": web.service.source.model,
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": written,
            "total_tokens": prompt_tokens + written,
        },
        "hedgerow": {"version": outcomes[0].version, "num_valid": [found.results.num_valid for found in outcomes]},
    }
