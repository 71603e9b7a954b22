"""An index is freed with its last user, without the garbage collector."""

import gc
import weakref

import numpy as np
import pytest

import hedgerow as hr


@pytest.fixture
def no_collector():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def used_index(path, *, mmap):
    attributes = {"year": [1, 2, 3]}
    catalog = hr.Catalog([[0, 1], [2, 0], [2, 1]], codebook_sizes=3, item_ids=["a", "b", "c"], attributes=attributes)
    index = hr.build_index(catalog)
    if mmap is not None:
        index.save(path)
        index = hr.load_index(path, mmap=mmap)
    return index


def search(index):
    rule = index.where("year >= 2") & index.newest("year", days=5, now=5) & index.constraint(ids=["b"])
    rules = {"constraints": [rule], "exclude": [["c"]]}
    logits = {"logits_fn": lambda beams: np.zeros((*beams.states.shape, 3))}
    beams = hr.beam_search(index, batch_size=1, beam_width=2, **logits, **rules)
    assert [list(result.item_ids) for result in index.results(beams, **rules)] == [["b"]]


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("mmap", [None, False, True])
def test_freed_at_once(tmp_path, mmap):
    pytest.importorskip("duckdb")
    index = used_index(tmp_path / "x.hedgerow", mmap=mmap)
    for _ in range(2):
        search(index)
    freed = weakref.ref(index)
    del index
    assert freed() is None
