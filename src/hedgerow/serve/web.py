"""What the routes of a service share: bodies, errors, and the way to the queue."""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel, ValidationError

from hedgerow.constraints.sets import ConstraintSet
from hedgerow.errors import DeadlineError, HedgerowError
from hedgerow.serve import responses
from hedgerow.serve.asking import Answered, Ask, RefusedError, refusal_of
from hedgerow.serve.bodies import check_headers, content_of, document_of
from hedgerow.serve.documents import RetrieveRequest, ask_of, plain_prompt
from hedgerow.serve.log import log
from hedgerow.serve.service import Service

# SQL expressions that are evaluated, and wait, at the same time: of all requests, and of one body.
MAX_EXPRESSIONS, MAX_IN_BODY = 32, 8

# How messages of Pydantic about a wrong type begin.
VALID = "Input should be a valid "

Model = TypeVar("Model", bound=BaseModel)
Handler = Callable[[Request], Awaitable[Response]]


@dataclass
class Web:
    """What the routes of a service share.

    Attributes:
        service: the service.
        tokens: the bearer tokens, one of which clients need; empty: they need none.
        open_metrics: whether `/metrics` needs no token.
        logs_prompts: whether prompts are logged.
        logs_requests: whether each request is logged.
    """

    service: Service
    tokens: tuple[str, ...] = ()
    open_metrics: bool = False
    logs_prompts: bool = False
    logs_requests: bool = True
    # One expression at a time: DuckDB uses several threads for each.
    _expressions: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "hedgerow-where"))
    _waiting_expressions: int = 0

    async def body(self, request: Request) -> dict[str, Any]:
        """The JSON object of a request.

        Raises:
            RefusedError: it is too large, compressed, or not a JSON object.
        """
        limits = self.service.settings.limits
        check_headers(request.headers)
        try:
            async with asyncio.timeout(limits.body_seconds):
                content = await content_of(request, limits.body_bytes)
        except TimeoutError:
            message = f"the body did not arrive within {limits.body_seconds:g} seconds."
            raise RefusedError(408, "body_timeout", message) from None
        return document_of(content, request.headers, limits.depth)

    def note(self, request: Request, prompt: Any) -> None:
        """Remember a prompt for the log, if prompts are logged."""
        if self.logs_prompts:
            request.state.logged.setdefault("prompts", []).append(plain_prompt(prompt))

    def ask(self, request: Request, document: Any) -> tuple[RetrieveRequest, Ask]:
        """A document of `/v1/retrieve`, which other protocols are translated to, and its ask.

        Raises:
            RefusedError: a field is wrong, exceeds a limit, or names an attribute that does not exist.
        """
        given = parsed(RetrieveRequest, document)
        self.note(request, given.history if given.prompt is None else given.prompt)
        return given, self.ask_of(given, request.state.id)

    def ask_of(self, given: RetrieveRequest, request_id: str) -> Ask:
        """The ask of a document.

        Raises:
            RefusedError: a field exceeds a limit, or names an attribute that does not exist.
        """
        ask = ask_of(given, self.service.settings, request_id)
        if given.fields is not None:
            names = self.service.engine.snapshot_for(ask).index.attributes.column_names
            responses.check_fields(given.fields, names)
        return ask

    def check_model(self, name: str) -> str:
        """Check the name of a model, and return it.

        Raises:
            RefusedError: it is not the one that is served.
        """
        served = self.service.source.model
        if name != served:
            message = f"there is no model {name[:200]!r}; it is {served!r}."
            raise RefusedError(404, "model_not_found", message, param="model")
        return name

    async def answer(self, ask: Ask) -> Answered:
        """The answer of an ask.

        Raises:
            RefusedError: it is refused or invalid, or its deadline has passed.
        """
        batcher = self.service.batcher
        evaluated = await self.evaluate(ask)
        outcome = await self._result(batcher.submit(evaluated), evaluated.deadline)
        # Other exceptions are raised by the future.
        assert isinstance(outcome, Answered | RefusedError)
        return answered(outcome)

    async def answer_all(self, asks: list[Ask], request_id: str) -> list[Answered | RefusedError]:
        """The answers of asks that come together in a request: all are put into the queue, or none is.

        Raises:
            RefusedError: there is no room for them.
        """
        batcher = self.service.batcher
        failed: dict[int, RefusedError] = {}
        evaluated: list[Ask] = []
        if sum(ask.where is not None for ask in asks) > MAX_IN_BODY:
            message = f"a body has at most {MAX_IN_BODY} requests with an SQL expression."
            raise RefusedError(400, "limit", message, param="where")
        for number, ask in enumerate(asks):
            try:
                evaluated.append(await self.evaluate(ask))
            except RefusedError as refusal:
                failed[number] = refusal
        futures = zip(batcher.submit_all(evaluated), evaluated, strict=True)
        waiting = (self._result(future, ask.deadline) for future, ask in futures)
        found = await asyncio.gather(*waiting, return_exceptions=True)
        outcomes = (_outcome(each, request_id) for each in found)
        return [failed[number] if number in failed else next(outcomes) for number in range(len(asks))]

    async def answer_together(self, asks: list[Ask], request_id: str) -> list[Answered]:
        """The answers of all asks of a response that names one version: a switch between them does not mix two.

        Raises:
            RefusedError: one of them is refused or invalid, or its deadline has passed.
        """
        engine = self.service.engine
        pinned = [replace(ask, snapshot=engine.snapshot_for(asks[0])) for ask in asks]
        return [answered(outcome) for outcome in await self.answer_all(pinned, request_id)]

    async def run(self, work: Callable[[Any], Any]) -> Any:
        """The result of other work on the engine.

        Raises:
            RefusedError: it is refused or invalid.
        """
        deadline = time.monotonic() + self.service.settings.deadline_ms / 1e3
        return await self._result(self.service.batcher.run(work), deadline)

    async def _result(self, future: Future[Any], deadline: float | None) -> Any:
        """The result of a future of the queue. At its deadline it is dropped, also while the engine is busy."""
        wrapped = asyncio.wrap_future(future)
        if deadline is not None:
            await asyncio.wait([wrapped], timeout=max(0.0, deadline - time.monotonic()) + 0.001)
            if not wrapped.done():
                self.service.drop_late()
        return await wrapped

    async def evaluate(self, ask: Ask) -> Ask:
        """Evaluate the SQL expression of an ask beside the batches.

        Returns:
            The ask with the set, and the version that it belongs to.

        Raises:
            RefusedError: the expression is invalid, takes too much time, or too many others wait.
        """
        if ask.where is None:
            return ask
        if self._waiting_expressions >= MAX_EXPRESSIONS:
            self.service.metrics.shed("expressions")
            raise RefusedError(429, "queue_full", "too many SQL expressions wait already.", retry_after=1.0)
        snapshot, where = self.service.engine.snapshot_for(ask), ask.where
        self._waiting_expressions += 1
        started = time.perf_counter()
        try:
            loop, settings = asyncio.get_running_loop(), self.service.settings
            found = await loop.run_in_executor(
                self._expressions, lambda: _in_time(ask, snapshot.where, where, settings)
            )
        except HedgerowError as error:
            raise refusal_of(error, "where") from error
        finally:
            self._waiting_expressions -= 1
        return replace(ask, snapshot=snapshot, where_set=found, where_seconds=time.perf_counter() - started)


