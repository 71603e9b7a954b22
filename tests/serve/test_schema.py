"""The OpenAPI document: valid, complete, and true, as schemathesis finds by sending what it describes.

HEDGEROW_TEST_SERVE=1 sends 200 requests to each route in place of 3.
"""

import os
import re

import pytest
from serve.support import TOKEN, create_app, service_of, started
from starlette.routing import Route

from hedgerow.serve.web import Web

EXAMPLES = 200 if "HEDGEROW_TEST_SERVE" in os.environ else 3


@pytest.fixture(scope="module")
def client():
    with started(service_of()) as client:
        yield client


@pytest.fixture(scope="module")
def document(client):
    reply = client.get("/openapi.json")
    assert reply.status == 200
    return reply.document


def references_of(part):
    """All `$ref` of a part of the document."""
    if isinstance(part, dict):
        found = {part["$ref"]} if "$ref" in part else set()
        return found.union(*(references_of(each) for each in part.values()))
    if isinstance(part, list):
        return set().union(*map(references_of, part))
    return set()


def test_all_references_lead_somewhere(document):
    assert document["openapi"].startswith("3.1")
    for reference in references_of(document):
        part = document
        for name in reference.removeprefix("#/").split("/"):
            part = part[name]
        assert part


def test_all_schemas_are_valid(document):
    jsonschema = pytest.importorskip("jsonschema")
    for schema in document["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    for path in document["paths"].values():
        for operation in path.values():
            assert operation["summary"]
            for response in operation["responses"].values():
                assert response["description"]
                for content in response["content"].values():
                    jsonschema.Draft202012Validator.check_schema(content["schema"])


def test_all_routes_are_in_the_document(document):
    app = create_app(Web(service_of()))
    routes = {
        (method.lower(), re.sub(":[a-z]+}", "}", route.path))
        for route in app.routes
        if isinstance(route, Route) and route.path != "/" and not route.path.startswith(("/ui", "/openapi.json"))
        for method in route.methods or ()
        if method != "HEAD"
    }
    documented = {(method, path) for path, operations in document["paths"].items() for method in operations}
    assert documented == routes


def test_errors_have_the_documented_form(document):
    schema = document["components"]["schemas"]["ErrorBody"]
    for operations in document["paths"].values():
        for operation in operations.values():
            statuses = set(operation["responses"])
            assert {"200", "400", "401", "404", "413", "429", "500", "503", "504"} <= statuses
            error = operation["responses"]["400"]["content"]["application/json"]["schema"]
            assert error == {"$ref": "#/components/schemas/Error"}
    assert schema["required"] == ["message", "type", "param", "code"]


PROMPT = {"prompt": [5, 6]}
COMPLETION = {"model": "tiny", "n": 2, "logprobs": True}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/retrieve", PROMPT | {"k": 3}),
        ("/v1/retrieve", PROMPT | {"candidates": []}),
        ("/v1/retrieve", {"requests": [PROMPT, {"prompt": 5}]}),
        ("/v1/score", PROMPT | {"item_ids": ["t1", "t2"]}),
        ("/v1/explain", PROMPT | {"item_id": "t1"}),
        ("/v1/explain", PROMPT | {"item_id": "t1", "exclude": ["t1"]}),
        ("/v1/explain", PROMPT | {"item_id": "t1", "caps": {"year": 1}, "beam_width": 1}),
        ("/v1/trace", PROMPT | {"k": 3}),
        ("/v1/chat/completions", COMPLETION | {"messages": [{"role": "user", "content": "w1"}]}),
        ("/v1/completions", COMPLETION | {"prompt": ["w1", "w2"], "logprobs": 1}),
        ("/v2/models/tiny/infer", {"inputs": [{"name": "prompt", "datatype": "BYTES", "shape": [1], "data": ["w1"]}]}),
        ("/v1/models", None),
        ("/v1/models/tiny", None),
        ("/v1/index", None),
        ("/v2", None),
        ("/v2/models/tiny", None),
        ("/v2/models/tiny/ready", None),
        ("/health/ready", None),
    ],
)
def test_answers_are_as_documented(client, document, path, body):
    """No field of an answer is missing in the document, and none of the document in the answer."""
    jsonschema = pytest.importorskip("jsonschema")
    closed = {
        name: schema | ({} if "additionalProperties" in schema else {"additionalProperties": False})
        for name, schema in document["components"]["schemas"].items()
    }
    route = re.sub(r"/models/tiny", "/models/{name}", path)
    operation = document["paths"][route]["get" if body is None else "post"]
    schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
    reply = client.get(path) if body is None else client.post(path, body)
    assert reply.status == 200, reply.document
    jsonschema.validate(reply.document, schema | {"components": {"schemas": closed}})


def test_bodies_are_checked_as_documented(client, document):
    jsonschema = pytest.importorskip("jsonschema")
    schemas = document["components"]["schemas"]
    validator = jsonschema.Draft202012Validator(
        {"$ref": "#/components/schemas/RetrieveRequest", "components": {"schemas": schemas}}
    )
    for fields in (
        {"prompt": "w1"},
        {"prompt": [5, 6], "k": 3, "order_by": ["price", "ascending"], "caps": {"year": 1}},
        {"prompt": [{"role": "user", "content": "w1"}], "deadline_ms": 5_000},
        {"prompt": 5},
        {"prompt": "w1", "k": 0},
        {"prompt": "w1", "k": "3"},
        {"prompt": "w1", "order_by": ["price", "up"]},
        {"prompt": "w1", "caps": {"year": 0}},
        {"prompt": "w1", "deadline_ms": "5"},
        {"prompt": "w1", "nothing": 1},
    ):
        assert (client.post("/v1/retrieve", fields).status == 200) == validator.is_valid(fields), fields


def test_schemathesis(client):
    schemathesis = pytest.importorskip("schemathesis")
    from hypothesis import HealthCheck, Phase, given, settings
    from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

    schema = schemathesis.openapi.from_dict(client.get("/openapi.json").document)
    schema.config.base_url = client.url
    checks = (status_code_conformance, response_schema_conformance)
    statuses = set()
    operations = [result.ok() for result in schema.get_all_operations()]
    assert len(operations) > 15
    for operation in operations:

        @settings(
            max_examples=EXAMPLES,
            derandomize=True,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=[*HealthCheck],  # pyright: ignore[reportArgumentType]
        )
        @given(case=operation.as_strategy())
        def send(case):
            response = case.call()
            statuses.add(response.status_code)
            # A deadline of 5e-324 milliseconds has passed at once.
            assert response.status_code < 500 or response.status_code == 504, response.text
            case.validate_response(response, checks=checks)

        send()
    assert {200, 400} <= statuses


def test_the_document_needs_the_token():
    with started(service_of(), tokens=(TOKEN,)) as client:
        assert client.apart().get("/openapi.json").status == 200
        client.token = None
        assert client.get("/openapi.json").status == 401
