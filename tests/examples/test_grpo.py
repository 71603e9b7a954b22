"""examples/grpo.py: every rollout is a film, and the log-probabilities are those of the sampling."""

import importlib.util
import math
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("trl", minversion="1.16")
pytest.importorskip("datasets")

PATH = Path(__file__).parents[2] / "examples/grpo.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("grpo_example", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def policy(example):
    return example.Policy(example.load_retriever(example.hr.build_index(example.load_catalog())))


def test_log_probs_are_those_of_the_sampling(example, policy):
    """Against the scores that generate() samples from, after the processor."""
    retriever = example.load_retriever(policy.index)
    (prompt,) = retriever.encode(["Recommend me a western film"])
    prompts = torch.tensor([prompt] * 16)
    options = {"do_sample": True, "top_k": 0, "max_new_tokens": 4, "eos_token_id": None, "pad_token_id": 0}
    torch.manual_seed(0)
    written = retriever.model.generate(
        prompts, logits_processor=[policy.processor], output_scores=True, return_dict_in_generate=True, **options
    )
    films = written.sequences[:, prompts.shape[1] :]
    sampled = torch.stack(written.scores, 1).log_softmax(-1).gather(2, films[..., None])[..., 0]
    with torch.no_grad():
        logits = retriever.model(input_ids=written.sequences).logits
    found = policy.log_probs(logits[:, prompts.shape[1] - 1 : -1], films)
    torch.testing.assert_close(found, sampled, rtol=1e-4, atol=1e-4)
    assert (found.sum(1) < 0).all()


def test_reward_is_a_metric(example, policy):
    reward = example.reward_of(policy)
    ranks = example.ranking(policy.index, "western")
    best = [item for item, _ in sorted(ranks.items(), key=lambda pair: pair[1])][:3]
    other = next(item for item in policy.index.item_ids.to_pylist() if item not in ranks)
    tokens = policy.tokens.encode(policy.index.sids_of([*best, other])).tolist()
    found = reward(["Recommend me a western film"] * 4, tokens)
    assert found == pytest.approx([1, 1 / math.log2(3), 0.5, 0])


# TRL uses names that transformers will remove.
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_trains(example):
    before, after = example.train(steps=2, samples=2)
    assert np.isfinite([before, after]).all()
