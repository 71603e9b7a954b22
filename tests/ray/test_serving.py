"""The service of `hedgerow serve` on Ray Serve."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.request import Request, urlopen

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("fastapi")

from ray import serve

import hedgerow as hr
from hedgerow.ray import application

OPTIONS: dict[str, Any] = {"beam_widths": (10, 20), "max_batch": 8, "deadline_ms": 30_000, "prompt_tokens": 40}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    port = free_port()
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    yield f"http://127.0.0.1:{port}"
    serve.shutdown()


@pytest.fixture(scope="module")
def things(shop, url) -> Any:  # noqa: ARG001
    """A handle of a service of the shop."""
    app = application(shop.model, shop.index, sets={"recent": "year >= 1950"}, max_wait_ms=200.0, **OPTIONS)
    yield serve.run(app, name="things", route_prefix="/things")
    serve.delete("things")


def ids_of(document: dict[str, Any]) -> list[str]:
    return [item["item_id"] for item in document["items"]]


def test_one_bad_prompt_among_eight_gives_seven_answers(things, shop):
    prompts = ["w5 w6", "w9", "w1 w2 w3", "", "w7", "w8 w8", "w3", "w4 w1"]
    waiting = [things.retrieve.remote({"prompt": prompt, "k": 4, "sets": ["recent"]}) for prompt in prompts]
    found = [each.result(timeout_s=120) for each in waiting]
    error = found[3]["error"]
    assert (error["code"], error["param"]) == ("invalid_request", "prompt")
    assert "is empty" in error["message"]
    good = [number for number in range(8) if number != 3]
    recent = shop.retriever.index.where("year >= 1950")
    requests = [hr.Request(prompts[number], k=4, beam_width=10, constraints=recent) for number in good]
    for number, results in zip(good, shop.retriever.answer(requests), strict=True):
        assert ids_of(found[number]) == results.item_ids
    # They were answered together.
    assert max(found[number]["timings"]["batch_size"] for number in good) > 1


def test_errors_over_a_handle(things):
    for document, code in (
        ({"prompt": "w5", "sets": ["none"]}, "unknown_set"),
        ({"prompt": "w5", "excludes": []}, "invalid_request"),
        ({"prompt": "w5", "where": "year > 3"}, "where_not_allowed"),
        ({"prompt": "w5", "fields": ["none"]}, "unknown_field"),
        ("w5", "invalid_request"),
    ):
        assert things.retrieve.remote(document).result(timeout_s=60)["error"]["code"] == code


def test_routes_over_http(things, shop, url):
    (expected,) = shop.retriever.retrieve("w5 w6", k=3, beam_width=10)
    body = json.dumps({"prompt": "w5 w6", "k": 3, "fields": ["title"]}).encode()
    with urlopen(Request(f"{url}/things/v1/retrieve", body, {"content-type": "application/json"})) as response:
        document = json.loads(response.read())
    assert ids_of(document) == expected.item_ids
    assert things.retrieve.remote({"prompt": "w5 w6", "k": 3}).result(timeout_s=60)["items"][0]["score"] == (
        pytest.approx(document["items"][0]["score"], abs=1e-4)
    )
    with urlopen(f"{url}/things/health/ready") as response:
        assert json.loads(response.read())["status"] == "ready"


@pytest.mark.usefixtures("url")
def test_no_removed_item_is_shown_after_a_switch_under_load(shop, tmp_path):
    live = hr.LiveIndex.create(tmp_path / "things.live", hr.load_index(shop.index))
    app = application(shop.model, live.path, follow_seconds=0.05, max_wait_ms=2.0, **OPTIONS)
    handle = serve.run(app, name="live", route_prefix="/live")
    found: list[dict[str, Any]] = []
    stop = threading.Event()

    def load(worker: int) -> None:
        while not stop.is_set():
            found.append(handle.retrieve.remote({"prompt": f"w{5 + worker}", "k": 10}).result(timeout_s=60))

    workers = [threading.Thread(target=load, args=(worker,)) for worker in range(4)]
    for worker in workers:
        worker.start()
    until = time.monotonic() + 120
    while len(found) < 20 and time.monotonic() < until:
        time.sleep(0.01)
    removed = ids_of(found[0])[0]
    live.remove([removed])
    while not any(document["version"] == 2 for document in list(found)) and time.monotonic() < until:
        time.sleep(0.01)
    after = len(found)
    while len(found) < after + 40 and time.monotonic() < until:
        time.sleep(0.01)
    stop.set()
    for worker in workers:
        worker.join()
    serve.delete("live")
    assert all("items" in document for document in found)
    assert {document["version"] for document in found} == {1, 2}
    assert any(removed in ids_of(document) for document in found if document["version"] == 1)
    assert not any(removed in ids_of(document) for document in found if document["version"] == 2)
    # Those that were asked after the switch; each of the four may have been on its way.
    assert {document["version"] for document in found[after + 4 :]} == {2}


def test_what_is_refused_before_anything_starts(shop, tmp_path):
    for options, message in (
        ({"index": tmp_path / "none"}, "does not exist"),
        ({"model": None}, "both a model and an index"),
        ({"min_replicas": 3, "max_replicas": 2}, "max_replicas must be"),
        ({"beam_widths": ()}, "at least one beam width"),
    ):
        given: dict[str, Any] = {"model": shop.model, "index": shop.index} | dict(options)
        with pytest.raises(hr.HedgerowError, match=message):
            application(**given)
