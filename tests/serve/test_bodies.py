"""Bodies that JSON does not hold exactly, compressed bodies, and other content types: a 4xx that names the field."""

import gzip
import http.client
import itertools
import json
import zlib
from urllib.parse import urlsplit

import numpy as np
import pytest
from serve.support import index, service_of, started

import hedgerow as hr

GOOD = json.dumps({"prompt": "w1 w2", "k": 1}).encode()
FORM = "application/x-www-form-urlencoded"


@pytest.fixture(scope="module")
def client():
    with started(service_of()) as running:
        yield running


@pytest.fixture(scope="module")
def numbered():
    """A service whose item ids are integers."""
    some = index()
    ids = np.arange(150) + 2**62
    catalog = hr.Catalog(some.sids_of(some.item_ids), codebook_sizes=some.codebook_sizes, item_ids=ids)
    with started(service_of(hr.build_index(catalog), rules={})) as running:
        yield running


def posted(client, path, body, **headers):
    url = urlsplit(client.url)
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=60)
    try:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request("POST", path, body, {"content-type": "application/json", **names})
        reply = connection.getresponse()
        document = json.loads(reply.read())
    finally:
        connection.close()
    return reply.status, document.get("error", document)


@pytest.mark.parametrize("digits", [str(2**64), "1" * 30, str(-(2**63) - 1), "-" + "1" * 300])
@pytest.mark.parametrize(
    ("path", "document", "where"),
    [
        ("/v1/retrieve", '{"prompt": "w1", "exclude": ["t1", %s]}', "exclude.1"),
        ("/v1/retrieve", '{"prompt": "w1", "candidates": [%s]}', "candidates.0"),
        ("/v1/retrieve", '{"history": [1, %s]}', "history.1"),
        ("/v1/retrieve", '{"requests": [{"prompt": "w1", "exclude": [%s]}]}', "requests.0.exclude.0"),
        ("/v1/retrieve", '{"prompt": "w1", "k": %s}', "k"),
        ("/v1/score", '{"prompt": "w1", "item_ids": [%s]}', "item_ids.0"),
        ("/v1/explain", '{"prompt": "w1", "item_id": %s}', "item_id"),
        ("/v1/explain", '{"prompt": "w1", "item": {"year": %s}}', "item.year"),
        ("/v1/completions", '{"model": "tiny", "prompt": "w1", "hedgerow": {"exclude": [%s]}}', "hedgerow.exclude.0"),
    ],
)
def test_integers_of_more_than_64_bits(client, path, document, where, digits):
    status, error = posted(client, path, (document % digits).encode())
    assert (status, error["param"], error["code"]) == (400, where, "invalid_request")
    assert error["message"].startswith(f"{where}: the integer {digits[:40]} has more than 64 bits.")


def test_large_ids_are_exact(numbered):
    first = 2**62
    status, found = posted(numbered, "/v1/retrieve", b'{"prompt": "w1 w2", "k": 1}')
    assert status == 200
    (item,) = found["items"]
    assert first <= item["item_id"] < first + 150
    body = json.dumps({"prompt": "w1 w2", "k": 1, "exclude": [item["item_id"], 2**63 - 1, 2**64 - 1, -(2**63)]})
    status, found = posted(numbered, "/v1/retrieve", body.encode())
    assert status == 200
    assert found["items"][0]["item_id"] != item["item_id"]
    text = json.dumps({"prompt": f"w1 {10**40}", "k": 1}).encode()
    assert posted(numbered, "/v1/retrieve", text)[0] == 200


@pytest.mark.parametrize("field", ["exclude", "candidates", "history"])
def test_null_among_ids(client, numbered, field):
    for one, entry in ((client, "t1"), (numbered, 2**62)):
        document = {"prompt": "w1"} if field != "history" else {}
        status, error = posted(one, "/v1/retrieve", json.dumps(document | {field: [entry, None]}).encode())
        assert (status, error["param"]) == (400, f"{field}.1")
        expected = f"{field}.1: Input should be a valid string, integer, number or boolean; got null."
        assert error["message"] == expected


def test_ids_of_another_type_name_their_field(client, numbered):
    for one, entry in ((client, 7), (numbered, "t1")):
        for field in ("exclude", "candidates", "history"):
            document = ({} if field == "history" else {"prompt": "w1"}) | {field: [entry]}
            status, error = posted(one, "/v1/retrieve", json.dumps(document).encode())
            assert (status, error["param"]) == (400, field), error
        for path, field, value in (("/v1/score", "item_ids", [entry]), ("/v1/explain", "item_id", entry)):
            status, error = posted(one, path, json.dumps({"prompt": "w1", field: value}).encode())
            assert (status, error["param"]) == (400, field), error


@pytest.mark.parametrize(
    ("encoding", "body"),
    [("gzip", gzip.compress(GOOD, mtime=0)), ("deflate", zlib.compress(GOOD)), ("br", GOOD), ("GZIP, identity", GOOD)],
)
def test_compressed_bodies(client, encoding, body):
    status, error = posted(client, "/v1/retrieve", body, content_encoding=encoding)
    assert (status, error["code"]) == (415, "unsupported_media_type")
    assert f"content-encoding '{encoding.lower()}' is not supported: send the body as it is" in error["message"]


def test_a_compressed_body_without_its_header(client):
    status, error = posted(client, "/v1/retrieve", gzip.compress(GOOD))
    assert (status, error["code"]) == (400, "invalid_json")
    assert "compressed with gzip" in error["message"]


@pytest.mark.parametrize(
    "kind", ["multipart/form-data; boundary=x", "application/xml", "image/png", "application/jsonx"]
)
def test_other_content_types(client, kind):
    status, error = posted(client, "/v1/retrieve", GOOD, content_type=kind)
    assert (status, error["code"]) == (415, "unsupported_media_type")
    assert f"content-type '{kind.partition(';')[0]}' is not supported: send JSON" in error["message"]


def test_other_charsets(client):
    for charset, quote in itertools.product(("latin-1", "utf-16"), ("", '"', "'")):
        kind = f"application/json; charset={quote}{charset}{quote}"
        status, error = posted(client, "/v1/retrieve", GOOD, content_type=kind)
        assert (status, error["message"]) == (415, f"JSON is sent in UTF-8; got charset '{charset}'.")


@pytest.mark.parametrize(
    "kind",
    [
        "application/json; charset=UTF-8",
        'application/json; charset="utf-8"',
        "application/json; charset='utf-8'",
        FORM,
        "text/plain",
        "application/problem+json",
        "",
    ],
)
def test_types_that_have_json(client, kind):
    assert posted(client, "/v1/retrieve", GOOD, content_type=kind, content_encoding="identity")[0] == 200


def test_a_form(client):
    status, error = posted(client, "/v1/retrieve", b"prompt=w1&k=1", content_type=FORM)
    assert (status, error["code"]) == (400, "invalid_json")
    assert f"Its content-type is '{FORM}'; send a JSON object." in error["message"]
