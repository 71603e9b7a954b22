"""Encoder-decoder models: a Retriever equals generate(), with the encoder run once per prompt."""

from typing import Any

import numpy as np
import pytest

import hedgerow as hr

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
import transformers
from tiny import (
    OFFSETS,
    TOKENS,
    VOCABULARY,
    allowed_tokens,
    assert_same_scores,
    catalog,
    index,
    new_model,
    prompts_of,
    scores_by_sid,
    tokenizer,
)

from hedgerow.hf import Retriever
from hedgerow.hf.loading import load_retriever

PROMPTS = prompts_of(9, 17, 4, 17, 1)
BART: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 64,
    "decoder_start_token_id": 2,
    "forced_eos_token_id": None,
}


def bart():
    torch.manual_seed(0)
    model = transformers.BartForConditionalGeneration(transformers.BartConfig(**BART))
    with torch.no_grad():
        for weights in model.parameters():
            if weights.ndim > 1:
                weights.normal_(0, 0.25)
        model.final_logits_bias.normal_()  # type: ignore[operator]
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = None, 0
    return model.eval()


MODELS = {"t5": lambda: new_model("t5"), "t5-untied": lambda: new_model("t5", tie_word_embeddings=False), "bart": bart}


def generated(model, prompt, beam_width: int, start: int, begin=()) -> dict[tuple, float]:
    """The SIDs that generate() finds, and their scores."""
    follow = allowed_tokens(catalog().sids, TOKENS)
    decoder = torch.tensor([[start, *begin]])
    output = model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones((1, len(prompt)), dtype=torch.int64),
        decoder_input_ids=decoder,
        do_sample=False,
        num_beams=beam_width,
        num_return_sequences=beam_width,
        length_penalty=0.0,
        max_new_tokens=3,
        output_scores=True,
        return_dict_in_generate=True,
        prefix_allowed_tokens_fn=lambda _, ids: follow[tuple(ids[decoder.shape[1] :].tolist())],
    )
    sids = TOKENS.decode(output.sequences[:, decoder.shape[1] :].tolist()).tolist()
    return dict(zip(map(tuple, sids), output.sequences_scores.tolist(), strict=True))


def start_of(model) -> int:
    return model.config.decoder_start_token_id


@pytest.mark.parametrize("max_tokens", [1, 10_000])
@pytest.mark.parametrize(("decoding", "way"), [("auto", "cached"), ("plain", "plain")])
@pytest.mark.parametrize("name", MODELS)
def test_equals_generate(name, decoding, way, max_tokens):
    model = MODELS[name]()
    retriever = Retriever(model, index(), TOKENS, normalize="vocab", decoding=decoding, max_tokens=max_tokens)
    assert retriever.decoding == way
    for prompt, results in zip(PROMPTS, retriever.retrieve(PROMPTS, beam_width=12, k=None), strict=True):
        assert_same_scores(scores_by_sid(results), generated(model, prompt, 12, start_of(model)))
        assert (np.diff(results.scores) <= 0).all()


def test_one_beam_and_more_beams_than_items():
    model = new_model("t5")
    retriever, plain = (Retriever(model, index(), TOKENS, normalize="vocab", decoding=way) for way in ("auto", "plain"))
    (results,) = retriever.retrieve(PROMPTS[0], beam_width=200, k=None)
    assert_same_scores(scores_by_sid(results), generated(model, PROMPTS[0], index().num_sids, start_of(model)))
    one, other = (some.retrieve(PROMPTS[0], beam_width=1, k=None)[0] for some in (retriever, plain))
    assert_same_scores(scores_by_sid(one), scores_by_sid(other))


def test_the_encoder_runs_once_and_the_decoder_on_one_position():
    model, encoded, decoded = new_model("t5"), [], []
    model.encoder.register_forward_hook(lambda _, __, out: encoded.append(tuple(out[0].shape[:2])))
    model.decoder.register_forward_hook(lambda _, __, out: decoded.append(tuple(out[0].shape[:2])))
    retriever = Retriever(model, index(), TOKENS)
    encoded.clear()
    decoded.clear()
    retriever.retrieve(prompts_of(9, 5), beam_width=6)
    assert encoded == [(2, 9)]
    assert decoded == [(2, 1), (12, 1), (12, 1)]


@pytest.mark.parametrize("decoding", ["auto", "plain"])
def test_the_begin_delimiter_starts_the_decoder(decoding):
    model, tokens = new_model("t5"), hr.TokenMap(TOKENS.token_ids, begin=(191, 192))
    retriever = Retriever(model, index(), tokens, normalize="vocab", decoding=decoding)
    assert retriever.encode([5, 6]) == [[5, 6]]
    for prompt, results in zip(PROMPTS, retriever.retrieve(PROMPTS, beam_width=6, k=None), strict=True):
        assert_same_scores(scores_by_sid(results), generated(model, prompt, 6, 0, (191, 192)))


