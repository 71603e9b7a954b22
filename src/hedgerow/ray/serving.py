"""The service of `hedgerow serve` as an application of Ray Serve: its replicas."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import serve

from hedgerow.live.live import LiveIndex
from hedgerow.ray.opening import Opening
from hedgerow.serve import responses
from hedgerow.serve.asking import RefusedError
from hedgerow.serve.documents import RetrieveRequest
from hedgerow.serve.http import create_app
from hedgerow.serve.rules import Rule
from hedgerow.serve.service import Service, Source
from hedgerow.serve.settings import Settings
from hedgerow.serve.web import Web, internal_error, parsed

if TYPE_CHECKING:
    from fastapi import FastAPI

    from hedgerow.hf import Retriever


def deployed(
    opening: Opening,
    rules: Mapping[str, Rule],
    settings: Settings,
    tokens: tuple[str, ...],
    autoscaling: Mapping[str, Any],
    ray_actor_options: Mapping[str, Any],
) -> serve.Application:
    """The application of a service: see `hedgerow.ray.application`."""
    deployment: Any = serve.deployment(
        serve.ingress(_app_builder(opening, rules, settings, tokens))(Retrieval),
        name="Retrieval",
        # The queue of the replica refuses what is more than it takes.
        max_ongoing_requests=2 * settings.queue,
        autoscaling_config=dict(autoscaling),
        ray_actor_options=dict(ray_actor_options),
    )
    return deployment.bind()


def _app_builder(
    opening: Opening, rules: Mapping[str, Rule], settings: Settings, tokens: tuple[str, ...]
) -> Callable[[], FastAPI]:
    """The function that loads the service in a replica, and makes its web application."""

    def opened() -> tuple[Retriever, LiveIndex | None]:
        searched = opening.open()
        return opening.retriever(searched), searched if isinstance(searched, LiveIndex) else None

    def build() -> FastAPI:
        name = "films" if opening.index is None else opening.index.name
        source = Source(opened, model=Path(opening.model or "films").name, index=name, rules=rules)
        service = Service(source, settings)
        service.start()
        if service.error is not None:
            raise service.error
        web = Web(service, tokens, logs_requests=False)
        app = create_app(web)
        app.state.web = web
        return app

    return build


class Retrieval:
    """A replica. Ray Serve adds `app`, the web application."""

    app: FastAPI

    async def retrieve(self, document: Any) -> dict[str, Any]:
        """Answer a request that does not come over HTTP.

        Args:
            document: as for ``POST /v1/retrieve``, with one request.

        Returns:
            The document of the response, or of the error.
        """
        web: Web = self.app.state.web
        started, request_id = time.perf_counter(), uuid.uuid4().hex
        try:
            given = parsed(RetrieveRequest, document)
            ask = web.ask_of(given, request_id)
            found = await web.answer(ask)
            answer = responses.answer_of(found, ask, given.fields, seconds=time.perf_counter() - started)
        except RefusedError as refusal:
            return dict(responses.error_of(refusal))
        except Exception as error:
            return dict(responses.error_of(internal_error(error, id=request_id)))
        return {"id": request_id, **answer}

    def __del__(self) -> None:
        """Finish what waits, when Ray Serve stops the replica."""
        app = self.__dict__.get("_asgi_app")
        if app is not None:
            app.state.web.service.close()
