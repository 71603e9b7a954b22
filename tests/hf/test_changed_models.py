"""A Retriever searches the model as it is, and not as it was when the Retriever was created."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

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
    new_model,
    prompts_of,
    scores_by_sid,
)
from torch import nn

from hedgerow.hf import Retriever
from hedgerow.hf.layers import capture_key

PROMPTS = prompts_of(9, 4)


def assert_equals_generate(retriever: Retriever, model: Any, prompts=PROMPTS) -> None:
    found = retriever.retrieve(prompts, beam_width=6, k=None)
    for prompt, results in zip(prompts, found, strict=True):
        assert_same_scores(scores_by_sid(results), generated(model, prompt, 6, catalog().sids, TOKENS))


class Lora(nn.Module):
    """As the layers of peft: it wraps a linear layer, shows its weight, and adds the product of an active adapter."""

    def __init__(self, base: nn.Linear, names=("first", "second")) -> None:
        super().__init__()
        self.base, self.active = base, "first"
        self.adapters = nn.ModuleDict({name: nn.Linear(base.in_features, base.out_features) for name in names})
        for weight in self.adapters.parameters():
            nn.init.normal_(weight, std=0.25)

    @property
    def weight(self):
        return self.base.weight

    @property
    def bias(self):
        return self.base.bias

    def forward(self, states):
        return self.base(states) + (self.adapters[self.active](states) if self.active else 0)


class Saved(nn.Module):
    """As ModulesToSaveWrapper of peft: it calls a copy, and shows the attributes of the original."""

    def __init__(self, original: nn.Linear) -> None:
        super().__init__()
        self.original, self.saved = original, nn.Linear(original.in_features, original.out_features, bias=False)
        nn.init.normal_(self.saved.weight, std=0.25)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("original"), name)

    def forward(self, states):
        return self.saved(states)


@pytest.mark.parametrize("name", ["qwen3", "gemma2"])
@pytest.mark.parametrize("wrapper", [Lora, Saved])
def test_adapters_on_the_head(name, wrapper):
    model = new_model(name, tie_word_embeddings=False)
    retriever = Retriever(model, index(), TOKENS, normalize="vocab")
    torch.manual_seed(1)
    model.lm_head = wrapper(model.lm_head)
    assert_equals_generate(retriever, model)
    if wrapper is Lora:
        for active in ("second", None, "first"):
            model.lm_head.active = active
            assert_equals_generate(retriever, model)
    model.lm_head = model.lm_head.base if wrapper is Lora else model.lm_head.original
    assert_equals_generate(retriever, model)


def test_adapters_in_the_layers():
    model = new_model("qwen3")
    retriever = Retriever(model, index(), TOKENS, normalize="vocab")
    attention = model.model.layers[0].self_attn
    torch.manual_seed(1)
    attention.q_proj = Lora(attention.q_proj)
    assert_equals_generate(retriever, model)
    attention.q_proj.active = "second"
    assert_equals_generate(retriever, model)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("modules", [["q_proj", "v_proj"], ["q_proj", "lm_head"]])
def test_lora_of_peft(modules):
    peft = pytest.importorskip("peft")
    model = new_model("qwen3", tie_word_embeddings=False)
    before = Retriever(model, index(), TOKENS, normalize="vocab")
    config = {"task_type": "CAUSAL_LM", "target_modules": modules, "init_lora_weights": False}
    adapted = peft.get_peft_model(model, peft.LoraConfig(**config))
    adapted.add_adapter("second", peft.LoraConfig(**config))
    after = Retriever(adapted, index(), TOKENS, normalize="vocab")
    for active in ("default", "second"):
        adapted.set_adapter(active)
        assert_equals_generate(before, model)
        assert_equals_generate(after, adapted)
    merged = adapted.merge_and_unload()
    assert_equals_generate(before, merged)
    assert_equals_generate(after, merged)


def test_training_steps():
    model = new_model("gpt2", resid_pdrop=0.5)
    retriever = Retriever(model, index(), TOKENS, normalize="vocab")
    optimizer, ids = torch.optim.SGD(model.parameters(), 0.2), torch.tensor([PROMPTS[0]])
    for _ in range(3):
        model.train()
        model(ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        found = scores_by_sid(retriever.retrieve(PROMPTS[0], beam_width=6, k=None)[0])
        assert_same_scores(found, generated(model.eval(), PROMPTS[0], 6, catalog().sids, TOKENS))


@pytest.mark.parametrize(("before", "after"), [("sdpa", "eager"), ("eager", "sdpa")])
@pytest.mark.parametrize("name", ["llama", "mistral"])
def test_another_attention(name, before, after):
    model = new_model(name, attention=before)
    retriever = Retriever(model, index(), TOKENS, normalize="vocab")
    model.set_attn_implementation(after)
    assert_equals_generate(retriever, model)
    assert retriever.decoding == "tree"


def test_another_type():
    model = new_model("llama", attention="eager")
    retriever = Retriever(model, index(), TOKENS, normalize="vocab")
    assert_equals_generate(retriever, model.double())


def test_logits_that_the_model_scales_from_now_on():
    """No module changes, so only the comparison of a search with the model's own logits can tell."""
    model = new_model("qwen3")
    retriever = Retriever(model, index(), TOKENS, normalize="vocab")
    assert retriever._searcher.search.model.head_use == "rows"
    handle = model.register_forward_hook(lambda _, __, out: halved(out))
    assert_equals_generate(retriever, model)
    assert retriever._searcher.search.model.head_use == "last"
    for search in (retriever.free_search, lambda prompt: retriever.logits_fn(prompt, beam_width=2)):
        search(PROMPTS[0])
    handle.remove()
    assert_equals_generate(retriever, model)


