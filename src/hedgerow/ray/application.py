"""The service of `hedgerow serve` as an application of Ray Serve: its options."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hedgerow._arguments import whole_number
from hedgerow.errors import MissingDependencyError
from hedgerow.live.live import LiveIndex
from hedgerow.ray.opening import Opening
from hedgerow.serve.rules import Rule
from hedgerow.serve.settings import Settings

if TYPE_CHECKING:
    from ray.serve import Application


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
) -> Application:
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
        MissingDependencyError: a package of the extra `ray` is not installed.

    Examples:
        ```python
        from hedgerow.ray import application

        app = application(None, None, sets={"new": "year >= 2000"}, max_replicas=4)
        ```

        Then, with Ray: ``serve.run(app, name="films")``, and
        ``serve.get_app_handle("films").retrieve.remote({"prompt": "Recommend me a western", "sets": ["new"]})``.
    """
    whole_number(max_replicas, "max_replicas", least=whole_number(min_replicas, "min_replicas"))
    opening = Opening.of(model, index, options=loading)
    # An index that cannot be served is refused here, and not by every replica.
    is_live = isinstance(opening.open(), LiveIndex)
    settings = Settings.of(
        beam_widths,
        max_batch=max_batch,
        max_wait_ms=max_wait_ms,
        queue=queue,
        deadline_ms=deadline_ms,
        allow_where=allow_where,
        follow_seconds=follow_seconds if is_live else None,
        prompt_tokens=prompt_tokens,
    )
    rules = {name: Rule(text, where=text) for name, text in sets.items()}
    try:
        # Here, because it imports PyTorch and FastAPI.
        from hedgerow.ray.serving import deployed
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        if package == "hedgerow":
            raise
        raise MissingDependencyError.of("hedgerow.ray.application", package, "ray") from error

    scaling = {
        "min_replicas": min_replicas,
        "max_replicas": max_replicas,
        "target_ongoing_requests": max_batch,
        **autoscaling,
    }
    return deployed(opening, rules, settings, tokens, scaling, {"num_cpus": 1, **ray_actor_options})
