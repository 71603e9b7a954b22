"""Retriever: equals generate() for every kind of model, and handles edge cases."""

import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import hedgerow as hr

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
from tiny import (
    CODES,
    OFFSETS,
    TOKENS,
    VOCABULARY,
    assert_same_scores,
    catalog,
    exhaustive,
    generated,
    index,
    model_of,
    new_model,
    prompts_of,
    scores_by_sid,
    tokenizer,
)
from torch.utils._python_dispatch import TorchDispatchMode

from hedgerow.constraints import requests
from hedgerow.hf import Retriever
from hedgerow.hf.graphs import bucket
from hedgerow.hf.masking import Masking
from hedgerow.hf.model import CodeModel
from hedgerow.hf.stored import TreeLayer
from hedgerow.hf.tree import TreeDecoder

TREE = [
    ("qwen3", "sdpa"),
    ("qwen3", "eager"),
    ("llama", "sdpa"),
    ("gemma3", "sdpa"),
    ("gemma3", "eager"),
    ("gemma2", "eager"),
    ("gpt2", "sdpa"),
    ("gpt2", "eager"),
    ("mistral", "sdpa"),
    ("mistral", "eager"),
    ("phi", "sdpa"),
    ("granite", "sdpa"),
]
PLAIN = ("bloom", "mamba", "gpt_neo")


def plain_retriever(name: str, *arguments, **options) -> Retriever:
    with pytest.warns(UserWarning, match="is searched with decoding='plain', which is slow: "):
        return Retriever(model_of(name), *arguments, **options)


def one_by_one(retriever: Retriever, prompts: list, **options) -> list[hr.Results]:
    return [retriever.retrieve(prompt, **options)[0] for prompt in prompts]


@pytest.mark.parametrize(("name", "attention"), TREE)
def test_equals_generate(name, attention):
    model = model_of(name, attention)
    retriever = Retriever(model, index(), TOKENS, normalize="vocab")
    assert retriever.decoding == "tree"
    prompts = prompts_of(9, 17, 4)
    for prompt, results in zip(prompts, retriever.retrieve(prompts, beam_width=12, k=None), strict=True):
        assert_same_scores(scores_by_sid(results), generated(model, prompt, 12, catalog().sids, TOKENS))
        assert (np.diff(results.scores) <= 0).all()


@pytest.mark.parametrize("name", PLAIN)
def test_plain_decoding_equals_generate(name):
    retriever = plain_retriever(name, index(), TOKENS, normalize="vocab")
    assert retriever.decoding == "plain"
    prompts = prompts_of(9, 25, 9)
    for prompt, results in zip(prompts, retriever.retrieve(prompts, beam_width=8, k=None), strict=True):
        assert_same_scores(scores_by_sid(results), generated(model_of(name), prompt, 8, catalog().sids, TOKENS))


@pytest.mark.parametrize("normalize", ["codes", "vocab", "allowed"])
@pytest.mark.parametrize("decoding", ["tree", "plain"])
def test_equals_exhaustive_search(normalize, decoding):
    model, (prompt,) = model_of("qwen3"), prompts_of(7)
    retriever = Retriever(model, index(), TOKENS, normalize=normalize, decoding=decoding)
    expected = exhaustive(model, prompt, index(), TOKENS, beam_width=10, normalize=normalize)[-1][:10]
    assert_same_scores(scores_by_sid(retriever.retrieve(prompt, beam_width=10, k=None)[0]), dict(expected))


@pytest.mark.parametrize("normalize", ["codes", "vocab", "allowed"])
@pytest.mark.parametrize("decoding", ["tree", "plain"])
@pytest.mark.parametrize("temperature", [0.5, 3])
def test_temperature_equals_dividing_the_logits(normalize, decoding, temperature):
    model, prompts = model_of("qwen3"), prompts_of(7, 12)
    options = {"normalize": normalize, "temperature": temperature}
    retriever = Retriever(model, index(), TOKENS, decoding=decoding, **options)
    assert retriever.temperature == temperature
    for prompt, results in zip(prompts, retriever.retrieve(prompts, beam_width=10, k=None), strict=True):
        expected = exhaustive(model, prompt, index(), TOKENS, beam_width=10, **options)[-1][:10]
        assert_same_scores(scores_by_sid(results), dict(expected))