@pytest.mark.parametrize("call", ["free_search", "explain", "code_logits", "logits_fn", "trace"])
def test_every_search_notices(call):
    """Each of a retriever's searches, as the first one after the change, equals that of a new retriever."""

    def answer(retriever: Retriever) -> Any:
        prompt = PROMPTS[0]
        if call == "explain":
            return retriever.explain(prompt, "item 3").levels[-1].score
        if call == "code_logits":
            return retriever.code_logits(prompt, 0).tolist()
        if call == "logits_fn":
            return retriever.logits_fn(prompt, beam_width=2)(hr.init_beams(retriever.device_index, 1)).tolist()
        if call == "trace":
            return retriever.trace(prompt, beam_width=3)[-1].scores.tolist()
        return retriever.free_search(prompt, beam_width=3)[1].tolist()

    model = new_model("qwen3")
    retriever = Retriever(model, index(), TOKENS, normalize="vocab")
    before = answer(retriever)
    model.register_forward_hook(lambda _, __, out: halved(out))
    assert answer(retriever) == answer(Retriever(model, index(), TOKENS, normalize="vocab")) != before


def test_threads_notice_together():
    model, prompts = new_model("qwen3"), prompts_of(*range(3, 15))
    retriever = Retriever(model, index(), TOKENS, normalize="vocab")
    model.register_forward_hook(lambda _, __, out: halved(out))
    new = Retriever(model, index(), TOKENS, normalize="vocab")
    expected = [results.item_ids for results in new.retrieve(prompts, beam_width=5)]
    with ThreadPoolExecutor(4) as pool:
        found = pool.map(lambda prompt: retriever.retrieve(prompt, beam_width=5)[0].item_ids, prompts)
        assert list(found) == expected


def halved(out: Any) -> Any:
    out.logits = out.logits * 0.5
    return out


@pytest.mark.parametrize("in_place", [False, True])
def test_a_compiled_model_runs_without_its_compiled_code(in_place):
    model = new_model("qwen3")
    before = Retriever(model, index(), TOKENS, normalize="vocab")
    calls = []

    def backend(graph, _):
        calls.append(graph)
        return graph

    if in_place:
        model.compile(backend=backend)
    given = model if in_place else torch.compile(model, backend=backend)
    for retriever in (before, Retriever(given, index(), TOKENS, normalize="vocab")):
        found = retriever.retrieve(PROMPTS, beam_width=6, k=None)
        for prompt, results in zip(PROMPTS, found, strict=True):
            expected = generated(new_model("qwen3"), prompt, 6, catalog().sids, TOKENS)
            assert_same_scores(scores_by_sid(results), expected)
    assert retriever.model is given
    assert calls == []


