"""Options of model.generation_config that change scores: applied as in generate(), or named in a warning."""

import warnings

import numpy as np
import pytest

import hedgerow as hr

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
from tiny import (
    OFFSETS,
    TOKENS,
    VOCABULARY,
    assert_same_scores,
    catalog,
    generated,
    index,
    model_of,
    new_model,
    prompts_of,
    scores_by_sid,
)

from hedgerow.hf import Retriever

# Items that the user has seen: the tokens of their codes are in the prompt.
HISTORY = TOKENS.encode(catalog().sids[:6]).ravel().tolist()
PROMPTS = [[5, 6, *HISTORY], *prompts_of(4, 9), [*HISTORY, *HISTORY]]
BANNED = [OFFSETS[0] + code for code in range(10)]
APPLIED = {
    "repetition_penalty": 1.3,
    "suppress_tokens": BANNED,
    "begin_suppress_tokens": BANNED,
    "bad_words_ids": [[token] for token in BANNED[:4]] + [[OFFSETS[0] + 12, OFFSETS[1] + 3]],
    "sequence_bias": [[[OFFSETS[0] + 3], 4.0], [[OFFSETS[0] + 12, OFFSETS[1] + 3], -5.0]],
    "no_repeat_ngram_size": 2,
}
NAMED = {
    "min_length": 40,
    "min_new_tokens": 2,
    "forced_bos_token_id": 0,
    "forced_eos_token_id": 7,
    "encoder_repetition_penalty": 1.5,
    "exponential_decay_length_penalty": (2, 1.1),
    "guidance_scale": 1.5,
    "renormalize_logits": True,
}


def configured(name: str = "qwen3", **options):
    model = new_model(name)
    model.generation_config.update(**options)
    return model


@pytest.mark.parametrize("decoding", ["tree", "plain"])
@pytest.mark.parametrize("option", APPLIED)
def test_applied_as_in_generate(option, decoding):
    model = configured(**{option: APPLIED[option]})
    retriever = Retriever(model, index(), TOKENS, normalize="vocab", decoding=decoding)
    unchanged = Retriever(model_of("qwen3"), index(), TOKENS, normalize="vocab")
    differs = False
    found = retriever.retrieve(PROMPTS, beam_width=5, k=None)
    for prompt, results in zip(PROMPTS, found, strict=True):
        expected = generated(model, prompt, 5, catalog().sids, TOKENS)
        assert_same_scores(scores_by_sid(results), {sid: score for sid, score in expected.items() if score > -1e8})
        differs |= scores_by_sid(unchanged.retrieve([prompt], beam_width=5, k=None)[0]) != scores_by_sid(results)
    assert differs


def test_all_at_once_and_in_every_search():
    model = configured(**APPLIED)
    retriever = Retriever(model, index(), TOKENS, normalize="vocab")
    (results,) = retriever.retrieve(PROMPTS[0], beam_width=5, k=None)
    expected = generated(model, PROMPTS[0], 5, catalog().sids, TOKENS)
    assert_same_scores(scores_by_sid(results), expected)
    explanation = retriever.explain(PROMPTS[0], results.item_ids[1], beam_width=5)
    assert (explanation.outcome, explanation.score) == ("returned", pytest.approx(results.scores[1]))
    assert explanation.levels[-1].score == pytest.approx(results.scores[1], abs=1e-4)
    sids, _ = retriever.free_search(PROMPTS[0], beam_width=5)
    assert sids[0, :, 0].min() >= 10
    with pytest.raises(hr.ArgumentError, match="cuda_graphs does not support sequence_bias, repetition_penalty"):
        Retriever(model, index(), TOKENS, normalize="vocab", cuda_graphs=True)


@pytest.mark.parametrize("normalize", ["codes", "allowed"])
@pytest.mark.parametrize("option", APPLIED)
def test_named_if_probabilities_are_not_over_the_vocabulary(option, normalize):
    model = configured(**{option: APPLIED[option]})
    with pytest.warns(UserWarning, match=rf"has {option}=.*: generate\(\) obeys it, .* pass normalize='vocab'") as said:
        Retriever(model, index(), TOKENS, normalize=normalize)
    assert len(said) == 1
    assert said[0].filename == __file__


@pytest.mark.parametrize("option", NAMED)
def test_named(option):
    model = configured(**{option: NAMED[option]})
    with pytest.warns(UserWarning, match=rf"has {option}=.*set it to None") as said:
        Retriever(model, index(), TOKENS, normalize="vocab")
    assert len(said) == 1


