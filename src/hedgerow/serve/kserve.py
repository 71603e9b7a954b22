"""Routes of the KServe v2 protocol (Open Inference Protocol): tensors of prompts in, tensors of items out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import FastAPI, Request, Response
from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr

from hedgerow._version import __version__
from hedgerow.results import Results
from hedgerow.serve import schemas
from hedgerow.serve.asking import RefusedError
from hedgerow.serve.documents import Document
from hedgerow.serve.responses import numbers_of
from hedgerow.serve.web import Web, parsed, respond, route

OUTPUTS = ("item_id", "score", "sid", "num_items")
# The score of no item. JSON has no infinity.
NO_SCORE = float(np.finfo(np.float32).min)


class Tensor(BaseModel):
    """An input: the prompts."""

    model_config = ConfigDict(extra="allow")

    name: Literal["prompt"]
    datatype: Literal["BYTES"]
    shape: Annotated[list[Annotated[StrictInt, Field(ge=0, lt=2**31)]], Field(min_length=1, max_length=2)]
    data: Annotated[list[StrictStr], Field(min_length=1, max_length=10_000)]


class InferRequest(Document):
    """A request: one tensor of prompts. The parameters are the other fields of `/v1/retrieve`."""

    id: Annotated[StrictStr, Field(max_length=200)] | None = None
    inputs: Annotated[list[Tensor], Field(min_length=1, max_length=1)]
    parameters: dict[StrictStr, Any] = Field(default_factory=dict)
    outputs: list[Any] | None = None


def add_routes(app: FastAPI, web: Web) -> None:
    """Add the routes."""
    service = web.service

    @route(app, "GET", "/v2")
    async def server(_: Request) -> Response:
        return respond(schemas.KServeServer(name="hedgerow", version=__version__, extensions=[]))

    @route(app, "GET", "/v2/models/{name:path}/ready")
    async def ready(request: Request) -> Response:
        name = web.check_model(request.path_params["name"])
        return respond(schemas.KServeReady(name=name, ready=service.state == "ready"))

    @route(app, "POST", "/v2/models/{name:path}/versions/{version:int}/infer")
    async def infer_version(request: Request) -> Response:
        return await infer(request)

    @route(app, "POST", "/v2/models/{name:path}/infer")
    async def infer(request: Request) -> Response:
        name, given = web.check_model(request.path_params["name"]), parsed(InferRequest, await web.body(request))
        prompts = given.inputs[0].data
        if (limit := service.settings.limits.requests) < len(prompts):
            raise RefusedError(400, "limit", f"at most {limit} prompts; got {len(prompts)}.", param="inputs")
        if int(np.prod(given.inputs[0].shape)) != len(prompts):
            message = f"the shape {given.inputs[0].shape} does not fit {len(prompts)} prompts."
            raise RefusedError(400, "invalid_request", message, param="inputs")
        names = [output.get("name") if isinstance(output, dict) else output for output in given.outputs or OUTPUTS]
        if unknown := [name for name in names if name not in OUTPUTS]:
            message = f"there is no output {str(unknown[0])[:100]!r}; the outputs are {', '.join(OUTPUTS)}."
            raise RefusedError(400, "unknown_output", message, param="outputs")
        if "fields" in given.parameters:
            message = "outputs of this protocol have no attributes; use /v1/retrieve for fields."
            raise RefusedError(400, "invalid_request", message, param="parameters.fields")
        version = request.path_params.get("version")
        named = {} if version is None else {"version": version}
        pairs = [web.ask(request, given.parameters | named | {"prompt": prompt}) for prompt in prompts]
        results = []
        for found in await web.answer_together([ask for _, ask in pairs], request.state.id):
            request.state.version = found.version
            results.append(found.results)
        tensors = _tensors(results, pairs[0][0].k, service.engine.current.index.num_levels)
        outputs: list[schemas.OutputTensor] = [
            {"name": output, "datatype": kind, "shape": list(values.shape), "data": values.ravel().tolist()}
            for output, kind, values in tensors
            if output in names
        ]
        document = schemas.Inferred(model_name=name, id=given.id or request.state.id, outputs=outputs)
        if request.state.version is not None:
            document["model_version"] = str(request.state.version)
        return respond(document)

    # After the others, because a name may contain slashes.
    @route(app, "GET", "/v2/models/{name:path}")
    async def metadata(request: Request) -> Response:
        name, num_levels = web.check_model(request.path_params["name"]), service.engine.current.index.num_levels
        outputs = {"item_id": ("BYTES", [-1, -1]), "score": ("FP32", [-1, -1]), "sid": ("INT32", [-1, -1, num_levels])}
        outputs["num_items"] = ("INT32", [-1])
        return respond(
            schemas.KServeModel(
                name=name,
                versions=list(map(str, numbers_of(service.engine))),
                platform="hedgerow",
                inputs=[{"name": "prompt", "datatype": "BYTES", "shape": [-1]}],
                outputs=[
                    {"name": output, "datatype": kind, "shape": shape} for output, (kind, shape) in outputs.items()
                ],
            )
        )


def _tensors(results: Sequence[Results], k: int, num_levels: int) -> list[tuple[str, str, np.ndarray]]:
    """The outputs for B prompts: name, type, and values of k items, filled up where there are fewer."""
    ids, scores = np.full((len(results), k), "", object), np.full((len(results), k), NO_SCORE)
    sids = np.full((len(results), k, num_levels), -1)
    for row, found in enumerate(results):
        ids[row, : len(found)] = [str(item_id) for item_id in found.item_ids]
        scores[row, : len(found)], sids[row, : len(found)] = found.scores, found.sids
    return [
        ("item_id", "BYTES", ids),
        ("score", "FP32", scores),
        ("sid", "INT32", sids),
        ("num_items", "INT32", np.array(list(map(len, results)))),
    ]
