"""Versions of a live index while clients search: no failed request, no removed item, and bad versions are refused.

HEDGEROW_TEST_SERVE=1 makes 100 changes in place of 20.
"""

import gc
import os
import threading
import time
import weakref
from dataclasses import replace

import numpy as np
import pytest
from serve.support import (
    NUM_ITEMS,
    RULES,
    SETTINGS,
    TOKEN,
    index,
    more_items,
    opened,
    random_prompt,
    retriever_of,
    service_of,
    started,
    wait_until,
)

import hedgerow as hr

CHANGES = 100 if "HEDGEROW_TEST_SERVE" in os.environ else 8
PROMPTS = [random_prompt(np.random.default_rng((8, number))) for number in range(5)]
FOLLOWING = replace(SETTINGS, follow_seconds=0.02)


@pytest.fixture
def live(tmp_path):
    return hr.LiveIndex.create(tmp_path / "things.live", index(), headroom=1.5)


class Searching(threading.Thread):
    """A client that searches until it is stopped, and remembers when it began each request and what it got."""

    def __init__(self, client, number, stopped):
        super().__init__()
        self.client, self.number, self.stopped = client, number, stopped
        self.seen, self.failed = [], []

    def run(self):
        rng = np.random.default_rng((9, self.number))
        while not self.stopped.is_set():
            prompt = int(rng.integers(len(PROMPTS)))
            sets = ["recent"] if rng.random() < 0.5 else []
            began = time.monotonic()
            try:
                reply = self.client.retrieve(PROMPTS[prompt], sets=sets)
            except OSError as error:
                self.failed.append(repr(error))
                continue
            if reply.status != 200:
                self.failed.append(reply.body)
                continue
            document = reply.document
            items = [item["item_id"] for item in document["items"]]
            scores = [item["score"] for item in document["items"]]
            self.seen.append((began, time.monotonic(), prompt, bool(sets), document["version"], items, scores))
            # All threads of the test share one interpreter with the service.
            time.sleep(0.04)


def change_of(live, retriever, rng, number):
    """Add, update or remove items; returns the version and the ids that were removed."""
    version = live.version
    retriever.refresh(version)
    ids = version.index.item_ids.to_numpy(zero_copy_only=False)[~version.removed]
    kind = number % 4
    if kind == 0:
        return live.add(more_items(*(f"new {number} {row}" for row in range(4)), seed=number)), []
    if kind == 1:
        removed = rng.choice(ids, 3, replace=False).tolist()
        return live.remove(removed), removed
    if kind == 2:
        changed = rng.choice(ids, 4, replace=False).tolist()
        return live.update(more_items(*changed[1:], seed=number), removed=changed[:1]), changed[:1]
    # What clients see is removed, so that a late switch would show.
    best = retriever.retrieve([PROMPTS[0]], beam_width=10, k=1)[0].item_ids
    return live.remove(best), best


def follow(live, client):
    """Change the index again and again, while others search. Returns the versions, and when removed items were gone."""
    versions, gone, rng, retriever = {1: live.version}, {}, np.random.default_rng(10), retriever_of(live.version)
    for number in range(CHANGES):
        version, removed = change_of(live, retriever, rng, number)
        versions[version.number] = version
        wait_until(lambda version=version: client.get("/v1/index").document["version"] == version.number)
        gone |= dict.fromkeys(removed, time.monotonic())
        # Some versions are searched for a while, others follow at once.
        time.sleep(0.05 * (number % 3))
    return versions, gone


def assert_equal_answers(seen, versions):
    """Check each answer against the version that it names."""
    expected, retriever = {}, retriever_of(versions[1])
    for number in {number for *_, number, _, _ in seen}:
        retriever.refresh(versions[number])
        recent = versions[number].index.where(RULES["recent"])
        sets = [None] * len(PROMPTS) + [recent] * len(PROMPTS)
        expected[number] = retriever.retrieve(PROMPTS * 2, beam_width=10, constraints=sets)
    for *_, prompt, is_recent, number, items, scores in seen:
        found = expected[number][prompt + len(PROMPTS) * is_recent]
        assert items == found.item_ids
        np.testing.assert_allclose(scores, found.scores, rtol=1e-4)


