"""Prompts beyond max_position_embeddings: models that scale their angles, or that have no limit."""

import pytest

import hedgerow as hr

pytest.importorskip("torch")
pytest.importorskip("transformers")

import transformers
from tiny import TOKENS, VOCABULARY, assert_same_scores, catalog, generated, index, new_model, prompts_of, scores_by_sid

from hedgerow.hf import Retriever
from hedgerow.hf.limits import max_positions, rope_growth

SCALED = {
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "rope_theta": 1e4},
    "dynamic": {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4},
    "linear": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4},
}


@pytest.mark.parametrize("decoding", ["tree", "plain"])
@pytest.mark.parametrize("kind", ["yarn", "linear"])
def test_scaled_angles_take_longer_prompts(kind, decoding):
    model = new_model("qwen3", max_position_embeddings=32, rope_parameters=SCALED[kind])
    retriever = Retriever(model, index(), TOKENS, normalize="vocab", decoding=decoding)
    prompts = prompts_of(60, 9, 33, 31)
    for prompt, results in zip(prompts, retriever.retrieve(prompts, beam_width=6, k=None), strict=True):
        assert_same_scores(scores_by_sid(results), generated(model, prompt, 6, catalog().sids, TOKENS))


def test_angles_that_grow_are_those_of_the_prompt_alone():
    """With dynamic NTK, the angles depend on the longest sequence so far: of the batch, and of earlier calls."""

    def fresh():
        return new_model("qwen3", max_position_embeddings=32, rope_parameters=SCALED["dynamic"])

    prompts = prompts_of(60, 9, 33, 31, 60, 29, 45)
    expected = [generated(fresh(), prompt, 6, catalog().sids, TOKENS) for prompt in prompts]
    retriever = Retriever(fresh(), index(), TOKENS, normalize="vocab")
    assert retriever.decoding == "tree"
    for found in (
        retriever.retrieve(prompts, beam_width=6, k=None),
        [retriever.retrieve(prompt, beam_width=6, k=None)[0] for prompt in prompts],
    ):
        for results, right in zip(found, expected, strict=True):
            assert_same_scores(scores_by_sid(results), right)
    batches = retriever._searcher.search.batches(prompts, 6, 10_000)
    groups = {tuple(sorted(len(prompts[row]) for row in rows)) for rows in batches}
    assert groups == {(9, 29), (60, 60), (33,), (31,), (45,)}
    with pytest.raises(hr.ArgumentError, match="cuda_graphs does not support 'longrope' and 'dynamic'"):
        Retriever(fresh(), index(), TOKENS, cuda_graphs=True)


def test_longrope_beyond_its_limit():
    model, (prompt,) = new_model("phi3"), prompts_of(90)
    retriever = Retriever(model, index(), TOKENS, normalize="vocab")
    expected = generated(model, prompt, 6, catalog().sids, TOKENS)
    assert_same_scores(scores_by_sid(retriever.retrieve(prompt, beam_width=6, k=None)[0]), expected)


@pytest.mark.parametrize("name", ["bloom", "mamba"])
def test_models_without_a_limit(name):
    model, (prompt,) = new_model(name), prompts_of(200)
    retriever = Retriever(model, index(), TOKENS, normalize="vocab", decoding="plain")
    expected = generated(model, prompt, 4, catalog().sids, TOKENS)
    assert_same_scores(scores_by_sid(retriever.retrieve(prompt, beam_width=4, k=None)[0]), expected)


LIMITS = {
    "Qwen3Config": ({"max_position_embeddings": 64}, 64),
    "GPT2Config": ({"n_positions": 128}, 128),
    "Gemma3TextConfig": ({"max_position_embeddings": 64}, 64),
    "XLNetConfig": ({}, None),
    "MptConfig": ({}, None),
    "MambaConfig": ({}, None),
    "BloomConfig": ({}, None),
    "FalconConfig": ({"alibi": True}, None),
}


@pytest.mark.parametrize("name", LIMITS)
def test_limits_of_configurations(name):
    options, limit = LIMITS[name]
    config = getattr(transformers, name)(vocab_size=VOCABULARY, **options)
    assert max_positions(config) == limit
    assert rope_growth(config) == float("inf")


def test_angles_of_one_kind_of_layers_are_scaled():
    parameters = {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6}
    rope = {"full_attention": parameters, "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}}
    config = transformers.Gemma3TextConfig(max_position_embeddings=64, rope_parameters=rope)
    assert max_positions(config) is None
