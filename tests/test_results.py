"""From finished beams to items."""

import pickle

import numpy as np
import pytest
from support import BACKENDS, FakeModel, search

import hedgerow as hr


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
def test_names_all_items_of_a_shared_sid(index, backend):
    pytest.importorskip(backend)
    beams = search(index, backend, FakeModel((3, 3)), batch_size=2, beam_width=7)
    for request, results in enumerate(index.results(beams)):
        assert len(results) == 5
        by_item = dict(zip(results.item_ids, map(tuple, results.sids.tolist()), strict=True))
        assert by_item == {"a": (1, 1), "b": (0, 2), "c": (1, 1), "d": (2, 0), "e": (1, 1)}
        at = results.item_ids.index("a")
        assert results.item_ids[at : at + 3] == ["a", "c", "e"]
        assert len(set(results.scores[at : at + 3].tolist())) == 1
        assert (np.diff(results.scores) <= 0).all()
        assert results.scores[0] == np.asarray(beams.scores)[request, 0]
        assert results.attributes["title"].to_pylist() == [{"c": None}.get(item, item.upper()) for item in by_item]
        assert index.item_ids.take(results.rows).to_pylist() == results.item_ids


def test_to_pylist(index):
    beams = search(index, "numpy", FakeModel((3, 3)), batch_size=1, beam_width=1)
    first = index.results(beams)[0].to_pylist()[0]
    assert set(first) == {"item_id", "score", "sid", "title", "tags"}
    assert index.contains([first["sid"]]).all()


def test_no_live_beam_names_no_item(index):
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
    found = index.results(beams)[0]
    first = f"{found.item_ids[0]!r} {found.scores[0]:.2f}"
    assert repr(found).startswith(f"Results({len(found)} items: {first}, ")
    assert repr(found).endswith(", ...)")
    assert repr(found.head(1)) == f"Results(1 items: {first})"


def test_unfinished_beams_are_refused(index):
    with pytest.raises(hr.ArgumentError, match="0 of 2 codes"):
        index.results(hr.init_beams(index, 1))


def test_beams_of_another_index_are_refused(index):
    other = hr.build_index(hr.Catalog([[0, 0], [1, 1], [2, 2], [2, 1]], codebook_sizes=3))
    beams = search(other, "numpy", FakeModel((3, 3)), batch_size=1, beam_width=4)
    with pytest.raises(hr.ArgumentError, match="searched on another index"):
        index.results(beams)
    with pytest.raises(hr.ArgumentError, match="searched on another index"):
        hr.build_index(hr.Catalog([[1, 1]], codebook_sizes=3)).results(beams)


@pytest.mark.parametrize("backend", BACKENDS)
def test_everything_can_be_pickled(index, backend, tmp_path):
    pytest.importorskip(backend)
    index.save(tmp_path / "x")
    for original in (index, hr.load_index(tmp_path / "x"), hr.load_index(tmp_path / "x", mmap=True)):
        copy = pickle.loads(pickle.dumps(original))
        assert copy.items_table.equals(original.items_table)
        beams = search(copy, backend, FakeModel((3, 3)), batch_size=1, beam_width=4)
        assert copy.results(beams)[0].item_ids == original.results(pickle.loads(pickle.dumps(beams)))[0].item_ids
    device_index = pickle.loads(pickle.dumps(index.to(backend)))
    assert device_index._ops is index.to(backend)._ops
