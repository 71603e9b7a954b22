"""What the routes of a service share: bodies, errors, and the way to the queue."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import orjson
from fastapi import FastAPI, Request, Response
from pydantic import BaseModel, ValidationError

from hedgerow.errors import HedgerowError
from hedgerow.serve import responses
from hedgerow.serve.asking import Answered, Ask, RefusedError, refusal_of
from hedgerow.serve.log import log
from hedgerow.serve.service import Service

# SQL expressions that are evaluated, and wait, at the same time.
MAX_EXPRESSIONS = 8

Model = TypeVar("Model", bound=BaseModel)
Handler = Callable[[Request], Awaitable[Response]]


@dataclass
class Web:
    """What the routes of a service share.

    Attributes:
        service: the service.
        token: the bearer token that clients need; None: they need none.
        logs_prompts: whether prompts are logged.
        logs_requests: whether each request is logged.
    """

    service: Service
    token: str | None = None
    logs_prompts: bool = False
    logs_requests: bool = True
    # One expression at a time: DuckDB uses several threads for each.
    _expressions: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "hedgerow-where"))
    _waiting_expressions: int = 0

    async def body(self, request: Request) -> dict[str, Any]:
        """The JSON object of a request.

        Raises:
            RefusedError: it is too large, or not a JSON object.
        """
        limit, chunks, size = self.service.settings.limits.body_bytes, [], 0
        length = request.headers.get("content-length", "")
        size = int(length) if length.isdecimal() and len(length) < 20 else 0
        if size <= limit:
            size = 0
            async for chunk in request.stream():
                size += len(chunk)
                chunks.append(chunk)
                if size > limit:
                    break
        if size > limit:
            raise RefusedError(413, "body_too_large", f"the body has more than {limit:,} bytes.")
        try:
            document = orjson.loads(b"".join(chunks))
        except orjson.JSONDecodeError as error:
            raise RefusedError(400, "invalid_json", f"the body is not JSON: {error}") from None
        if not isinstance(document, dict):
            raise RefusedError(400, "invalid_json", f"the body must be a JSON object; got {type(document).__name__}.")
        return document

    async def answer(self, ask: Ask) -> Answered:
        """The answer of an ask.

        Raises:
            RefusedError: it is refused or invalid, or its deadline has passed.
        """
        batcher = self.service.batcher
        await self.evaluate(ask)
        outcome = await asyncio.wrap_future(batcher.submit(ask))
        # Other exceptions are raised by the future.
        assert isinstance(outcome, Answered | RefusedError)
        return answered(outcome)

    async def answer_all(self, asks: list[Ask], request_id: str) -> list[Answered | RefusedError]:
        """The answers of asks that come together in a request: all are put into the queue, or none is.

        Raises:
            RefusedError: there is no room for them.
        """
        batcher, failed = self.service.batcher, {}
        for number, ask in enumerate(asks):
            try:
                await self.evaluate(ask)
            except RefusedError as refusal:
                failed[number] = refusal
        futures = batcher.submit_all([ask for number, ask in enumerate(asks) if number not in failed])
        found = await asyncio.gather(*map(asyncio.wrap_future, futures), return_exceptions=True)
        outcomes = (_outcome(each, request_id) for each in found)
        return [failed[number] if number in failed else next(outcomes) for number in range(len(asks))]

    async def answer_together(self, asks: list[Ask], request_id: str) -> list[Answered]:
        """The answers of all asks of a response that names one version: a switch between them does not mix two.

        Raises:
            RefusedError: one of them is refused or invalid, or its deadline has passed.
        """
        engine, pinned = self.service.engine, asks
        if asks and (number := engine.snapshot_for(asks[0]).number) is not None:
            pinned = [replace(ask, version=number) for ask in asks]
        return [answered(outcome) for outcome in await self.answer_all(pinned, request_id)]

    async def run(self, work: Callable[[Any], Any]) -> Any:
        """The result of other work on the engine.

        Raises:
            RefusedError: it is refused or invalid.
        """
        return await asyncio.wrap_future(self.service.batcher.run(work))

    async def evaluate(self, ask: Ask) -> None:
        """Evaluate the SQL expression of an ask beside the batches, which then find its set in the cache.

        Raises:
            RefusedError: the expression is invalid, takes too much time, or too many others wait.
        """
        if ask.where is None:
            return
        if self._waiting_expressions >= MAX_EXPRESSIONS:
            raise RefusedError(429, "queue_full", "too many SQL expressions wait already.", retry_after=1.0)
        engine, settings, where = self.service.engine, self.service.settings, ask.where
        self._waiting_expressions += 1
        try:
            loop = asyncio.get_running_loop()
            snapshot = engine.snapshot_for(ask)
            await loop.run_in_executor(self._expressions, lambda: snapshot.where(where, settings))
        except HedgerowError as error:
            raise refusal_of(error, "where") from error
        finally:
            self._waiting_expressions -= 1


def answered(outcome: Answered | RefusedError) -> Answered:
    """The answer of an outcome.

    Raises:
        RefusedError: the outcome is one.
    """
    if isinstance(outcome, RefusedError):
        raise outcome
    return outcome


def _outcome(found: Answered | RefusedError | BaseException, request_id: str) -> Answered | RefusedError:
    """An outcome of its own for each of several asks. An unexpected error is logged; it is that of one ask only."""
    if isinstance(found, Answered | RefusedError):
        return found
    if not isinstance(found, Exception):
        raise found
    return internal_error(found, id=request_id)


def internal_error(error: Exception, **facts: Any) -> RefusedError:
    """Log an unexpected error, and make the refusal that clients get."""
    trace = "".join(traceback.format_exception(error))
    log("error", level="error", **facts, error=f"{type(error).__name__}: {error}", trace=trace)
    return RefusedError(500, "internal", "an internal error; the log has the request id.")


def parsed(model: type[Model], document: Any) -> Model:
    """A document as the model of its route.

    Raises:
        RefusedError: it does not fit; the message names the first field that is wrong.
    """
    try:
        return model.model_validate(document)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_context=False, include_input=False)
        paths = [_path(each, document) for each in errors]
        # Of a field with several types, the error of the type that fits best: it is deepest in the document.
        of_first = [number for number, path in enumerate(paths) if path[: len(paths[0])] == paths[0]]
        deepest = max(of_first, key=lambda number: len(paths[number]))
        found, where = errors[deepest], ".".join(map(str, paths[deepest]))
        # A misspelt field is told apart from a wrong value.
        message = "unknown field" if found["type"] == "extra_forbidden" else found["msg"]
        raise RefusedError(400, "invalid_request", f"{where or 'the body'}: {message}.", param=where or None) from None


def _path(error: Any, document: Any) -> list[str | int]:
    """The names and positions that lead to the place of an error of Pydantic, without the names of types."""
    path = []
    for part in error["loc"]:
        is_field = isinstance(document, dict) and part in document
        if is_field or (isinstance(document, list) and isinstance(part, int) and part < len(document)):
            path.append(part)
            document = document[part]
        elif part == error["loc"][-1] and error["type"] == "missing":
            path.append(part)
    return path


def respond(document: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """The response with a document."""
    content = responses.as_json(document)
    return Response(content, status_code=status, media_type="application/json", headers=dict(headers or {}))


def refuse(request: Request, refusal: RefusedError) -> Response:
    """The response with an error."""
    headers = {}
    if refusal.retry_after is not None:
        headers["retry-after"] = str(max(1, round(refusal.retry_after)))
    if refusal.status == 401:
        headers["www-authenticate"] = "Bearer"
    request.state.outcome = refusal.code
    return respond(responses.error_of(refusal), status=refusal.status, headers=headers)


def route(app: FastAPI, method: str, path: str) -> Callable[[Handler], Handler]:
    """Add a handler of whole requests. FastAPI's own routes read the body before its size is known."""

    def add(handler: Handler) -> Handler:
        app.add_route(path, handler, methods=[method])
        return handler

    return add