@pytest.mark.parametrize("normalize", ["codes", "vocab", "allowed"])
def test_smallest_temperature(normalize):
    options = {"normalize": normalize, "temperature": 1e-8}
    (prompt,) = prompts_of(6)
    (results,) = Retriever(model_of("llama"), index(), TOKENS, **options).retrieve(prompt, beam_width=4, k=None)
    expected = dict(exhaustive(model_of("llama"), prompt, index(), TOKENS, beam_width=4, **options)[-1][:4])
    scores = scores_by_sid(results)
    assert set(scores) == set(expected)
    np.testing.assert_allclose([scores[sid] for sid in expected], list(expected.values()), rtol=1e-4, atol=1e-4 / 1e-8)


@pytest.mark.parametrize("normalize", ["codes", "vocab", "allowed"])
def test_temperature_counts_codes_that_only_the_model_has(normalize):
    few = hr.build_index(hr.Catalog(catalog().sids % 7, codebook_sizes=7))
    options = {"normalize": normalize, "temperature": 2.0}
    (prompt,) = prompts_of(6)
    (results,) = Retriever(model_of("llama"), few, TOKENS, **options).retrieve(prompt, beam_width=8, k=None)
    expected = exhaustive(model_of("llama"), prompt, few, TOKENS, beam_width=8, **options)[-1][:8]
    assert_same_scores(scores_by_sid(results), dict(expected))


def test_head_rows_are_used_unless_logits_are_scaled_or_capped():
    assert Retriever(model_of("qwen3"), index(), TOKENS)._searcher.search.model.head_use == "rows"
    assert Retriever(model_of("phi"), index(), TOKENS)._searcher.search.model.head_use == "rows"
    assert Retriever(model_of("gemma2"), index(), TOKENS)._searcher.search.model.head_use == "last"
    assert Retriever(model_of("granite"), index(), TOKENS)._searcher.search.model.head_use == "last"


def test_detects_a_cap_that_affects_only_some_codes():
    model = new_model("gemma2", final_logit_softcapping=30.0, tie_word_embeddings=False)
    with torch.no_grad():
        model.lm_head.weight[: OFFSETS[2]] *= 1e-3
        model.lm_head.weight[OFFSETS[2] :] *= 30
    (prompt,) = prompts_of(7)
    results = Retriever(model, index(), TOKENS).retrieve(prompt, beam_width=10, k=None)[0]
    expected = exhaustive(model, prompt, index(), TOKENS, beam_width=10, normalize="codes")[-1][:10]
    assert_same_scores(scores_by_sid(results), dict(expected))


def test_detects_a_cap_in_half_precision():
    model = new_model("gemma2", final_logit_softcapping=30.0).to(torch.bfloat16)
    assert Retriever(model, index(), TOKENS)._searcher.search.model.head_use == "last"
    assert Retriever(new_model("llama").to(torch.bfloat16), index(), TOKENS)._searcher.search.model.head_use == "rows"


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma3"])
def test_more_beams_than_the_model_has_positions(name):
    model = model_of(name)
    retriever = Retriever(model, index(), TOKENS, normalize="vocab")
    prompts = prompts_of(62, 40)
    results = retriever.retrieve(prompts, beam_width=70, k=None)
    for prompt, found in zip(prompts, results, strict=True):
        expected = Retriever(model, index(), TOKENS, normalize="vocab", decoding="plain")
        assert_same_scores(scores_by_sid(found), scores_by_sid(expected.retrieve(prompt, beam_width=70, k=None)[0]))


def test_tree_decoding_error_states_the_reason():
    with pytest.raises(
        hr.ArgumentError, match=r"BloomForCausalLM does not support decoding='tree': .* Use decoding='plain'"
    ):
        Retriever(model_of("bloom"), index(), TOKENS, decoding="tree")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Retriever(model_of("bloom"), index(), TOKENS, decoding="plain").decoding == "plain"


def test_rejects_attention_without_masks():
    config = new_model("llama").config
    config._attn_implementation = "flash_attention_2"
    with pytest.raises(hr.ArgumentError, match="'flash_attention_2' takes no 4-D masks"):
        Masking.of(config)


