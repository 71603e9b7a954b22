"""Retrieve gives the answers of a Retriever, whatever other rows are in the batch."""

import os
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import ray.data

pytest.importorskip("torch")
pytest.importorskip("transformers")

import hedgerow as hr
from hedgerow.ray import Retrieve

# `make test-distributed` runs what takes minutes.
PROMPTS = 10_000 if os.environ.get("HEDGEROW_TEST_DISTRIBUTED") else 200


@pytest.fixture(scope="module")
def retrieve(shop) -> Retrieve:
    return Retrieve(
        shop.model,
        shop.index,
        k=4,
        beam_width=10,
        sets={"recent": "year >= 1950", "cheap": "price < 10"},
        columns=["title", "kinds"],
        keep=["user"],
    )


def one(retrieve: Retrieve, **columns: Any) -> dict[str, Any]:
    """The answer of one row."""
    (answer,) = retrieve(pa.table({name: [value] for name, value in columns.items()})).to_pylist()
    return answer


def ids_of(answer: dict[str, Any]) -> list[str]:
    assert answer["error"] is None
    return [item["item_id"] for item in answer["items"]]


def test_each_row_has_its_own_rules(retrieve, shop):
    index = shop.retriever.index
    recent, cheap = index.where("year >= 1950"), index.where("price < 10")
    rows: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({}, {}),
        ({"k": 7, "beam_width": 20}, {"k": 7, "beam_width": 20}),
        ({"where": "year >= 1950"}, {"constraints": recent}),
        ({"sets": ["recent"]}, {"constraints": recent}),
        ({"sets": ["cheap"], "where": "year >= 1950"}, {"constraints": recent & cheap}),
        ({"exclude": ["t1", "t2"]}, {"exclude": ["t1", "t2"]}),
        (
            {"candidates": [f"t{row}" for row in range(0, 150, 3)]},
            {"candidates": [f"t{row}" for row in range(0, 150, 3)]},
        ),
        ({"caps": {"maker": 1}}, {"caps": {"maker": 1}}),
        ({"order_by": ["price", "ascending"]}, {"order_by": ("price", "ascending")}),
    ]
    names = dict.fromkeys(name for given, _ in rows for name in given)
    table = pa.Table.from_pylist([{"prompt": "w5 w6"} | dict.fromkeys(names) | given for given, _ in rows])
    answers = retrieve(table).to_pylist()
    sizes: dict[str, Any] = {"k": 4, "beam_width": 10}
    expected = shop.retriever.answer([hr.Request("w5 w6", **sizes | options) for _, options in rows])
    for answer, results in zip(answers, expected, strict=True):
        assert ids_of(answer) == results.item_ids
        np.testing.assert_allclose([item["score"] for item in answer["items"]], results.scores, atol=1e-4)
        assert [item["sid"] for item in answer["items"]] == results.sids.tolist()
        assert [item["title"] for item in answer["items"]] == results.attributes["title"].to_pylist()
        assert (answer["complete"], answer["reason"]) == (results.complete, results.reason)
    assert len({tuple(ids_of(answer)) for answer in answers}) > 5


def test_prompts_of_all_kinds(retrieve, shop):
    (text,) = shop.retriever.retrieve("w5 w6", k=4, beam_width=10)
    assert ids_of(one(retrieve, prompt="w5 w6")) == text.item_ids
    assert ids_of(one(retrieve, prompt=shop.retriever.encode("w5 w6")[0])) == text.item_ids
    seen = ["t1", "t2"]
    request = hr.Request(shop.retriever.history_prompt(seen), k=4, beam_width=10, exclude=seen)
    (after,) = shop.retriever.answer([request])
    assert ids_of(one(retrieve, history=seen)) == after.item_ids
    caps = pa.array([[("maker", 1)]], pa.map_(pa.string(), pa.int64()))
    (answer,) = retrieve(pa.table({"prompt": ["w5 w6"], "caps": caps})).to_pylist()
    assert ids_of(answer) == ids_of(one(retrieve, prompt="w5 w6", caps={"maker": 1}))


