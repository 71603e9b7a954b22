"""Retriever.answer, candidates and score: requests of one batch get what each would get alone."""

import time

import numpy as np
import pytest

import hedgerow as hr

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
from tiny import OFFSETS, TOKENS, assert_same_results, index, last_logits, model_of, new_model, prompts_of

from hedgerow.hf import Retriever
from hedgerow.hf.searcher import Searcher

PROMPTS = prompts_of(9, 4, 7, 12, 5, 3)


@pytest.fixture(scope="module")
def some():
    return index().constraint(np.arange(index().num_items) % 3 == 0, order="index")


def broken(token):
    """A model with NaN logits after a token."""
    model = new_model("llama")
    with torch.no_grad():
        model.get_input_embeddings().weight[token] = torch.nan
    return model


def items_from(start, stop):
    return [f"item {number}" for number in range(start, stop)]


def requests_of(some):
    first, second, third, fourth, fifth, sixth = PROMPTS
    return [
        hr.Request(first, beam_width=3, k=2),
        hr.Request(second, beam_width=8, k=None, constraints=some),
        hr.Request(third, beam_width=5, exclude=items_from(0, 60)),
        hr.Request(fourth, beam_width=20, candidates=items_from(10, 40)),
        hr.Request(fifth, beam_width=4, candidates=[*items_from(0, 90), "no such item"], constraints=some),
        hr.Request(sixth, beam_width=7, k=3, constraints=some, exclude=items_from(0, 30)),
    ]


def alone(retriever, request):
    optional = {"exclude": request.exclude, "candidates": request.candidates}
    return retriever.retrieve(
        request.prompt,
        beam_width=request.beam_width,
        k=request.k,
        constraints=request.constraints,
        **{name: None if value is None else [value] for name, value in optional.items()},
    )[0]


@pytest.mark.parametrize(("name", "decoding"), [("llama", "tree"), ("qwen3", "plain")])
@pytest.mark.parametrize("normalize", ["codes", "vocab", "allowed"])
def test_each_request_gets_what_it_gets_alone(name, decoding, normalize, some):
    retriever = Retriever(model_of(name), index(), TOKENS, normalize=normalize, decoding=decoding)
    requests = requests_of(some)
    for max_tokens in (16_384, 60):
        retriever.max_tokens = max_tokens
        for got, request in zip(retriever.answer(requests), requests, strict=True):
            assert_same_results(got, alone(retriever, request))


def test_widths_of_one_batch(monkeypatch):
    """Requests with 5 to 8 beams are one search."""
    retriever = Retriever(model_of("llama"), index(), TOKENS)
    requests = [
        hr.Request(prompt, beam_width=width, k=None) for prompt, width in zip(PROMPTS, (5, 8, 6, 7), strict=False)
    ]
    widths, beams = [], Searcher.beams
    monkeypatch.setattr(Searcher, "beams", lambda *given, **named: widths.append(given[2]) or beams(*given, **named))
    answers = retriever.answer(requests)
    assert widths == [8]
    for got, request in zip(answers, requests, strict=True):
        assert isinstance(got, hr.Results)
        assert len(np.unique(got.sids, axis=0)) == request.beam_width
        assert_same_results(got, alone(retriever, request))


def test_invalid_requests_get_errors_and_the_others_answers(some):
    other = hr.build_index(hr.Catalog([[0, 0, 0]], codebook_sizes=20))
    retriever = Retriever(broken(7), index(), TOKENS)
    valid = hr.Request([5, 6], beam_width=5)
    requests = [
        valid,
        hr.Request([], beam_width=5),
        hr.Request([7, 6], beam_width=5),
        hr.Request([5, 6], beam_width=5, exclude=[3.5]),
        hr.Request([5, 6], beam_width=5, constraints=other.constraint([True], order="index")),
        hr.Request("text", beam_width=5),
        [5, 6],
        hr.Request([5, 6], beam_width=5, deadline=time.monotonic() - 1),
        hr.Request([5, 6], beam_width=5, candidates="item 3"),
        hr.Request([5, 6], beam_width=5, constraints=some, deadline=time.monotonic() + 1e6),
        hr.Request([5, 6], beam_width=5, constraints=[some]),  # pyright: ignore[reportArgumentType]
    ]
    answers = retriever.answer(requests)
    assert_same_results(answers[0], alone(retriever, valid))
    assert_same_results(answers[9], alone(retriever, requests[9]))
    expected = {
        1: (hr.ArgumentError, "empty"),
        2: (hr.ArgumentError, "NaN or infinite for prompt 2 at level 0"),
        3: (hr.ConstraintError, "must be item ids of this index"),
        4: (hr.ConstraintError, "is a set of another index object"),
        5: (hr.ArgumentError, "there is no tokenizer"),
        6: (hr.ArgumentError, "expected a Request; got list"),
        7: (hr.DeadlineError, "had passed before its search began"),
        8: (hr.ConstraintError, "must be a list of item ids"),
        10: (hr.ConstraintError, "must be one constraint set or None; got list"),
    }
    for number, (kind, text) in expected.items():
        assert type(answers[number]) is kind
        assert text in str(answers[number])