@pytest.mark.parametrize("window", [3, 300])
def test_windows_shorter_and_longer_than_the_trial(window):
    model = new_model("mistral", sliding_window=window, max_position_embeddings=512)
    prompts = prompts_of(310, 5)
    tree, plain = (Retriever(model, index(), TOKENS, decoding=decoding) for decoding in ("tree", "plain"))
    found = tree.retrieve(prompts, beam_width=5, k=None)
    for ours, theirs in zip(found, one_by_one(plain, prompts, beam_width=5, k=None), strict=True):
        assert_same_scores(scores_by_sid(ours), scores_by_sid(theirs))


def test_longrope_angles_switch_at_a_length():
    # In one call: searches that stay below 32 tokens, that start above, and that cross the limit between two codes. Not
    # compared with generate(): some versions of transformers drop tokens of prompts that cross it.
    model, prompts = model_of("phi3"), prompts_of(10, 45, 30, 31, 32, 33)
    retriever = Retriever(model, index(), TOKENS, normalize="vocab")
    assert retriever.decoding == "tree"
    for prompt, results in zip(prompts, retriever.retrieve(prompts, beam_width=8, k=None), strict=True):
        expected = exhaustive(model, prompt, index(), TOKENS, beam_width=8, normalize="vocab")[-1]
        assert_same_scores(scores_by_sid(results), dict(expected[:8]))
    assert isinstance(retriever._searcher.search.decoder(prompts[:1], 8), TreeDecoder)
    assert not isinstance(retriever._searcher.search.decoder(prompts[:2], 8), TreeDecoder)
    with pytest.raises(hr.ArgumentError, match="cuda_graphs does not support 'longrope'"):
        Retriever(model, index(), TOKENS, cuda_graphs=True)


@pytest.mark.parametrize("layer_type", ["sliding_attention", "full_attention"])
def test_gemma_with_layers_of_one_kind(layer_type):
    model = new_model("gemma3", layer_types=[layer_type] * 2)
    retriever = Retriever(model, index(), TOKENS, normalize="vocab")
    (prompt,) = prompts_of(20)
    expected = generated(model, prompt, 6, catalog().sids, TOKENS)
    assert_same_scores(scores_by_sid(retriever.retrieve(prompt, beam_width=6, k=None)[0]), expected)


@pytest.mark.parametrize("max_tokens", [1, 60, 100, 10_000])
@pytest.mark.parametrize("name", ["qwen3", "gemma3"])
def test_results_do_not_depend_on_the_batch_size(name, max_tokens):
    prompts = prompts_of(3, 20, 3, 11, 30, 1)
    retriever = Retriever(model_of(name), index(), TOKENS, max_tokens=max_tokens)
    done = []
    found = retriever.retrieve(prompts, beam_width=6, k=None, progress=lambda *numbers: done.append(numbers))
    assert done[-1] == (6, 6)
    assert len(done) == {1: 6, 10_000: 1}.get(max_tokens, len(done))
    alone = one_by_one(Retriever(model_of(name), index(), TOKENS), prompts, beam_width=6, k=None)
    for ours, expected in zip(found, alone, strict=True):
        assert_same_scores(scores_by_sid(ours), scores_by_sid(expected))


class RefuseReadBack(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        refused = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "unique")
        assert not any(name in str(func) for name in refused), f"{func} waits for the device"
        return func(*args, **(kwargs or {}))


@pytest.fixture
def _as_if_on_a_device(monkeypatch):
    for module in ("kernels.dispatch", "step"):
        monkeypatch.setattr(f"hedgerow.decode.{module}.on_host", lambda _: False)


@pytest.mark.usefixtures("_as_if_on_a_device")
@pytest.mark.parametrize("normalize", ["codes", "vocab", "allowed"])
@pytest.mark.parametrize(("name", "attention"), [("qwen3", "sdpa"), ("gemma3", "eager"), ("gemma2", "eager")])
def test_a_search_never_waits_for_the_device(name, attention, normalize):
    retriever = Retriever(model_of(name, attention), index(), TOKENS, normalize=normalize, kernel="array")
    prompts = prompts_of(5, 12)
    with torch.inference_mode(), RefuseReadBack():
        found = retriever._searcher.search.run(retriever._searcher.search.decoder(prompts, 4), 2, 4, None)
    assert index().contains(found.history[-1].codes[1]).all()


