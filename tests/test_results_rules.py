"""Results with constraint sets, exclusions, order, k and caps."""

import numpy as np
import pytest
from support import FakeModel

import hedgerow as hr

SIDS = [[0, 0], [0, 0], [0, 0], [0, 1], [1, 0], [1, 1]]
ATTRIBUTES = {
    "price": [5, None, 9, 7, 1, 2],
    "director": ["Varda", "Varda", "Ozu", "Varda", None, None],
    "genres": [["a", "b"], ["b"], ["c"], ["c", "a"], [], None],
}


@pytest.fixture(scope="module")
def index():
    return hr.build_index(hr.Catalog(SIDS, item_ids=list("abcdef"), attributes=ATTRIBUTES))


def item_ids_of(index, **options) -> list[str]:
    scores = {(0,): [0.0, -1.0], (1,): [-3.0, -4.0], (): [0.0, 0.0]}
    rules = {name: options[name] for name in ("constraints", "exclude") if name in options}

    def model(beams):
        rows = [[scores.get(tuple(codes), [0, 0]) for codes in request] for request in beams.codes.tolist()]
        return np.asarray(rows, np.float32)

    beams = hr.beam_search(index, model, batch_size=2, beam_width=4, normalize=None, **rules)
    return ["".join(results.item_ids) for results in index.results(beams, **options)]


def test_all_items_by_default(index):
    assert item_ids_of(index) == ["abcdef", "abcdef"]


def test_constraints_apply_to_items_of_a_shared_sid(index):
    allowed = index.constraint(ids=["b", "c", "d"])
    assert item_ids_of(index, constraints=[allowed, None], exclude=[["c"], ["a", "f"]]) == ["bd", "bcde"]


def test_order_within_a_sid(index):
    assert item_ids_of(index, order_by="price")[0] == "cabdef"
    assert item_ids_of(index, order_by=("price", "ascending"))[0] == "acbdef"


def test_k_items(index):
    assert item_ids_of(index, k=2) == ["ab", "ab"]
    assert item_ids_of(index, k=2, order_by="price", exclude=[None, ["c"]]) == ["ca", "ab"]


def test_caps_in_rank_order(index):
    assert item_ids_of(index, caps={"director": 1})[0] == "acef"
    assert item_ids_of(index, caps={"director": 1}, order_by="price")[0] == "caef"
    assert item_ids_of(index, caps={"director": 2}, k=3)[0] == "abc"


def test_caps_count_every_entry_of_a_list(index):
    assert item_ids_of(index, caps={"genres": 1})[0] == "acef"
    assert item_ids_of(index, caps={"genres": 1, "director": 3})[0] == "acef"


def test_caps_apply_before_k(index):
    assert item_ids_of(index, caps={"director": 1}, k=3)[0] == "ace"


def test_an_empty_set_returns_no_items(index):
    assert item_ids_of(index, constraints=[index.constraint(ids=[]), None]) == ["", "abcdef"]


@pytest.mark.parametrize("seed", range(20))
def test_caps_equal_a_plain_loop(seed):
    rng = np.random.default_rng(seed)
    sids, kinds = rng.integers(0, 4, (60, 3)), rng.integers(0, 5, 60).tolist()
    index = hr.build_index(hr.Catalog(sids, codebook_sizes=4, attributes={"kind": kinds}))
    beams = hr.beam_search(index, FakeModel((4, 4, 4)), batch_size=2, beam_width=30)
    for uncapped, capped in zip(index.results(beams), index.results(beams, caps={"kind": 2}, k=7), strict=True):
        counts, expected = dict.fromkeys(range(5), 0), []
        for item in uncapped.item_ids:
            if counts[kinds[item]] < 2:
                counts[kinds[item]] += 1
                expected.append(item)
        assert capped.item_ids == expected[:7]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"k": 0}, hr.ArgumentError, "k must be a positive integer"),
        ({"caps": {"director": 0}}, hr.ArgumentError, r"caps\['director'\] must be a positive integer, .*; got 0"),
        ({"caps": ["director"]}, hr.ArgumentError, "caps must map attribute names to counts"),
        (
            {"caps": {"writer": 1}},
            hr.ConstraintError,
            "no attribute 'writer'; the attributes are price, director, genres",
        ),
        ({"order_by": "age"}, hr.ConstraintError, "order_by: there is no attribute 'age'"),
        (
            {"order_by": "asc"},
            hr.ConstraintError,
            r"no attribute 'asc'.*A direction goes with .*\('price', 'ascending'\)",
        ),
        ({"order_by": ("price", "up")}, hr.ArgumentError, "order_by must be"),
        ({"order_by": ("ascending",)}, hr.ArgumentError, "order_by must be"),
        ({"order_by": ()}, hr.ArgumentError, "order_by must be"),
        ({"order_by": "genres"}, hr.ArgumentError, "has no order"),
    ],
)
def test_rejects_invalid_arguments(index, options, error, message):
    with pytest.raises(error, match=message):
        item_ids_of(index, **options)
