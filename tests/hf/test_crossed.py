"""Cross-attention whose keys and values the beams of a prompt share: as if each beam had a copy."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
import transformers
from tiny import TOKENS, VOCABULARY, assert_same_results, index, prompts_of
from transformers.models.bart.modeling_bart import BartAttention

from hedgerow.hf import Retriever
from hedgerow.hf.search import ModelSearch

T5: dict[str, Any] = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
BART: dict[str, Any] = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 2, "max_position_embeddings": 64}
BART["forced_eos_token_id"] = None
BART |= {
    f"{part}_{size}": n for part in ("encoder", "decoder") for size, n in (("attention_heads", 4), ("ffn_dim", 48))
}
BERT: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
GEMMA: dict[str, Any] = BERT | {"num_key_value_heads": 2, "head_dim": 8}
IDS: dict[str, Any] = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2, "decoder_start_token_id": 2}


def single(family: str, sizes: dict[str, Any], attention: str) -> Any:
    config = getattr(transformers, f"{family}Config")
    of_family = getattr(transformers, f"{family}ForConditionalGeneration")
    return of_family(config(vocab_size=VOCABULARY, attn_implementation=attention, **IDS, **sizes))


def bert_to_bert(attention: str) -> Any:
    sizes: dict[str, Any] = BERT | {"vocab_size": VOCABULARY, "attn_implementation": attention}
    parts = (
        transformers.BertConfig(**sizes),
        transformers.BertConfig(**sizes, is_decoder=True, add_cross_attention=True),
    )
    config = transformers.EncoderDecoderConfig.from_encoder_decoder_configs(*parts)
    config.update(IDS)
    return transformers.EncoderDecoderModel(config=config)


def t5_gemma(attention: str) -> Any:
    attentions: dict[str, Any] = {"attn_implementation": attention}
    part = transformers.T5GemmaModuleConfig(vocab_size=VOCABULARY, **GEMMA, **attentions)
    config: Any = transformers.T5GemmaConfig(encoder=part, decoder=part, vocab_size=VOCABULARY, **IDS)
    config._attn_implementation = attention
    return transformers.T5GemmaForConditionalGeneration(config)


FAMILIES = {
    "t5": lambda attention: single("T5", T5, attention),
    "umt5": lambda attention: single("UMT5", T5, attention),
    "bart": lambda attention: single("Bart", BART, attention),
    "bert": bert_to_bert,
    "t5gemma": t5_gemma,
}
FORMS = [
    (name, attention)
    for name in FAMILIES
    for attention in ("sdpa", "eager")
    if (name, attention) != ("t5gemma", "sdpa")
]


def model_of(name: str, attention: str = "sdpa") -> Any:
    torch.manual_seed(0)
    model = FAMILIES[name](attention)
    with torch.no_grad():
        for weights in model.parameters():
            if weights.ndim > 1:
                weights.normal_(0, 0.25)
    return model.eval()


def search_of(retriever: Retriever) -> ModelSearch:
    return retriever._searcher.search


def num_shared(retriever: Retriever) -> int:
    probed = search_of(retriever).model.probed
    assert probed is not None
    return len(probed.crossed)


def assert_equals_plain(model: Any, *prompts: list[list[int]]) -> Retriever:
    retriever, plain = (Retriever(model, index(), TOKENS, normalize="vocab", decoding=way) for way in ("auto", "plain"))
    assert retriever.decoding == "cached"
    for batch in prompts:
        found, expected = (some.retrieve(batch, beam_width=12, k=None) for some in (retriever, plain))
        for results, wanted in zip(found, expected, strict=True):
            assert_same_results(results, wanted)
    return retriever


@pytest.mark.parametrize(("name", "attention"), FORMS)
def test_each_family_equals_whole_sequences(name, attention):
    # With padding and without: without, there is no mask.
    retriever = assert_equals_plain(model_of(name, attention), prompts_of(9, 17, 4, 1), prompts_of(7, 7), prompts_of(5))
    assert num_shared(retriever) > 0


def test_keys_and_values_are_held_once_per_prompt():
    retriever, prompts = Retriever(model_of("t5"), index(), TOKENS), prompts_of(9, 5, 7)
    search = search_of(retriever)
    decoder: Any = search.decoder(prompts, 6)
    search.run(decoder, 3, 6, None)
    assert [layer.keys.shape[0] for layer in decoder.cache.cross_attention_cache.layers] == [3, 3]
    assert [layer.keys.shape[0] for layer in decoder.cache.self_attention_cache.layers] == [18, 18]
    assert decoder.encoded.last_hidden_state.untyped_storage().nbytes() == 4


def test_prompts_fill_a_batch():
    retriever, prompts = Retriever(model_of("t5"), index(), TOKENS), prompts_of(20, 20, 20, 20)
    # Each of a prompt's 20 tokens counts once, and two codes of each beam.
    assert list(map(len, search_of(retriever).batches(prompts, 10, 80))) == [2, 2]
    plain = Retriever(retriever.model, index(), TOKENS, decoding="plain")
    assert list(map(len, search_of(plain).batches(prompts, 10, 80))) == [1, 1, 1, 1]


class OneQuery(BartAttention):
    """With a cache, it computes the first query alone."""

    def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        output, weights = super().forward(hidden_states, *args, **kwargs)
        if kwargs.get("past_key_values") is not None and output.shape[1] > 1:
            output = torch.cat([output[:, :1], torch.zeros_like(output[:, 1:])], dim=1)
        return output, weights


def test_a_layer_that_has_one_query_per_row_gets_copies():
    model = model_of("bart")
    model.model.decoder.layers[1].encoder_attn.__class__ = OneQuery
    assert num_shared(assert_equals_plain(model, prompts_of(9, 17), prompts_of(7, 7))) == 0


def test_a_layer_that_another_library_has_replaced_gets_copies():
    model, calls = model_of("t5"), []
    layer = model.decoder.block[0].layer[1].EncDecAttention
    own = layer.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        calls.append(len(args[0]))
        return own(*args, **kwargs)

    layer.forward = forward
    assert num_shared(assert_equals_plain(model, prompts_of(9, 17))) == 0
    assert layer.forward is forward
    assert max(calls) == 24


def test_other_threads_call_the_model_meanwhile():
    model, prompts = model_of("t5"), prompts_of(9, 17, 4)
    retriever = Retriever(model, index(), TOKENS)
    ids = torch.tensor(prompts[:1])

    def logits(_: int) -> torch.Tensor:
        with torch.inference_mode():
            return model(input_ids=ids, decoder_input_ids=ids).logits

    (own,), (expected, *_) = [logits(0)], retriever.retrieve(prompts, beam_width=6)
    with ThreadPoolExecutor(4) as pool:
        searches = [pool.submit(retriever.retrieve, prompts, beam_width=6) for _ in range(8)]
        calls = [pool.submit(logits, number) for number in range(40)]
    assert all(torch.equal(call.result(), own) for call in calls)
    for search in searches:
        assert_same_results(search.result()[0], expected)
    assert not any("forward" in vars(module) for module in model.modules())


def test_the_states_of_a_prompt_are_not_read_again():
    """What the model gets in their place is NaN: a model that reads it is searched with copies."""
    model = model_of("t5")
    stack, own = model.decoder, type(model.decoder).forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        output = own(stack, *args, **kwargs)
        output.last_hidden_state = output.last_hidden_state + kwargs["encoder_hidden_states"].mean(1, keepdim=True)
        return output

    stack.forward = forward
    assert num_shared(assert_equals_plain(model, prompts_of(8, 8))) == 0


def test_given_items_have_the_scores_of_a_search():
    retriever, (prompt,) = Retriever(model_of("bart"), index(), TOKENS), prompts_of(9)
    (found,) = retriever.retrieve(prompt, beam_width=12)
    scored = retriever.score(prompt, found.item_ids)
    np.testing.assert_allclose(scored, found.scores, rtol=0, atol=1e-5)
