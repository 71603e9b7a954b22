"""Results: the items of finished beams."""

import pickle

import numpy as np
import pytest
from support import BACKENDS, FakeModel, array_of, search

import hedgerow as hr
from hedgerow.decode.ops import to_numpy
from hedgerow.picking import Picking


@pytest.fixture
def index():
    catalog = hr.Catalog(
        [[1, 1], [0, 2], [1, 1], [2, 0], [1, 1]],
        codebook_sizes=3,
        item_ids=["e", "b", "a", "d", "c"],
        attributes={"title": ["E", "B", "A", "D", None], "tags": [["x"], [], None, ["y", "z"], ["x"]]},
    )
    return hr.build_index(catalog)


@pytest.mark.parametrize("backend", BACKENDS)
def test_returns_all_items_of_a_shared_sid(index, backend):
    pytest.importorskip(backend)
    beams = search(index, backend, FakeModel((3, 3)), batch_size=2, beam_width=7)
    for request, results in enumerate(index.results(beams)):
        assert len(results) == 5
        by_item = dict(zip(results.item_ids, map(tuple, results.sids.tolist()), strict=True))
        assert by_item == {"a": (1, 1), "b": (0, 2), "c": (1, 1), "d": (2, 0), "e": (1, 1)}
        position = results.item_ids.index("a")
        assert results.item_ids[position : position + 3] == ["a", "c", "e"]
        assert len(set(results.scores[position : position + 3].tolist())) == 1
        assert (np.diff(results.scores) <= 0).all()
        assert results.scores[0] == np.asarray(beams.scores)[request, 0]
        assert results.attributes["title"].to_pylist() == [{"c": None}.get(item, item.upper()) for item in by_item]
        assert index.item_ids.take(results.rows).to_pylist() == results.item_ids


def test_to_pylist(index):
    beams = search(index, "numpy", FakeModel((3, 3)), batch_size=1, beam_width=1)
    first = index.results(beams)[0].to_pylist()[0]
    assert set(first) == {"item_id", "score", "sid", "title", "tags"}
    assert index.contains([first["sid"]]).all()


def test_dead_beams_return_no_items(index):
    beams = hr.init_beams(index, 1)
    for _ in range(2):
        beams = hr.step(index, beams, np.full((*beams.states.shape, 3), np.nan), beam_width=4)
    results = index.results(beams)[0]
    assert len(results) == 0
    assert results.to_pylist() == []
    assert results.sids.shape == (0, 2)


def test_default_ids_are_row_numbers():
    index = hr.build_index(hr.Catalog([[5], [3], [4], [3]]))
    beams = hr.beam_search(index, lambda _: np.arange(6.0).reshape(1, 1, 6), batch_size=1, beam_width=9)
    assert index.results(beams)[0].item_ids == [0, 2, 1, 3]


def test_reprs_are_short(index):
    beams = search(index, "numpy", FakeModel((3, 3)), batch_size=2, beam_width=4)
    assert repr(beams) == "Beams(batch_size=2, beams=4, level=2, numpy)"
    assert repr(hr.Beams(*[object()] * 4)) == "Beams(object)"
    results = index.results(beams)[0]
    first = f"{results.item_ids[0]!r} {results.scores[0]:.2f}"
    assert repr(results).startswith(f"Results({len(results)} items: {first}, ")
    assert repr(results).endswith(", ...)")
    assert repr(results.head(1)) == f"Results(1 items: {first})"
    assert repr(results.head(0)) == "Results(0 items)"


