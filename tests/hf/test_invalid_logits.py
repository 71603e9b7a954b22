"""NaN and infinite logits are errors that name the prompt and the level."""

import pytest

import hedgerow as hr

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
from tiny import OFFSETS, TOKENS, catalog, index, model_of, new_model, scores_by_sid

from hedgerow.hf import Retriever

WRONG = r"the logits of LlamaForCausalLM are NaN or infinite for prompt 0 at level 0, so no item has a score"
ALL = [
    (normalize, decoding, value)
    for normalize in ("codes", "vocab", "allowed")
    for decoding in ("tree", "plain")
    for value in (torch.nan, torch.inf)
]


def broken(value: float, token: int = 7):
    model = new_model("llama")
    with torch.no_grad():
        model.get_input_embeddings().weight[token] = value
    return model


@pytest.mark.parametrize(("normalize", "decoding", "value"), ALL)
def test_every_search_names_the_prompt_and_the_level(normalize, decoding, value):
    retriever = Retriever(broken(value), index(), TOKENS, normalize=normalize, decoding=decoding)
    searches = (
        retriever.retrieve,
        retriever.trace,
        retriever.free_search,
        lambda prompt: retriever.explain(prompt, "item 3"),
    )
    for search in searches:
        with pytest.raises(hr.ArgumentError, match=WRONG):
            search([7, 6])
    (valid,) = retriever.retrieve([5, 6], beam_width=5)
    expected = Retriever(model_of("llama"), index(), TOKENS, normalize=normalize).retrieve([5, 6], beam_width=5)[0]
    assert scores_by_sid(valid) == pytest.approx(scores_by_sid(expected), abs=1e-4)


def test_prompts_of_all_batches_have_their_own_numbers():
    prompts = [[5], [7, 6], [5, 6], [6, 5, 7], *[[7]] * 9]
    for max_tokens, listed in ((10_000, "prompt 3 at level 0, prompt 1 at level 0, .* and 6 more"), (1, "prompt 3 at")):
        retriever = Retriever(broken(torch.nan), index(), TOKENS, max_tokens=max_tokens)
        with pytest.raises(hr.ArgumentError, match=listed):
            retriever.retrieve(prompts, beam_width=2)


def test_a_later_level():
    """Only the code of level 0 that the best items have is broken."""
    (best,) = Retriever(model_of("llama"), index(), TOKENS).retrieve([5, 6], k=1)
    retriever = Retriever(broken(torch.nan, OFFSETS[0] + int(best.sids[0, 0])), index(), TOKENS)
    with pytest.raises(hr.ArgumentError, match="prompt 1 at level 1"):
        retriever.retrieve([[7, 8, 9], [5, 6]], beam_width=1)


def test_infinite_logits_of_a_head():
    model = new_model("llama", tie_word_embeddings=False)
    model.lm_head.bias = torch.nn.Parameter(torch.zeros(300))
    with torch.no_grad():
        model.lm_head.bias[OFFSETS[0]] = torch.inf
    with pytest.raises(hr.ArgumentError, match="prompt 0 at level 0"):
        Retriever(model, index(), TOKENS, decoding="plain").retrieve([5, 6])


def test_minus_infinity_bans_a_code():
    model = new_model("llama", tie_word_embeddings=False)
    model.lm_head.bias = torch.nn.Parameter(torch.zeros(300))
    with torch.no_grad():
        model.lm_head.bias[[OFFSETS[0] + code for code in range(10)]] = -torch.inf
    (results,) = Retriever(model, index(), TOKENS).retrieve([5, 6], beam_width=200, k=None)
    assert len(results) == (catalog().sids[:, 0] >= 10).sum()
    assert results.sids[:, 0].min() >= 10