def test_graphs_are_captured_again_if_weights_or_adapters_change():
    model = new_model("llama")
    attention = model.model.layers[0].self_attn
    attention.q_proj = Lora(attention.q_proj)
    keys = [capture_key(model)]
    vars(attention.q_proj)["_active_adapter"] = "second"
    keys.append(capture_key(model))
    attention.v_proj.weight = nn.Parameter(attention.v_proj.weight.clone())
    keys.append(capture_key(model))
    # Quantized weights are buffers.
    model.model.rotary_emb.inv_freq = model.model.rotary_emb.inv_freq.clone()
    keys.append(capture_key(model))
    assert len(set(keys)) == 4
    assert capture_key(model) == keys[-1]


class TestChangedHeads:
    @pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2"])
    def test_a_resized_head(self, name):
        model, (prompt,) = new_model(name), prompts_of(6)
        retriever = Retriever(model, index(), TOKENS, normalize="vocab")
        before = scores_by_sid(retriever.retrieve(prompt, beam_width=8)[0])
        model.resize_token_embeddings(310, mean_resizing=False)
        with torch.no_grad():
            model.get_output_embeddings().weight[list(OFFSETS)] += 1
        expected = scores_by_sid(Retriever(model, index(), TOKENS, normalize="vocab").retrieve(prompt, beam_width=8)[0])
        assert before != expected
        assert scores_by_sid(retriever.retrieve(prompt, beam_width=8)[0]) == expected
        assert retriever.encode([305]) == [[305]]
        assert torch.equal(retriever.code_logits(prompt, 1), Retriever(model, index(), TOKENS).code_logits(prompt, 1))

    @pytest.mark.parametrize("name", ["llama", "gemma2"])
    def test_a_head_without_tokens_of_codes(self, name):
        model = new_model(name)
        retriever = Retriever(model, index(), TOKENS)
        model.resize_token_embeddings(270, mean_resizing=False)
        for search in (retriever.retrieve, retriever.free_search, lambda prompt: retriever.code_logits(prompt, 0)):
            with pytest.raises(hr.ArgumentError, match="the token map names token 279, but the model has 270 tokens"):
                search([5, 6])

    def test_a_head_whose_rows_are_not_its_logits(self):
        class Scaled(torch.nn.Linear):
            def forward(self, states):  # type: ignore[override]
                return super().forward(states) * 0.1

        model, (prompt,) = new_model("llama"), prompts_of(6)
        retriever = Retriever(model, index(), TOKENS)
        head = Scaled(32, VOCABULARY, bias=False)
        head.weight = model.lm_head.weight
        model.set_output_embeddings(head)
        expected = Retriever(model, index(), TOKENS).retrieve(prompt)[0]
        assert_same_scores(scores_by_sid(retriever.retrieve(prompt)[0]), scores_by_sid(expected))


def banned(out: Any) -> Any:
    """An output without some codes of level 0, and without words."""
    out.logits[..., OFFSETS[0] : OFFSETS[0] + 7] = -torch.inf
    out.logits[..., 3:60] = -torch.inf
    return out


@pytest.mark.parametrize("name", ["qwen3", "gpt2", "t5"])
@pytest.mark.parametrize("how", ["hook", "forward"])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("normalize", ["vocab", "codes"])
def test_tokens_that_the_model_bans(name, how, after, normalize):
    model = new_model(name)
    retriever = Retriever(model, index(), TOKENS, normalize=normalize)
    retriever.retrieve(PROMPTS)
    forward = model.forward
    if how == "hook":
        model.register_forward_hook(lambda *given: banned(given[-1]))
    else:
        model.forward = lambda *given, **named: banned(forward(*given, **named))
    if not after:
        retriever = Retriever(model, index(), TOKENS, normalize=normalize)
    if normalize == "vocab" and name != "t5":
        assert_equals_generate(retriever, model)
    every = retriever.retrieve(PROMPTS, beam_width=200, k=None)
    allowed = {tuple(sid) for sid in catalog().sids.tolist() if sid[0] >= 7}
    assert [set(scores_by_sid(results)) for results in every] == [allowed] * len(PROMPTS)
