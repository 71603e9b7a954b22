"""Models whose head or whose weights are not plain: the right answer, or one error when the Retriever is created."""

from typing import Any

import pytest

import hedgerow as hr

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
from tiny import (
    TOKENS,
    assert_same_scores,
    catalog,
    exhaustive,
    generated,
    index,
    new_model,
    prompts_of,
    scores_by_sid,
)
from torch import nn

from hedgerow.hf import Retriever

PROMPTS = prompts_of(9, 4)


class Cast(nn.Sequential):
    """As CastOutputToFloat: a head without a weight of its own."""

    def forward(self, input):  # noqa: A002
        return super().forward(input).float()


class Packed(nn.Module):
    """As 4-bit layers: the weight is packed into bytes, in one column."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.scale = float(linear.weight.detach().abs().max()) / 127
        codes = (linear.weight.detach() / self.scale).round().to(torch.int8)
        self.shape, self.bias = codes.shape, None
        self.weight = nn.Parameter(codes.reshape(-1, 1), requires_grad=False)

    def forward(self, states):
        return states @ (self.weight.reshape(self.shape).float() * self.scale).T


class Method(nn.Module):
    """As the dynamic int8 layers of torch: `weight` is a method."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.inner = linear

    def weight(self):
        return self.inner.weight

    def bias(self):
        return None

    def forward(self, states):
        return self.inner(states)


class Prefixed(nn.Module):
    """As prompt tuning: it puts virtual tokens before the embeddings, and ignores position ids."""

    def __init__(self, model: Any, virtual: int) -> None:
        super().__init__()
        self.inner, self.config = model, model.config
        self.virtual = nn.Parameter(torch.randn(virtual, model.config.hidden_size))

    def get_input_embeddings(self):
        return self.inner.get_input_embeddings()

    def get_output_embeddings(self):
        return self.inner.get_output_embeddings()

    def forward(self, input_ids, use_cache=None, **_):
        embedded = self.inner.get_input_embeddings()(input_ids)
        virtual = self.virtual.expand(len(input_ids), -1, -1)
        return self.inner(inputs_embeds=torch.cat([virtual, embedded], dim=1), use_cache=use_cache)


def with_head(wrapper: Any) -> Any:
    model = new_model("qwen3", tie_word_embeddings=False)
    model.lm_head = wrapper(model.lm_head)
    return model


def partitioned() -> Any:
    """As ZeRO-3: every parameter is empty, except while its module computes."""
    model = new_model("qwen3", tie_word_embeddings=False)
    for module in model.modules():
        full = {name: weight.data for name, weight in module.named_parameters(recurse=False)}
        if full:
            module.register_forward_pre_hook(lambda module, _, full=full: fill(module, full))
            module.register_forward_hook(
                lambda module, *_, full=full: fill(module, dict.fromkeys(full, torch.empty(0)))
            )
            fill(module, dict.fromkeys(full, torch.empty(0)))
    return model


