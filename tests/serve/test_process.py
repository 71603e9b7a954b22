"""`hedgerow serve` as a process: its log, its signals, and its end."""

import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from urllib.parse import urlsplit

import pytest
from serve.processes import busy, running
from serve.support import RULES, TOKEN, retriever_of, wait_until

import hedgerow as hr

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM and SIGKILL for processes")
SLOW = pytest.mark.skipif(
    "HEDGEROW_TEST_SERVE" not in os.environ, reason="make test-serve runs these tests: they start more processes"
)
# Words that occur in prompts only.
SECRET = "w171 w172 w173"


def send_all_kinds(process):
    """Send requests with the secret prompt in all forms, right and wrong."""
    client = process.client
    chat = [{"role": "user", "content": SECRET}]
    documents = [
        ("/v1/retrieve", {"prompt": SECRET}, 200),
        ("/v1/retrieve", {"prompt": chat, "sets": ["recent"]}, 200),
        ("/v1/retrieve", {"requests": [{"prompt": SECRET}, {"prompt": SECRET, "k": 0}]}, 200),
        ("/v1/retrieve", {"prompt": SECRET, "order_by": "nothing"}, 400),
        ("/v1/retrieve", {"prompt": SECRET * 20_000}, 413),
        ("/v1/retrieve", {"prompt": SECRET, SECRET: 1}, 400),
        ("/v1/score", {"prompt": SECRET, "item_ids": ["t1"]}, 200),
        ("/v1/explain", {"prompt": SECRET, "item_id": "t1"}, 200),
        ("/v1/trace", {"prompt": SECRET}, 200),
        ("/v1/chat/completions", {"model": "tiny", "messages": chat}, 200),
        ("/v1/completions", {"model": "tiny", "prompt": SECRET}, 200),
        ("/v1/completions", {"model": SECRET, "prompt": SECRET, "stop": SECRET}, 404),
    ]
    for path, document, status in documents:
        reply = client.post(path, document, headers={"x-request-id": f"id of {path} {status}"})
        assert reply.status == status, reply.body
    assert client.post("/v1/retrieve", body=f'{{"prompt": "{SECRET}'.encode()).status == 400
    assert replace(client, token=None).post("/v1/retrieve", {"prompt": SECRET}).status == 401
    url = urlsplit(client.url)
    with socket.create_connection((url.hostname, url.port), timeout=30) as connection:
        # The web server refuses this itself, and writes a warning.
        connection.sendall(b"GARBAGE \x00\x01\r\n\r\n")
        connection.recv(1_000)
    return [(path, status) for path, _, status in documents]


def assert_log(process, sent):
    """Check the log of a process that has ended: JSON lines, request ids, and no prompts."""
    text, lines = process.log.read_text(), process.lines()
    assert not text or text.endswith("\n")
    assert all({"time", "level", "event"} <= set(line) for line in lines)
    events = [line["event"] for line in lines]
    assert [event for event in events if event not in ("request", "message", "version")] == [
        "listening",
        "ready",
        "draining",
        "stopped",
    ]
    requests = [line for line in lines if line["event"] == "request"]
    assert all(line["id"] and line["path"] and line["ms"] >= 0 for line in requests)
    logged = [(line["path"], line["status"]) for line in requests if line["id"].startswith("id of")]
    assert logged == sent
    assert [line["status"] for line in requests if line["outcome"] == "unauthorized"] == [401]
    for word in (SECRET, *SECRET.split(), TOKEN):
        assert word not in text