def test_clients_search_while_the_index_changes(live):
    service = service_of(opened(live), FOLLOWING)
    with started(service) as client:
        stop = threading.Event()
        searching = [Searching(replace(client, _connection=None), number, stop) for number in range(8)]
        for thread in searching:
            thread.start()
        versions, gone = follow(live, client)
        time.sleep(0.1)
        stop.set()
        for thread in searching:
            thread.join()
            thread.client.close()
        switches = client.metric("hedgerow_version_switch_seconds_count")
        slow = client.metric("hedgerow_version_switch_seconds_sum") / max(1, switches)
    seen = [entry for thread in searching for entry in thread.seen]
    seconds = [end - began for began, end, *_ in seen]
    p50, p99 = np.percentile(seconds, [50, 99]) * 1e3
    told = (
        f"{len(seen):,} answers of {len(versions)} versions; p50 {p50:.1f} ms, p99 {p99:.1f} ms, at most "
        f"{max(seconds) * 1e3:.1f} ms; a switch took {slow * 1e3:.1f} ms"
    )
    print(told)
    assert [thread.failed for thread in searching] == [[]] * 8, told
    assert switches == CHANGES, told
    late = [
        (item, number) for began, _, *_, number, items, _ in seen for item in items if began > gone.get(item, np.inf)
    ]
    assert late == [], told
    named = {number for *_, number, _, _ in seen}
    assert len(named) > CHANGES // 2, told
    assert max(named) == CHANGES + 1, told
    assert_equal_answers(seen, versions)


def test_versions_that_are_no_longer_served_are_freed(live):
    """Their files are mapped, and each is as large as the index: they must not wait for the garbage collector."""
    service, indexes = service_of(opened(live)), []
    with started(service, tokens=(TOKEN,)) as client:
        gc.disable()
        try:
            for number in range(4):
                indexes.append(weakref.ref(service.engine.current.index))
                client.retrieve(PROMPTS[0], sets=["recent", "cheap"])
                live.update(more_items("new", seed=number))
                client.post("/v1/index/refresh")
            assert [index() is not None for index in indexes] == [False, False, False, True]
        finally:
            gc.enable()


class TestBadVersions:
    @pytest.fixture
    def service(self, live):
        return service_of(opened(live), FOLLOWING)

    @pytest.fixture
    def client(self, service):
        with started(service, tokens=(TOKEN,)) as client:
            yield client

    def refusals(self, client):
        return client.metric("hedgerow_version_refused_total")

    def damage(self, live, number):
        """Replace the arrays of a version. They are mapped, so they must not be written in place."""
        folder = live.path / "versions" / str(number)
        files = [path for path in folder.rglob("*") if path.suffix == ".safetensors"]
        assert files, sorted(folder.rglob("*"))
        for path in files:
            damaged = path.with_suffix(".damaged")
            damaged.write_bytes(path.read_bytes()[:-20])
            os.replace(damaged, path)

    def test_damaged_files(self, live, service, client):
        with service.follower._looking:
            live.add(more_items("new"))
            self.damage(live, 2)
        wait_until(lambda: self.refusals(client) == 1)
        assert client.get("/v1/index").document["version"] == 1
        assert client.retrieve(PROMPTS[0]).document["version"] == 1
        # Each look finds it again; it is counted once.
        time.sleep(0.1)
        assert self.refusals(client) == 1
        reply = client.post("/v1/index/refresh")
        assert (reply.status, reply.error["code"]) == (409, "version_refused")
        assert "cannot be read" in reply.error["message"]
        live.rollback(1)
        live.add(more_items("newer"))
        wait_until(lambda: client.get("/v1/index").document["version"] == 3)
        assert client.retrieve(candidates=["newer"]).items == ["newer"]
        assert client.retrieve(PROMPTS[0]).document["version"] == 3

    def test_without_an_attribute_that_a_rule_needs(self, live, client):
        live.update_attributes(drop=["year"])
        wait_until(lambda: self.refusals(client) == 1)
        reply = client.post("/v1/index/refresh")
        assert (reply.status, reply.error["code"]) == (409, "version_refused")
        assert "set 'recent' (year >= 1950)" in reply.error["message"]
        assert client.get("/v1/index").document["version"] == 1
        assert client.retrieve(PROMPTS[0], sets=["recent"]).document["version"] == 1
        live.rollback(1)
        live.remove(["t1"])
        wait_until(lambda: client.get("/v1/index").document["version"] == 3)
        assert client.get("/v1/index").document["num_items"] == NUM_ITEMS - 1

    def test_that_cannot_be_warmed_up(self, live, client, monkeypatch):
        def fail(*_):
            raise MemoryError("too large")

        with monkeypatch.context() as patched:
            patched.setattr("hedgerow.serve.follow.warm_up_next", fail)
            live.remove(["t1"])
            wait_until(lambda: self.refusals(client) == 1)
            assert client.retrieve(PROMPTS[0]).document["version"] == 1
        wait_until(lambda: client.get("/v1/index").document["version"] == 2)

    def test_rules_of_time_that_fail_do_not_end_the_following(self, live, monkeypatch):
        service = service_of(opened(live), replace(FOLLOWING, rules_seconds=0.02))
        with started(service) as client:

            def fail(*_):
                raise RuntimeError("unexpected")

            with monkeypatch.context() as patched:
                patched.setattr("hedgerow.serve.snapshot.sets_of", fail)
                time.sleep(0.1)
            live.remove(["t1"])
            wait_until(lambda: client.get("/v1/index").document["version"] == 2, 10)


