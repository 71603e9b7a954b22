"""Gate: around all routes, the id of each request, the token, errors, headers, metrics and the log."""

from __future__ import annotations

import asyncio
import hmac
import time
import uuid

from fastapi import Request
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hedgerow.serve.asking import RefusedError
from hedgerow.serve.log import log
from hedgerow.serve.web import Web, internal_error, refuse

# Anybody may ask whether the service runs, and load the page, which asks for the token itself.
OPEN = ("/health/", "/v2/health/", "/ui/")
# The routes whose times count as those of searches.
SEARCHES = ("/v1/retrieve", "/completions", "/infer")
CONTENT_SECURITY = "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"


class Gate:
    """Around all routes: the id of each request, the token, errors, headers, metrics and the log."""

    def __init__(self, app: ASGIApp, web: Web) -> None:
        self.app, self.web = app, web

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request, started, status = Request(scope, receive), time.perf_counter(), 0
        # Not request.url, which is made from the Host header as well.
        state, path, given = request.state, scope["path"], request.headers.get("x-request-id", "")
        state.id = given if given.isascii() and given.isprintable() and 0 < len(given) <= 200 else uuid.uuid4().hex
        state.started, state.version, state.logged = started, None, {}
        state.outcome, state.outcomes = "ok", []

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._add_headers(MutableHeaders(scope=message), path, state.id)
            await send(message)

        try:
            if _is_allowed(self.web, request):
                await self.app(scope, receive, send_with_headers)
            else:
                await refuse(request, _unauthorized())(scope, receive, send_with_headers)
        except ClientDisconnect:
            state.outcome = "disconnected"
        except asyncio.CancelledError:
            state.outcome = "cancelled"
            raise
        except Exception as error:
            refusal = internal_error(error, id=state.id, path=path)
            if status:
                raise
            await refuse(request, refusal)(scope, receive, send_with_headers)
        finally:
            if request.method == "POST":
                self._record(request, path, status)

    def _add_headers(self, headers: MutableHeaders, path: str, request_id: str) -> None:
        headers["x-request-id"] = request_id
        headers["x-content-type-options"] = "nosniff"
        if path.startswith("/ui"):
            headers["content-security-policy"] = CONTENT_SECURITY
            headers["cache-control"] = "no-cache"
        if self.web.service.state == "draining":
            headers["connection"] = "close"

    def _record(self, request: Request, path: str, status: int) -> None:
        state, seconds = request.state, time.perf_counter() - request.state.started
        is_search = path.endswith(SEARCHES) and state.outcome == "ok"
        # A body with several requests counts as several.
        for outcome in state.outcomes or [state.outcome]:
            self.web.service.metrics.answered(
                outcome=outcome, version=state.version, seconds=seconds if is_search else None
            )
        if self.web.logs_requests:
            facts = {"status": status, "outcome": state.outcome, "version": state.version} | state.logged
            log("request", id=state.id, path=path, ms=round(seconds * 1e3, 3), **facts)


def _is_allowed(web: Web, request: Request) -> bool:
    path = request.scope["path"]
    if not web.tokens or path == "/ui" or path.startswith(OPEN) or (web.open_metrics and path == "/metrics"):
        return True
    kind, _, given = request.headers.get("authorization", "").partition(" ")
    given = given.strip().encode()
    return kind.lower() == "bearer" and any(hmac.compare_digest(given, token.encode()) for token in web.tokens)


def _unauthorized() -> RefusedError:
    return RefusedError(401, "unauthorized", "this service needs a token: Authorization: Bearer TOKEN.")
