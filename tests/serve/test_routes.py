"""Each route of the service: what it answers, in which form."""

from dataclasses import replace

import numpy as np
import pytest
from serve.support import (
    FIRST_DAY,
    RULES,
    SETTINGS,
    TOKEN,
    attributes_of,
    index,
    retriever_of,
    rules_of,
    served,
    service_of,
    started,
)

import hedgerow as hr
from hedgerow.serve.rules import Rule

ATTRIBUTES = ["title", "year", "kinds", "maker", "price", "released"]
ANSWER = {"version", "items", "num_valid", "complete", "reason", "beam_width", "unknown_history", "timings"}
METRICS = (
    "hedgerow_requests_total",
    "hedgerow_phase_seconds",
    "hedgerow_batch_size",
    "hedgerow_queue_length",
    "hedgerow_shed_total",
    "hedgerow_num_valid_ratio",
    "hedgerow_masked_probability",
    "hedgerow_index_version",
    "hedgerow_index_items",
    "hedgerow_index_age_seconds",
    "hedgerow_version_switch_seconds",
    "hedgerow_version_refused_total",
    "hedgerow_graph_captures_total",
    "hedgerow_padding_ratio",
)


@pytest.fixture(scope="module")
def reference():
    return retriever_of(index())


@pytest.fixture(scope="module")
def client():
    rules = rules_of(**RULES) | {
        "new": Rule("released in the last days", window={"attribute": "released", "days": 3, "now": FIRST_DAY})
    }
    with started(service_of(settings=replace(SETTINGS, probe_every=1), rules=rules)) as client:
        yield client


class TestRetrieve:
    def test_document(self, client, reference):
        reply = client.retrieve([5, 6], k=3)
        document = reply.document
        assert set(document) == {"id", *ANSWER}
        assert document["id"] == reply.headers["x-request-id"]
        assert document["version"] is None
        assert (document["num_valid"], document["beam_width"]) == (10, 10)
        assert len(document["items"]) == 3
        row = int(document["items"][0]["item_id"][1:])
        assert list(document["items"][0]) == ["item_id", "score", "sid", "attributes"]
        expected = {name: values[row] for name, values in attributes_of(150).items()}
        assert document["items"][0]["attributes"] == expected | {"released": str(expected["released"])}
        assert document["items"][0]["sid"] == index().sids_of([f"t{row}"])[0].tolist()
        timings = document["timings"]
        assert 0 <= timings["queue_ms"] <= timings["total_ms"]
        assert 0 < timings["search_ms"] <= timings["total_ms"]
        assert 0 < timings["check_ms"] <= timings["total_ms"]
        assert (document["complete"], document["reason"]) == (True, None)
        assert reference.retrieve([[5, 6]], beam_width=10, k=3)[0].item_ids == reply.items

    def test_fewer_items_than_asked_for(self, client):
        document = client.retrieve([5, 6], candidates=["t1", "t2"], k=3).document
        assert len(document["items"]) == 2
        assert (document["complete"], document["reason"]) == (False, "set")

    def test_defaults(self, client):
        document = client.retrieve([5, 6]).document
        assert len(document["items"]) == 10
        assert document["beam_width"] == 10

    def test_fields(self, client):
        def attributes(**fields):
            return list(client.retrieve([5, 6], **fields).document["items"][0]["attributes"])

        assert attributes() == attributes(fields=None) == ATTRIBUTES
        assert attributes(fields=["year", "title"]) == ["year", "title"]
        assert attributes(fields=["year", "year"]) == ["year"]
        assert attributes(fields=[]) == []

    def test_several(self, client):
        reply = client.post("/v1/retrieve", {"requests": [{"prompt": [5, 6], "k": 2}, {"prompt": "", "k": 2}, 7]})
        document = reply.document
        assert set(document) == {"id", "results"}
        first, empty, wrong = document["results"]
        assert first["items"] == client.retrieve([5, 6], k=2).document["items"]
        assert set(first) == ANSWER
        assert [set(each) for each in (empty, wrong)] == [{"error"}] * 2
        assert "empty" in empty["error"]["message"]

    def test_named_windows_of_time(self, client):
        assert set(client.retrieve(sets=["new"], beam_width=20, k=20).items) <= {"t0", "t1", "t2", "t3"}