def _in_time(ask: Ask, evaluate: Callable[..., ConstraintSet], *given: Any) -> ConstraintSet:
    """Evaluate an expression, unless its request is late already."""
    if ask.deadline is not None and time.monotonic() > ask.deadline:
        raise DeadlineError("the request waited until its deadline had passed.")
    return evaluate(*given)


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
        errors = error.errors(include_url=False, include_context=False)
        paths = [_path(each, document) for each in errors]
        # Of a field with several types, the error of the type that fits best: it is deepest in the document.
        of_first = [number for number, path in enumerate(paths) if path[: len(paths[0])] == paths[0]]
        deepest = max(of_first, key=lambda number: len(paths[number]))
        found, where = errors[deepest], ".".join(map(str, paths[deepest]))
        # A misspelt field is told apart from a wrong value.
        message = "unknown field" if found["type"] == "extra_forbidden" else found["msg"]
        kinds = [each["msg"] for each, path in zip(errors, paths, strict=True) if path == paths[deepest]]
        if len(kinds) > 1 and all(kind.startswith(VALID) for kind in kinds):
            # Of a value with several types.
            *others, last = dict.fromkeys(kind.removeprefix(VALID) for kind in kinds)
            message = f"{VALID}{', '.join(others)} or {last}" if others else f"{VALID}{last}"
        message += "; got null" * (found.get("input", "") is None)
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
