"""Requests that are refused: each with the status, the code and the document of the contract, and alone."""

import socket
from dataclasses import replace
from urllib.parse import urlsplit

import pytest
from serve.support import (
    SETTINGS,
    TOKEN,
    Client,
    assert_refused,
    service_of,
    started,
)

from hedgerow.serve.settings import Limits

BAD = "invalid_request_error"


@pytest.fixture(scope="module")
def service():
    return service_of(settings=replace(SETTINGS, allow_where=True, limits=replace(SETTINGS.limits, where_seconds=0.2)))


@pytest.fixture(scope="module")
def client(service):
    with started(service) as client:
        yield client


@pytest.fixture(scope="module")
def guarded():
    """A service with a token, and without SQL expressions."""
    with started(service_of(), tokens=(TOKEN,)) as client:
        yield client


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"prompt": "w1"} more',
        b'{"prompt": NaN}',
        b'{"prompt": "w1", "deadline_ms": Infinity}',
        b'{"prompt": "w1", "deadline_ms": 1e999}',
        b'{"prompt": "\\ud800"}',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"prompt":' * 5_000,
        b"[]",
        b"null",
        b'"w1"',
    ],
)
@pytest.mark.parametrize("path", ["/v1/retrieve", "/v1/chat/completions", "/v2/models/tiny/infer"])
def test_bodies_that_are_no_json_object(path, body, client):
    assert_refused(client.post(path, body=body), 400, "invalid_json", BAD)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": 5}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"prompt": {}}, "prompt"),
        ({"prompt": [1, "w1"]}, "prompt"),
        ({"prompt": [1.5]}, "prompt"),
        ({"prompt": [True]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": [2**31]}, "prompt"),
        ({"prompt": [{"content": "w1"}]}, "prompt"),
        ({"k": 0}, "k"),
        ({"k": "5"}, "k"),
        ({"k": 1.0}, "k"),
        ({"k": True}, "k"),
        ({"k": None}, "k"),
        ({"k": 2**70}, "k"),
        ({"beam_width": 0}, "beam_width"),
        ({"beam_width": 2**31}, "beam_width"),
        ({"sets": "recent"}, "sets"),
        ({"sets": [1]}, "sets"),
        ({"where": 5}, "where"),
        ({"exclude": "t1"}, "exclude"),
        ({"exclude": [None]}, "exclude"),
        ({"exclude": {}}, "exclude"),
        ({"candidates": [["t1"]]}, "candidates"),
        ({"order_by": 5}, "order_by"),
        ({"order_by": ["price", "up"]}, "order_by"),
        ({"order_by": ["price"]}, "order_by"),
        ({"caps": []}, "caps"),
        ({"caps": {"maker": 0}}, "caps"),
        ({"caps": {"maker": "1"}}, "caps"),
        ({"fields": "title"}, "fields"),
        ({"fields": [1]}, "fields"),
        ({"deadline_ms": 0}, "deadline_ms"),
        ({"deadline_ms": -1}, "deadline_ms"),
        ({"deadline_ms": "100"}, "deadline_ms"),
        ({"deadline_ms": True}, "deadline_ms"),
        ({"deadline_ms": 1e12}, "deadline_ms"),
        ({"version": 0}, "version"),
        ({"version": "1"}, "version"),
        ({"version": 2**64}, "version"),
        ({"user": 5}, "user"),
        ({"user": "x" * 1_001}, "user"),
        ({"kk": 5}, "kk"),
        ({"Prompt": "w1"}, "Prompt"),
    ],
)
def test_fields_of_wrong_types_and_unknown_fields(fields, param, client):
    reply = client.retrieve(**({"prompt": "w1 w2"} | fields))
    assert reply.status == 400, reply.body
    error = reply.error
    assert (error["code"], error["type"]) == ("invalid_request", BAD)
    # The field as the client wrote it, or an element of it.
    assert error["param"].split(".")[0] == param
    assert all(part.isdecimal() or part in ("maker", "role") for part in error["param"].split(".")[1:])
    assert param in error["message"]


