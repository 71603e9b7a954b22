"""What attackers and newcomers found: requests that hurt others, versions that mislead, and silence."""

import socket
import threading
import time
from dataclasses import replace
from urllib.parse import urlsplit

import pytest
from serve.support import SETTINGS, TOKEN, index, logged_lines, more_items, service_of, started, wait_until

import hedgerow as hr
from hedgerow.serve.log import log
from hedgerow.serve.protocol import MAX_HEAD_BYTES
from hedgerow.serve.service import Service


@pytest.fixture
def live(tmp_path):
    return hr.LiveIndex.create(tmp_path / "things.live", index(), headroom=1.5)


def raw(client, *parts):
    """What the service sends for some bytes, until it closes the connection."""
    address = urlsplit(client.url)
    with socket.create_connection((address.hostname, address.port), timeout=30) as connection:
        received = b""
        try:
            for part in parts:
                connection.sendall(part)
            while chunk := connection.recv(65_536):
                received += chunk
        except OSError:
            pass
    return received


def test_the_host_does_not_open_routes():
    with started(service_of(), tokens=(TOKEN,)) as client:
        client.token = None
        for host in ("x/ui", "x/ui/", "x/health/", "x/v2/health/"):
            assert client.get("/v1/index", headers={"host": host}).status in (400, 401)
        assert client.get("/uifoo").status == 401
        assert client.get("/ui").status == 200