def test_killed_and_started_again_and_terminated(shop, tmp_path):
    live = shop.live("killed.live")
    words = [shop.model, live, "--rules", shop.rules, "--token-file", shop.token, "--follow", "--follow-seconds", 0.05]
    with running(tmp_path / "first", *words, token=TOKEN) as process:
        client = process.client
        process.wait_for("ready")
        hr.LiveIndex.open(live).remove(["t3", "t4"])
        wait_until(lambda: client.get("/v1/index").document["version"] == 2)
        with busy([replace(client, keeps=True) for _ in range(4)], {"prompt": "w1 w2"}) as threads:
            wait_until(lambda: all(len(thread.replies) > 5 for thread in threads))
            process.popen.kill()
            assert process.popen.wait(30) == -signal.SIGKILL
        statuses = {status for thread in threads for *_, status in thread.replies}
        assert {status for status in statuses if isinstance(status, int)} == {200}
    assert hr.LiveIndex.open(live).verify() == {}

    with running(tmp_path / "second", *words, "--max-batch", 2, token=TOKEN) as process:
        client = process.client
        process.wait_for("ready")
        document = client.get("/v1/index").document
        assert (document["version"], document["num_items"], document["model"]) == (2, 148, "tiny")
        assert {each["name"]: each["rule"] for each in document["sets"]} == RULES
        (expected,) = retriever_of(hr.LiveIndex.open(live)).retrieve(["w1 w2"], k=10)
        assert client.retrieve("w1 w2").items == expected.item_ids
        sent = send_all_kinds(process)
        with busy([replace(client, keeps=True) for _ in range(8)], {"prompt": "w1 w2"}) as threads:
            wait_until(lambda: all(len(thread.replies) > 5 for thread in threads))
            told = time.monotonic()
            process.popen.send_signal(signal.SIGTERM)
            assert process.popen.wait(30) == 0
            wait_until(lambda: not any(thread.is_alive() for thread in threads))
        replies = [reply for thread in threads for reply in thread.replies]
        before = {status for began, _, status in replies if began < told - 0.05}
        assert before == {200}
        # Some waited in the queue when the signal came, and were answered.
        assert [status for began, end, status in replies if began < told < end].count(200) > 0
        after = {status for began, _, status in replies if began >= told - 0.05}
        refused = {"ConnectionRefusedError", "ConnectionResetError", "RemoteDisconnected", "BrokenPipeError"}
        assert after <= {200, 503} | refused
        assert 503 in after
        assert_log(process, sent)


@SLOW
def test_a_second_signal_ends_at_once(shop, tmp_path):
    words = [shop.model, shop.index, "--max-batch", 1, "--queue", 5_000, "--deadline-ms", 600_000, "--quiet"]
    with running(tmp_path / "log", *words) as process:
        client = process.client
        process.wait_for("ready")
        # More work than there is time for.
        document = {"requests": [{"prompt": "w1 w2", "beam_width": 50, "k": 1}] * 64}
        with busy([replace(client, keeps=True) for _ in range(30)], document):
            wait_until(lambda: client.metric("hedgerow_queue_length") > 1_000)
            process.popen.send_signal(signal.SIGTERM)
            process.wait_for("draining")
            assert client.get("/health/ready").document == {"status": "draining"}
            told = time.monotonic()
            process.popen.send_signal(signal.SIGTERM)
            assert process.popen.wait(30) != 0
            assert time.monotonic() - told < 3
        assert [line["event"] for line in process.lines()][:3] == ["listening", "ready", "draining"]


@SLOW
@pytest.mark.parametrize("seconds", [0.5, 1.0, 2.0])
def test_terminated_while_it_loads(seconds, shop, tmp_path):
    with running(tmp_path / "log", shop.model, shop.index) as process:
        process.wait_for("listening")
        time.sleep(seconds)
        process.popen.send_signal(signal.SIGTERM)
        assert process.popen.wait(60) == 0
        assert [line["event"] for line in process.lines()][-1] == "stopped"


@SLOW
def test_interrupted(shop, tmp_path):
    with running(tmp_path / "log", shop.model, shop.index) as process:
        process.wait_for("ready")
        process.popen.send_signal(signal.SIGINT)
        assert process.popen.wait(30) == 0


@SLOW
def test_nobody_reads_the_log(shop):
    """The reader of the log goes away; requests are answered nevertheless."""
    command = [sys.executable, "-m", "hedgerow", "serve", shop.model, shop.index, "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as popen:
        try:
            assert popen.stderr is not None
            import json

            from serve.support import Client

            client = Client(json.loads(popen.stderr.readline())["url"], keeps=False)
            popen.stderr.close()
            wait_until(lambda: client.get("/health/ready").status == 200, 60)
            assert [client.retrieve().status for _ in range(20)] == [200] * 20
            popen.send_signal(signal.SIGTERM)
            assert popen.wait(30) == 0
        finally:
            popen.kill()


@SLOW
def test_the_films_without_arguments(tmp_path):
    with running(tmp_path / "log") as process:
        process.wait_for("ready")
        document = process.client.retrieve("Recommend me a western", k=3, sets=["recent"]).document
        assert len(document["items"]) == 3
        assert all(item["attributes"]["year"] >= 2000 for item in document["items"])
