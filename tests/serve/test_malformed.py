"""Malformed requests and clients that go away, while other clients search: every good request is answered right.

HEDGEROW_TEST_SERVE=1 sends 10,000 malformed requests in place of 500.
"""

import json
import os
import random
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from urllib.parse import urlsplit

import numpy as np
import pytest
from serve.support import SETTINGS, index, logged_lines, random_prompt, retriever_of, service_of, started, wait_until

MALFORMED = 10_000 if "HEDGEROW_TEST_SERVE" in os.environ else 500
PROMPTS = [random_prompt(np.random.default_rng((11, number))) for number in range(8)]
SEARCH = ("prompt", "beam_width", "sets", "where", "exclude", "version", "user")
# The fields of each route; the first are required.
PATHS = {
    "/v1/retrieve": (1, (*SEARCH, "k", "candidates", "order_by", "caps", "fields", "deadline_ms")),
    "/v1/score": (2, ("prompt", "item_ids", "version")),
    "/v1/explain": (2, ("prompt", "item_id", "item", *SEARCH[1:], "k")),
    "/v1/trace": (1, (*SEARCH, "k")),
    "/v1/chat/completions": (2, ("model", "messages", "n", "user", "hedgerow")),
    "/v1/completions": (2, ("model", "prompt", "n", "user", "hedgerow")),
    "/v2/models/tiny/infer": (1, ("inputs", "parameters")),
    "/v1/index/rollback": (0, ("to",)),
}
GOOD = {
    "prompt": "w1 w2",
    "k": 3,
    "beam_width": 5,
    "sets": ["recent"],
    "where": "year > 1",
    "exclude": ["t1"],
    "candidates": ["t2", "t3"],
    "order_by": ["price", "ascending"],
    "caps": {"year": 1},
    "fields": ["title"],
    "deadline_ms": 10_000,
    "version": None,
    "user": "someone",
    "item_id": "t1",
    "item": {"title": "Thing [1]"},
    "item_ids": ["t1"],
    "model": "tiny",
    "messages": [{"role": "user", "content": "w1"}],
    "inputs": [{"name": "prompt", "datatype": "BYTES", "shape": [1], "data": ["w1"]}],
    "parameters": {"k": 2},
    "n": 2,
    "to": 1,
    "hedgerow": {"sets": ["recent"]},
}
STRANGE = (
    None,
    True,
    0,
    -1,
    1.5,
    2**31,
    2**63,
    2**64 - 1,
    -(2**63),
    10**400,
    1e308,
    "",
    " ",
    "\x00",
    "t1",
    "é\u202e😀\ufffe",
    "' OR 1=1 --",
    "w1 " * 3_000,
    [],
    [[]],
    [None],
    [0],
    ["t1", 2],
    [1e300],
    {},
    {"role": "user"},
    {"": {}},
    [{}],
)


def nested(depth):
    return b"[" * depth + b"]" * depth


def malformed(rng):
    """A route, and a body for it that is wrong in some way, or a good one by accident."""
    path, kind = rng.choice([*PATHS]), rng.randrange(8)
    if kind == 0:
        return path, rng.randbytes(rng.randrange(200))
    if kind == 1:
        depth = rng.choice([100, 400, 900, 990, 1_020, 3_000])
        chat = b'[{"role":"user","content":%s}]'
        where = rng.choice([b'{"prompt":%s}' % chat, b'{"prompt":%s}', b'{"model":"tiny","messages":%s}' % chat, b"%s"])
        return path, where % nested(depth)
    required, names = PATHS[path]
    document = {name: GOOD[name] for at, name in enumerate(names) if at < required or rng.random() < 0.3}
    for _ in range(rng.randrange(1, 3)):
        document[rng.choice([*names, "nothing", ""])] = rng.choice(STRANGE)
    if kind == 2:
        document = {"requests": [document, rng.choice(STRANGE), {"prompt": rng.choice(PROMPTS)}]}
    text = json.dumps(document).encode()
    if kind == 3:
        at = rng.randrange(len(text))
        return path, text[:at] + rng.randbytes(3) + text[at + 1 :]
    if kind == 4:
        return path, text[: rng.randrange(len(text))]
    return path, text


@pytest.fixture(scope="module")
def service():
    settings = replace(SETTINGS, allow_where=True, max_wait_ms=0.5, probe_every=5)
    return service_of(settings=replace(settings, limits=replace(settings.limits, where_seconds=0.5)))