def test_a_bad_row_gets_its_error_and_harms_no_other(retrieve):
    bad: list[tuple[dict[str, Any], str]] = [
        ({"prompt": ""}, "is empty"),
        ({"prompt": None}, 'the row has neither "prompt" nor "history"'),
        ({"prompt": "w1", "history": ["t1"]}, 'the row has both "prompt" and "history"'),
        ({"where": "yeer > 3"}, "yeer"),
        ({"sets": ["none"]}, "there is no set 'none'; the sets are recent, cheap"),
        ({"k": 0}, "k must be a positive integer"),
        ({"caps": {"none": 1}}, "there is no attribute 'none'"),
    ]
    names = dict.fromkeys(name for given, _ in bad for name in given)
    rows = [{"prompt": "w5 w6", "user": 7}, *({"prompt": "w5 w6"} | given for given, _ in bad), {"prompt": "w5 w6"}]
    table = retrieve(pa.Table.from_pylist([dict.fromkeys([*names, "user"]) | row for row in rows]))
    first, *answers, last = table.to_pylist()
    for answer, (_, message) in zip(answers, bad, strict=True):
        assert message in answer["error"]
        assert (answer["items"], answer["complete"], answer["reason"]) == (None, None, None)
    alone = ids_of(one(retrieve, prompt="w5 w6"))
    assert ids_of(first) == ids_of(last) == alone
    assert first["user"] == 7
    only_bad = retrieve(pa.table({"prompt": [""]}))
    assert only_bad.schema.field("items").type == table.schema.field("items").type


def test_columns_are_checked(retrieve):
    for name, message in {
        "excludes": "unknown column 'excludes'; did you mean 'exclude'?",
        "error": "unknown column 'error'",
    }.items():
        with pytest.raises(hr.ArgumentError, match=message.replace("?", r"\?")):
            one(retrieve, prompt="w5", **{name: "x"})
    with pytest.raises(hr.ArgumentError, match="batch_format='pyarrow'"):
        retrieve({"prompt": np.array(["w5"])})


def test_what_is_refused_at_the_start(shop, tmp_path):
    refused: list[tuple[dict[str, Any], str]] = [
        ({"index": tmp_path / "none"}, "does not exist"),
        ({"model": None}, "both a model and an index"),
        ({"version": 3}, "is not a live index"),
        ({"columns": ["titel"]}, "did you mean 'title'"),
        ({"sets": {"bad": "yeer > 3"}}, "set 'bad'"),
    ]
    for options, message in refused:
        with pytest.raises(hr.HedgerowError, match=message):
            Retrieve(**{"model": shop.model, "index": shop.index} | options)


def test_a_version_of_a_live_index(shop, tmp_path):
    live = hr.LiveIndex.create(tmp_path / "things.live", hr.load_index(shop.index))
    before = Retrieve(shop.model, live.path, k=4, beam_width=10)
    removed = ids_of(one(before, prompt="w5 w6"))[0]
    live.remove([removed])
    assert removed in ids_of(one(Retrieve(shop.model, live.path, version=1, k=4, beam_width=10), prompt="w5 w6"))
    assert removed not in ids_of(one(Retrieve(shop.model, live.path, k=4, beam_width=10), prompt="w5 w6"))


def film_prompts(count: int) -> list[dict[str, Any]]:
    """Prompts of the films demo, with rules; every 50th row is bad."""
    rng = np.random.default_rng(0)
    genres = ["western", "comedy", "horror film", "war film", "musical", "thriller"]
    rows: list[dict[str, Any]] = []
    for number in range(count):
        text = f"Recommend me a {genres[rng.integers(len(genres))]}"
        rule = [{}, {"where": "year >= 2000"}, {"exclude": [276769]}, {"k": 3}][number % 4]
        rows.append(
            {"id": number, "prompt": "" if number % 50 == 49 else text, "where": None, "k": None, "exclude": None}
            | rule
        )
    return rows


def test_prompts_over_two_processes_equal_local_answers():
    options: dict[str, Any] = {"model": None, "index": None, "k": 5, "beam_width": 10, "columns": ["title"]}
    rows = pa.Table.from_pylist(film_prompts(PROMPTS))
    blocks = [rows.slice(start, 64) for start in range(0, PROMPTS, 64)]
    answered = ray.data.from_arrow(blocks).map_batches(
        Retrieve,
        fn_constructor_kwargs=options,
        batch_format="pyarrow",
        batch_size=64,
        compute=ray.data.ActorPoolStrategy(size=2),
    )
    found = {row["id"]: row for row in answered.iter_rows()}
    local = Retrieve(**options)(rows).to_pylist()
    assert len(found) == len(local) == PROMPTS
    for expected in local:
        answer = found[expected["id"]]
        assert answer["error"] == expected["error"]
        assert [item["item_id"] for item in answer["items"] or ()] == [
            item["item_id"] for item in expected["items"] or ()
        ]
    assert sum(row["error"] is not None for row in local) == PROMPTS // 50