class TestSequence:
    """len, iteration, indexing and slices."""

    @pytest.fixture(params=[True, False], ids=["attributes", "no attributes"])
    def results(self, request, index):
        if not request.param:
            index = hr.build_index(hr.Catalog(index.sids_of(index.item_ids), codebook_sizes=3, item_ids=index.item_ids))
        return index.results(search(index, "numpy", FakeModel((3, 3)), batch_size=1, beam_width=7))[0]

    def test_length_and_iteration(self, results):
        assert len(results) == 5
        assert [item["item_id"] for item in results] == results.item_ids
        assert list(results) == results.to_pylist()

    @pytest.mark.parametrize("position", [0, 2, 4, -1, -5, np.int64(1)])
    def test_index_returns_a_dict(self, results, position):
        assert results[position] == results.to_pylist()[position]

    @pytest.mark.parametrize("position", [5, -6])
    def test_index_out_of_range(self, results, position):
        with pytest.raises(IndexError):
            results[position]

    @pytest.mark.parametrize("position", ["a", 1.0, [0, 1], None, np.array([True] * 5)])
    def test_index_of_another_type(self, results, position):
        with pytest.raises(TypeError):
            results[position]

    @pytest.mark.parametrize("span", [slice(2), slice(1, 4), slice(-2, None), slice(None, None, -1), slice(7, 9)])
    def test_slice_returns_results(self, results, span):
        part = results[span]
        assert isinstance(part, hr.Results)
        assert part.to_pylist() == results.to_pylist()[span]
        assert part.item_ids == results.item_ids[span]
        assert part.sids.tolist() == results.sids[span].tolist()
        assert part.scores.tolist() == results.scores[span].tolist()
        assert part.rows.tolist() == results.rows[span].tolist()
        assert part.attributes.num_rows == len(part)

    @pytest.mark.parametrize("k", [0, 2, 5, 9])
    def test_head(self, results, k):
        assert results.head(k).to_pylist() == results.to_pylist()[:k]

    @pytest.mark.parametrize("k", [-1, 1.0, None, True])
    def test_head_rejects_other_counts(self, results, k):
        with pytest.raises(hr.ArgumentError, match="k must be an integer"):
            results.head(k)


def test_results_of_no_items(index):
    beams = search(index, "numpy", FakeModel((3, 3)), batch_size=1, beam_width=2)
    results = index.results(beams, constraints=index.constraint(ids=[]))[0]
    assert (len(results), list(results), len(results[:2])) == (0, [], 0)
    with pytest.raises(IndexError):
        results[0]


def test_sids_of_ragged_results_have_their_own_length():
    index = hr.build_index(hr.Catalog([[1], [1, 0], [0, 2]], codebook_sizes=3, ragged=True, item_ids=["a", "b", "c"]))
    results = index.results(search(index, "numpy", FakeModel(index.codebook_sizes), batch_size=1, beam_width=5))[0]
    assert {item["item_id"]: item["sid"] for item in results} == {"a": [1], "b": [1, 0], "c": [0, 2]}
    assert results[results.item_ids.index("a")]["sid"] == [1]
    assert results.sids[results.item_ids.index("a")].tolist() == [1, -1]


def test_rejects_unfinished_beams(index):
    with pytest.raises(hr.ArgumentError, match="0 of 2 codes"):
        index.results(hr.init_beams(index, 1))


def test_rejects_other_types(index):
    with pytest.raises(hr.ArgumentError, match="expected Beams; got list"):
        index.results([])
    beams = search(index, "numpy", FakeModel((3, 3)), batch_size=1, beam_width=4)
    prepared = hr.prepare_constraints(index, 1, constraints=index.constraint(ids=["a"]))
    with pytest.raises(hr.ConstraintError, match=r"prepared for a device.*Pass the constraint sets"):
        index.results(beams, constraints=prepared)


def test_rejects_beams_of_another_index(index):
    other = hr.build_index(hr.Catalog([[0, 0], [1, 1], [2, 2], [2, 1]], codebook_sizes=3))
    beams = search(other, "numpy", FakeModel((3, 3)), batch_size=1, beam_width=4)
    with pytest.raises(hr.ArgumentError, match="a search on another index"):
        index.results(beams)
    with pytest.raises(hr.ArgumentError, match="a search on another index"):
        hr.build_index(hr.Catalog([[1, 1]], codebook_sizes=3)).results(beams)


