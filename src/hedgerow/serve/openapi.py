"""The OpenAPI document of a service, from the documents of its requests."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel, TypeAdapter

from hedgerow._version import __version__
from hedgerow.serve import schemas
from hedgerow.serve.documents import (
    CanaryRequest,
    ExplainRequest,
    RetrieveRequest,
    RetrieveRequests,
    RollbackRequest,
    ScoreRequest,
    TraceRequest,
)
from hedgerow.serve.kserve import InferRequest
from hedgerow.serve.openai import ChatRequest, CompletionRequest
from hedgerow.serve.responses import TYPES
from hedgerow.serve.web import respond, route


@dataclass(frozen=True)
class Operation:
    """A route. Its answer and its bodies are types that Pydantic can describe."""

    method: str
    path: str
    summary: str
    answer: Any
    bodies: tuple[type[BaseModel], ...] = ()


OPERATIONS = (
    Operation(
        "post",
        "/v1/retrieve",
        "Retrieve items for one prompt, or for several.",
        schemas.Retrieved | schemas.RetrievedAll,
        (RetrieveRequest, RetrieveRequests),
    ),
    Operation("post", "/v1/score", "Compute the exact scores of given items.", schemas.Scored, (ScoreRequest,)),
    Operation(
        "post", "/v1/explain", "Explain why an item is or is not returned.", schemas.Explained, (ExplainRequest,)
    ),
    Operation("post", "/v1/trace", "Show the beams of every level of a search.", schemas.Traced, (TraceRequest,)),
    Operation(
        "post",
        "/v1/chat/completions",
        "Retrieve items, in the form of OpenAI's chat completions.",
        schemas.ChatCompletion,
        (ChatRequest,),
    ),
    Operation(
        "post",
        "/v1/completions",
        "Retrieve items, in the form of OpenAI's completions.",
        schemas.Completion,
        (CompletionRequest,),
    ),
    Operation("get", "/v1/models", "List the model.", schemas.Models),
    Operation("get", "/v1/models/{name}", "Describe the model.", schemas.Model),
    Operation("get", "/v1/index", "Describe the index, its versions and the named sets.", schemas.Index),
    Operation("post", "/v1/index/refresh", "Serve the current version of the live index now.", schemas.Index),
    Operation(
        "post", "/v1/index/rollback", "Make an earlier version the current one.", schemas.Index, (RollbackRequest,)
    ),
    Operation(
        "post", "/v1/index/canary", "Let a version answer a share of the requests.", schemas.Index, (CanaryRequest,)
    ),
    Operation("get", "/health/live", "Whether the service runs.", schemas.Health),
    Operation("get", "/health/ready", "Whether the service is loaded and warm.", schemas.Health),
    Operation("get", "/v2", "Describe the server (KServe v2).", schemas.KServeServer),
    Operation("get", "/v2/health/live", "Whether the service runs (KServe v2).", schemas.Health),
    Operation("get", "/v2/health/ready", "Whether the service is loaded and warm (KServe v2).", schemas.Health),
    Operation("get", "/v2/models/{name}", "Describe the model (KServe v2).", schemas.KServeModel),
    Operation("get", "/v2/models/{name}/ready", "Whether the model is ready (KServe v2).", schemas.KServeReady),
    Operation("post", "/v2/models/{name}/infer", "Retrieve items (KServe v2).", schemas.Inferred, (InferRequest,)),
    Operation(
        "post",
        "/v2/models/{name}/versions/{version}/infer",
        "Retrieve items of a version (KServe v2).",
        schemas.Inferred,
        (InferRequest,),
    ),
    Operation("get", "/metrics", "Metrics, for Prometheus.", str),
)
ERROR_NAMES = TYPES | {409: "the version was refused", 500: "server_error"}


def add_route(app: FastAPI) -> None:
    """Add the route of the document."""

    @route(app, "GET", "/openapi.json")
    async def document(_: Request) -> Response:
        return respond(openapi_document())


@cache
def openapi_document() -> dict[str, Any]:
    """The document."""
    schemas_of, definitions = _schemas()
    paths: dict[str, Any] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _described(operation, schemas_of)
    return {
        "openapi": "3.1.0",
        "info": {"title": "hedgerow", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": definitions,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"token": []}],
    }


def _schemas() -> tuple[dict[Any, Any], dict[str, Any]]:
    """The schema of each type of `OPERATIONS` and of errors, and the definitions that they refer to."""
    bodies = {body: "validation" for operation in OPERATIONS for body in operation.bodies}
    answers = dict.fromkeys([*(operation.answer for operation in OPERATIONS), schemas.Error], "serialization")
    kinds: list[Any] = sorted((bodies | answers).items(), key=lambda kind: str(kind[0]))
    inputs = [(kind, mode, TypeAdapter(kind)) for kind, mode in kinds]
    found, definitions = TypeAdapter.json_schemas(inputs, ref_template="#/components/schemas/{model}")
    return {kind: schema for (kind, _), schema in found.items()}, definitions["$defs"]


def _described(operation: Operation, schemas_of: dict[Any, Any]) -> dict[str, Any]:
    path = operation.path
    content = {"text/plain" if path == "/metrics" else "application/json": {"schema": schemas_of[operation.answer]}}
    responses = {"200": {"description": "The answer.", "content": content}}
    error = {"application/json": {"schema": schemas_of[schemas.Error]}}
    responses |= {
        str(status): {"description": f"Error: {name}.", "content": error} for status, name in ERROR_NAMES.items()
    }
    if path.endswith("/health/ready"):
        responses["503"] = {"description": "It is not ready.", "content": content}
    described: dict[str, Any] = {"summary": operation.summary, "responses": responses}
    kinds = {"name": {"type": "string"}, "version": {"type": "integer", "minimum": 1}}
    named = [name for name in kinds if f"{{{name}}}" in path]
    if named:
        described["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": kinds[name]} for name in named
        ]
    if operation.bodies:
        bodies = [schemas_of[body] for body in operation.bodies]
        schema = bodies[0] if len(bodies) == 1 else {"anyOf": bodies}
        described["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return described
