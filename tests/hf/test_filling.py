"""Fewer than k items: why, and `fill`, whose results are those of a search with more beams."""

import numpy as np
import pytest

import hedgerow as hr

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
from tiny import CODES, OFFSETS, TOKENS, assert_same_results, catalog, model_of, new_model, prompts_of

from hedgerow.hf import Retriever

ITEMS = {"maker": ["abcde"[row % 5] for row in range(150)]}
(PROMPT,) = prompts_of(6)


@pytest.fixture(scope="module")
def retriever():
    items = hr.Catalog(catalog().sids // 2, codebook_sizes=CODES, attributes=ITEMS)
    return Retriever(model_of("llama"), hr.build_index(items), TOKENS)


def rules_of(retriever):
    few = retriever.index.constraint(ids=range(0, 150, 9))
    return [
        {},
        {"caps": {"maker": 3}},
        {"constraints": few},
        {"constraints": few, "caps": {"maker": 2}},
        {"candidates": [list(range(40))]},
        {"exclude": [list(range(0, 150, 2))]},
    ]


@pytest.mark.parametrize("number", range(6))
@pytest.mark.parametrize(("beam_width", "k"), [(1, 4), (3, 10), (3, 40), (100, 149), (200, 151)])
def test_fill_equals_the_first_wide_enough_search(retriever, number, beam_width, k):
    rules = rules_of(retriever)[number]
    found = retriever.retrieve(PROMPT, beam_width=beam_width, k=k, fill=True, **rules)[0]
    width = beam_width
    while True:
        expected = retriever.retrieve(PROMPT, beam_width=width, k=k, **rules)[0]
        if expected.complete or expected.reason not in ("beams", "caps") or width >= 150:
            break
        width *= 2
    assert_same_results(found, expected)
    assert found.reason == expected.reason
    request = {name: value[0] if name in ("exclude", "candidates") else value for name, value in rules.items()}
    other = hr.Request([7, 8], k=2)
    answers = retriever.answer([other, hr.Request(PROMPT, beam_width=beam_width, k=k, fill=True, **request)])
    assert_same_results(answers[1], expected)
    assert_same_results(answers[0], retriever.retrieve([7, 8], k=2)[0])


@pytest.mark.parametrize("number", range(6))
@pytest.mark.parametrize("beam_width", [1, 5, 40, 150])
def test_the_reason_equals_that_of_a_count(retriever, number, beam_width):
    rules = rules_of(retriever)[number]
    uncapped = {name: value for name, value in rules.items() if name != "caps"}
    allowed = len(retriever.retrieve(PROMPT, beam_width=150, k=None, **uncapped)[0])
    in_beams = len(retriever.retrieve(PROMPT, beam_width=beam_width, k=None, **uncapped)[0])
    reasons = set()
    for k in range(1, 160, 3):
        results = retriever.retrieve(PROMPT, beam_width=beam_width, k=k, **rules)[0]
        assert results.complete == (len(results) == k)
        assert results[:1].reason == results.reason
        if len(results) == k:
            expected = None
        elif in_beams >= k:
            expected = "caps"
        elif in_beams == allowed:
            expected = "catalog" if allowed == 150 else "set"
        else:
            expected = "beams"
        assert results.reason == expected
        reasons.add(results.reason)
    assert len(reasons) > 1
    assert retriever.retrieve(PROMPT, k=None, **rules)[0].complete


def test_banned_codes_and_results_of_beams():
    model = new_model("phi")
    with torch.no_grad():
        model.lm_head.bias[OFFSETS[0] : OFFSETS[0] + 10] = -torch.inf
    index = hr.build_index(hr.Catalog(catalog().sids, codebook_sizes=CODES))
    for fill in (False, True):
        results = Retriever(model, index, TOKENS).retrieve(PROMPT, beam_width=140, k=145, fill=fill)[0]
        assert (results.reason, results.complete) == ("model", False)
    beams = hr.beam_search(index, lambda beams: np.zeros((*beams.states.shape, CODES)), batch_size=1, beam_width=5)
    assert [index.results(beams, k=k)[0].reason for k in (5, 100, None)] == [None, "beams", None]


def test_batches_with_other_widths(retriever):
    requests = [hr.Request(PROMPT, beam_width=width, k=30) for width in (20, 30, 25)]
    assert [answer.reason for answer in retriever.answer(requests)] == [
        retriever.retrieve(PROMPT, beam_width=request.beam_width, k=30)[0].reason for request in requests
    ]


@pytest.mark.parametrize("fill", [1, None, "yes"])
def test_fill_is_a_bool_and_needs_k(retriever, fill):
    with pytest.raises(hr.ArgumentError, match="fill must be True or False; got"):
        retriever.retrieve(PROMPT, fill=fill)
    with pytest.raises(hr.ArgumentError, match="fill must be True or False; got"):
        hr.Request(PROMPT, fill=fill)
    with pytest.raises(hr.ArgumentError, match="fill needs k"):
        retriever.retrieve(PROMPT, fill=True, k=None)


def test_a_request_with_a_deadline_is_filled(retriever, monkeypatch):
    """Its search has begun in time."""
    moments = iter([0.0, *[100.0] * 50])
    monkeypatch.setattr("time.monotonic", lambda: next(moments))
    (answer,) = retriever.answer([hr.Request(PROMPT, beam_width=1, k=20, fill=True, deadline=1.0)])
    assert len(answer) == 20


def test_errors_of_wider_searches_are_errors(retriever, monkeypatch):
    results = retriever._searcher.__class__.results

    def failing(searcher, tasks, numbers):
        if tasks[0].beam_width > 1:
            raise hr.ArgumentError("too wide")
        return results(searcher, tasks, numbers)

    monkeypatch.setattr(retriever._searcher.__class__, "results", failing)
    with pytest.raises(hr.ArgumentError, match="too wide"):
        retriever.retrieve(PROMPT, beam_width=1, k=20, fill=True)