def test_a_wrong_element_of_a_list_is_named(client):
    assert "prompt.1" in client.retrieve([5, -1]).error["message"]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"prompt": ""}, "empty"),
        ({"prompt": "  \n"}, "empty"),
        ({"prompt": []}, "empty"),
        ({"prompt": [299, 300]}, "token 300"),
        ({"exclude": [1]}, "item ids of this index, of type string"),
        ({"exclude": ["t1", 1.5]}, "item ids of this index"),
        ({"candidates": [True]}, "item ids of this index"),
        ({"order_by": "nothing"}, "no attribute 'nothing'"),
        ({"order_by": "kinds"}, "has no order"),
        ({"caps": {"nothing": 1}}, "no attribute 'nothing'"),
        ({"where": "year >"}, "syntax error"),
        ({"where": ""}, "expected an SQL expression"),
        ({"where": "year"}, "true or false"),
        ({"where": "nothing = 1"}, "not found"),
        ({"where": "read_text('/etc/hostname') = ''"}, "read_text"),
        ({"where": "true; drop table items"}, "more than one statement"),
        (
            {"where": "(select count(*) from items a, items b, items c, items d, items e, items f) > 1"},
            "did not finish within 0.2 seconds",
        ),
    ],
)
def test_values_that_do_not_fit_the_model_or_the_index(fields, expected, client):
    reply = client.retrieve(**({"prompt": "w1 w2"} | fields))
    assert reply.status == 400, reply.body
    assert (reply.error["code"], reply.error["type"]) == ("invalid_request", BAD)
    assert expected in reply.error["message"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"k": Limits().k + 1}, "k"),
        ({"beam_width": 21}, "beam_width"),
        ({"sets": ["recent"] * 17}, "sets"),
        ({"exclude": ["t1"] * 10_001}, "exclude"),
        ({"candidates": ["t1"] * 10_001}, "candidates"),
        ({"where": f"year > 1 {' ' * 2_000}"}, "where"),
    ],
)
def test_sizes_above_the_limits(fields, param, client):
    assert_refused(client.retrieve(**fields), 400, "limit", BAD, param)


def test_more_requests_than_a_body_may_have(client):
    reply = client.post("/v1/retrieve", {"requests": [{"prompt": "w1"}] * 65})
    assert_refused(reply, 400, "limit", BAD, "requests")


def test_sql_where_it_is_not_allowed(guarded):
    assert_refused(guarded.retrieve(where="year > 1"), 400, "where_not_allowed", BAD, "where")


@pytest.mark.parametrize("path", ["/v1/explain", "/v1/trace"])
def test_explanations_and_traces_have_the_same_limits(path, client):
    document = {"prompt": "w1", "item_id": "t1"} if path == "/v1/explain" else {"prompt": "w1"}
    assert_refused(client.post(path, document | {"beam_width": 21}), 400, "limit", BAD, "beam_width")
    assert_refused(client.post(path, document | {"sets": ["no"]}), 404, "unknown_set", "not_found", "sets")
    assert_refused(client.post(path, document | {"version": 3}), 404, "unknown_version", "not_found", "version")
    assert_refused(client.post(path, document | {"prompt": "w1 " * 41}), 413, "prompt_too_long", "too_large", "prompt")
    assert client.post(path, document | {"where": "year >"}).status == 400
    assert client.post(path, document | {"where": "year > 1"}).status == 200


def test_scores_have_limits(client):
    document = {"prompt": "w1", "item_ids": ["t1"]}
    assert client.post("/v1/score", document | {"item_ids": ["nothing"]}).status == 400
    assert client.post("/v1/score", document | {"item_ids": []}).error["param"] == "item_ids"
    reply = client.post("/v1/score", document | {"item_ids": ["t1"] * 10_001})
    assert_refused(reply, 400, "limit", BAD, "item_ids")
    reply = client.post("/v1/score", document | {"prompt": [5] * 41})
    assert_refused(reply, 413, "prompt_too_long", "too_large", "prompt")
    reply = client.post("/v1/score", document | {"version": 2})
    assert_refused(reply, 404, "unknown_version", "not_found", "version")


