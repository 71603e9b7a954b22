"""CandidateIndex: each request searches its own items, as with a constraint set of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import KERNELS, FakeModel, array_of, catalogs, require, search, stepper

import hedgerow as hr
from hedgerow.decode.ops import to_numpy

pytestmark = pytest.mark.usefixtures("layout")


@pytest.fixture(params=KERNELS)
def kernel(request):
    require(request.param)
    return request.param


@pytest.fixture(scope="module")
def index():
    rng = np.random.default_rng(0)
    ids = [f"item {number}" for number in range(90)]
    catalog = hr.Catalog(rng.integers(0, 3, (90, 4)), item_ids=ids, attributes={"price": rng.integers(1, 9, 90)})
    return hr.build_index(catalog)


def search_candidates(candidates, kernel, model, *, beam_width, capacity=None):
    backend, _, name = kernel.partition("-")
    device_index = candidates.to(backend, capacity=capacity)
    step, beams = stepper(backend, name), hr.init_beams(device_index, candidates.num_requests)
    for _ in range(device_index.num_levels):
        beams = step(device_index, beams, array_of(backend, model(beams)), beam_width=beam_width)
    return beams


def check_equals_sets(index, kernel, lists, *, constraints=None, exclude=None, beam_width=7):
    """Compare with a search of the whole index, with a constraint set of each request's candidates."""
    model = FakeModel(index.codebook_sizes)
    candidates = index.candidates(lists, constraints=constraints, exclude=exclude)
    beams = search_candidates(candidates, kernel, model, beam_width=beam_width)
    sets = [index.constraint(ids=ids, missing="ignore") for ids in lists]
    if constraints is not None:
        sets = [some & other for some, other in zip(sets, constraints, strict=True)]
    rules = {"constraints": sets, "exclude": exclude}
    expected = search(index, kernel, model, batch_size=len(lists), beam_width=beam_width, **rules)
    for name in ("codes", "scores", "parents"):
        np.testing.assert_array_equal(to_numpy(getattr(beams, name)), to_numpy(getattr(expected, name)))
    for got, wanted in zip(candidates.results(beams), index.results(expected, **rules), strict=True):
        assert got.item_ids == wanted.item_ids
        np.testing.assert_array_equal(got.rows, wanted.rows)
        np.testing.assert_array_equal(got.scores, wanted.scores)
        assert got.attributes == wanted.attributes


LISTS = [
    ["item 3", "item 70", "item 3", "no such item"],
    [],
    [f"item {number}" for number in range(90)],
    ["item 89"],
    ["no such item"],
    [f"item {number}" for number in range(20, 60)],
]


def test_equals_a_search_with_a_set_of_the_candidates(index, kernel):
    check_equals_sets(index, kernel, LISTS)


@pytest.mark.parametrize("lists", [[LISTS[5]], [[]], [[], []], [LISTS[0], []], [[], LISTS[0]]])
@pytest.mark.parametrize("kernel", ["numpy-array", "torch-array", "numpy-native"])
def test_requests_without_candidates(index, kernel, lists):
    require(kernel)
    check_equals_sets(index, kernel, lists)


def test_constraints_and_exclusions_apply(index, kernel):
    sets = [index.where("price > 4"), index.where("price < 3")] * 3
    check_equals_sets(
        index, kernel, LISTS, constraints=sets, exclude=[["item 70"], None, ["item 5"], [], None, ["item 21"]]
    )


@settings(max_examples=20)
@given(data=st.data())
def test_equals_a_search_with_sets_on_random_catalogs(data):
    index = hr.build_index(data.draw(catalogs()))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    lists = [rng.integers(0, index.num_items, rng.integers(0, 9)).tolist() for _ in range(data.draw(st.integers(1, 4)))]
    for kernel in ("numpy-array", "numpy-native"):
        check_equals_sets(index, kernel, lists)


def test_ragged_sids(kernel):
    index = hr.build_index(
        hr.Catalog([[0], [0, 1], [2, 1, 1], [2]], ragged=True, codebook_sizes=4, item_ids=list("abcd"))
    )
    check_equals_sets(index, kernel, [["a", "b", "c"], ["d"], ["c", "d"]])


def test_indexes_of_one_capacity_have_equal_shapes(index):
    first, second = (index.candidates(LISTS[2 * n : 2 * n + 2]) for n in (1, 2))
    capacity = hr.Capacity.of(first._forest, headroom=2)
    shapes = [[level.codes.shape for level in c.to("numpy", capacity=capacity).levels] for c in (first, second)]
    assert shapes[0] == shapes[1]
    model = FakeModel(index.codebook_sizes)
    padded = search_candidates(second, "numpy-array", model, beam_width=5, capacity=capacity)
    plain = search_candidates(second, "numpy-array", model, beam_width=5)
    np.testing.assert_array_equal(padded.codes, plain.codes)
    np.testing.assert_array_equal(padded.scores, plain.scores)


def test_rows_are_those_of_the_index(index):
    candidates = index.candidates(LISTS[:2])
    assert (len(candidates), candidates.num_requests) == (2, 2)
    assert [sorted(index.item_ids.take(rows).to_pylist()) for rows in candidates.rows] == [["item 3", "item 70"], []]
    assert repr(candidates) == "CandidateIndex(requests=2, items=2)"


@pytest.mark.parametrize(
    ("candidates", "message"),
    [
        ([["item 1"], None], "request 1 has no candidates"),
        (["item 1"], r"got one list of ids, \['item 1'\]"),
        ([], "one list of item ids per request"),
        (None, "one list of item ids per request"),
        ([[3.5]], "candidates of request 0 must be item ids of this index, of type string"),
    ],
)
def test_invalid_lists_are_refused(index, candidates, message):
    with pytest.raises(hr.ConstraintError, match=message):
        index.candidates(candidates)


def test_searches_that_would_be_wrong_are_refused(index):
    candidates = index.candidates(LISTS)
    device_index = candidates.to("numpy")
    with pytest.raises(hr.ArgumentError, match="candidates of 6 requests; got batch_size=2"):
        hr.init_beams(device_index, 2)
    with pytest.raises(hr.ConstraintError, match="takes no constraints and no exclusions"):
        hr.prepare_constraints(device_index, 6, exclude=[["item 1"]] * 6)
    with pytest.raises(hr.ArgumentError, match=r"got CandidateIndex. Copy it to a device first: .to\('numpy'\)"):
        hr.init_beams(candidates, 6)
    beams = search_candidates(index.candidates(LISTS[:1]), "numpy-array", FakeModel(index.codebook_sizes), beam_width=3)
    with pytest.raises(hr.ArgumentError, match="candidates of 6 requests; got beams of 1"):
        candidates.results(beams)