def test_lists_of_requests():
    retriever, request = Retriever(model_of("llama"), index(), TOKENS), hr.Request([5, 6], k=3)
    assert retriever.answer([]) == []
    (results,) = retriever.answer(request for _ in range(1))
    assert_same_results(results, alone(retriever, request))
    for given, advice in (
        (request, r"got Request. For one request, pass \[request\]"),
        (5, "got int"),
        ("text", "got str"),
    ):
        with pytest.raises(hr.ArgumentError, match=f"expected a list of requests; {advice}"):
            retriever.answer(given)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("invalid", [{"k": 0}, {"beam_width": 0}, {"caps": {"x": 0}}, {"deadline": "soon"}])
def test_invalid_sizes_are_refused_by_the_request(invalid):
    with pytest.raises(hr.ArgumentError, match=next(iter(invalid))):
        hr.Request([5], **invalid)


class TestCandidates:
    def test_equal_a_constraint_set_of_them(self, some):
        retriever = Retriever(model_of("qwen3"), index(), TOKENS, normalize="vocab")
        lists = [items_from(0, 30), None, [], items_from(50, 52)]
        rules = {"constraints": some, "exclude": [["item 3"], None, None, ["item 51"]]}
        found = retriever.retrieve(PROMPTS[:4], beam_width=6, candidates=lists, **rules)
        sets = [some if ids is None else some & index().constraint(ids=ids) for ids in lists]
        expected = retriever.retrieve(PROMPTS[:4], beam_width=6, constraints=sets, exclude=rules["exclude"])
        for got, wanted in zip(found, expected, strict=True):
            assert_same_results(got, wanted)

    def test_of_a_live_index_without_its_removed_items(self, tmp_path):
        live = hr.LiveIndex.create(tmp_path / "live", index())
        live.remove(["item 3"])
        retriever = Retriever(model_of("llama"), live, TOKENS)
        (found,) = retriever.retrieve([5, 6], candidates=[["item 3", "item 4"]])
        assert found.item_ids == ["item 4"]


class TestScore:
    @pytest.mark.parametrize("normalize", ["codes", "vocab"])
    @pytest.mark.parametrize("max_tokens", [16_384, 30])
    def test_equals_the_scores_of_retrieve(self, normalize, max_tokens):
        retriever = Retriever(model_of("llama"), index(), TOKENS, normalize=normalize, max_tokens=max_tokens)
        (found,) = retriever.retrieve([5, 6], beam_width=index().num_sids, k=None)
        expected = dict(zip(found.item_ids, found.scores.tolist(), strict=True))
        ids = ["item 9", "item 80", "item 3", "item 9", *items_from(20, 40)]
        scores = retriever.score([5, 6], ids)
        assert scores.dtype == np.float32
        np.testing.assert_allclose(scores, [expected[item] for item in ids], rtol=1e-4)

    def test_no_items(self):
        assert Retriever(model_of("llama"), index(), TOKENS).score([5, 6], []).tolist() == []

    def test_code_that_the_model_bans_scores_minus_infinity(self):
        model = new_model("llama")
        retriever = Retriever(model, index(), TOKENS)
        code = int(index().sids_of(["item 3"])[0, 0])
        model.lm_head.bias = torch.nn.Parameter(torch.zeros(model.lm_head.out_features))
        with torch.no_grad():
            model.lm_head.bias[OFFSETS[0] + code] = -torch.inf
        assert retriever.score([5, 6], ["item 3"]).tolist() == [-np.inf]

    def test_items_that_cannot_be_scored(self, tmp_path):
        retriever = Retriever(model_of("llama"), index(), TOKENS)
        with pytest.raises(hr.ArgumentError, match="1 of 2 item_ids are not in the index, the first is 'none'"):
            retriever.score([5, 6], ["item 3", "none"])
        with pytest.raises(hr.ArgumentError, match="expected one prompt; got 2"):
            retriever.score([[5], [6]], ["item 3"])
        live = hr.LiveIndex.create(tmp_path / "live", index())
        live.remove(["item 3"])
        with pytest.raises(hr.ArgumentError, match="'item 3' was removed"):
            Retriever(model_of("llama"), live, TOKENS).score([5, 6], ["item 4", "item 3"])

    def test_normalize_allowed_is_refused(self):
        with pytest.raises(hr.ArgumentError, match="score needs normalize='codes' or 'vocab'"):
            Retriever(model_of("llama"), index(), TOKENS, normalize="allowed").score([5, 6], ["item 3"])


@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
def test_code_scores_add_up_to_the_scores(length_penalty):
    retriever = Retriever(model_of("llama"), index(), TOKENS, normalize="vocab", length_penalty=length_penalty)
    requests = [
        hr.Request(PROMPTS[0], beam_width=6),
        hr.Request(PROMPTS[1], beam_width=5, candidates=items_from(0, 40)),
    ]
    for request, results in zip(requests, retriever.answer(requests), strict=True):
        assert isinstance(results, hr.Results)
        assert results.code_scores is not None
        np.testing.assert_allclose(results.code_scores.sum(axis=1), results.scores * 3**length_penalty, rtol=1e-4)
        for sid, code_scores in zip(results.sids.tolist(), results.code_scores, strict=True):
            written: list[int] = []
            for level, code in enumerate(sid):
                log_probs = last_logits(model_of("llama"), (*request.prompt, *written)).log_softmax(-1)
                written.append(OFFSETS[level] + code)
                assert code_scores[level] == pytest.approx(float(log_probs[written[-1]]), abs=1e-3)
