"""The service of `hedgerow serve` as an application of Ray Serve."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ray import serve

from hedgerow._arguments import whole_number
from hedgerow.errors import ArgumentError
from hedgerow.live.live import LiveIndex
from hedgerow.ray.opening import Opening
from hedgerow.serve import responses
from hedgerow.serve.asking import RefusedError
from hedgerow.serve.documents import RetrieveRequest
from hedgerow.serve.http import create_app
from hedgerow.serve.rules import Rule
from hedgerow.serve.service import Service, Source
from hedgerow.serve.settings import Limits, Settings
from hedgerow.serve.web import Web, internal_error, parsed

if TYPE_CHECKING:
    from fastapi import FastAPI

    from hedgerow.hf import Retriever


def application(
    model: str | Path | None,
    index: str | Path | None,
    *,
    sets: Mapping[str, str] = {},
    min_replicas: int = 1,
    max_replicas: int = 1,
    autoscaling: Mapping[str, Any] = {},
    ray_actor_options: Mapping[str, Any] = {},
    tokens: tuple[str, ...] = (),
    beam_widths: tuple[int, ...] = (50,),
    max_batch: int = 32,
    max_wait_ms: float = 2.0,
    queue: int = 256,
    deadline_ms: float = 1_000.0,
    prompt_tokens: int = 512,
    allow_where: bool = False,
    follow_seconds: float = 1.0,
    **loading: Any,
) -> serve.Application:
    """The service of ``hedgerow serve`` for Ray Serve: ``serve.run(application(model, index))``.

    Each replica is a whole service: its engine, its queue, its batches, and all routes of ``hedgerow serve``, on the
    port of Ray Serve. Ray Serve distributes requests among the replicas, and starts and stops them. Over a handle,
    ``handle.retrieve.remote(document)`` takes the document of ``POST /v1/retrieve``, and gives that of the response; a
    request that is refused gets the document of the error, and does not change the others of its batch.

    Each replica looks at a live index every `follow_seconds`, and serves a new version when it is loaded and warm. From
    then on, no answer of the replica contains an item that was removed. Answers name their version. `/metrics` and the
    routes under `/v1/index` are those of one replica.

    Args:
        model: a folder or a hub name; None, with `index`: those of the films demo.
        index: the folder of a saved index or a live index, which all machines see.
        sets: names of sets, and their SQL expressions.
        min_replicas: the number of replicas at least.
        max_replicas: the number of replicas at most. A replica more is started when each has more than `max_batch`
            requests.
        autoscaling: further entries of `autoscaling_config` of Ray Serve, for example upscale_delay_s.
        ray_actor_options: what a replica needs, for example ``{"num_gpus": 1}``, with ``device="cuda"``. Default: one
            CPU.
        tokens: the bearer tokens, one of which clients need; empty: they need none.
        beam_widths: the beam widths that are warmed up: the first is the default, the largest the maximum.
        max_batch: the largest number of requests in a batch.
        max_wait_ms: milliseconds that a batch waits for more requests.
        queue: the number of requests that a replica takes at most.
        deadline_ms: milliseconds after which a request that still waits is refused, unless it sets its own.
        prompt_tokens: the largest number of tokens of a prompt.
        allow_where: whether requests may have SQL expressions.
        follow_seconds: seconds between two looks at a live index.
        **loading: normalize, temperature, pattern, end, device, dtype and others: as for `Retrieve`.

    Returns:
        The application.

    Raises:
        ArgumentError: a number is out of range, or one of `model` and `index` is missing.
        IndexFileError: the index cannot be loaded.

    Examples:
        ```python
        from hedgerow.ray import application

        app = application(None, None, sets={"new": "year >= 2000"}, max_replicas=4)
        ```

        Then, with Ray: ``serve.run(app, name="films")``, and
        ``serve.get_app_handle("films").retrieve.remote({"prompt": "Recommend me a western", "sets": ["new"]})``.
    """
    whole_number(max_replicas, "max_replicas", least=whole_number(min_replicas, "min_replicas"))
    if not beam_widths:
        raise ArgumentError("beam_widths must name at least one beam width; got none.")
    opening = Opening.of(model, index, options=loading)
    # What cannot be served is refused here, and not by every replica.
    opening.searched()
    settings = Settings(
        beam_widths=tuple(sorted(set(beam_widths))),
        default_beam_width=beam_widths[0],
        max_batch=max_batch,
        max_wait_ms=max_wait_ms,
        queue=queue,
        deadline_ms=deadline_ms,
        allow_where=allow_where,
        follow_seconds=follow_seconds if opening.is_live else None,
        limits=replace(Limits(), prompt_tokens=prompt_tokens),
    )
    rules = {name: Rule(text, where=text) for name, text in sets.items()}
    deployment = serve.deployment(
        serve.ingress(_app_builder(opening, rules, settings, tokens))(Retrieval),
        name="Retrieval",
        # The queue of the replica refuses what is more.
        max_ongoing_requests=2 * queue,
        ray_actor_options={"num_cpus": 1, **ray_actor_options},
        autoscaling_config={
            "min_replicas": min_replicas,
            "max_replicas": max_replicas,
            "target_ongoing_requests": max_batch,
            **autoscaling,
        },
    )
    return cast("Any", deployment).bind()


def _app_builder(
    opening: Opening, rules: Mapping[str, Rule], settings: Settings, tokens: tuple[str, ...]
) -> Callable[[], FastAPI]:
    """The function that loads the service in a replica, and makes its web application."""

    def opened() -> tuple[Retriever, LiveIndex | None]:
        live = opening.live() if opening.is_live else None
        return opening.retriever(live), live

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
