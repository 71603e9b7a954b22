"""Requests that name a version, and a canary version that answers a share of those that name none."""

from dataclasses import replace

import pytest
from serve.support import (
    RULES,
    SETTINGS,
    TOKEN,
    ask_of,
    index,
    opened,
    rules_of,
    served,
    service_of,
    started,
    wait_until,
)

import hedgerow as hr


@pytest.fixture
def live(tmp_path):
    return hr.LiveIndex.create(tmp_path / "things.live", index(), headroom=1.5)


class TestPinned:
    def test_versions_that_are_served(self, live):
        with started(service_of(opened(live)), tokens=(TOKEN,)) as client:
            live.remove(["t1"])
            client.post("/v1/index/refresh")
            for number, items in ((1, ["t1"]), (2, [])):
                reply = client.retrieve(candidates=["t1"], version=number)
                assert (reply.items, reply.document["version"]) == (items, number)
                score = {"prompt": "w5", "item_ids": ["t1"], "version": number}
                assert client.post("/v1/score", score).status == (200 if items else 400)
                explained = client.post("/v1/explain", {"prompt": "w5", "item_id": "t1", "version": number}).document
                assert explained["version"] == number
                assert (explained["explanation"]["outcome"] == "removed") == (not items)
                assert client.post("/v1/trace", {"prompt": "w5", "version": number}).document["version"] == number
            live.remove(["t2"])
            client.post("/v1/index/refresh")
            reply = client.retrieve(version=1)
            assert (reply.status, reply.error["code"]) == (404, "unknown_version")
            assert "2" in reply.error["message"]
            assert sorted(client.get("/v1/index").document["versions"]) == [2, 3]

    def test_fields_are_those_of_the_version(self, live):
        live.update_attributes(drop=["title"])
        with started(service_of(opened(live)), tokens=(TOKEN,)) as client:
            live.update_attributes({"item_id": ["t1"], "shelf": [5]}, new_attributes="add")
            client.post("/v1/index/refresh")
            assert client.retrieve(fields=["shelf"]).status == 200
            assert client.retrieve(fields=["shelf"], version=2).status == 400
            live.rollback(2)
            client.post("/v1/index/refresh")
            assert client.retrieve(fields=["shelf"], version=3).status == 200
            assert client.retrieve(fields=["shelf"]).status == 400


class TestCanary:
    @pytest.fixture
    def two(self, live):
        """A live index whose version 2 lacks an item, and whose current version is 1."""
        live.remove(["t1"])
        live.rollback(1)
        return opened(live)

    @pytest.fixture
    def service(self, two):
        service = service_of(two, replace(SETTINGS, canary_share=0.25), canary=2)
        service.start()
        yield service
        service.close()

    def test_share_of_the_users(self, service):
        numbers = [service.engine.snapshot_for(ask_of([5], key=f"user {number}")).number for number in range(4_000)]
        # Four standard deviations.
        assert numbers.count(2) == pytest.approx(1_000, abs=110)
        assert set(numbers) == {1, 2}
        again = [service.engine.snapshot_for(ask_of([5], key=f"user {number}")).number for number in range(4_000)]
        assert again == numbers

    @pytest.mark.parametrize(("share", "expected"), [(1.0, {2}), (1e-12, {1})])
    def test_extreme_shares(self, share, expected, two):
        service = service_of(two, replace(SETTINGS, canary_share=share), canary=2)
        service.start()
        keys = [f"user {number}" for number in range(1_000)]
        assert {service.engine.snapshot_for(ask_of([5], key=key)).number for key in keys} == expected
        service.close()

    def test_requests(self, service):
        with served(service) as client:
            assert client.get("/v1/index").document["canary"] == {"version": 2, "share": 0.25}
            assert sorted(client.get("/v1/index").document["versions"]) == [1, 2]
            found = {}
            for user in [f"user {number}" for number in range(30)] * 2:
                reply = client.retrieve(candidates=["t1"], user=user)
                number = reply.document["version"]
                assert reply.items == ([] if number == 2 else ["t1"])
                assert found.setdefault(user, number) == number
            assert set(found.values()) == {1, 2}
            # All prompts of a user, in all forms of a request, get the version of the user.
            user = next(user for user, number in found.items() if number == 2)
            document = client.post("/v1/completions", {"model": "tiny", "prompt": ["w5", "w6"], "user": user}).document
            assert document["hedgerow"]["version"] == 2
            assert client.post("/v1/trace", {"prompt": "w5", "user": user}).document["version"] == 2
            several = {"requests": [{"prompt": "w5", "user": each} for each in found]}
            results = client.post("/v1/retrieve", several).document["results"]
            assert [result["version"] for result in results] == list(found.values())
            assert client.retrieve(candidates=["t1"], user=user, version=1).items == ["t1"]

    def test_windows_of_time_of_the_canary_are_evaluated_again(self, two):
        settings = replace(SETTINGS, canary_share=0.5, rules_seconds=0.02)
        service = service_of(two, settings, canary=2, rules=rules_of(made=RULES["made"]))
        service.start()
        before = service.engine.canary
        assert before is not None
        wait_until(lambda: service.engine.current.evaluated > before.evaluated)
        wait_until(lambda: service.engine.canary is not before, 5)
        assert service.engine.snapshots[1].number == 2
        service.close()

    def test_of_a_version_that_does_not_exist(self, live):
        service = service_of(opened(live), replace(SETTINGS, canary_share=0.25), canary=9)
        service.start()
        assert service.state == "failed"
        assert "9" in str(service.error)