def test_all_searches():
    model, (prompt,) = new_model("t5"), prompts_of(9)
    retriever = Retriever(model, index(), TOKENS)
    (results,) = retriever.retrieve(prompt, beam_width=8, k=None)
    assert index().results(retriever.trace(prompt, beam_width=8)[-1])[0].item_ids == results.item_ids
    explanation = retriever.explain(prompt, results.item_ids[2], beam_width=8)
    assert (explanation.outcome, explanation.rank) == ("returned", 3)
    assert explanation.levels[-1].score == pytest.approx(results.scores[2], abs=1e-4)
    logits_fn = retriever.logits_fn(prompt, beam_width=8)
    beams = hr.beam_search(retriever.device_index, logits_fn, batch_size=1, beam_width=8)
    assert index().results(beams)[0].item_ids == results.item_ids
    sids, scores = retriever.free_search(prompt, beam_width=8)
    assert (scores[0].diff() <= 0).all()
    assert float(scores[0, 0]) >= float(results.scores[0])
    assert sids.shape == (1, 8, 3)
    (after,) = retriever.code_logits([[*prompt, OFFSETS[0] + 3, OFFSETS[1] + 7]], level=2)
    with torch.no_grad():
        decoder = torch.tensor([[0, OFFSETS[0] + 3, OFFSETS[1] + 7]])
        own = model(input_ids=torch.tensor([prompt]), decoder_input_ids=decoder).logits[0, -1]
    torch.testing.assert_close(after, own[OFFSETS[2] : OFFSETS[2] + 20], rtol=0, atol=1e-5)


def test_rules_and_rest():
    model, prompts = new_model("t5"), prompts_of(9, 5)
    retriever = Retriever(model, index(), TOKENS)
    some = index().constraint(ids=[f"item {row}" for row in range(40)])
    first, second = retriever.retrieve(prompts, constraints=some, exclude=[["item 3"], None])
    assert {*first.item_ids, *second.item_ids} <= {f"item {row}" for row in range(40)}
    assert "item 3" not in first.item_ids
    assert retriever.retrieve([]) == []
    with pytest.raises(hr.ArgumentError, match=r"no tree\. Use decoding='plain'"):
        Retriever(model, index(), TOKENS, decoding="tree")
    with pytest.raises(hr.ArgumentError, match="cuda_graphs needs"):
        Retriever(model, index(), TOKENS, cuda_graphs=True)


def test_a_decoder_without_a_start():
    model = new_model("t5")
    model.config.decoder_start_token_id = model.generation_config.decoder_start_token_id = None
    with pytest.raises(hr.ArgumentError, match="names no token with which its decoder starts"):
        Retriever(model, index(), TOKENS)


def test_longest_prompt_of_an_encoder():
    retriever = Retriever(bart(), index(), TOKENS)
    assert len(retriever.retrieve(prompts_of(64))[0]) == 10
    with pytest.raises(hr.ArgumentError, match="prompt 0 has 65 tokens, but the model takes 64"):
        retriever.retrieve(prompts_of(65))
    assert len(Retriever(new_model("t5"), index(), TOKENS).retrieve(prompts_of(300))[0]) == 10


def test_models_that_generate_from_more_than_token_ids():
    options: dict[str, Any] = {"vocab_size": VOCABULARY, "d_model": 32, "n_layer": 1, "n_head": 4, "d_inner": 32}
    model = transformers.XLNetLMHeadModel(transformers.XLNetConfig(**options))
    with pytest.raises(
        hr.ArgumentError, match=r"XLNetLMHeadModel on more than token ids \(perm_mask, target_mapping\)"
    ):
        Retriever(model, index(), TOKENS)


class Prefixed(torch.nn.Module):
    """As prompt tuning: it puts virtual tokens before the embeddings of the encoder, or in front of its states."""

    def __init__(self, model: Any, *, takes_states: bool) -> None:
        super().__init__()
        self.inner, self.config, self.takes_states = model, model.config, takes_states
        self.generation_config = model.generation_config
        for name in ("get_input_embeddings", "get_output_embeddings", "get_encoder"):
            vars(self)[name] = getattr(model, name)

    def forward(self, input_ids=None, encoder_outputs=None, **rest):
        if encoder_outputs is not None and self.takes_states:
            return self.inner(encoder_outputs=encoder_outputs, **rest)
        embedded = self.inner.get_input_embeddings()(input_ids)
        return self.inner(inputs_embeds=torch.cat([torch.ones(1, 2, 32), embedded], dim=1), **rest)


@pytest.mark.parametrize(("takes_states", "message"), [(True, "has other logits"), (False, "does not run")])
def test_encoders_that_read_more_than_the_prompt(takes_states, message):
    model = Prefixed(new_model("t5"), takes_states=takes_states)
    with pytest.raises(hr.ArgumentError, match=f"Prefixed {message} on the states of its encoder alone"):
        Retriever(model, index(), TOKENS)


def test_load_retriever(tmp_path):
    model, words = new_model("t5"), tokenizer()
    model.save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    retriever = load_retriever(tmp_path, index(), normalize="vocab")
    assert retriever.decoding == "cached"
    (results,) = retriever.retrieve("w5 w6 w7", beam_width=6, k=None)
    assert_same_scores(scores_by_sid(results), generated(model, [5, 6, 7], 6, 0))
