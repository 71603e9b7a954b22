"""A full queue, late requests, a service that is not ready, and errors of the engine: each is that of one request."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import cast

import pytest
from serve.support import SETTINGS, assert_refused, logged_lines, served, service_of, started, text_of, wait_until

from hedgerow.hf.searcher import Searcher
from hedgerow.serve.batcher import Batcher

BAD = "invalid_request_error"


@pytest.fixture(scope="module")
def service():
    return service_of(settings=replace(SETTINGS, allow_where=True))


@pytest.fixture(scope="module")
def client(service):
    with started(service) as client:
        yield client


def test_a_full_queue(held):
    service = service_of(settings=replace(SETTINGS, queue=3, max_batch=1))
    held.set()
    with started(service) as client, ThreadPoolExecutor(4) as pool:
        held.clear()
        held.prompts.clear()
        first = pool.submit(client.apart().retrieve)
        wait_until(lambda: held.prompts)
        more = [pool.submit(client.apart().retrieve) for _ in range(3)]
        wait_until(lambda: cast("Batcher", service.batcher).length == 3)
        for call in (
            client.retrieve,
            lambda: client.post("/v1/retrieve", {"requests": [{"prompt": "w1"}]}),
            lambda: client.post("/v1/trace", {"prompt": "w1"}),
            lambda: client.post("/v1/chat/completions", {"model": "tiny", "messages": [{"role": "user"}]}),
        ):
            reply = call()
            assert_refused(reply, 429, "queue_full", "rate_limited")
            assert int(reply.headers["retry-after"]) >= 1
        assert client.metric("hedgerow_shed_total", reason="queue_full") == 4
        assert client.metric("hedgerow_queue_length") == 3
        held.set()
        assert [future.result().status for future in (first, *more)] == [200] * 4


def test_more_requests_than_the_queue_takes():
    with started(service_of(settings=replace(SETTINGS, queue=3))) as client:
        reply = client.post("/v1/retrieve", {"requests": [{"prompt": "w1"}] * 4})
        assert_refused(reply, 400, "limit", BAD, "requests")
        assert "retry-after" not in reply.headers
        assert len(client.post("/v1/retrieve", {"requests": [{"prompt": "w1"}] * 3}).document["results"]) == 3


def test_deadlines_cost_no_search(held, client, service):
    with ThreadPoolExecutor(4) as pool:
        held.prompts.clear()
        first = pool.submit(client.apart().retrieve, [5])
        wait_until(lambda: held.prompts == [[5]])
        before = client.metric("hedgerow_shed_total", reason="deadline")
        late = pool.submit(client.apart().retrieve, [6], deadline_ms=20)
        several = [{"prompt": [7], "deadline_ms": 20}, {"prompt": [8]}]
        mixed = pool.submit(client.apart().post, "/v1/retrieve", {"requests": several})
        wait_until(lambda: service.batcher.length == 3)
        time.sleep(0.03)
        held.set()
        assert_refused(late.result(), 504, "deadline", "timeout")
        # The late request of a body does not change the answer of another one.
        assert mixed.result().status == 200, mixed.result().body
        first_result, second_result = mixed.result().document["results"]
        assert first_result["error"]["code"] == "deadline"
        assert second_result["items"]
        assert first.result().status == 200
        assert client.metric("hedgerow_shed_total", reason="deadline") == before + 2
    assert held.prompts == [[5], [8]]


def test_cold():
    service = service_of()
    with served(service) as client:
        assert client.get("/health/live").status == 200
        assert client.get("/health/ready").status == client.get("/v2/health/ready").status == 503
        assert client.get("/health/ready").document == {"status": "cold"}
        for reply in (
            client.retrieve(),
            client.post("/v1/retrieve", {"requests": [{"prompt": "w1"}]}),
            client.post("/v1/trace", {"prompt": "w1"}),
            client.get("/v1/index"),
            client.get("/v2/models/tiny"),
            client.post("/v1/completions", {"model": "tiny", "prompt": "w1"}),
        ):
            assert_refused(reply, 503, "cold", "unavailable")
            assert int(reply.headers["retry-after"]) >= 1
        assert client.get("/metrics").status == 200
        assert client.get("/v2/models/tiny/ready").document["ready"] is False
        service.start()
        assert client.get("/health/ready").status == 200
        assert client.retrieve().status == 200


def test_draining(held):
    service = service_of()
    held.set()
    with started(service) as client, ThreadPoolExecutor(2) as pool:
        held.clear()
        held.prompts.clear()
        accepted = pool.submit(client.apart().retrieve)
        wait_until(lambda: held.prompts)
        service.drain()
        assert not service.is_idle
        for reply in (client.retrieve(), client.post("/v1/trace", {"prompt": "w1"})):
            assert_refused(reply, 503, "draining", "unavailable")
            assert reply.headers["connection"] == "close"
            assert int(reply.headers["retry-after"]) >= 1
            client.close()
        assert client.get("/health/ready").document == {"status": "draining"}
        held.set()
        assert accepted.result().status == 200
        wait_until(lambda: service.is_idle)
        assert client.metric("hedgerow_shed_total", reason="draining") == 2


def test_empty_sets_give_no_items(client):
    for fields in (
        {"sets": ["impossible"]},
        {"where": "false"},
        {"candidates": []},
        {"sets": ["recent", "impossible"]},
    ):
        reply = client.retrieve(**fields)
        assert reply.items == []
        assert reply.document["num_valid"] == 0
    everything = [f"t{row}" for row in range(150)]
    assert client.retrieve(exclude=everything).items == []
    document = client.post("/v1/trace", {"prompt": "w1", "sets": ["impossible"]}).document
    assert document["items"] == []
    for level in document["levels"]:
        assert level["beams"] == []
        assert isinstance(level["masked_probability"], float)
        assert isinstance(level["rules_probability"], float)


class TestErrorsOfTheEngine:
    def test_are_internal_errors_with_an_id(self, client, monkeypatch, capsys):
        def fail(*_):
            raise RuntimeError("a secret of the engine")

        with monkeypatch.context() as patched:
            patched.setattr(Searcher, "results", fail)
            reply = client.post("/v1/retrieve", {"prompt": "w1"}, headers={"x-request-id": "mine"})
        assert_refused(reply, 500, "internal", "server_error")
        assert "secret" not in reply.error["message"]
        assert reply.headers["x-request-id"] == "mine"
        (line,) = [line for line in logged_lines(capsys) if line["event"] == "error"]
        assert (line["level"], line["id"]) == ("error", "mine")
        assert "a secret of the engine" in line["error"]
        assert client.retrieve().status == 200

    def test_of_one_request_do_not_reach_others(self, client, monkeypatch):
        search = Searcher.results

        def fail(self, tasks, numbers):
            if any(task.ids == [13] for task in tasks):
                raise RuntimeError("unlucky")
            return search(self, tasks, numbers)

        monkeypatch.setattr(Searcher, "results", fail)
        requests = [{"prompt": [number]} for number in range(10, 16)]
        results = client.post("/v1/retrieve", {"requests": requests}).document["results"]
        failed = [number for number, result in enumerate(results) if "error" in result]
        assert failed == [3]
        assert results[3]["error"]["code"] == "internal"

    def test_while_a_request_is_read(self, client, monkeypatch):
        read = Searcher.task

        def fail(self, request):
            if request.prompt == [13]:
                raise RuntimeError("unlucky")
            return read(self, request)

        monkeypatch.setattr(Searcher, "task", fail)
        results = client.post("/v1/retrieve", {"requests": [{"prompt": [12]}, {"prompt": [13]}]}).document["results"]
        assert "items" in results[0]
        assert results[1]["error"]["code"] == "internal"


def test_a_request_that_fails_late_does_not_make_others_search_again(client, monkeypatch):
    searches, search = [], Searcher.results

    def count(self, tasks, numbers):
        searches.append(len(tasks))
        return search(self, tasks, numbers)

    monkeypatch.setattr(Searcher, "results", count)
    requests: list[dict] = [{"prompt": text_of([number])} for number in range(10, 16)]
    requests[2] |= {"order_by": "nothing"}
    requests[3] |= {"caps": {"nothing": 1}}
    results = client.post("/v1/retrieve", {"requests": requests}).document["results"]
    assert [("error" in result) for result in results] == [False, False, True, True, False, False]
    assert searches == [4]
