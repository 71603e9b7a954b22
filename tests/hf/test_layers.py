"""What is read from the layers of a model."""

import pytest

import hedgerow as hr

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
from tiny import TOKENS, index, new_model

from hedgerow.hf import Retriever
from hedgerow.hf.layers import cache_argument, is_plain_linear, modules_of, put_into_evaluation_mode, state_key


@pytest.mark.parametrize("name", ["qwen3", "gpt2", "t5", "gemma3"])
def test_modules(name):
    model = new_model(name)
    assert set(map(id, modules_of(model))) == set(map(id, model.modules()))
    assert len(modules_of(model)) == len(list(model.modules()))


def test_evaluation_mode_also_of_a_part():
    model = new_model("qwen3")
    model.model.layers[1].mlp.train()
    put_into_evaluation_mode(model)
    assert not any(module.training for module in model.modules())


def test_the_key_changes_with_the_model_and_not_with_its_weights():
    model = new_model("llama", attention="sdpa", tie_word_embeddings=False)
    keys = [state_key(model)]
    with torch.no_grad():
        model.lm_head.weight += 1
    model.train()
    assert state_key(model) == keys[0]
    changes = (
        lambda: model.set_attn_implementation("eager"),
        lambda: model.resize_token_embeddings(310, mean_resizing=False),
        lambda: setattr(model, "lm_head", torch.nn.Linear(32, 310)),
        lambda: model.to(torch.bfloat16),
        lambda: setattr(model.model.layers[0], "mlp", torch.nn.Identity()),
        lambda: vars(model.lm_head).update(forward=lambda states: states),
        lambda: model.compile(backend="eager"),
    )
    for change in changes:
        change()
        keys.append(state_key(model))
    assert len(set(keys)) == len(changes) + 1


def test_plain_layers():
    class Own(torch.nn.Linear):
        pass

    assert is_plain_linear(torch.nn.Linear(2, 3))
    assert not is_plain_linear(Own(2, 3))
    assert not is_plain_linear(torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(2, 3)))
    patched, empty = torch.nn.Linear(2, 3), torch.nn.Linear(2, 3)
    vars(patched)["forward"] = lambda states: states
    empty.weight.data = torch.empty(0)
    assert not is_plain_linear(patched)
    assert not is_plain_linear(empty)
    assert not is_plain_linear(torch.nn.Linear(2, 3, device="meta"))


def test_a_model_that_leaves_its_device():
    model = new_model("llama")
    retriever = Retriever(model, index(), TOKENS)
    model.to("meta")
    for search in (retriever.retrieve, retriever.free_search, lambda prompt: retriever.code_logits(prompt, 0)):
        with pytest.raises(hr.ArgumentError, match=r"are not loaded: .* is on the device 'meta'"):
            search([5, 6])


def test_the_argument_for_keys_and_values_of_newer_versions():
    """From transformers 5.24 on, it is `cache`; the old name gives a FutureWarning, here an error."""
    from transformers import LlamaForCausalLM

    class Newer(LlamaForCausalLM):
        def forward(self, input_ids=None, cache=None, **options):  # pyright: ignore[reportIncompatibleMethodOverride]
            assert "past_key_values" not in options
            return super().forward(input_ids, past_key_values=cache, **options)

    model = new_model("llama")
    assert cache_argument(model) == "past_key_values"
    expected = Retriever(model, index(), TOKENS, decoding="tree").retrieve([[5, 6, 7], [8]], beam_width=6)
    model.__class__ = Newer
    assert cache_argument(model) == "cache"
    found = Retriever(model, index(), TOKENS, decoding="tree").retrieve([[5, 6, 7], [8]], beam_width=6)
    assert [results.item_ids for results in found] == [results.item_ids for results in expected]
