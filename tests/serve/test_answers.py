"""Answers of the service equal those of `Retriever.retrieve` for the same rules, in any mix of requests."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from serve.support import (
    RULES,
    SETTINGS,
    Client,
    ask_of,
    index,
    random_prompt,
    retriever_of,
    service_of,
    started,
    text_of,
)

import hedgerow as hr
from hedgerow.serve.asking import Answered
from hedgerow.serve.documents import RetrieveRequest
from hedgerow.serve.documents import ask_of as ask_of_document

WHERE = ("year < 1930", "price > 5 AND maker IS NOT NULL", "list_contains(kinds, 'a')", "item_id = 't7'")


def some_ids(rng, size):
    """Ids of random items, and of one that does not exist."""
    return [*(f"t{row}" for row in rng.integers(0, 150, size)), "no such item"]


def random_fields(rng, *, allow_where=True):
    """The fields of a random request: a prompt as text, chat or token ids, and random rules."""
    prompt = random_prompt(rng)
    forms = [prompt, text_of(prompt), [{"role": "user", "content": text_of(prompt)}]]
    options = {
        "k": int(rng.integers(1, 25)),
        "beam_width": int(rng.integers(1, 21)),
        "sets": rng.choice([*RULES, "recent", "made"], rng.integers(1, 3)).tolist(),
        "exclude": some_ids(rng, rng.integers(0, 80)),
        "candidates": some_ids(rng, rng.integers(0, 60)),
        "order_by": [None, "price", ["year", "ascending"], ["price", "descending"]][rng.integers(4)],
        "caps": [{}, {"year": 1}, {"maker": 2, "kinds": 3}][rng.integers(3)],
        "user": str(rng.integers(5)),
    }
    if allow_where:
        options["where"] = str(rng.choice(WHERE))
    chosen = {name: value for name, value in options.items() if rng.random() < 0.4}
    return {"prompt": forms[rng.integers(3)]} | chosen


def expected_of(retriever, fields):
    """What `retrieve` gives for the fields of a request, with sets made from their expressions."""
    index = retriever.index
    sets = [index.where(RULES[name]) for name in fields.get("sets", ())]
    if "where" in fields:
        sets.append(index.where(fields["where"]))
    allowed = None
    for each in sets:
        allowed = each if allowed is None else allowed & each
    order = fields.get("order_by")
    (results,) = retriever.retrieve(
        [fields["prompt"]],
        k=fields.get("k", 10),
        beam_width=fields.get("beam_width", 10),
        constraints=allowed,
        **{name: [fields[name]] for name in ("exclude", "candidates") if name in fields},
        order_by=tuple(order) if isinstance(order, list) else order,
        caps=fields.get("caps"),
    )
    return results


def assert_equal_document(document, expected):
    """Check the document of an answer against results."""
    assert [item["item_id"] for item in document["items"]] == expected.item_ids
    assert [item["sid"] for item in document["items"]] == expected.sids.tolist()
    np.testing.assert_allclose([item["score"] for item in document["items"]], expected.scores, rtol=1e-4)
    assert document["num_valid"] == expected.num_valid
    titles = [item["attributes"]["title"] for item in document["items"]]
    assert titles == expected.attributes["title"].to_pylist()


@pytest.fixture(scope="module")
def reference():
    return retriever_of(index())


@pytest.fixture(scope="module")
def client():
    with started(service_of(settings=replace(SETTINGS, allow_where=True))) as client:
        yield client


@pytest.mark.parametrize("seed", range(4))
def test_batches_of_the_engine(seed, reference):
    service, rng = service_of(), np.random.default_rng(seed)
    service.start()
    fields = [random_fields(rng, allow_where=False) for _ in range(24)]
    asks = [ask_of_document(RetrieveRequest.model_validate(each), SETTINGS, "key") for each in fields]
    outcomes = service.engine.answer(asks)
    service.close()
    for outcome, each in zip(outcomes, fields, strict=True):
        expected = expected_of(reference, each)
        assert isinstance(outcome, Answered)
        assert outcome.version is None
        assert outcome.results.item_ids == expected.item_ids
        np.testing.assert_array_equal(outcome.results.sids, expected.sids)
        np.testing.assert_allclose(outcome.results.scores, expected.scores, rtol=1e-4)
        assert outcome.results.num_valid == expected.num_valid


def test_requests_of_many_clients(client, reference):
    requests = [random_fields(np.random.default_rng((5, number))) for number in range(96)]

    def ask(numbers):
        own, replies = Client(client.url), []
        for number in numbers:
            replies.append((number, own.retrieve(**requests[number])))
        own.close()
        return replies

    with ThreadPoolExecutor(8) as pool:
        replies = [reply for part in pool.map(ask, [range(first, 96, 8) for first in range(8)]) for reply in part]
    assert len(replies) == 96
    for number, reply in replies:
        assert reply.status == 200, reply.body
        assert reply.document["version"] is None
        assert reply.document["beam_width"] == requests[number].get("beam_width", 10)
        assert_equal_document(reply.document, expected_of(reference, requests[number]))
    # Otherwise this test says nothing about batches.
    assert max(reply.document["timings"]["batch_size"] for _, reply in replies) > 1


def test_several_requests_in_one_body(client, reference):
    rng = np.random.default_rng(6)
    requests = [random_fields(rng) for _ in range(20)]
    reply = client.post("/v1/retrieve", {"requests": requests})
    assert reply.status == 200
    assert len(reply.document["results"]) == 20
    for document, fields in zip(reply.document["results"], requests, strict=True):
        assert_equal_document(document, expected_of(reference, fields))


def test_the_forms_of_a_prompt_are_the_same_request(client):
    prompt = random_prompt(np.random.default_rng(7))
    text = client.retrieve(text_of(prompt)).document["items"]
    assert client.retrieve(prompt).document["items"] == text
    # The template of the tests writes the role before the text.
    chat = client.retrieve([{"role": "user", "content": text_of(prompt)}]).document["items"]
    assert chat == client.retrieve(f"user {text_of(prompt)}").document["items"]
    assert chat != text


def test_scores_are_those_of_retrieve(client):
    found = client.retrieve("w3 w4", k=20, beam_width=20).document["items"]
    ids = [item["item_id"] for item in found]
    document = client.post("/v1/score", {"prompt": "w3 w4", "item_ids": [*ids, ids[0]]}).document
    assert [each["item_id"] for each in document["scores"]] == [*ids, ids[0]]
    scores = [item["score"] for item in found]
    np.testing.assert_allclose([each["score"] for each in document["scores"]], [*scores, scores[0]], rtol=1e-4)


def test_a_version_is_named_by_each_answer(tmp_path):
    live = hr.LiveIndex.create(tmp_path / "things.live", index(), headroom=1.5)
    service = service_of(live)
    service.start()
    assert service.engine.answer([ask_of([5, 6]), ask_of([7])])[1].version == 1  # type: ignore[union-attr]
    live.remove(["t1"])
    service.follower.refresh()
    outcomes = service.engine.answer([ask_of([5, 6]), ask_of([5, 6], version=1), ask_of([5, 6], version=2)])
    service.close()
    assert [outcome.version for outcome in outcomes] == [2, 1, 2]  # type: ignore[union-attr]


def test_answers_count_the_unknown_ids_of_a_history(client):
    gone = [f"gone {number}" for number in range(5)]
    requests = [{"history": history} for history in (["t3", *gone], ["t3", "t77"], ["t3", gone[4]])]
    found = client.post("/v1/retrieve", {"requests": [*requests, {"prompt": "w1", "exclude": gone}]}).document[
        "results"
    ]
    assert [answer["unknown_history"] for answer in found] == [
        {"count": 5, "first": gone[:3]},
        None,
        {"count": 1, "first": [gone[4]]},
        None,
    ]
    assert client.post("/v1/retrieve", requests[0]).document["unknown_history"] == found[0]["unknown_history"]


def test_a_history_in_place_of_a_prompt(client, reference):
    seen = ["t3", "t141", "no such item", "t77"]
    known = [item for item in seen if item != "no such item"]
    prompt = reference.history_prompt(known)

    def items_of(**fields):
        reply = client.post("/v1/retrieve", {"k": 20, "beam_width": 20, **fields})
        assert reply.status == 200, reply.body
        return reply.document["items"]

    assert items_of(history=seen, exclude=["t5"]) == items_of(prompt=prompt, exclude=["t5", *known])
    assert items_of(history=seen, repeat=True) == items_of(prompt=prompt)
    explained = client.post("/v1/explain", {"history": seen, "item_id": "t3"})
    assert explained.status == 200
    assert "exclude" in str(explained.document)
    unknown = {"count": 1, "first": ["no such item"]}
    traced = client.post("/v1/trace", {"history": seen})
    assert explained.document["unknown_history"] == traced.document["unknown_history"] == unknown
    for wrong in ({"history": ["t3"], "prompt": "w1"}, {}, {"history": []}, {"history": ["no such item"]}):
        assert client.post("/v1/retrieve", wrong).status == 400
