"""Compiled layers: a Retriever with `compile=True` answers as without, and `warm_up` compiles all that it needs."""

import copy
import os
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import hedgerow as hr

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
from tiny import TOKENS, index, model_of, new_model, prompts_of
from torch._dynamo.utils import counters
from torch._inductor import config as inductor_config

from hedgerow.hf import Retriever, Shapes, compiled

SLOW = pytest.mark.skipif(
    "HEDGEROW_TEST_COMPILED" not in os.environ, reason="make test-compiled runs these tests: a minute"
)


@pytest.fixture(autouse=True)
def traced_only(monkeypatch):
    """Layers are traced and guarded, but no code is generated, which takes most of the time."""
    monkeypatch.setattr(compiled, "BACKEND", "eager")


def compilations() -> int:
    return counters["stats"]["unique_graphs"]


def assert_same(retriever: Retriever, model, prompts, **options) -> None:
    """Check the answers against those of the model without compiled layers."""
    expected = Retriever(model, retriever.version or retriever.index, TOKENS).retrieve(prompts, k=None, **options)
    for found, wanted in zip(retriever.retrieve(prompts, k=None, **options), expected, strict=True):
        assert found.item_ids == wanted.item_ids
        np.testing.assert_allclose(found.scores, wanted.scores, atol=1e-4)


def rules(searched: hr.TrieIndex) -> dict:
    ids = searched.item_ids.to_pylist()
    return {"constraints": [None, searched.constraint(ids=ids[:40])], "exclude": [ids[::3], None]}


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")
@pytest.mark.parametrize("name", [pytest.param("qwen3", marks=SLOW), "llama", pytest.param("gemma3", marks=SLOW)])
def test_generated_code_answers_as_without(name, monkeypatch):
    monkeypatch.setattr(compiled, "BACKEND", "inductor")
    model = model_of(name)
    retriever = Retriever(model, index(), TOKENS, compile=True)
    before = compilations()
    assert_same(retriever, model, prompts_of(9, 17, 4), beam_width=12)
    assert_same(retriever, model, prompts_of(7, 19), beam_width=5, **rules(index()))
    assert compilations() == before, "other lengths and rules were compiled"
    assert "forward" not in vars(model.model.layers[0])


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    return hr.LiveIndex.create(tmp_path_factory.mktemp("live") / "items.live", index(), headroom=1.5)


