"""Combinations of constraint sets are computed once for each expression, per index, within the limits of the cache."""

import pickle

import numpy as np
import pytest

import hedgerow as hr
from hedgerow.constraints import cache, sets

SIDS = np.random.default_rng(0).integers(0, 4, (100, 3))


@pytest.fixture
def index():
    return hr.build_index(hr.Catalog(SIDS, attributes={"year": np.arange(100)}))


def mask_of(seed):
    return np.random.default_rng(seed).random(100) < 0.5


def combinations(a, b):
    return {"&": a & b, "|": a | b, "^": a ^ b, "-": a - b, "~": ~a, "nested": ~(a & b) | (b - a)}


def test_the_items_are_those_of_the_expression(index):
    masks = mask_of(1), mask_of(2)
    a, b = (index.constraint(mask, order="index") for mask in masks)
    left, right = masks
    expected = {"&": left & right, "|": left | right, "^": left ^ right, "-": left & ~right, "~": ~left}
    expected["nested"] = ~(left & right) | (right & ~left)
    for _ in range(2):
        for sign, made in combinations(a, b).items():
            assert made.mask.tolist() == expected[sign].tolist(), sign
            assert made == index.constraint(expected[sign], order="index")
            assert hash(made) == hash(index.constraint(expected[sign], order="index"))


def test_the_same_combination_is_computed_once(index, monkeypatch):
    a, b = index.where("year < 50"), index.constraint(mask_of(2), order="index")
    first = combinations(a, b)
    for made in first.values():
        made._alive  # noqa: B018
    monkeypatch.setattr(sets, "find_alive", None)
    # Equal sets, made again.
    again = combinations(index.where("year < 50"), index.constraint(mask_of(2), order="index"))
    for sign, made in again.items():
        assert made._words is first[sign]._words, sign
        assert made._alive is first[sign]._alive
        assert made.named("other")._alive is made._alive
    assert (b & a)._words is first["&"]._words
    assert (b - a)._words is not first["-"]._words


def test_the_items_of_a_chain_are_digested_only_for_a_search(index, monkeypatch):
    a, b, c = (index.constraint(mask_of(seed), order="index") for seed in (1, 2, 3))
    assert [each._key for each in (a, b, c)]
    digested = []
    monkeypatch.setattr(sets, "key_of", lambda words: digested.append(words) or b"key")
    chain = a & b | c
    assert not digested
    assert chain._key == b"key"
    assert len(digested) == 1


def test_a_combination_of_another_index_is_its_own(index):
    other = hr.build_index(hr.Catalog(SIDS[:50], attributes={"year": np.arange(50)}))
    made = [each.where("year < 20") & each.where("year >= 10") for each in (index, other, index)]
    assert [len(each) for each in made] == [10, 10, 10]
    assert [len(each.mask) for each in made] == [100, 50, 100]


def test_the_cache_is_bounded(index, monkeypatch):
    monkeypatch.setattr(cache, "MAX_RULES", 4)
    a = index.constraint(mask_of(1), order="index")
    made = [a & index.constraint(mask_of(seed), order="index") for seed in range(20)]
    kept = cache.cache_of(index)._rules.values
    assert len(kept) == 4
    # One that was dropped is computed again.
    assert (a & index.constraint(mask_of(0), order="index")).mask.tolist() == made[0].mask.tolist()


def test_combinations_are_pickled_with_their_index(index):
    made = index.where("year < 50") & index.constraint(mask_of(2), order="index")
    assert len(made) == int(made.mask.sum())
    copy, of_index = pickle.loads(pickle.dumps((made, index)))
    assert copy.mask.tolist() == made.mask.tolist()
    assert copy.name == made.name
    assert copy.index is of_index
    assert len(copy & ~copy) == 0


@pytest.mark.parametrize("items", [0, 1, 31, 32, 33, 64])
def test_the_complement_has_no_bits_past_the_end(items):
    index = hr.build_index(hr.Catalog(np.zeros((items, 1), int) + np.arange(items)[:, None], codebook_sizes=64))
    none = index.constraint(np.zeros(items, bool), order="index")
    assert len(~none) == items
    assert ~~none == none


def test_chains_of_the_same_sets_do_not_grow(index):
    a, b = (index.constraint(mask_of(seed), order="index") for seed in (1, 2))
    made = a
    for _ in range(40):
        made = made & b & made
    assert made == a & b
    assert {part._key for part in made._parts} == {a._key, b._key}
    assert len(made._parts) == 2
    assert len(made.name) == 200
