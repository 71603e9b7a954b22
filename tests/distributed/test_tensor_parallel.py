"""A Retriever of a model that transformers divides among two processes: the same answers as with the whole model."""

from inspect import signature

import pytest
from gloo import run_in_processes

pytest.importorskip("torch")
pytest.importorskip("transformers")
import tiny

PROGRAM = """
import transformers
from transformers.distributed import DistributedConfig
import tiny
from hedgerow.hf import Retriever

config = DistributedConfig(tp_plan="auto")
model = transformers.AutoModelForCausalLM.from_pretrained("model", distributed_config=config).eval()
whole = transformers.AutoModelForCausalLM.from_pretrained("model").eval()
layer = model.model.layers[0].self_attn.q_proj.weight
assert layer.to_local().shape[0] * RANKS == layer.shape[0], "the model is not divided"
index, prompts = tiny.index(), tiny.prompts_of(5, 9, 3)
for normalize in ("vocab", "codes", "allowed"):
    divided, expected = (Retriever(part, index, tiny.TOKENS, normalize=normalize) for part in (model, whole))
    for options in ({}, {"exclude": [["item 3"], None, None]}, {"candidates": [["item 3", "item 4"]] * 3}):
        found = divided.retrieve(prompts, beam_width=20, k=10, **options)
        for got, wanted in zip(found, expected.retrieve(prompts, beam_width=20, k=10, **options), strict=True):
            assert got.item_ids == wanted.item_ids
            np.testing.assert_allclose(got.scores, wanted.scores, rtol=0, atol=1e-4)
            assert_same_on_all_ranks(got.rows, got.scores)
    if normalize != "allowed":
        scores = [part.score(prompts[0], ["item 7", "item 30"]) for part in (divided, expected)]
        np.testing.assert_allclose(*scores, rtol=0, atol=1e-4)
"""


@pytest.mark.parametrize("name", ["qwen3", "llama"])
def test_answers_equal_those_of_the_whole_model(name, tmp_path):
    config = pytest.importorskip("transformers.distributed").DistributedConfig
    if "tp_plan" not in signature(config).parameters:
        pytest.skip("this version of transformers divides a model in another way")
    tiny.model_of(name).save_pretrained(tmp_path / "model")
    run_in_processes(PROGRAM, tmp_path)