class TestRequestIds:
    def test_given(self, client):
        for given in ("mine", "a" * 200, "one two; three=4"):
            reply = client.post("/v1/retrieve", {"prompt": "w1"}, headers={"x-request-id": given})
            assert reply.headers["x-request-id"] == reply.document["id"] == given

    @pytest.mark.parametrize("given", ["", "a" * 201, "caf\xe9", "a\tb"])
    def test_made_where_the_given_one_is_unusable(self, given, client):
        reply = client.get("/v1/index", headers={"x-request-id": given})
        assert len(reply.headers["x-request-id"]) == 32

    def test_all_responses_have_one(self, client):
        replies = [client.get(path) for path in ("/health/live", "/metrics", "/openapi.json", "/nothing", "/v1/index")]
        replies += [client.post("/v1/retrieve", body=b"{"), client.call("DELETE", "/v1/index")]
        ids = [reply.headers["x-request-id"] for reply in replies]
        assert len(set(ids)) == len(replies)


class TestExplain:
    def explain(self, client, **fields):
        reply = client.post("/v1/explain", {"prompt": [5, 6], "item_id": "t1"} | fields)
        assert reply.status == 200, reply.body
        assert set(reply.document) == {"id", "version", "explanation", "unknown_history"}
        return reply.document["explanation"]

    def test_equals_the_explanation_of_the_retriever(self, client, reference):
        found = client.retrieve([5, 6], k=20, beam_width=20).items
        for item in (found[0], found[12], "t1", "t2", "t3"):
            document = self.explain(client, item_id=item)
            expected = reference.explain([5, 6], item, beam_width=10, k=10)
            assert document["outcome"] == expected.outcome
            assert document["text"] == str(expected)
            assert (document["beam_width"], document["k"]) == (10, 10)
            assert document["sid"] == index().sids_of([item])[0].tolist()
            assert document["rank"] == expected.rank
            keys = {"code", "score", "rank", "candidates", "kept", "to_beat"}
            assert all(set(level) == keys for level in document["levels"])

    def test_an_item_that_an_attribute_names(self, client):
        found = client.retrieve([5, 6], k=1).items[0]
        title = f"Thing [{found.removeprefix('t')}]"
        explained = self.explain(client, item={"title": title}, item_id=None)
        assert (explained["item_id"], explained["name"]) == (found, title)
        assert title in explained["text"]

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({}, "pass item_id or item; got neither"),
            ({"item_id": "t1", "item": {"title": "Thing [1]"}}, "pass item_id or item; got both"),
            ({"item": {"title": "Thing"}}, "0 items have title 'Thing'"),
            ({"item": {"year": 1910}}, "2 items have year 1910: 't21', 't20'. Pass one of these ids"),
            ({"item": {"name": "Thing"}}, "there is no attribute 'name'; the attributes are title, year,"),
        ],
    )
    def test_items_that_no_attribute_names(self, client, fields, message):
        reply = client.post("/v1/explain", {"prompt": [5, 6]} | fields)
        assert reply.status == 400
        assert message in reply.error["message"]

    def test_outcomes(self, client):
        first = client.retrieve([5, 6], k=3).items
        assert self.explain(client, item_id=first[0])["outcome"] == "returned"
        assert self.explain(client, item_id=first[2], k=2)["outcome"] == "beyond k"
        assert self.explain(client, item_id=first[0], exclude=[first[0]])["outcome"] == "excluded"
        forbidden = self.explain(client, item_id=first[0], sets=["impossible"])
        assert (forbidden["outcome"], forbidden["rules"]) == ("not in the set", ["impossible"])
        assert self.explain(client, item_id=first[0], beam_width=1, k=1)["rank"] == 1
        missing = self.explain(client, item_id="nothing")
        assert (missing["outcome"], missing["sid"], missing["rank"]) == ("not in the index", [], None)