@pytest.mark.parametrize("backend", BACKENDS)
def test_pickling(index, backend, tmp_path):
    pytest.importorskip(backend)
    index.save(tmp_path / "x")
    for original in (index, hr.load_index(tmp_path / "x"), hr.load_index(tmp_path / "x", mmap=True)):
        copy = pickle.loads(pickle.dumps(original))
        assert copy.items_table.equals(original.items_table)
        beams = search(copy, backend, FakeModel((3, 3)), batch_size=1, beam_width=4)
        assert copy.results(beams)[0].item_ids == original.results(pickle.loads(pickle.dumps(beams)))[0].item_ids
    device_index = pickle.loads(pickle.dumps(index.to(backend)))
    assert device_index._ops is index.to(backend)._ops


@pytest.mark.parametrize("backend", BACKENDS)
def test_code_scores_are_the_log_probabilities_of_the_codes(backend):
    pytest.importorskip(backend)
    sids = np.random.default_rng(0).integers(0, 3, (40, 4))
    index = hr.build_index(hr.Catalog(sids, codebook_sizes=3))
    model = FakeModel((3,) * 4)
    device_index = index.to(backend)
    beams = hr.beam_search(
        device_index, lambda beams: array_of(backend, model(beams)), batch_size=2, beam_width=index.num_sids + 3
    )
    for request, results in enumerate(index.results(beams, k=9)):
        assert results.code_scores is not None
        for sid, code_scores in zip(results.sids.tolist(), results.code_scores, strict=True):
            for level, code in enumerate(sid):
                logits = np.asarray(model.logits_of(request)(tuple(sid[:level])))
                expected = logits[code] - np.log(np.exp(logits).sum())
                np.testing.assert_allclose(code_scores[level], expected, atol=1e-4)
        np.testing.assert_allclose(results.code_scores.sum(axis=1), results.scores, atol=1e-4)
        np.testing.assert_array_equal(results[2:4].code_scores, results.code_scores[2:4])
    assert np.isneginf(to_numpy(beams.code_scores)[:, -3:]).all()


def test_beams_of_single_steps_have_no_code_scores(index):
    beams = hr.init_beams(index, 1)
    for size in index.codebook_sizes:
        beams = hr.step(index, beams, np.zeros((*beams.states.shape, size)), beam_width=2)
    assert index.results(beams)[0].code_scores is None


def test_sort_by():
    attributes = {"price": [3, None, 9, 3], "tags": [["a"]] * 4}
    index = hr.build_index(hr.Catalog([[0], [1], [2], [3]], attributes=attributes))
    logits = np.array([[[0.4, 0.3, 0.2, 0.1]]])
    results = index.results(hr.beam_search(index, lambda _: logits, batch_size=1, beam_width=4), k=9)[0]
    assert results.item_ids == [0, 1, 2, 3]
    assert results.sort_by("price").item_ids == [2, 0, 3, 1]
    ascending = results.sort_by("price", "ascending")
    assert (ascending.item_ids, ascending.reason) == ([0, 3, 2, 1], "catalog")
    assert ascending.scores.tolist() == results.scores[[0, 3, 2, 1]].tolist()
    for words, expected in (
        (("price", "up"), "direction must be one of ascending, descending"),
        (("colour",), "sort_by: there is no attribute 'colour'; the attributes are price, tags"),
        (("tags",), "sort_by: attribute 'tags' .* has no order"),
    ):
        with pytest.raises(hr.ArgumentError, match=expected):
            results.sort_by(*words)
    assert results[:0].sort_by("price").item_ids == []


def test_attributes_are_checked_before_a_search(index):
    Picking(1, "title", {"tags": 1}).check_attributes(index)
    Picking(None, None, None).check_attributes(index)
    with pytest.raises(hr.ArgumentError, match=r"order_by: attribute 'tags' .* has no order"):
        Picking(1, ("tags", "ascending"), None).check_attributes(index)
    with pytest.raises(hr.ConstraintError, match="order_by: there is no attribute 'price'"):
        Picking(1, "price", None).check_attributes(index)
    with pytest.raises(hr.ConstraintError, match="caps: there is no attribute 'price'"):
        Picking(1, "title", {"price": 1}).check_attributes(index)
