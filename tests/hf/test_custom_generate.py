"""`model.generate(custom_generate=generate)` equals beam search of transformers over the catalog."""

from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
import tiny
import torch

import hedgerow as hr
from hedgerow.hf import CatalogLogitsProcessor, Retriever, generate

OPTIONS: Any = {"num_beams": 12, "num_return_sequences": 6, "max_new_tokens": 3, "return_dict_in_generate": True}


@pytest.fixture(scope="module")
def retriever():
    return Retriever(tiny.model_of("qwen3"), tiny.index(), tiny.TOKENS, normalize="vocab")


def batch_of(*lengths):
    """Prompts that are padded on the left, and their mask."""
    prompts, longest = tiny.prompts_of(*lengths), max(lengths)
    ids = [[0] * (longest - len(prompt)) + prompt for prompt in prompts]
    mask = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}


@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
@pytest.mark.parametrize("lengths", [(5,), (4, 9, 6)])
def test_equals_the_beam_search_of_transformers(retriever, lengths, length_penalty):
    inputs = batch_of(*lengths)
    width = inputs["input_ids"].shape[1]
    options = OPTIONS | {"length_penalty": length_penalty}
    found = retriever.model.generate(**inputs, custom_generate=generate, retriever=retriever, **options)
    processor = CatalogLogitsProcessor(tiny.index(), tiny.TOKENS, prompt_length=width)
    expected = retriever.model.generate(**inputs, logits_processor=[processor], output_scores=True, **options)
    assert torch.equal(found.sequences, expected.sequences)
    np.testing.assert_allclose(found.sequences_scores, expected.sequences_scores, rtol=0, atol=1e-4)


def test_rules_and_fewer_sids_than_rows(retriever):
    inputs, index = batch_of(4, 9), tiny.index()
    few = index.constraint(ids=["item 20", "item 21", "item 22"])
    rules = {"constraints": [few, None], "exclude": [["item 21"], None]}
    found = retriever.model.generate(**inputs, custom_generate=generate, retriever=retriever, **OPTIONS, **rules)
    results = hr.results_of(index, tiny.TOKENS, found, prompt_length=9, num_return_sequences=6)
    expected = retriever.retrieve(tiny.prompts_of(4, 9), beam_width=12, k=None, **rules)
    assert sorted(results[0].item_ids) == sorted(expected[0].item_ids) == ["item 20", "item 22"]
    assert (found.sequences[2:6, 9:] == 0).all()
    assert (found.sequences_scores[2:6] == -torch.inf).all()
    assert results[1].item_ids == expected[1].item_ids[: len(results[1])]


def test_an_encoder_decoder_model():
    model = tiny.model_of("t5")
    retriever = Retriever(model, tiny.index(), tiny.TOKENS, normalize="vocab")
    inputs, options = batch_of(5, 7), OPTIONS
    # The padding of an encoder is on the right.
    inputs = {name: torch.stack([row.roll(-int((row == 0).sum())) for row in ids]) for name, ids in inputs.items()}
    found = model.generate(**inputs, custom_generate=generate, retriever=retriever, **options)
    processor = CatalogLogitsProcessor(tiny.index(), tiny.TOKENS, prompt_length=1)
    expected = model.generate(**inputs, logits_processor=[processor], output_scores=True, **options)
    assert torch.equal(found.sequences, expected.sequences)
    np.testing.assert_allclose(found.sequences_scores, expected.sequences_scores, rtol=0, atol=1e-4)


@pytest.mark.parametrize("max_tokens", [1, 16_384])
def test_the_encoder_runs_once(max_tokens):
    model, calls = tiny.new_model("t5"), []
    retriever = Retriever(model, tiny.index(), tiny.TOKENS, normalize="vocab", max_tokens=max_tokens)
    model.encoder.register_forward_hook(lambda *_: calls.append(1))
    # The hook is a change of the model, which is tried again.
    retriever.retrieve(tiny.prompts_of(4))
    calls.clear()
    model.generate(**batch_of(5, 7), custom_generate=generate, retriever=retriever, **OPTIONS)
    assert calls == [1]


def test_states_of_another_encoder():
    """The states that the caller gives `generate()` are those of the search."""
    model = tiny.model_of("t5")
    retriever = Retriever(model, tiny.index(), tiny.TOKENS, normalize="vocab")

    def given() -> dict[str, Any]:
        """The inputs, which `generate()` changes."""
        with torch.no_grad():
            states = model.get_encoder()(**batch_of(5))
        states.last_hidden_state = states.last_hidden_state.flip(1) * 1.5
        return {**batch_of(5), "encoder_outputs": states, **OPTIONS}

    found = model.generate(**given(), custom_generate=generate, retriever=retriever)
    processor = CatalogLogitsProcessor(tiny.index(), tiny.TOKENS, prompt_length=1)
    expected = model.generate(**given(), logits_processor=[processor], output_scores=True)
    assert torch.equal(found.sequences, expected.sequences)
    np.testing.assert_allclose(found.sequences_scores, expected.sequences_scores, rtol=0, atol=1e-4)


def test_delimiters():
    tokens = hr.TokenMap(tiny.TOKENS.token_ids, begin=(7, 8), end=(9,))
    retriever = Retriever(tiny.model_of("qwen3"), tiny.index(), tokens)
    prompt = torch.tensor([tiny.prompts_of(5)[0]])
    options: Any = {"num_beams": 4, "max_new_tokens": 6}
    sequences = retriever.model.generate(prompt, custom_generate=generate, retriever=retriever, **options)
    best = retriever.retrieve(prompt.tolist(), beam_width=4)[0]
    assert sequences.tolist() == [[*prompt[0].tolist(), 7, 8, *tokens.encode(best.sids[:1])[0].tolist(), 9]]


class TestRejects:
    @pytest.fixture(autouse=True)
    def _inputs(self, retriever):
        self.retriever, self.inputs = retriever, batch_of(5)

    def generate(self, model=None, **options):
        model = self.retriever.model if model is None else model
        options = {"retriever": self.retriever, "num_beams": 4, "max_new_tokens": 3} | options
        return model.generate(**self.inputs, custom_generate=generate, **options)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"retriever": None}, "pass the retriever of this model.*got NoneType"),
            ({"do_sample": True}, "cannot obey do_sample"),
            ({"output_scores": True, "return_dict_in_generate": True}, "cannot obey output_scores"),
            ({"repetition_penalty": 1.5}, "cannot obey RepetitionPenaltyLogitsProcessor"),
            ({"max_time": 5.0}, "cannot obey MaxTimeCriteria"),
            ({"max_new_tokens": 2}, "Pass max_new_tokens=3"),
        ],
    )
    def test_options(self, options, message):
        with pytest.raises(hr.ArgumentError, match=message):
            self.generate(**options)

    def test_another_model(self):
        with pytest.raises(hr.ArgumentError, match="of another model"):
            self.generate(tiny.new_model("qwen3"))

    def test_a_cache_of_the_caller(self):
        model = self.retriever.model
        cache = model(self.inputs["input_ids"][:, :2]).past_key_values
        cache.batch_repeat_interleave(4)
        with pytest.raises(hr.ArgumentError, match="got past_key_values"):
            self.generate(past_key_values=cache)
