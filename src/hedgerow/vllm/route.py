"""The plug-in of vLLM's server: `POST /v1/retrieve`, with the documents of `hedgerow serve`, and `GET /v1/index`."""

from __future__ import annotations

import asyncio
from argparse import Namespace
from typing import Any

from fastapi import FastAPI
from prometheus_client import REGISTRY
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from hedgerow.serve.http import add_index, add_retrieval, app_of
from hedgerow.serve.service import Source
from hedgerow.serve.web import Web
from hedgerow.vllm.remote import remote_retriever
from hedgerow.vllm.service import VllmService
from hedgerow.vllm.settings import PluginSettings, is_configured, read_settings

ROUTES = (("POST", "/v1/retrieve"), ("GET", "/v1/index"))


class RetrievePlugin:
    """Adds the routes to vLLM's server. vLLM makes it if VLLM_PLUGINS names "hedgerow"."""

    name = "hedgerow"
    required_tasks = ("embed",)

    def __init__(self) -> None:
        self._app: FastAPI | None = None

    def attach_router(self, app: FastAPI) -> None:
        """Add the routes. They answer once the service has started."""
        if is_configured():
            for method, path in ROUTES:
                app.router.routes.append(Route(path, _Forward(self), methods=[method]))

    async def init_state(self, engine_client: Any, state: Any, args: Namespace) -> None:  # noqa: ARG002
        """Start the service. If the index or the rules cannot be loaded, the server does not start."""
        if engine_client is None or not is_configured():
            return
        service = service_of(engine_client, read_settings(), asyncio.get_running_loop())
        await asyncio.get_running_loop().run_in_executor(None, service.start)
        if service.error is not None:
            raise service.error
        self._app = app_of(Web(service, logs_requests=False), (add_retrieval, add_index))
        # vLLM's /metrics has hedgerow's as well.
        REGISTRY.register(service.metrics.registry)


class _Forward:
    """A route of vLLM's server that the application of the service answers."""

    def __init__(self, plugin: RetrievePlugin) -> None:
        self._plugin = plugin

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._plugin._app
        if app is None:
            error = {"message": "the service is starting.", "type": "unavailable", "param": None, "code": "cold"}
            await JSONResponse({"error": error}, 503)(scope, receive, send)
            return
        # The application notes its own facts of a request.
        await app(dict(scope) | {"state": {}}, receive, send)


def service_of(client: Any, settings: PluginSettings, loop: asyncio.AbstractEventLoop) -> VllmService:
    """The service of an engine.

    Args:
        client: vLLM's `EngineClient`.
        settings: the settings of the plug-in.
        loop: the event loop of the client.

    Raises:
        ArgumentError: the rules cannot be read.
    """
    from hedgerow.serve.rules import read_rules

    config = client.model_config

    def opened() -> tuple[Any, Any]:
        retriever = remote_retriever(config, settings)
        return retriever, retriever._live

    source = Source(
        opened,
        model=str(config.served_model_name),
        index=settings.index.resolve().name,
        rules={} if settings.rules is None else read_rules(settings.rules),
    )
    # Of the prompt, the searcher subtracts what the codes need, and says so.
    return VllmService(source, settings.of_service(config.max_model_len), client, loop)
