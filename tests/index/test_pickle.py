"""Pickled indexes: by path if their files are mapped, otherwise by their arrays."""

import copy
import multiprocessing
import os
import pickle
import shutil

import numpy as np
import pytest
from saved import FORMAT_1, OTHER, same_index

import hedgerow as hr


def large():
    rng = np.random.default_rng(0)
    return hr.build_index(hr.Catalog(rng.integers(0, 200, (5000, 4)), codebook_sizes=200))


@pytest.mark.parametrize("verify", [None, "none", "structure", "full"])
def test_a_mapped_index_is_pickled_by_path(tmp_path, verify, monkeypatch):
    index = large()
    index.save(tmp_path / "x")
    monkeypatch.chdir(tmp_path)
    loaded = hr.load_index("x", mmap=True, verify=verify)
    pickled = pickle.dumps(loaded)
    assert len(pickled) < 1000
    monkeypatch.chdir("/")
    again = pickle.loads(pickled)
    assert same_index(again, index)
    assert len(pickle.dumps(again)) == len(pickled)


def test_other_indexes_are_pickled_with_their_arrays(tmp_path):
    index = large()
    index.save(tmp_path / "x")
    mapped = hr.load_index(tmp_path / "x", mmap=True)
    read = hr.load_index(tmp_path / "x")
    merged = hr.merge(mapped, removed=[3])
    attributes = mapped.with_attributes({"item_id": range(5000), "x": range(5000)}, new_attributes="add")
    expected = [(other, other.rows([7, 4000]).tolist()) for other in (index, read, merged, attributes)]
    pickled = [pickle.dumps(other) for other, _ in expected]
    shutil.rmtree(tmp_path / "x")
    for (other, rows), content in zip(expected, pickled, strict=True):
        again = pickle.loads(content)
        assert same_index(again, other)
        assert again.rows([7, 4000]).tolist() == rows


def test_another_index_at_the_path_is_an_error(tmp_path):
    large().save(tmp_path / "x")
    pickled = pickle.dumps(hr.load_index(tmp_path / "x", mmap=True))
    hr.build_index(OTHER).save(tmp_path / "x")
    with pytest.raises(hr.IndexFileError, match="contains another index than the one that was pickled"):
        pickle.loads(pickled)
    large().save(tmp_path / "x")
    assert pickle.loads(pickled).num_items == 5000
    shutil.rmtree(tmp_path / "x")
    with pytest.raises(hr.IndexFileError, match="does not exist"):
        pickle.loads(pickled)


def test_an_index_of_format_1_is_pickled_by_path(tmp_path):
    shutil.copytree(FORMAT_1 / "versions" / "1", tmp_path / "x")
    index = hr.load_index(tmp_path / "x", mmap=True)
    assert same_index(pickle.loads(pickle.dumps(index)), index)


def test_a_copy_is_the_same_index(tmp_path):
    index = large()
    index.save(tmp_path / "x")
    for each in (index, hr.load_index(tmp_path / "x", mmap=True)):
        assert copy.copy(each) is copy.deepcopy(each) is each


def test_sets_and_their_index_stay_together(tmp_path):
    large().save(tmp_path / "x")
    index = hr.load_index(tmp_path / "x", mmap=True)
    pair = pickle.loads(pickle.dumps((index.constraint(ids=[1, 2]), index, index.to("numpy"))))
    assert pair[0].index is pair[1]
    hr.prepare_constraints(pair[2], 1, constraints=pair[0])
    assert pair[0].num_items == 2


@pytest.mark.skipif(os.name == "nt", reason="slow to start")
def test_a_spawned_process_loads_the_index(tmp_path):
    large().save(tmp_path / "x")
    index = hr.load_index(tmp_path / "x", mmap=True)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        # A function that the process can import, which it cannot do with one of a test.
        found = pool.apply_async(hr.TrieIndex.rows, (index, [5, 17])).get(timeout=300)
        assert found.tolist() == index.rows([5, 17]).tolist()
