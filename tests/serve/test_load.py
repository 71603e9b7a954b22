"""`hedgerow bench serve`: it drives a service, checks every answer, and says what is wrong."""

import sys

import numpy as np
import pytest
from serve.support import RULES, TOKEN, index, rules_of, service_of, started

import hedgerow as hr
from hedgerow.bench.serving import Load, Requests, serving
from hedgerow.cli.main import main

PROMPTS = ("w1 w2", "w3")
DESCRIBED = {"version": None, "sets": [{"name": "recent", "rule": "year >= 2000", "num_items": 9}]}


@pytest.fixture(scope="module")
def client():
    with started(service_of(rules=rules_of(**RULES))) as client:
        yield client


@pytest.mark.parametrize("load", [Load(clients=3, seconds=0.6, warm_seconds=0.1), Load(rate=20.0, seconds=0.6)])
def test_a_load(client, load):
    report = serving(client.url, [load], prompts=PROMPTS, index=lambda _: index())
    (row,) = report.rows
    assert (row["model"], row["items"], row["refused"]) == ("tiny", 150, 0)
    assert row["requests"] > 0
    assert 0 < row["p50_ms"] <= row["p90_ms"] <= row["p99_ms"]
    assert report.conditions["checked"] == "all answers"


def test_another_index_is_noticed(client):
    ids = index().item_ids.to_pylist()
    sids = np.roll(index().sids_of(ids), 1, axis=0)
    other = hr.build_index(hr.Catalog(sids, codebook_sizes=index().codebook_sizes, item_ids=ids))
    with pytest.raises(hr.ArgumentError, match=r"answers under 2 clients are wrong: item .* has SID .*, not that"):
        serving(client.url, [Load(clients=2, seconds=0.3, mix="none")], prompts=PROMPTS, index=lambda _: other)


def test_too_many_beams(client):
    with pytest.raises(hr.ArgumentError, match="searches with at most"):
        serving(client.url, [Load(beam_width=10_000)], prompts=PROMPTS)


def test_services_that_do_not_answer():
    with pytest.raises(hr.ArgumentError, match="cannot be reached"):
        serving("http://127.0.0.1:9", [Load()])
    with started(service_of(), tokens=(TOKEN,)) as guarded:
        with pytest.raises(hr.ArgumentError, match="needs a token"):
            serving(guarded.url, [Load()])
        load = Load(clients=1, seconds=0.2, warm_seconds=0.0)
        assert serving(guarded.url, [load], token=TOKEN, prompts=PROMPTS).rows[0]["requests"] > 0


def answer_of(*items):
    return {
        "version": None,
        "items": [{"item_id": item_id, "score": score, "sid": sid} for item_id, score, sid in items],
    }


class TestFaults:
    """Each kind of wrong answer is noticed."""

    def requests(self, mapped=None):
        return Requests(DESCRIBED, PROMPTS, Load(), mapped and (lambda _: mapped))

    def test_a_right_answer(self):
        answer = answer_of(("a", -1.0, [1]), ("b", -2.0, [2]))
        assert self.requests().fault({"k": 2}, answer) is None

    @pytest.mark.parametrize(
        ("body", "items", "fault"),
        [
            ({"k": 1}, [("a", -1.0, [1]), ("b", -2.0, [2])], "2 items, 2 of them different, for k=1"),
            ({"k": 2}, [("a", -1.0, [1]), ("a", -2.0, [2])], "2 items, 1 of them different, for k=2"),
            ({"k": 2}, [("a", -2.0, [1]), ("b", -1.0, [2])], "the scores are not sorted"),
            ({"k": 2, "exclude": ["a"]}, [("a", -1.0, [1])], "item a is excluded"),
            ({"k": 2, "candidates": ["b"]}, [("a", -1.0, [1])], "item a is no candidate"),
        ],
    )
    def test_wrong_answers(self, body, items, fault):
        assert self.requests().fault(body, answer_of(*items)) == fault

    def test_the_index(self):
        catalog = hr.Catalog(np.arange(2)[:, None], item_ids=["a", "b"], attributes={"year": [1990, 2010]})
        requests = self.requests(hr.build_index(catalog))
        for items in ([("a", -1.0, [0])], [("b", -1.0, [1])], [("b", -1.0, [0])], [("c", -1.0, [0])]):
            assert requests.fault({"k": 5, "sets": ["recent"]}, answer_of(*items)) is None
        assert requests.faults_of_index() == [
            "item a is not in set 'recent'",
            "item b has SID [0], not that of the index",
            "item c is not in set 'recent'",
        ]


def test_the_command(client, monkeypatch, capsys, tmp_path):
    words = ["--clients", "2", "--seconds", "0.3"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["hedgerow", "bench", "serve", client.url, *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    assert "2 clients" in capsys.readouterr().out


@pytest.mark.parametrize("option", ["--prompts", "--token-file"])
def test_files_that_cannot_be_read(client, option, monkeypatch, capsys, tmp_path):
    (tmp_path / "empty").touch()
    for name in ("missing", "empty"):
        monkeypatch.setattr(sys, "argv", ["hedgerow", "bench", "serve", client.url, option, str(tmp_path / name)])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 1
        assert f"{option} {tmp_path / name}" in capsys.readouterr().err.replace("\n", "")
