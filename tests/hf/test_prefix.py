"""Retriever(prefix=): the same results, with the keys and values of a common beginning computed once."""

import pytest

import hedgerow as hr

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
from tiny import SHAPES, TOKENS, assert_same_results, index, model_of, new_model, prompts_of

from hedgerow.hf import Retriever
from hedgerow.hf.prefix import Prefix

(BEGINNING,) = prompts_of(20, seed=5)
ENDS = prompts_of(7, 3, 12, 1)
PROMPTS = [BEGINNING + end for end in ENDS]
NO_TREE = ("mamba", "bloom", "gpt_neo", "t5", "phi3")


FORMS = [(name, attention) for name in SHAPES for attention in ("sdpa", "eager") if name not in NO_TREE]


@pytest.mark.parametrize(("name", "attention"), [form for form in FORMS if form != ("gemma2", "sdpa")])
def test_results_are_the_same(name, attention):
    model = model_of(name, attention)
    stored = Retriever(model, index(), TOKENS, prefix=BEGINNING)
    others = [*PROMPTS, BEGINNING, [*BEGINNING[:10], 3, 4], prompts_of(9)[0]]
    expected = Retriever(model, index(), TOKENS).retrieve(others, beam_width=8)
    for got, right in zip(stored.retrieve(others, beam_width=8), expected, strict=True):
        assert_same_results(got, right)


def test_the_beginning_is_computed_once():
    model = new_model("llama")
    lengths = []
    model.model.register_forward_pre_hook(
        lambda _, __, named: lengths.append(named["input_ids"].shape), with_kwargs=True
    )
    retriever = Retriever(model, index(), TOKENS, prefix=BEGINNING)
    retriever.retrieve(PROMPTS, beam_width=8)
    assert lengths.count((1, 20)) == 1
    lengths.clear()
    retriever.retrieve(PROMPTS, beam_width=8)
    # The prompts without their beginning, then the beams of two levels.
    assert lengths == [(4, 12), (4, 8), (4, 8)]


@pytest.mark.parametrize("change", ["step", "replace", "train"])
def test_a_changed_model_computes_it_again(change):
    model = new_model("llama")
    retriever = Retriever(model, index(), TOKENS, prefix=BEGINNING)
    before = retriever.retrieve(PROMPTS[0], beam_width=8)[0]
    layer = model.model.layers[0].self_attn.k_proj
    if change == "replace":
        layer.weight = torch.nn.Parameter(layer.weight * 2)
    elif change == "step":
        with torch.no_grad():
            layer.weight.mul_(2)
    else:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        model(input_ids=torch.tensor([PROMPTS[0]]), labels=torch.tensor([PROMPTS[0]])).loss.backward()
        optimizer.step()
    after = retriever.retrieve(PROMPTS[0], beam_width=8)[0]
    assert_same_results(after, Retriever(model, index(), TOKENS).retrieve(PROMPTS[0], beam_width=8)[0])
    assert after.scores.tolist() != before.scores.tolist()


def test_how_many_tokens_are_used():
    prefix = Prefix(range(10, 30))
    assert prefix.common([[*range(10, 30), 5], [*range(10, 22), 7, 8]]) == 12
    # One token is left of a prompt, and short beginnings are computed anew.
    assert prefix.common([[*range(10, 30)]]) == 19
    assert prefix.common([[10, 11, 12, 5]]) == 0
    assert prefix.common([[5, 6]]) == 0


def test_models_that_take_no_prefix():
    with pytest.raises(hr.ArgumentError, match="prefix needs decoding='tree'"):
        Retriever(model_of("mamba"), index(), TOKENS, decoding="plain", prefix=BEGINNING)
    with pytest.raises(hr.ArgumentError, match="expected one prompt"):
        Retriever(model_of("llama"), index(), TOKENS, prefix=[BEGINNING, BEGINNING])