def test_heads_have_a_largest_size():
    with started(service_of()) as client:
        line = b"x-a: " + b"a" * 8_000 + b"\r\n"
        begin = b"POST /v1/retrieve HTTP/1.1\r\nhost: x\r\n"
        answer = raw(client, begin, *[line] * (MAX_HEAD_BYTES // 8_000 + 2))
        assert answer.startswith(b"HTTP/1.1 431 ") or not answer
        assert not raw(client, b"GET /" + b"a" * (MAX_HEAD_BYTES + 10)).startswith(b"HTTP/1.1 200")
        assert client.retrieve().status == 200


def test_a_slow_body_is_not_waited_for():
    limits = replace(SETTINGS.limits, body_seconds=0.2)
    with started(service_of(settings=replace(SETTINGS, limits=limits))) as client:
        answer = raw(
            client, b"POST /v1/retrieve HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\nconnection: close\r\n\r\n{"
        )
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"body_timeout" in answer


@pytest.mark.parametrize("path", ["/v1/retrieve", "/v1/chat/completions"])
def test_deep_documents(path):
    with started(service_of()) as client:
        deep = "[" * 1_000 + "]" * 1_000
        body = f'{{"model": "tiny", "messages": [], "prompt": [{{"role": "user", "content": {deep}}}]}}'
        reply = client.post(path, body=body)
        assert (reply.status, reply.error["code"]) == (400, "limit")


def test_contents_of_chats():
    with started(service_of()) as client:

        def items(content):
            return client.retrieve([{"role": "user", "content": content}])

        parts = [{"type": "text", "text": "w1 "}, {"type": "text", "text": "w2"}]
        assert items(parts).items == items("w1 w2").items
        for wrong in ([{"type": "image_url", "image_url": {"url": "x"}}], {"a": 1}, 5):
            reply = items(wrong)
            assert (reply.status, reply.error["code"]) == (400, "invalid_request")
            assert reply.error["param"].startswith("prompt.0.content")


def test_deadlines_are_kept_while_the_engine_is_busy():
    service = service_of()
    with started(service) as client:
        begun, stop = threading.Event(), threading.Event()
        service.batcher.run(lambda _: (begun.set(), stop.wait(30)))
        begun.wait(30)
        before = time.monotonic()
        reply = client.retrieve(deadline_ms=100)
        assert (reply.status, reply.error["code"]) == (504, "deadline")
        assert time.monotonic() - before < 20
        stop.set()
        assert client.retrieve().status == 200


def test_bodies_that_never_fit():
    with started(service_of(settings=replace(SETTINGS, queue=2))) as client:
        reply = client.post("/v1/retrieve", {"requests": [{"prompt": [5]}] * 3})
        assert (reply.status, reply.error["code"], reply.headers.get("retry-after")) == (400, "limit", None)


def test_each_request_of_a_body_counts():
    with started(service_of()) as client:
        parts = [{"prompt": [5]}, {"prompt": [5], "sets": ["none"]}, {"prompt": ""}]
        client.post("/v1/retrieve", {"requests": parts})
        counts = [
            client.metric("hedgerow_requests_total", outcome=outcome, version="")
            for outcome in ("ok", "unknown_set", "invalid_request")
        ]
        assert counts == [1, 1, 1]


def test_several_tokens_and_open_metrics():
    other = "b" * 16
    with started(service_of(), tokens=(TOKEN, other), open_metrics=True) as client:
        for token, status in ((TOKEN, 200), (other, 200), (TOKEN + other, 401), ("", 401), (None, 401)):
            client.token = token
            assert client.get("/v1/index").status == status
            assert client.get("/metrics").status == 200


def test_names_with_slashes():
    service = service_of()
    with started(Service(replace(service.source, model="shop/tiny"), service.settings)) as client:
        assert client.get("/v2/models/shop/tiny").document["name"] == "shop/tiny"
        assert client.get("/v2/models/shop/tiny/ready").document == {"name": "shop/tiny", "ready": True}
        tensor = {"name": "prompt", "datatype": "BYTES", "shape": [1], "data": ["w1"]}
        assert client.post("/v2/models/shop/tiny/infer", {"inputs": [tensor]}).status == 200
        assert client.get("/v2/models/other").status == 404


class TestCanary:
    def test_it_never_shows_removed_items(self, live):
        live.add(more_items("new"))
        service = service_of(live, replace(SETTINGS, canary_share=1.0), canary=1)
        with started(service, tokens=(TOKEN,)) as client:
            best = client.retrieve(k=20).items
            assert client.retrieve().document["version"] == 1
            live.remove(best[:5])
            client.post("/v1/index/refresh")
            assert client.get("/v1/index").document["version"] == 3
            reply = client.retrieve(k=20)
            assert reply.document["version"] == 1
            assert not set(reply.items) & set(best[:5])
            # Who names the version gets it as it was.
            assert client.retrieve(k=20, version=1).items == best

    def test_it_is_set_and_ended_at_run_time(self, live):
        live.add(more_items("new"))
        with started(service_of(live), tokens=(TOKEN,)) as client:
            document = client.post("/v1/index/canary", {"version": 1, "share": 1.0}).document
            assert document["canary"] == {"version": 1, "share": 1.0}
            assert client.retrieve().document["version"] == 1
            assert client.post("/v1/index/canary", {"version": None}).document["canary"] is None
            assert client.retrieve().document["version"] == 2
            assert client.post("/v1/index/canary", {"version": 9}).status == 409


class TestRefusedVersions:
    def test_the_document_says_so_until_another_is_served(self, live):
        settings = replace(SETTINGS, follow_seconds=0.01)
        with started(service_of(live, settings), tokens=(TOKEN,)) as client:
            assert client.get("/v1/index").document["refused"] is None
            live.update_attributes(drop=["price"])
            wait_until(lambda: client.get("/v1/index").document["refused"])
            document = client.get("/v1/index").document
            assert (document["version"], set(document["refused"])) == (1, {"error", "since"})
            assert "price" in document["refused"]["error"]
            # A rollback to the version that is served already.
            client.post("/v1/index/rollback", {})
            wait_until(lambda: client.get("/v1/index").document["refused"] is None)

    def test_a_damaged_current_version_is_rolled_back(self, live):
        with started(service_of(live), tokens=(TOKEN,)) as client:
            hr.LiveIndex.open(live.path).add(more_items("new"))
            for path in (live.path / "versions" / "2").glob("trie-*"):
                content = path.read_bytes()
                path.unlink()
                path.write_bytes(content[:100])
            assert client.post("/v1/index/refresh").status == 409
            reply = client.post("/v1/index/rollback", {})
            assert (reply.status, reply.document["version"]) == (200, 1)
            assert client.retrieve().status == 200


def test_the_set_of_an_expression_is_computed_once(monkeypatch):
    """Expressions of the clock are not cached: the batch must not evaluate them again."""
    service = service_of(settings=replace(SETTINGS, allow_where=True))
    with started(service) as client:
        from hedgerow.serve.snapshot import Snapshot

        threads, where = [], Snapshot.where
        monkeypatch.setattr(
            Snapshot, "where", lambda *given: threads.append(threading.current_thread().name) or where(*given)
        )
        assert client.retrieve(where="now() > '2000-01-01'::TIMESTAMPTZ AND year > 1950").status == 200
        assert len(threads) == 1
        assert threads[0].startswith("hedgerow-where")


def test_values_that_python_does_not_have():
    import pyarrow as pa

    far = pa.array([10**12] * 2, pa.timestamp("s"))
    searched = hr.build_index(
        hr.Catalog([[0, 1, 2], [3, 4, 5]], codebook_sizes=20, attributes={"far": far}, item_ids=["a", "b"])
    )
    with started(service_of(searched, rules={})) as client:
        items = client.retrieve().document["items"]
        assert all(isinstance(item["attributes"]["far"], str) for item in items)
        assert len(items) == 2


def test_load_balancers_are_told_first():
    service = service_of()
    with started(service) as client:
        service.leaving = True
        assert client.get("/health/ready").status == 503
        assert client.retrieve().status == 200
        service.drain()
        assert client.retrieve().status == 503


def test_the_log_never_blocks(capsys):
    for number in range(100):
        log("test", number=number)
    assert [line["number"] for line in logged_lines(capsys) if line["event"] == "test"] == list(range(100))


def test_explanations_know_all_rules():
    with started(service_of()) as client:
        rules = {"caps": {"maker": 1}, "k": 10}
        capped = next(item for item in client.retrieve(k=10).items if item not in client.retrieve(**rules).items)

        def outcome(item, **fields):
            return client.post("/v1/explain", {"prompt": "w1 w2", "item_id": item} | fields).document["explanation"]

        assert outcome(capped, k=10)["outcome"] == "returned"
        assert outcome(capped, **rules)["outcome"] == "capped"
        assert outcome(capped, candidates=["t1"] if capped != "t1" else ["t2"])["outcome"] == "not a candidate"