def test_options_of_sampling_count_if_it_samples():
    sampling = {"temperature": 0.6, "top_k": 20, "top_p": 0.95, "min_p": 0.1}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Retriever(configured(**sampling, do_sample=False), index(), TOKENS)
        Retriever(configured(do_sample=True), index(), TOKENS)
    with pytest.warns(UserWarning, match=r"temperature=0\.6, top_k=20, top_p=0\.95, min_p=0\.1: generate") as said:
        Retriever(configured(**sampling, do_sample=True), index(), TOKENS)
    assert len(said) == 1


def test_neutral_values_are_not_named():
    neutral = {
        "repetition_penalty": 1.0,
        "no_repeat_ngram_size": 0,
        "bad_words_ids": None,
        "suppress_tokens": [],
        "min_length": 0,
        "guidance_scale": 1,
        "length_penalty": 1.0,
        "early_stopping": True,
        "max_new_tokens": 3,
        "num_beams": 4,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        retriever = Retriever(configured(**neutral), index(), TOKENS)
    assert not retriever._searcher.search.generation


def test_a_configuration_that_changes_later():
    model = configured()
    by_vocab, by_codes = (Retriever(model, index(), TOKENS, normalize=normalize) for normalize in ("vocab", "codes"))
    model.generation_config.repetition_penalty = 1.3
    (results,) = by_vocab.retrieve(PROMPTS[0], beam_width=5, k=None)
    assert_same_scores(scores_by_sid(results), generated(model, PROMPTS[0], 5, catalog().sids, TOKENS))
    with pytest.warns(UserWarning, match="has repetition_penalty=1.3") as said:
        by_codes.retrieve(PROMPTS[0])
    assert len(said) == 1
    # Once is enough, and another warning would be an error here.
    by_codes.retrieve(PROMPTS[0])


V = VOCABULARY
INF = float("inf")
TOKEN_IDS = f"token ids from 0 to {V - 1}"
INVALID = [
    *[("repetition_penalty", value, "a float above 0") for value in (-1.0, 0.0, "x", 2, INF, float("nan"), [1.2])],
    *[("no_repeat_ngram_size", value, "a positive integer") for value in (-1, 1.5, "2", True, [2])],
    *[("suppress_tokens", value, f"a list of {TOKEN_IDS}") for value in ([500], [V], [-1], [1.5], ["a"], "5")],
    *[("begin_suppress_tokens", value, f"a list of {TOKEN_IDS}") for value in ([3, V], [[3]], {3: 1.0})],
    *[
        ("bad_words_ids", value, f"a list of lists of {TOKEN_IDS}")
        for value in ([[]], [[3], []], [3], [[V]], [[-1]], [(3,)], "x", [[1]])
    ],
    *[
        ("sequence_bias", value, f"a list of pairs of a list of {TOKEN_IDS}, and a float")
        for value in ([[]], [[[3], 1]], [[[], 1.0]], [[[V], 1.0]], [[[3], INF]], {(): 1.0}, {3: 1.0}, {(3,): 1}, 5)
    ],
]


@pytest.mark.parametrize(("option", "value", "expected"), INVALID)
def test_invalid_values_are_errors_that_name_the_option(option, value, expected):
    model = configured(**{option: value}, eos_token_id=1)
    with pytest.raises(hr.ArgumentError, match=rf"model\.generation_config\.{option} must be {expected}.*got"):
        Retriever(model, index(), TOKENS, normalize="vocab")
    model = configured()
    retriever = Retriever(model, index(), TOKENS, normalize="vocab")
    model.generation_config.update(**{option: value}, eos_token_id=1)
    with pytest.raises(hr.ArgumentError, match=f"generation_config.{option} must be"):
        retriever.retrieve(PROMPTS[0])


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("repetition_penalty", np.float32(1.3)),
        ("no_repeat_ngram_size", np.int64(2)),
        ("suppress_tokens", tuple(BANNED)),
        ("suppress_tokens", np.array(BANNED)),
        ("begin_suppress_tokens", torch.tensor(BANNED)),
        ("bad_words_ids", [[1], *APPLIED["bad_words_ids"]]),
        ("sequence_bias", {tuple(ids): bias for ids, bias in APPLIED["sequence_bias"]}),
    ],
)
def test_other_forms_of_the_same_values(option, value):
    found = []
    for form in (value, APPLIED[option]):
        retriever = Retriever(configured(**{option: form}, eos_token_id=1), index(), TOKENS, normalize="vocab")
        found.append(scores_by_sid(retriever.retrieve(PROMPTS[0], beam_width=5, k=None)[0]))
    assert_same_scores(*found)
