"""Masked arrays: where NumPy's conversion would drop the mask, an error says how to fill it."""

import numpy as np
import pytest

import hedgerow as hr

INDEX = hr.build_index(hr.Catalog([[0, 1], [1, 0], [2, 2]], item_ids=[10, 20, 30]))
BEAMS = hr.init_beams(INDEX, 1)
TOKENS = hr.TokenMap.from_offsets([10, 20], codebook_sizes=4)


def masked(values, first=True):
    """An array whose first entry is masked, or none."""
    array = np.ma.array(values, mask=np.zeros(np.shape(values), bool))
    array.mask.reshape(-1)[0] = first
    return array


LOGITS = {
    "step": lambda logits: hr.step(INDEX, BEAMS, logits, beam_width=3),
    "beam_search": lambda logits: hr.beam_search(INDEX, lambda _: logits, batch_size=1, beam_width=1),
    "masked_probability": lambda logits: hr.masked_probability(INDEX, BEAMS, logits),
    "log_probs": lambda logits: hr.log_probs(INDEX, [logits[:, 0], np.zeros((1, 3))], [[1, 0]]),
}


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("name", LOGITS)
def test_logits(name, first):
    logits = masked([[[5.0, 1.0, 0.0]]], first)
    with pytest.raises(hr.ArgumentError, match=r"logits must be a plain array.*got a MaskedArray.*filled\(-np.inf\)"):
        LOGITS[name](logits)
    LOGITS[name](logits.filled(-np.inf))


def test_logits_that_are_filled_ban_the_masked_codes():
    beams = hr.step(INDEX, BEAMS, masked([[[5.0, 1.0, 0.0]]]).filled(-np.inf), beam_width=3)
    assert beams.codes[0, :, 0].tolist() == [1, 2, -1]


def quantizer(codebook):
    return hr.Quantizer("residual", (codebook,), (2,))


OTHERS = {
    "sids": (lambda value: hr.Catalog(value), [[1, 2], [3, 4]]),
    "rows of sids": (lambda value: hr.Catalog([value, np.array([1, 2])]), [1, 3]),
    "codebook sizes": (lambda value: hr.Catalog([[0, 1]], codebook_sizes=value), [4, 4]),
    "item ids": (lambda value: hr.Catalog([[0], [1]], item_ids=value), [1, 2]),
    "a mask of a catalog": (lambda value: hr.Catalog([[0], [1]]).filter(value), [True, True]),
    "a mask of an index": (lambda value: INDEX.constraint(value, order="index"), [True] * 3),
    "ids of a set": (lambda value: INDEX.constraint(ids=value), [10, 20]),
    "ids to exclude": (lambda value: hr.prepare_constraints(INDEX, 1, exclude=[value]), [10, 20]),
    "candidates": (lambda value: INDEX.candidates([value]), [10, 20]),
    "sids to find": (INDEX.contains, [[0, 1], [1, 0]]),
    "a prefix": (INDEX.allowed_codes, [0]),
    "leaves": (INDEX.sids, [0, 1]),
    "sids to encode": (TOKENS.encode, [[0, 1]]),
    "tokens to decode": (TOKENS.decode, [[10, 21]]),
    "tokens of codes": (lambda value: hr.TokenMap((value,)), [1, 2, 3]),
    "generated tokens": (lambda value: hr.results_of(INDEX, TOKENS, value, prompt_length=1), [[5, 10, 21]]),
    "ranks": (lambda value: hr.metrics.recall(value, 1), [1.0, 2.0]),
    "scores": (lambda value: hr.metrics.ranks_of_scores(value, [0]), [[0.5, 0.1]]),
    "codebooks": (quantizer, [[0.0], [1.0]]),
    "embeddings": (
        lambda value: quantizer(np.array([[0.0], [1.0]])).assign(value),
        [[0.1], [0.9]],
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_arrays(name):
    call, values = OTHERS[name]
    with pytest.raises(hr.HedgerowError, match=r"mask|null"):
        call(masked(values))
    call(masked(values, first=False))