@pytest.fixture(scope="module")
def retriever(live):
    """It is warmed up."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiled, "BACKEND", "eager")
        retriever = Retriever(model_of("gemma3"), live, TOKENS, compile=True)
        before = compilations()
        retriever.warm_up(Shapes(beam_widths=(4,), batch_size=2, prompt_length=16, excluded=2))
    assert compilations() > before
    return retriever


class TestWarmUp:
    """After `warm_up`, nothing is compiled."""

    @pytest.fixture(autouse=True)
    def compiles_nothing(self, retriever):  # noqa: ARG002
        before = compilations()
        yield
        assert compilations() == before

    @pytest.mark.parametrize("width", [1, 3, 50])
    @pytest.mark.parametrize("lengths", [(1,), (30,), (1, 1), (1, 12, 3, 5)])
    def test_searches(self, retriever, lengths, width):
        assert_same(retriever, model_of("gemma3"), prompts_of(*lengths), beam_width=width)

    def test_rules(self, retriever):
        assert_same(retriever, model_of("gemma3"), prompts_of(7, 19), beam_width=5, **rules(retriever.index))
        candidates = [index().item_ids.to_pylist()[:20]] * 2
        assert_same(retriever, model_of("gemma3"), prompts_of(7, 19), beam_width=5, candidates=candidates)

    def test_explanations_and_scores(self, retriever):
        (prompt,), plain = prompts_of(9), Retriever(model_of("gemma3"), index(), TOKENS)
        ids = index().item_ids.to_pylist()[:5]
        np.testing.assert_allclose(retriever.score(prompt, ids), plain.score(prompt, ids), atol=1e-4)
        assert retriever.explain(prompt, ids[0]).rank == plain.explain(prompt, ids[0]).rank
        assert torch.equal(retriever.free_search(prompt)[0], plain.free_search(prompt)[0])

    def test_logits_can_be_changed(self, retriever):
        prompts, beams = prompts_of(9, 4), hr.init_beams(retriever.device_index, 2)
        logits_fn = retriever.logits_fn(prompts, beam_width=3)
        for _ in range(3):
            logits = logits_fn(beams)
            logits[..., 0] = -np.inf
            beams = hr.step(retriever.device_index, beams, logits, beam_width=3)
        assert (beams.codes[beams.states >= 0] != 0).all()

    def test_versions(self, retriever, live):
        (best,) = retriever.retrieve(prompts_of(9), beam_width=4, k=1)
        retriever.refresh(live.remove(best.item_ids))
        assert_same(retriever, model_of("gemma3"), prompts_of(9, 5), beam_width=4)
        assert not set(best.item_ids) & set(retriever.retrieve(prompts_of(9), beam_width=4)[0].item_ids)

    def test_threads(self, retriever):
        """Other threads that use the model meanwhile run its own layers."""
        model, (prompt,) = model_of("gemma3"), prompts_of(9)
        own, expected = model(torch.tensor([prompt])).logits, retriever.retrieve(prompt, k=None)[0].item_ids
        with ThreadPoolExecutor(4) as pool:
            found = [pool.submit(lambda: retriever.retrieve(prompt, k=None)[0].item_ids) for _ in range(20)]
            plain = [pool.submit(lambda: model(torch.tensor([prompt])).logits) for _ in range(20)]
        assert all(future.result() == expected for future in found)
        assert all(torch.equal(future.result(), own) for future in plain)
        assert all("forward" not in vars(layer) for layer in model.model.layers)

    def test_is_saved_without_its_code(self, retriever):
        copied = pickle.loads(pickle.dumps(retriever._searcher.search.model.compiled))
        assert isinstance(copied, compiled.CompiledLayers)
        assert copied._compiled is None
        model = copy.deepcopy(model_of("gemma3"))
        assert all("forward" not in vars(layer) for layer in model.model.layers)


def test_changed_weights():
    """A search uses the weights as they are then, without compiling."""
    model, prompts = new_model("qwen3"), prompts_of(9, 4)
    retriever = Retriever(model, index(), TOKENS, compile=True)
    before = compilations()
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight.mul_(-1)
    assert_same(retriever, model, prompts, beam_width=12)
    projection = model.model.layers[1].self_attn.q_proj
    projection.weight = torch.nn.Parameter(torch.randn_like(projection.weight) / 4)
    assert_same(retriever, model, prompts, beam_width=12)
    assert compilations() == before


@SLOW
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`")
def test_changed_hooks_and_adapters():
    model, prompts = new_model("qwen3"), prompts_of(9, 4)
    retriever = Retriever(model, index(), TOKENS, compile=True)
    handle = model.model.layers[0].mlp.register_forward_hook(lambda _, __, output: output * -2)
    assert_same(retriever, model, prompts, beam_width=12)
    handle.remove()
    assert_same(retriever, model, prompts, beam_width=12)
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, target_modules=["up_proj"], init_lora_weights=False)
    adapted = peft.get_peft_model(model, config).eval()
    assert_same(retriever, model, prompts, beam_width=12)
    with adapted.disable_adapter():
        assert_same(retriever, model, prompts, beam_width=12)


@SLOW
def test_prefix():
    prompts = [[*range(1, 13), *prompt] for prompt in prompts_of(3, 9)]
    retriever = Retriever(model_of("llama"), index(), TOKENS, compile=True, prefix=list(range(1, 13)))
    assert_same(retriever, model_of("llama"), prompts, beam_width=12)


class TestErrors:
    def test_models_without_a_tree(self):
        with pytest.raises(hr.ArgumentError, match=r"compile=True needs a model .* decoding='tree'; it has an encoder"):
            Retriever(model_of("t5"), index(), TOKENS, compile=True)
        with pytest.raises(hr.ArgumentError, match="decoding='tree'; decoding='plain' was given"):
            Retriever(model_of("llama"), index(), TOKENS, decoding="plain", compile=True)
        with pytest.raises(hr.ArgumentError, match="decoding='tree'; MambaForCausalLM is searched"):
            Retriever(model_of("mamba"), index(), TOKENS, compile=True)

    def test_layers_that_cannot_be_traced(self, monkeypatch):
        model = new_model("llama")
        mlp = type(model.model.layers[0].mlp)
        forward = mlp.forward
        monkeypatch.setattr(mlp, "forward", lambda self, x: (torch._dynamo.graph_break(), forward(self, x))[1])
        with pytest.raises(hr.ArgumentError, match=r"torch.compile cannot compile its layers.*Leave compile off"):
            Retriever(model, index(), TOKENS, compile=True)
        assert "forward" not in vars(model.model.layers[0])

    def test_layers_of_other_libraries(self):
        model = new_model("llama")
        model.model.layers[1].forward = model.model.layers[1].forward
        with pytest.raises(hr.ArgumentError, match="another library has replaced the method of LlamaDecoderLayer"):
            Retriever(model, index(), TOKENS, compile=True)

    def test_other_logits(self, monkeypatch):
        twice = lambda self, keys, values, *_: self.stored.update(keys, values * 2)  # noqa: E731
        monkeypatch.setattr(compiled._OneLayer, "update", twice)
        with pytest.raises(hr.ArgumentError, match=r"its logits differ by .* when its layers are compiled"):
            Retriever(model_of("llama"), index(), TOKENS, compile=True)

    def test_without_a_compiler(self, monkeypatch):
        monkeypatch.setattr(compiled, "BACKEND", "inductor")
        missing = inductor_config.patch({"cpp.cxx": ("no-such-compiler",)})
        with missing, pytest.raises(hr.ArgumentError, match=r"needs a C\+\+ compiler, and none is found"):
            Retriever(model_of("llama"), index(), TOKENS, compile=True)