def test_refuse_read_back_detects_reads():
    with RefuseReadBack(), pytest.raises(AssertionError, match="waits for the device"):
        torch.ones(1).item()


def test_a_prompt_is_computed_once_and_stored_once():
    model, lengths, rows = new_model("qwen3"), [], []
    model.model.layers[0].register_forward_hook(lambda _, __, out: lengths.append(out.shape[1]))
    model.lm_head.register_forward_hook(lambda _, __, out: rows.append(out.shape[1]))
    retriever = Retriever(model, index(), TOKENS)
    lengths.clear()
    rows.clear()
    decoder = retriever._searcher.search.decoder(prompts_of(40), 6)
    assert isinstance(decoder, TreeDecoder)
    with torch.inference_mode():
        retriever._searcher.search.run(decoder, 1, 6, None)
    assert lengths == [40, 6, 6]
    # Once for the prompt, to compare, and of no position for the beams.
    assert rows == [1, 0, 0]
    stored = decoder.cache.layers[0]
    assert isinstance(stored, TreeLayer)
    assert stored.keys is not None
    assert stored.keys.shape[:3] == (1, 2, 40 + 2 * 6)


def test_the_head_is_evaluated_on_one_position_of_a_prompt():
    model, seen = new_model("gemma2"), []
    model.lm_head.register_forward_hook(lambda _, __, out: seen.append(tuple(out.shape)))
    retriever = Retriever(model, index(), TOKENS)
    seen.clear()
    retriever.retrieve(prompts_of(40, 20), beam_width=6)
    assert seen == [(2, 1, VOCABULARY), (2, 6, VOCABULARY), (2, 6, VOCABULARY)]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("name", "attention"), [("qwen3", "sdpa"), ("gemma3", "eager"), ("gpt2", "sdpa")])
def test_half_precision(name, attention, dtype):
    model = new_model(name, attention=attention).to(dtype)
    retriever = Retriever(model, index(), TOKENS)
    assert retriever.decoding == "tree"
    prompts = prompts_of(8, 15)
    exact = Retriever(model_of(name, attention), index(), TOKENS)
    for found, expected in zip(
        retriever.retrieve(prompts), exact.retrieve(prompts, beam_width=150, k=None), strict=True
    ):
        assert len(found) == 10
        assert index().contains(found.sids).all()
        right = scores_by_sid(expected)
        near = [abs(score - right[sid]) < 0.5 for sid, score in scores_by_sid(found).items()]
        assert all(near)


@pytest.mark.parametrize("options", [{}, {"normalize": "allowed"}, {"temperature": 0.7}, {"kernel": "native"}])
@pytest.mark.parametrize("name", ["qwen3", "gpt2"])
def test_logits_in_half_precision_are_not_copied_and_change_nothing(name, options, monkeypatch):
    """Steps read 16-bit logits, and give the scores of their float32 copies; with unused codes of the model, too."""
    model, read = new_model(name).to(torch.bfloat16), CodeModel.short_code_logits
    fewer = hr.build_index(hr.Catalog([[0, 1, 2], [3, 4, 5], [3, 4, 6]], codebook_sizes=7))
    for searched in (index(), fewer):
        found = Retriever(model, searched, TOKENS, **options).retrieve(prompts_of(8, 15), k=None)
        with monkeypatch.context() as patch:
            patch.setattr(CodeModel, "short_code_logits", lambda *inputs: read(*inputs).float())
            expected = Retriever(model, searched, TOKENS, **options).retrieve(prompts_of(8, 15), k=None)
        for ours, theirs in zip(found, expected, strict=True):
            assert scores_by_sid(ours) == scores_by_sid(theirs)