class TestRollback:
    @pytest.fixture
    def client(self, live):
        live.remove(["t1"])
        live.remove(["t2"])
        with started(service_of(opened(live)), tokens=(TOKEN,)) as client:
            yield client

    def test_to_the_version_before(self, live, client):
        document = client.post("/v1/index/rollback", {}).document
        assert (document["version"], document["num_items"]) == (2, NUM_ITEMS - 1)
        assert document | {"age_seconds": 0} == client.get("/v1/index").document | {"age_seconds": 0}
        assert client.retrieve(candidates=["t1", "t2"]).items == ["t2"]
        assert client.retrieve().document["version"] == 2
        assert live.refresh().number == 2

    def test_to_a_number(self, client):
        assert client.post("/v1/index/rollback", {"to": 1}).document["version"] == 1
        assert sorted(client.retrieve(candidates=["t1", "t2"]).items) == ["t1", "t2"]
        assert client.post("/v1/index/rollback", {"to": 3}).document["version"] == 3
        assert client.retrieve(candidates=["t1", "t2"]).items == []

    def test_that_is_refused(self, client):
        for to in (99, 4):
            reply = client.post("/v1/index/rollback", {"to": to})
            assert (reply.status, reply.error["code"]) == (409, "version_refused")
        for document in ({"to": 0}, {"to": "1"}, {"too": 1}, {"to": True}):
            assert client.post("/v1/index/rollback", document).status == 400
        assert client.get("/v1/index").document["version"] == 3

    def test_to_a_version_that_does_not_fit_the_rules_changes_nothing(self, tmp_path):
        plain = hr.build_index(
            hr.Catalog(index().sids(), codebook_sizes=20, attributes={"title": ["x"] * index().num_sids})
        )
        live = hr.LiveIndex.create(tmp_path / "plain.live", plain)
        live.publish(index())
        with started(service_of(opened(live)), tokens=(TOKEN,)) as client:
            reply = client.post("/v1/index/rollback", {"to": 1})
            assert (reply.status, reply.error["code"]) == (409, "version_refused")
            assert client.get("/v1/index").document["version"] == 2
        # Otherwise the service could not start again.
        assert live.refresh().number == 2

    def test_needs_the_token(self, client):
        stranger = replace(client, token=None, _connection=None)
        for path in ("/v1/index/rollback", "/v1/index/refresh"):
            assert stranger.post(path, {}).status == 401
        stranger.close()
        assert client.get("/v1/index").document["version"] == 3

    def test_of_an_index_that_is_not_live(self):
        with started(service_of(), tokens=(TOKEN,)) as client:
            for path in ("/v1/index/rollback", "/v1/index/refresh"):
                reply = client.post(path, {})
                assert (reply.status, reply.error["code"]) == (409, "version_refused")
                assert reply.error["type"] == "invalid_request_error"
                assert "not live" in reply.error["message"]
