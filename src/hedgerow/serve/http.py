"""The application of a service, and its own routes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, cast

from fastapi import FastAPI, Request, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, RedirectResponse

from hedgerow._version import __version__
from hedgerow.errors import HedgerowError
from hedgerow.serve import kserve, openai, openapi, responses, schemas
from hedgerow.serve.asking import Ask, RefusedError
from hedgerow.serve.documents import (
    CanaryRequest,
    ExplainRequest,
    RetrieveRequest,
    RetrieveRequests,
    RollbackRequest,
    ScoreRequest,
    TraceRequest,
    ask_of,
    check_ids,
    checked_prompt,
)
from hedgerow.serve.engine import Engine
from hedgerow.serve.gate import Gate
from hedgerow.serve.metrics import CONTENT_TYPE
from hedgerow.serve.web import Web, answered, parsed, refuse, respond, route

PAGE = Path(__file__).parent / "page"


def create_app(web: Web) -> FastAPI:
    """The application of a service, with all its routes."""
    app = app_of(web, (add_retrieval, add_inspection, add_index, add_health, openai.add_routes, kserve.add_routes))
    openapi.add_route(app)
    add_page(app)
    return app


def app_of(web: Web, parts: Iterable[Callable[[FastAPI, Web], None]]) -> FastAPI:
    """An application with some of the routes, and around them ids, errors, metrics and the log.

    Args:
        web: what the routes share.
        parts: the functions that add routes.
    """
    # The pages with the documentation load their scripts from another host.
    app = FastAPI(title="hedgerow", version=__version__, docs_url=None, redoc_url=None, openapi_url=None)
    for add in parts:
        add(app, web)
    app.add_middleware(Gate, web=web)

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, RefusedError)
        return refuse(request, error)

    async def unknown(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        codes = {404: "unknown_route", 405: "unknown_method"}
        message = f"{request.method} {request.url.path[:200]}: {error.detail}"
        response = refuse(request, RefusedError(error.status_code, codes.get(error.status_code, "http"), message))
        response.headers.update(error.headers or {})
        return response

    app.add_exception_handler(RefusedError, refused)
    app.add_exception_handler(HTTPException, unknown)
    return app


def add_page(app: FastAPI) -> None:
    """Add the page and its files. The page refers to "ui/...", so that it works behind a proxy with a path."""

    @route(app, "GET", "/ui")
    async def page(_: Request) -> Response:
        return FileResponse(PAGE / "index.html")

    @route(app, "GET", "/")
    async def start(_: Request) -> Response:
        return RedirectResponse("ui")

    @route(app, "GET", "/ui/")
    async def without_slash(_: Request) -> Response:
        return RedirectResponse("../ui")

    app.mount("/ui", StaticFiles(directory=PAGE), name="ui")


def add_retrieval(app: FastAPI, web: Web) -> None:
    """Add the routes that search."""
    service = web.service

    @route(app, "POST", "/v1/retrieve")
    async def retrieve(request: Request) -> Response:
        document = await web.body(request)
        if "requests" in document:
            return await several(request, document)
        given, ask = web.ask(request, document)
        found = await web.answer(ask)
        request.state.version = found.version
        seconds = time.perf_counter() - request.state.started
        answer = responses.answer_of(found, ask, given.fields, seconds=seconds)
        return respond(schemas.Retrieved(id=request.state.id, **answer))

    async def several(request: Request, document: Any) -> Response:
        parts = parsed(RetrieveRequests, document).requests
        limit = service.settings.limits.requests
        if len(parts) > limit:
            raise RefusedError(
                400, "limit", f"a body has at most {limit} requests; got {len(parts)}.", param="requests"
            )
        valid: dict[int, tuple[RetrieveRequest, Ask]] = {}
        results: dict[int, schemas.Answer | schemas.Error] = {}
        codes = dict.fromkeys(range(len(parts)), "ok")
        for number, part in enumerate(parts):
            try:
                valid[number] = web.ask(request, part)
            except RefusedError as refusal:
                results[number], codes[number] = responses.error_of(refusal), refusal.code
        outcomes = await web.answer_all([ask for _, ask in valid.values()], request.state.id)
        seconds = time.perf_counter() - request.state.started
        for (number, (given, ask)), outcome in zip(valid.items(), outcomes, strict=True):
            try:
                results[number] = responses.answer_of(answered(outcome), ask, given.fields, seconds=seconds)
            except RefusedError as refusal:
                results[number], codes[number] = responses.error_of(refusal), refusal.code
        request.state.outcomes = list(codes.values())
        request.state.logged["requests"] = len(parts)
        ordered = [results[number] for number in range(len(parts))]
        return respond(schemas.RetrievedAll(id=request.state.id, results=ordered))


def add_inspection(app: FastAPI, web: Web) -> None:
    """Add the routes about given items, and about the search itself."""
    service = web.service

    @route(app, "POST", "/v1/score")
    async def score(request: Request) -> Response:
        given = parsed(ScoreRequest, await web.body(request))
        prompt = checked_prompt(given.prompt, service.settings)
        check_ids(given.item_ids, service.settings)
        web.note(request, given.prompt)
        ask = Ask(prompt, 1, 1, version=given.version, key=given.user or request.state.id)

        def work(engine: Engine) -> tuple[int | None, Any, float, float]:
            began = time.perf_counter()
            return *engine.score(ask, given.item_ids), began, time.perf_counter()

        version, scores, began, ended = await web.run(work)
        request.state.version = version
        timings = responses.timings_of(
            queue=began - request.state.started, search=ended - began, total=time.perf_counter() - request.state.started
        )
        pairs = responses.scores_of(given.item_ids, scores)
        return respond(schemas.Scored(id=request.state.id, version=version, scores=pairs, timings=timings))

    @route(app, "POST", "/v1/explain")
    async def explain(request: Request) -> Response:
        given = parsed(ExplainRequest, await web.body(request))
        ask = ask_of(given, service.settings, request.state.id)
        item = given.asked
        web.note(request, given.history if given.prompt is None else given.prompt)
        ask = await web.evaluate(ask)
        version, explanation, unknown = await web.run(lambda engine: (*engine.explain(ask, item), engine.unknown(ask)))
        request.state.version = version
        document = cast("schemas.Explanation", explanation.to_dict())
        return respond(
            schemas.Explained(
                id=request.state.id,
                version=version,
                explanation=document,
                unknown_history=responses.unknown_of(unknown),
            )
        )

    @route(app, "POST", "/v1/trace")
    async def trace(request: Request) -> Response:
        given = parsed(TraceRequest, await web.body(request))
        web.note(request, given.history if given.prompt is None else given.prompt)
        ask = await web.evaluate(ask_of(given, service.settings, request.state.id))
        version, found, results, unknown = await web.run(lambda engine: (*engine.trace(ask), engine.unknown(ask)))
        request.state.version = version
        levels, items = responses.levels_of_trace(found), responses.items_of(results, None)
        return respond(
            schemas.Traced(
                id=request.state.id,
                version=version,
                levels=levels,
                items=items,
                unknown_history=responses.unknown_of(unknown),
            )
        )


def add_index(app: FastAPI, web: Web) -> None:
    """Add the routes about the index and its versions."""
    service = web.service

    def described() -> schemas.Index:
        source = service.source
        refused = service.follower.refused
        return responses.index_of(
            service.engine, service.settings, model=source.model, index=source.index, refused=refused
        )

    async def change(work: Callable[[], None]) -> Response:
        if not web.tokens:
            message = "this route needs a service with a token: start it with --token-file."
            raise RefusedError(403, "forbidden", message)
        try:
            await asyncio.get_running_loop().run_in_executor(None, work)
        except HedgerowError as error:
            raise RefusedError(409, "version_refused", str(error)) from error
        return respond(described())

    @route(app, "GET", "/v1/index")
    async def index(_: Request) -> Response:
        return respond(described())

    @route(app, "POST", "/v1/index/refresh")
    async def refresh(_: Request) -> Response:
        follower = service.follower
        return await change(follower.refresh)

    @route(app, "POST", "/v1/index/rollback")
    async def rollback(request: Request) -> Response:
        given, follower = parsed(RollbackRequest, await web.body(request)), service.follower
        return await change(lambda: follower.rollback(given.to))

    @route(app, "POST", "/v1/index/canary")
    async def canary(request: Request) -> Response:
        given, follower = parsed(CanaryRequest, await web.body(request)), service.follower
        return await change(lambda: follower.set_canary(given.version, given.share))

    @route(app, "GET", "/metrics")
    async def metrics(_: Request) -> Response:
        current = service._engine.current if service._engine else None
        return Response(service.metrics.page(current), media_type=CONTENT_TYPE)


def add_health(app: FastAPI, web: Web) -> None:
    """Add the routes that say whether the service runs, and whether it is ready."""
    service = web.service

    @route(app, "GET", "/health/live")
    @route(app, "GET", "/v2/health/live")
    async def live(_: Request) -> Response:
        return respond(schemas.Health(status="live"))

    @route(app, "GET", "/health/ready")
    @route(app, "GET", "/v2/health/ready")
    async def ready(_: Request) -> Response:
        is_ready = service.state == "ready" and not service.leaving
        state = "draining" if service.leaving else service.state
        return respond(schemas.Health(status=state), status=200 if is_ready else 503)