class TestTrace:
    def trace(self, client, **fields):
        reply = client.post("/v1/trace", {"prompt": [5, 6], "beam_width": 4, "k": 3} | fields)
        assert reply.status == 200, reply.body
        return reply.document

    @pytest.mark.parametrize("rules", [{}, {"sets": ["recent"]}, {"exclude": ["t128", "t58"]}])
    def test_document(self, rules, client):
        document = self.trace(client, **rules)
        assert set(document) == {"id", "version", "levels", "items", "unknown_history"}
        retrieved = client.retrieve([5, 6], beam_width=4, k=3, **rules).document["items"]
        assert [item["item_id"] for item in document["items"]] == [item["item_id"] for item in retrieved]
        assert [level["level"] for level in document["levels"]] == [0, 1, 2]
        before = []
        for level in document["levels"]:
            beams = level["beams"]
            assert [beam["prefix"] for beam in beams] == sorted(beam["prefix"] for beam in beams)
            assert sorted(beam["rank"] for beam in beams) == list(range(1, len(beams) + 1))
            by_rank = [beam["score"] for beam in sorted(beams, key=lambda beam: beam["rank"])]
            assert by_rank == sorted(by_rank, reverse=True)
            for beam in beams:
                assert beam["code"] == beam["prefix"][-1]
                assert beam["probability"] == pytest.approx(np.exp(beam["score"]))
                if level["level"] == 0:
                    assert beam["parent"] == -1
                else:
                    assert before[beam["parent"]]["prefix"] == beam["prefix"][:-1]
                    assert before[beam["parent"]]["survives"]
            assert 0 <= level["rules_probability"] <= level["masked_probability"] <= 1
            before = beams
        sids = {tuple(beam["prefix"]) for beam in before}
        assert {tuple(item["sid"]) for item in document["items"]} <= sids

    def test_without_rules_the_rules_remove_nothing(self, client):
        assert [level["rules_probability"] for level in self.trace(client)["levels"]] == [0, 0, 0]
        assert self.trace(client, sets=["recent"])["levels"][1]["rules_probability"] > 0


def test_score_document(client):
    document = client.post("/v1/score", {"prompt": [5, 6], "item_ids": ["t1", "t2"]}).document
    assert set(document) == {"id", "version", "scores", "timings"}
    timings = document["timings"]
    assert 0 <= timings["queue_ms"] <= timings["total_ms"]
    assert 0 < timings["search_ms"] <= timings["total_ms"]


def test_index_document(client):
    document = client.get("/v1/index").document
    sets = {each["name"]: each for each in document.pop("sets")}
    assert {name: each["rule"] for name, each in sets.items() if name in RULES} == RULES
    assert sets["recent"]["num_items"] == 50
    assert sets["impossible"]["num_items"] == 0
    assert document == {
        "model": "tiny",
        "index": "things",
        "live": False,
        "version": None,
        "versions": [],
        "num_items": 150,
        "num_levels": 3,
        "codebook_sizes": [20, 20, 20],
        "created": None,
        "age_seconds": None,
        "item_id_type": "string",
        "refused": None,
        "attributes": [{"name": field.name, "type": str(field.type)} for field in index().attributes.schema],
        "allows_where": False,
        "beam_widths": [10, 20],
        "default_beam_width": 10,
        "max_k": 1_000,
        "canary": None,
    }


def test_index_document_of_a_live_index(tmp_path):
    live = hr.LiveIndex.create(tmp_path / "things.live", index())
    with started(service_of(live), tokens=(TOKEN,)) as client:
        live.remove(["t1", "t2"])
        assert client.get("/v1/index").document["version"] == 1
        document = client.post("/v1/index/refresh").document
        assert (document["live"], document["version"], document["num_items"]) == (True, 2, 148)
        assert sorted(document["versions"]) == [1, 2]
        assert document["created"] == live.version.info.created
        assert 0 <= document["age_seconds"] < 600
        assert document == client.get("/v1/index").document | {"age_seconds": document["age_seconds"]}


def test_health(client):
    for path in ("/health/live", "/v2/health/live"):
        assert (client.get(path).status, client.get(path).document) == (200, {"status": "live"})
    for path in ("/health/ready", "/v2/health/ready"):
        assert (client.get(path).status, client.get(path).document) == (200, {"status": "ready"})


