"""The OpenAPI document of a service, from the documents of its requests."""

from __future__ import annotations

from functools import cache
from typing import Any

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from hedgerow._version import __version__
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

# Method, path, summary, and the documents that the body can be.
OPERATIONS: tuple[tuple[str, str, str, tuple[type[BaseModel], ...]], ...] = (
    ("post", "/v1/retrieve", "Retrieve items for one prompt, or for several.", (RetrieveRequest, RetrieveRequests)),
    ("post", "/v1/score", "Compute the exact scores of given items.", (ScoreRequest,)),
    ("post", "/v1/explain", "Explain why an item is or is not returned.", (ExplainRequest,)),
    ("post", "/v1/trace", "Show the beams of every level of a search.", (TraceRequest,)),
    ("post", "/v1/chat/completions", "Retrieve items, in the form of OpenAI's chat completions.", (ChatRequest,)),
    ("post", "/v1/completions", "Retrieve items, in the form of OpenAI's completions.", (CompletionRequest,)),
    ("get", "/v1/models", "List the model.", ()),
    ("get", "/v1/models/{name}", "Describe the model.", ()),
    ("get", "/v1/index", "Describe the index, its versions and the named sets.", ()),
    ("post", "/v1/index/refresh", "Serve the current version of the live index now.", ()),
    ("post", "/v1/index/rollback", "Make an earlier version the current one.", (RollbackRequest,)),
    ("post", "/v1/index/canary", "Let a version answer a share of the requests.", (CanaryRequest,)),
    ("get", "/health/live", "Whether the service runs.", ()),
    ("get", "/health/ready", "Whether the service is loaded and warm.", ()),
    ("get", "/v2", "Describe the server (KServe v2).", ()),
    ("get", "/v2/health/live", "Whether the service runs (KServe v2).", ()),
    ("get", "/v2/health/ready", "Whether the service is loaded and warm (KServe v2).", ()),
    ("get", "/v2/models/{name}", "Describe the model (KServe v2).", ()),
    ("get", "/v2/models/{name}/ready", "Whether the model is ready (KServe v2).", ()),
    ("post", "/v2/models/{name}/infer", "Retrieve items (KServe v2).", (InferRequest,)),
    ("post", "/v2/models/{name}/versions/{version}/infer", "Retrieve items of a version (KServe v2).", (InferRequest,)),
    ("get", "/metrics", "Metrics, for Prometheus.", ()),
)
ERROR_NAMES = TYPES | {409: "the version was refused", 500: "server_error"}
ERROR_SCHEMA = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": "string"},
            },
        }
    },
}


def add_route(app: FastAPI) -> None:
    """Add the route of the document."""

    @route(app, "GET", "/openapi.json")
    async def document(_: Request) -> Response:
        return respond(openapi_document())


@cache
def openapi_document() -> dict[str, Any]:
    """The document."""
    models = {model for *_, bodies in OPERATIONS for model in bodies}
    ordered = sorted(models, key=lambda model: model.__name__)
    _, definitions = models_json_schema(
        [(model, "validation") for model in ordered], ref_template="#/components/schemas/{model}"
    )
    paths: dict[str, Any] = {}
    for method, path, summary, bodies in OPERATIONS:
        paths.setdefault(path, {})[method] = _operation(path, summary, bodies)
    return {
        "openapi": "3.1.0",
        "info": {"title": "hedgerow", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": definitions["$defs"] | {"Error": ERROR_SCHEMA},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"token": []}],
    }


def _operation(path: str, summary: str, bodies: tuple[type[BaseModel], ...]) -> dict[str, Any]:
    content = "text/plain" if path == "/metrics" else "application/json"
    operation: dict[str, Any] = {
        "summary": summary,
        "responses": {"200": {"description": "The answer.", "content": {content: {"schema": {}}}}}
        | {str(status): _error(name) for status, name in ERROR_NAMES.items()},
    }
    kinds = {"name": {"type": "string"}, "version": {"type": "integer", "minimum": 1}}
    named = [name for name in kinds if f"{{{name}}}" in path]
    if named:
        operation["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": kinds[name]} for name in named
        ]
    if bodies:
        schemas = [{"$ref": f"#/components/schemas/{model.__name__}"} for model in bodies]
        schema = schemas[0] if len(schemas) == 1 else {"anyOf": schemas}
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return operation


def _error(name: str) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Error"}
    return {"description": f"Error: {name}.", "content": {"application/json": {"schema": schema}}}
