"""results_of: rows of generated tokens as items."""

from types import SimpleNamespace

import numpy as np
import pytest

import hedgerow as hr

TOKENS = hr.TokenMap.from_offsets([10, 20], codebook_sizes=4)


@pytest.fixture(scope="module")
def index():
    catalog = hr.Catalog(
        [[0, 1], [2, 0], [2, 3], [2, 3]],
        codebook_sizes=4,
        item_ids=["anvil", "rope", "lamp", "lantern"],
        attributes={"price": [9, 3, 5, 7]},
    )
    return hr.build_index(catalog)


def test_rows_of_each_prompt_best_first(index):
    rows = [[7, 12, 20, 0], [7, 10, 21, 0], [8, 12, 23, 0], [8, 12, 20, 0]]
    generated = SimpleNamespace(sequences=np.asarray(rows), sequences_scores=np.asarray([-2.0, -1.0, -0.5, -3.0]))
    first, second = hr.results_of(index, TOKENS, generated, prompt_length=1, num_return_sequences=2)
    assert (first.item_ids, first.scores.tolist()) == (["anvil", "rope"], [-1.0, -2.0])
    assert (second.item_ids, second.scores.tolist()) == (["lamp", "lantern", "rope"], [-0.5, -0.5, -3.0])
    assert second.sids.tolist() == [[2, 3], [2, 3], [2, 0]]
    assert second.rows.tolist() == [2, 3, 1]
    options = {"k": 2, "order_by": "price", "prompt_length": 1, "num_return_sequences": 2}
    assert hr.results_of(index, TOKENS, generated, **options)[1].item_ids == ["lantern", "lamp"]


def test_rows_that_are_no_sid_and_repetitions_are_left_out(index):
    rows = [[12, 21], [12, 20], [12, 20], [99, 20], [12, -5], [20, 12], [10, 21]]
    (results,) = hr.results_of(index, TOKENS, rows, prompt_length=0, num_return_sequences=7)
    assert results.item_ids == ["rope", "anvil"]
    assert np.isnan(results.scores).all()
    assert hr.results_of(index, TOKENS, [[5, 12]], prompt_length=1)[0].item_ids == []


def test_ragged_sids():
    index = hr.build_index(hr.Catalog([[2], [2, 3], [1]], codebook_sizes=4, ragged=True, item_ids=list("abc")))
    tokens = hr.TokenMap((np.arange(10, 14), np.arange(20, 24)), end=(9,))
    # A token that is no code does not end a SID, and neither does the end of the row.
    rows = [[12, 9], [12, 23], [11, 9], [12, 99], [11, 0], [13, 9]]
    found = hr.results_of(index, tokens, rows, prompt_length=0)
    assert [results.item_ids for results in found] == [["a"], ["b"], ["c"], [], [], []]
    assert [results.item_ids for results in hr.results_of(index, tokens, [[12], [11]], prompt_length=0)] == [[], []]


@pytest.mark.parametrize(
    ("generated", "options", "message"),
    [
        ([5, 12, 20], {}, r"token ids \[R, T\].* got list"),
        ([[5], [5, 12]], {}, "got list"),
        ([[0.5, 12.0]], {}, "got list"),
        ([[5, 12, 20]], {"prompt_length": 3}, r"more than prompt_length=3 tokens.* got \[1, 3\]"),
        ([[5, 12, 20]] * 3, {"num_return_sequences": 2}, r"a multiple of num_return_sequences=2 of them; got \[3, 3\]"),
        ([[5, 12, 20]], {"prompt_length": -1}, "prompt_length must be an integer from 0"),
        ([[5, 12, 20]], {"k": 0}, "k must be a positive integer"),
    ],
)
def test_invalid_arguments(index, generated, options, message):
    with pytest.raises(hr.ArgumentError, match=message):
        hr.results_of(index, TOKENS, generated, **({"prompt_length": 1} | options))


def test_output_of_generate():
    pytest.importorskip("transformers")
    import tiny
    import torch

    from hedgerow.hf import CatalogLogitsProcessor, Retriever

    model, ids = tiny.model_of("llama"), torch.tensor(tiny.prompts_of(6, 6))
    options = {
        "num_beams": 5,
        "num_return_sequences": 5,
        "max_new_tokens": 3,
        "do_sample": False,
        "length_penalty": 0.0,
    }
    generated = model.generate(
        ids,
        logits_processor=[CatalogLogitsProcessor(tiny.index(), tiny.TOKENS, prompt_length=6)],
        return_dict_in_generate=True,
        output_scores=True,
        **options,
    )
    found = hr.results_of(tiny.index(), tiny.TOKENS, generated, prompt_length=6, num_return_sequences=5)
    expected = Retriever(model, tiny.index(), tiny.TOKENS, normalize="vocab").retrieve(ids, beam_width=5, k=None)
    for got, wanted in zip(found, expected, strict=True):
        assert got.item_ids == wanted.item_ids
        np.testing.assert_allclose(got.scores, wanted.scores, atol=1e-4)