def test_head_and_unknown_routes_of_the_page(client):
    assert client.call("HEAD", "/v1/index").status == 200
    for path in ("/ui/../serve/web.py", "/ui/%2e%2e/web.py", "/ui/..%2fweb.py", "/ui/nothing"):
        reply = client.get(path)
        assert reply.status == 404
        assert reply.error["code"] == "unknown_route"


class TestMetrics:
    def test_all_are_there(self, client):
        names = {name for name, _ in client.metrics()}
        for name in METRICS:
            assert {name, f"{name}_count"} & names, name
        assert client.get("/metrics").headers["content-type"].startswith("text/plain")

    def test_all_are_there_before_the_service_is_loaded(self):
        with served(service_of()) as client:
            names = {name for name, _ in client.metrics()}
        # The first request makes the series of its outcome.
        missing = [name for name in METRICS if not {name, f"{name}_count"} & names]
        assert missing == ["hedgerow_requests_total"]

    def test_requests_move_them(self, client):
        def sample():
            return {
                "ok": client.metric("hedgerow_requests_total", outcome="ok", version=""),
                "invalid": client.metric("hedgerow_requests_total", outcome="invalid_request", version=""),
                "unknown": client.metric("hedgerow_requests_total", outcome="unknown_set", version=""),
                "batches": client.metric("hedgerow_batch_size_count"),
                "batch sizes": client.metric("hedgerow_batch_size_sum"),
                "valid": client.metric("hedgerow_num_valid_ratio_count"),
                "masked": client.metric("hedgerow_masked_probability_count"),
                "padding": client.metric("hedgerow_padding_ratio_count"),
                "padded": client.metric("hedgerow_padding_ratio_sum"),
            } | {
                phase: client.metric("hedgerow_phase_seconds_count", phase=phase)
                for phase in ("queue", "check", "search", "total")
            }

        before = sample()
        client.retrieve([5])
        client.post("/v1/retrieve", {"requests": [{"prompt": [5]}, {"prompt": [5, 6, 7, 8]}]})
        client.retrieve([5], k=0)
        client.retrieve([5], sets=["nothing"])
        moved = {name: value - before[name] for name, value in sample().items()}
        assert moved.pop("padded") == pytest.approx(3 / 8)
        assert moved == {
            "ok": 3,
            "invalid": 1,
            "unknown": 1,
            "batches": 2,
            "batch sizes": 3,
            "valid": 3,
            "masked": 2,
            "padding": 2,
            "queue": 4,
            "check": 3,
            "search": 2,
            "total": 3,
        }

    def test_rules_that_allow_nothing_give_no_nan(self, client):
        client.retrieve([5], sets=["impossible"])
        assert all(np.isfinite(value) for value in client.metrics().values())

    def test_of_the_index(self, client):
        assert client.metric("hedgerow_index_items") == 150
        assert client.metric("hedgerow_index_version") == client.metric("hedgerow_index_age_seconds") == 0
        assert client.metric("hedgerow_queue_length") == 0

    def test_of_a_live_index(self, tmp_path):
        live = hr.LiveIndex.create(tmp_path / "things.live", index())
        with started(service_of(live), tokens=(TOKEN,)) as client:
            client.retrieve([5])
            live.remove(["t1", "t2"])
            client.post("/v1/index/refresh")
            client.retrieve([5])
            assert client.metric("hedgerow_index_version") == 2
            assert client.metric("hedgerow_index_items") == 148
            assert 0 <= client.metric("hedgerow_index_age_seconds") < 600
            assert client.metric("hedgerow_version_switch_seconds_count") == 1
            for version in ("1", "2"):
                assert client.metric("hedgerow_requests_total", outcome="ok", version=version) == 1
            live.remove(["t3"])
            assert client.post("/v1/retrieve", {"prompt": [5], "version": 1}).document["version"] == 1

    def test_with_a_token(self, client):
        with started(service_of(), tokens=(TOKEN,)) as guarded:
            assert guarded.get("/metrics").status == 200
            assert client.apart().get("/metrics").status == 200