class TestFewItems:
    @pytest.mark.parametrize("sids", [[[3, 4, 5]], [[3, 4, 5], [3, 4, 6], [9, 0, 0]]])
    @pytest.mark.parametrize("decoding", ["tree", "plain"])
    def test_fewer_items_than_beams(self, sids, decoding):
        few = hr.build_index(hr.Catalog(sids, codebook_sizes=CODES))
        model, prompts = model_of("gpt2"), prompts_of(3, 8)
        retriever = Retriever(model, few, TOKENS, decoding=decoding)
        for prompt, results in zip(prompts, retriever.retrieve(prompts, beam_width=7), strict=True):
            expected = exhaustive(model, prompt, few, TOKENS, beam_width=7, normalize="codes")[-1]
            assert_same_scores(scores_by_sid(results), dict(expected))

    def test_one_level(self):
        one = hr.build_index(hr.Catalog([[4], [7], [19]], codebook_sizes=CODES))
        tokens = hr.TokenMap.from_offsets([OFFSETS[0]], CODES)
        model, (prompt,) = model_of("llama"), prompts_of(5)
        results = Retriever(model, one, tokens, normalize="vocab").retrieve(prompt, beam_width=2)[0]
        assert_same_scores(scores_by_sid(results), generated(model, prompt, 2, [[4], [7], [19]], tokens))

    def test_no_item(self):
        none = hr.build_index(hr.Catalog(np.zeros((0, 3), int), codebook_sizes=CODES))
        assert [len(found) for found in Retriever(model_of("llama"), none, TOKENS).retrieve(prompts_of(3, 4))] == [0, 0]

    def test_k_counts_items_that_share_a_sid(self):
        shared = hr.build_index(hr.Catalog([[1, 2, 3]] * 4, codebook_sizes=CODES, item_ids=list("abcd")))
        retriever = Retriever(model_of("llama"), shared, TOKENS)
        (prompt,) = prompts_of(5)
        assert retriever.retrieve(prompt, k=None)[0].item_ids == list("abcd")
        assert retriever.retrieve(prompt, k=3)[0].item_ids == list("abc")


class TestTokenMaps:
    def test_catalog_with_fewer_codes_than_the_model(self):
        few = hr.build_index(hr.Catalog(catalog().sids % 7, codebook_sizes=7))
        self.assert_right(few, TOKENS)

    def test_catalog_with_more_unused_codes_than_the_model(self):
        self.assert_right(hr.build_index(hr.Catalog(catalog().sids, codebook_sizes=33)), TOKENS)

    def test_unused_codes_without_tokens(self):
        tables = [table.copy() for table in TOKENS.token_ids]
        tables[1][[0, 19]] = -1
        sids = catalog().sids[~np.isin(catalog().sids[:, 1], [0, 19])]
        self.assert_right(hr.build_index(hr.Catalog(sids, codebook_sizes=CODES)), hr.TokenMap(tuple(tables)))

    def test_scattered_tokens(self):
        rng = np.random.default_rng(2)
        self.assert_right(index(), hr.TokenMap(tuple(rng.permutation(VOCABULARY)[:CODES] for _ in range(3))))

    def test_used_codes_without_tokens_are_an_error(self):
        table = TOKENS.token_ids[1].copy()
        table[[5, 6]] = -1
        with pytest.raises(hr.ArgumentError, match=r"2 codes that the catalog uses at level 1 have no token: 5, 6\."):
            Retriever(model_of("llama"), index(), hr.TokenMap((TOKENS.token_ids[0], table, TOKENS.token_ids[2])))

    @staticmethod
    def assert_right(some: hr.TrieIndex, tokens: hr.TokenMap) -> None:
        model, prompts = model_of("llama"), prompts_of(6, 3)
        for normalize in ("codes", "vocab", "allowed"):
            found = Retriever(model, some, tokens, normalize=normalize).retrieve(prompts, beam_width=8, k=None)
            for prompt, results in zip(prompts, found, strict=True):
                expected = exhaustive(model, prompt, some, tokens, beam_width=8, normalize=normalize)[-1][:8]
                assert_same_scores(scores_by_sid(results), dict(expected))