@pytest.fixture(scope="module")
def client(service):
    with started(service) as client:
        yield client


class Good(threading.Thread):
    """A client that searches, and compares each answer with the right one."""

    def __init__(self, client, expected, number):
        super().__init__()
        self.client, self.expected, self.number = client, expected, number
        self.stopped, self.answers, self.wrong = threading.Event(), 0, []

    def run(self):
        while not self.stopped.is_set():
            self.number = (self.number + 1) % len(PROMPTS)
            reply = self.client.retrieve(PROMPTS[self.number], k=5)
            if reply.status != 200 or reply.items != self.expected[self.number]:
                self.wrong.append(reply.body)
            self.answers += 1
        self.client.close()


@pytest.fixture
def good(client):
    """Three clients that search during the test; at its end all of their answers must be right."""
    reference = retriever_of(index())
    expected = [found.item_ids for found in reference.retrieve(PROMPTS, beam_width=10, k=5)]
    threads = [Good(replace(client, _connection=None), expected, number) for number in range(3)]
    for thread in threads:
        thread.start()
    yield threads
    for thread in threads:
        thread.stopped.set()
    for thread in threads:
        thread.join()
    assert [thread.wrong for thread in threads] == [[], [], []]
    assert all(thread.answers > 0 for thread in threads)


def test_malformed_requests_among_good_ones(good, client, capsys):
    def send(seed):
        rng, own = random.Random(seed), replace(client, _connection=None)
        replies = []
        for _ in range(MALFORMED // 4):
            path, body = malformed(rng)
            reply = own.post(path, body=body)
            replies.append((path, body, reply))
        own.close()
        return replies

    with ThreadPoolExecutor(4) as pool:
        replies = [reply for part in pool.map(send, range(4)) for reply in part]
    assert len(replies) == MALFORMED // 4 * 4
    for path, body, reply in replies:
        assert reply.status in (200, 400, 403, 404, 413), (path, body, reply)
        if reply.status != 200:
            assert reply.error["message"]
        for result in reply.document.get("results", ()):
            assert result.get("error", {}).get("code") != "internal", (path, body, reply)
    # A test that only finds errors, or none, tests little.
    statuses = [reply.status for *_, reply in replies]
    assert statuses.count(200) > MALFORMED * 0.01
    assert statuses.count(400) > MALFORMED * 0.5
    assert [line for line in logged_lines(capsys) if "trace" in line] == []
    assert sum(thread.answers for thread in good) > 20


def raw(client, data):
    """A connection on which a client has sent some bytes."""
    url = urlsplit(client.url)
    connection = socket.create_connection((url.hostname, url.port), timeout=30)
    connection.sendall(data)
    return connection


def head(length):
    return f"POST /v1/retrieve HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n".encode()


@pytest.mark.usefixtures("good")
class TestClientsThatGoAway:
    BODY = json.dumps({"prompt": [5, 6]}).encode()

    def test_before_the_answer(self, client, service):
        for _ in range(30):
            raw(client, head(len(self.BODY)) + self.BODY).close()
        wait_until(lambda: service.batcher.length < 10)
        assert client.retrieve([5, 6]).status == 200

    def test_in_the_middle_of_the_body(self, client):
        for _ in range(30):
            raw(client, head(1_000) + self.BODY).close()
        # Their requests end with an outcome of their own.
        wait_until(lambda: client.metric("hedgerow_requests_total", outcome="disconnected", version="") >= 30)

    def test_in_the_middle_of_the_head(self, client):
        for _ in range(10):
            raw(client, b"POST /v1/retrieve HTTP/1.1\r\nhost").close()
        assert client.retrieve([5, 6]).status == 200

    def test_that_are_slow(self, client):
        connection = raw(client, head(len(self.BODY)))
        for start in range(0, len(self.BODY), 7):
            connection.sendall(self.BODY[start : start + 7])
        assert connection.recv(10_000).startswith(b"HTTP/1.1 200 ")
        connection.close()

    def test_that_send_something_else(self, client):
        for data in (b"\x16\x03\x01\x02\x00", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", head(-5)):
            connection = raw(client, data + b"\r\n\r\n")
            assert connection.recv(10_000)[:13] in (b"HTTP/1.1 400 ", b"HTTP/1.1 404 ", b"")
            connection.close()


def test_the_queue_is_empty_afterwards(client, service):
    wait_until(lambda: service.is_idle)
    assert client.metric("hedgerow_queue_length") == 0