@pytest.mark.parametrize("given", [None, "Bearer", "Bearer wrong", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x"])
def test_without_the_token(given, guarded):
    stranger = Client(guarded.url)
    headers = {} if given is None else {"authorization": given}
    for method, path in (("POST", "/v1/retrieve"), ("GET", "/v1/index"), ("GET", "/openapi.json"), ("GET", "/nothing")):
        reply = stranger.call(method, path, headers=headers)
        assert_refused(reply, 401, "unauthorized", "unauthorized")
        assert reply.headers["www-authenticate"] == "Bearer"
    for path in ("/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready"):
        assert stranger.get(path, headers=headers).status == 200
    # A server that believes the header `host` would take this for the path of the page.
    hosts = ("x/ui", "x/ui/?", "x/ui#", "x:80/health/live?")
    assert {stranger.get("/v1/index", headers=headers | {"host": host}).status for host in hosts} <= {400, 401}
    stranger.close()


def test_with_the_token(guarded):
    assert guarded.retrieve().status == 200
    assert guarded.get("/v1/index", headers={"authorization": f"bearer  {TOKEN} "}).status == 200


def test_changes_of_the_version_need_a_service_with_a_token(client):
    for path, document in (("/v1/index/refresh", None), ("/v1/index/rollback", {"to": 1})):
        assert_refused(client.post(path, document), 403, "forbidden", "forbidden")


@pytest.mark.parametrize(
    ("call", "code", "param"),
    [
        (lambda client: client.retrieve(sets=["nothing"]), "unknown_set", "sets"),
        (lambda client: client.retrieve(version=7), "unknown_version", "version"),
        (lambda client: client.get("/nothing"), "unknown_route", None),
        (lambda client: client.post("/v1/retrieve/more"), "unknown_route", None),
        (lambda client: client.get("/v2/models/other"), "model_not_found", "model"),
        (lambda client: client.get("/v2/models/other/ready"), "model_not_found", "model"),
        (lambda client: client.post("/v2/models/other/infer"), "model_not_found", "model"),
        (lambda client: client.get("/v1/models/other"), "model_not_found", "model"),
        (
            lambda client: client.post("/v1/completions", {"model": "other", "prompt": "w1"}),
            "model_not_found",
            "model",
        ),
    ],
)
def test_names_of_nothing(call, code, param, client):
    assert_refused(call(client), 404, code, "not_found", param)


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/v1/retrieve"), ("DELETE", "/v1/index"), ("PUT", "/metrics"), ("POST", "/v1/models")]
)
def test_methods_that_a_route_does_not_have(method, path, client):
    reply = client.call(method, path)
    assert_refused(reply, 405, "unknown_method", BAD)
    assert reply.headers["allow"]


class TestTooLarge:
    def test_body(self, client):
        document = {"prompt": "w1 " * 400_000}
        assert_refused(client.post("/v1/retrieve", document), 413, "body_too_large", "too_large")
        assert client.retrieve().status == 200

    def test_body_of_unknown_length(self, client):
        chunks = (b"w1 " * 10_000 for _ in range(50))
        reply = client.post("/v1/retrieve", body=chunks)
        assert_refused(reply, 413, "body_too_large", "too_large")
        client.close()
        assert client.retrieve().status == 200

    def test_body_whose_length_is_a_lie(self, client):
        url = urlsplit(client.url)
        with socket.create_connection((url.hostname, url.port), timeout=30) as connection:
            connection.sendall(b"POST /v1/retrieve HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999999\r\n\r\n")
            assert connection.recv(10_000).startswith(b"HTTP/1.1 413 ")

    @pytest.mark.parametrize(
        "prompt", ["x" * 2_001, "w1 " * 41, [5] * 41, [5] * 5_000, [{"role": "user", "content": "x" * 2_001}]]
    )
    def test_prompt(self, prompt, client):
        assert_refused(client.retrieve(prompt), 413, "prompt_too_long", "too_large", "prompt")