class TestBegin:
    tokens = hr.TokenMap(TOKENS.token_ids, begin=(191, 192), end=(193,))

    def test_the_begin_delimiter_is_added_once(self):
        retriever = Retriever(model_of("llama"), index(), self.tokens)
        assert retriever.encode([[1, 2], [1, 2, 191, 192], [191, 192]]) == [[1, 2, 191, 192]] * 2 + [[191, 192]]
        assert retriever.encode([1, 191]) == [[1, 191, 191, 192]]

    def test_the_begin_delimiter_is_part_of_the_prompt(self):
        model, (prompt,) = model_of("llama"), prompts_of(5)
        delimited = Retriever(model, index(), self.tokens).retrieve(prompt)[0]
        assert_same_scores(
            scores_by_sid(delimited),
            scores_by_sid(Retriever(model, index(), TOKENS).retrieve([*prompt, 191, 192])[0]),
        )


@pytest.fixture(scope="module")
def retriever():
    return Retriever(model_of("llama"), index(), TOKENS, tokenizer=tokenizer())


class TestArguments:
    def test_no_prompts(self, retriever):
        assert retriever.retrieve([]) == []

    @pytest.mark.parametrize("prompts", ["", "  ", [""], [[]], [[1], []], [torch.tensor([], dtype=torch.int64)]])
    def test_an_empty_prompt(self, retriever, prompts):
        with pytest.raises(hr.ArgumentError, match=r"prompt [01] is empty"):
            retriever.retrieve(prompts)

    def test_longest_prompt(self, retriever):
        assert len(retriever.retrieve(prompts_of(62))[0]) == 10
        with pytest.raises(hr.ArgumentError, match="prompt 1 has 63 tokens, but the model takes 62 before a SID"):
            retriever.retrieve(prompts_of(5, 63))

    def test_last_absolute_position(self):
        model, (prompt,) = model_of("gpt2"), prompts_of(62)
        found = Retriever(model, index(), TOKENS, normalize="vocab").retrieve([prompt, [5]], beam_width=5, k=None)[0]
        assert_same_scores(scores_by_sid(found), generated(model, prompt, 5, catalog().sids, TOKENS))

    @pytest.mark.parametrize("token", [-1, VOCABULARY])
    def test_ids_out_of_range(self, retriever, token):
        with pytest.raises(
            hr.ArgumentError, match=rf"prompt 1 contains token {token}, but the model has tokens 0 to 299"
        ):
            retriever.retrieve([[1, 2], [3, token]])

    @pytest.mark.parametrize("options", [{"beam_width": 0}, {"k": 0}, {"k": True}, {"beam_width": 2.0}])
    def test_counts(self, retriever, options):
        with pytest.raises(hr.ArgumentError, match="must be a positive integer"):
            retriever.retrieve([1, 2], **options)

    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            ({"normalize": "softmax"}, "normalize must be one of codes, vocab, allowed"),
            ({"decoding": "fast"}, "decoding must be one of auto, tree, plain"),
            ({"temperature": 0}, "temperature must be a finite number above 0; got 0"),
            ({"temperature": 1e-9}, "temperature must be a number from 1e-08 to 1e\\+08; got 1e-09"),
            ({"temperature": float("nan")}, "temperature must be a finite number above 0; got nan"),
            ({"max_tokens": 0}, "max_tokens must be a positive integer"),
            ({"cuda_graphs": True}, "cuda_graphs needs a model on a CUDA device"),
        ],
    )
    def test_options(self, options, expected):
        with pytest.raises(hr.ArgumentError, match=expected):
            Retriever(model_of("llama"), index(), TOKENS, **options)

    def test_rejects_arguments_that_do_not_fit(self):
        with pytest.raises(hr.ArgumentError, match="a TokenMap\\), or a tokenizer"):
            Retriever(model_of("llama"), index())
        with pytest.raises(hr.ArgumentError, match="a TrieIndex, or the Version of a LiveIndex; got Catalog"):
            Retriever(model_of("llama"), catalog(), TOKENS)  # type: ignore[arg-type]
        with pytest.raises(hr.ArgumentError, match="SIDs of 3 codes, but the token map has 2 levels"):
            Retriever(model_of("llama"), index(), hr.TokenMap.from_offsets([200, 230], CODES))
        with pytest.raises(
            hr.ArgumentError, match=r"token 319, but the model has 300 tokens; .*resize_token_embeddings"
        ):
            Retriever(model_of("llama"), index(), hr.TokenMap.from_offsets([200, 230, 300], CODES))
        with pytest.raises(hr.ArgumentError, match="has no language model head"):
            Retriever(model_of("llama").model, index(), TOKENS)
        with pytest.raises(hr.ArgumentError, match="tokens must be a TokenMap; got list"):
            Retriever(model_of("llama"), index(), [200, 230, 260])  # type: ignore[arg-type]

    def test_paths_and_names_are_not_loaded(self, tmp_path):
        for path in ("x.hedgerow", tmp_path):
            with pytest.raises(hr.ArgumentError, match=r"Load a saved index with hr\.load_index\(path\)"):
                Retriever(model_of("llama"), path, TOKENS)  # type: ignore[arg-type]
        with pytest.raises(hr.ArgumentError, match=r"got str\. .*AutoModelForCausalLM\.from_pretrained"):
            Retriever("gpt2", index(), TOKENS)

    def test_tokens_are_detected_in_the_tokenizer(self):
        retriever = Retriever(model_of("llama"), index(), tokenizer=tokenizer())
        assert [table.tolist() for table in retriever.tokens.token_ids] == [t.tolist() for t in TOKENS.token_ids]

    def test_the_model_is_put_into_evaluation_mode(self):
        model = new_model("gpt2").train()
        retriever = Retriever(model, index(), TOKENS)
        first, second = (scores_by_sid(retriever.retrieve([1, 2, 3])[0]) for _ in range(2))
        assert first == second