def empty(values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return dict.fromkeys(values, torch.empty(0))


def fill(module: nn.Module, values: dict[str, torch.Tensor]) -> None:
    for name, value in values.items():
        getattr(module, name).data = value


def offloaded() -> Any:
    """As accelerate: weights are on "meta", and a hook moves them to a device for each call."""

    class Hook:
        execution_device = torch.device("cpu")

    model = new_model("qwen3", tie_word_embeddings=False)
    for module in model.modules():
        full = {name: nn.Parameter(weight.data) for name, weight in module.named_parameters(recurse=False)}
        if full:
            empty = {name: nn.Parameter(weight.to("meta")) for name, weight in full.items()}
            vars(module)["_hf_hook"] = Hook()
            vars(module)["forward"] = swapping(module, full, empty)
            module._parameters.update(empty)
    return model


def swapping(module: nn.Module, full: Any, empty: Any) -> Any:
    forward = module.forward

    def call(*arguments, **options):
        module._parameters.update(full)
        try:
            return forward(*arguments, **options)
        finally:
            module._parameters.update(empty)

    return call


MAKERS = {
    "cast": lambda: with_head(Cast),
    "packed": lambda: with_head(Packed),
    "method": lambda: with_head(Method),
    "partitioned": partitioned,
    "offloaded": offloaded,
    "parametrized": lambda: with_head(nn.utils.parametrizations.weight_norm),
}


@pytest.mark.parametrize("maker", MAKERS)
def test_heads_that_are_not_plain_equal_generate(maker):
    model = MAKERS[maker]()
    retriever = Retriever(model, index(), TOKENS, normalize="vocab")
    assert (retriever.decoding, retriever._searcher.search.model.head_use) == ("tree", "last")
    # generate() of transformers 5.13 takes the device of the first weight, which is "meta".
    reference = new_model("qwen3", tie_word_embeddings=False) if maker == "offloaded" else model
    for prompt, results in zip(PROMPTS, retriever.retrieve(PROMPTS, beam_width=6, k=None), strict=True):
        assert_same_scores(scores_by_sid(results), generated(reference, prompt, 6, catalog().sids, TOKENS))


def test_virtual_tokens():
    model = Prefixed(new_model("qwen3"), 3).eval()
    with pytest.warns(UserWarning, match="it adds 3 positions of its own to a prompt"):
        retriever = Retriever(model, index(), TOKENS)
    assert retriever.decoding == "plain"
    for prompt, results in zip(PROMPTS, retriever.retrieve(PROMPTS, beam_width=6, k=None), strict=True):
        expected = exhaustive(model, prompt, index(), TOKENS, beam_width=6, normalize="codes")[-1][:6]
        assert_same_scores(scores_by_sid(results), dict(expected))
    with pytest.raises(hr.ArgumentError, match="prompt 0 has 60 tokens, but the model takes 59 before a SID"):
        retriever.retrieve(prompts_of(60))
    with pytest.raises(hr.ArgumentError, match="it adds 3 positions of its own"):
        Retriever(model, index(), TOKENS, decoding="tree")


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:Position ids are not supported")
@pytest.mark.parametrize("kind", ["PromptTuningConfig", "PrefixTuningConfig", "PromptEncoderConfig"])
def test_virtual_tokens_of_peft(kind):
    peft = pytest.importorskip("peft")
    config = getattr(peft, kind)(task_type="CAUSAL_LM", num_virtual_tokens=3)
    model = peft.get_peft_model(new_model("qwen3"), config).eval()
    with pytest.warns(UserWarning, match="is searched with decoding='plain'"):
        retriever = Retriever(model, index(), TOKENS, normalize="vocab")
    for prompt, results in zip(PROMPTS, retriever.retrieve(PROMPTS, beam_width=6, k=None), strict=True):
        assert_same_scores(scores_by_sid(results), generated(model, prompt, 6, catalog().sids, TOKENS))


def test_logits_that_depend_on_the_batch():
    """As activations that are quantized over a whole batch: only a sequence alone has the model's own logits."""

    class Quantized(nn.Module):
        def forward(self, states):
            scale = states.abs().max() / 7
            return (states / scale).round() * scale

    model = new_model("qwen3")
    model.model.layers[0].mlp = nn.Sequential(Quantized(), model.model.layers[0].mlp)
    with pytest.warns(UserWarning, match="depend on the batch, so each sequence is computed alone"):
        retriever = Retriever(model, index(), TOKENS)
    for prompt, results in zip(PROMPTS, retriever.retrieve(PROMPTS, beam_width=6, k=None), strict=True):
        expected = exhaustive(model, prompt, index(), TOKENS, beam_width=6, normalize="codes")[-1][:6]
        assert_same_scores(scores_by_sid(results), dict(expected))


@pytest.mark.parametrize("part", ["lm_head", "model.embed_tokens", "model.layers.1", ""])
def test_weights_that_are_not_loaded(part):
    model = new_model("qwen3", tie_word_embeddings=False)
    model.get_submodule(part).to("meta")
    with pytest.raises(hr.ArgumentError, match=rf"{part}.* is on the device 'meta'\. Load the model with"):
        Retriever(model, index(), TOKENS)


def test_models_that_cannot_run():
    model = new_model("qwen3")
    model.model.layers[0].mlp.down_proj = nn.Linear(7, 32)
    with pytest.raises(hr.ArgumentError, match="Qwen3ForCausalLM cannot run on a few token ids: RuntimeError: mat1"):
        Retriever(model, index(), TOKENS)
    wrapped = nn.DataParallel(new_model("qwen3"))
    with pytest.raises(hr.ArgumentError, match=r"got DataParallel\. Pass the model that it wraps: model\.module"):
        Retriever(wrapped, index(), TOKENS)