@pytest.mark.parametrize("name", ["llama", "gemma2", "granite"])
def test_threads_share_a_retriever_and_a_model(name):
    model, prompts = new_model(name), prompts_of(*range(3, 23))
    # A head that is computed in full for each prompt also shows a change by the trial of another retriever.
    retriever = Retriever(model, index(), TOKENS, normalize="vocab")
    expected = [results.item_ids for results in one_by_one(retriever, prompts, beam_width=5)]

    def answers(thread: int) -> list[list]:
        own = Retriever(model, index(), TOKENS, normalize="vocab") if thread % 2 else retriever
        return [results.item_ids for results in one_by_one(own, prompts, beam_width=5)]

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(answers, range(8))) == [expected] * 8


def test_model_is_the_model_that_was_given():
    model = model_of("llama")
    assert Retriever(model, index(), TOKENS).model is model


def test_rules_are_checked_once_per_call(monkeypatch):
    """Sets are checked once, and excluded ids are looked up once, for all prompts and batches."""
    retriever = Retriever(model_of("llama"), index(), TOKENS, max_tokens=1)
    checks, look_ups = [], []
    check_sets, rows_of_lists = requests._checked_sets, vars(requests)["rows_of_lists"]
    monkeypatch.setattr(requests, "_checked_sets", lambda *given: checks.append(given) or check_sets(*given))
    monkeypatch.setattr(requests, "rows_of_lists", lambda *given: look_ups.append(given) or rows_of_lists(*given))
    some = index().constraint(ids=[f"item {row}" for row in range(100)])
    first, second = retriever.retrieve(prompts_of(4, 9), constraints=some, exclude=[["item 3"], ["item 5", "item 7"]])
    assert (len(checks), len(look_ups)) == (1, 1)
    assert "item 3" not in first.item_ids
    assert not {"item 5", "item 7"} & set(second.item_ids)


def test_trace_returns_the_beams_of_every_level():
    retriever = Retriever(model_of("llama"), index(), TOKENS)
    history = retriever.trace([5, 6, 7], beam_width=6)
    assert [beams.codes.shape for beams in history] == [(1, 6, 1), (1, 6, 2), (1, 6, 3)]
    assert index().results(history[-1])[0].item_ids == retriever.retrieve([5, 6, 7], beam_width=6, k=None)[0].item_ids
    with pytest.raises(hr.ArgumentError, match="expected one prompt; got 2"):
        retriever.trace([[5], [6]])


@pytest.mark.parametrize(
    ("size", "expected"), [((1, 1), (1, 64)), ((2, 64), (2, 64)), ((3, 65), (4, 128)), ((8, 128), (8, 128))]
)
def test_sizes_of_captured_searches(size, expected):
    assert bucket(*size) == expected
