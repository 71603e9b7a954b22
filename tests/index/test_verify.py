"""verify_trie detects an index that was written incorrectly, although its checksums are correct."""

import dataclasses

import numpy as np
import pytest

import hedgerow as hr
from hedgerow.index.verify import verify_trie


@pytest.fixture
def index():
    rng = np.random.default_rng(0)
    sids = np.stack([rng.integers(0, size, 200) for size in (4, 40, 6)], axis=1)
    index = hr.build_index(hr.Catalog(sids, codebook_sizes=(4, 40, 6)), dense_levels=[0])
    assert [level.representation for level in index.levels] == ["dense", "sparse", "sparse"]
    assert index.leaf_forks is not None
    return index


def test_correct_index_passes_and_reports_progress(index, tmp_path):
    index.save(tmp_path / "x")
    calls = []
    verified = verify_trie(tmp_path / "x", progress=lambda *call: calls.append(call))
    assert verified.num_items == 200
    assert calls[-1] == ("walk", index.num_sids, index.num_sids)


def altered(index, number, **arrays):
    level = index.levels[number]
    changed = {name: change(getattr(level, name).copy()) for name, change in arrays.items()}
    levels = [*index.levels]
    levels[number] = dataclasses.replace(level, **changed)
    return dataclasses.replace(index, levels=tuple(levels))


def with_entry(place, value):
    def change(array):
        array[place] = value
        return array

    return change


@pytest.mark.parametrize(
    ("number", "arrays", "fault"),
    [
        (1, {"codes": with_entry(3, 41)}, "level 1: code 41 is outside"),
        (1, {"codes": lambda codes: codes[::-1]}, "level 1: the codes of a node's children are not in ascending order"),
        (1, {"child_start": with_entry(0, 1)}, "level 1: the row pointers or forks"),
        (1, {"child_start": with_entry(1, 0)}, "level 1: the row pointers or forks"),
        (2, {"child_start": with_entry(-1, 7)}, "level 2: the row pointers or forks"),
        (0, {"allowed": with_entry((0, 0), 7)}, "level 0: the bitmap"),
    ],
)
def test_error_names_the_wrong_array(index, tmp_path, number, arrays, fault):
    altered(index, number, **arrays).save(tmp_path / "x")
    with pytest.raises(hr.IndexFileError, match=fault):
        verify_trie(tmp_path / "x")


@pytest.mark.parametrize("forks", [[0, 0], [3, 1], [-1, 2], [0, 16]])
def test_error_for_wrong_forks(tmp_path, forks):
    sids = [[code, 0] for code in range(16)] + [[2, 1], [9, 1]]
    index = hr.build_index(hr.Catalog(sids, codebook_sizes=(300, 300)))
    assert index.levels[1].representation == "forked"
    altered(index, 1, forks=lambda _: np.asarray(forks, np.int32)).save(tmp_path / "x")
    with pytest.raises(hr.IndexFileError, match="level 1: "):
        verify_trie(tmp_path / "x")


def test_error_for_a_wrong_branch_factor(index, tmp_path):
    levels = [*index.levels[:2], dataclasses.replace(index.levels[2], max_branch=99)]
    dataclasses.replace(index, levels=tuple(levels)).save(tmp_path / "x")
    with pytest.raises(hr.IndexFileError, match="level 2: the largest branch factor is 4, but the manifest has 99"):
        verify_trie(tmp_path / "x")


def test_error_for_wrong_leaf_forks(index, tmp_path):
    leaf_forks = index.leaf_forks.copy()
    leaf_forks[1] = index.num_sids
    dataclasses.replace(index, leaf_forks=leaf_forks).save(tmp_path / "x")
    with pytest.raises(hr.IndexFileError, match="a leaf has no item"):
        verify_trie(tmp_path / "x")


def test_error_for_wrong_leaf_pointers(tmp_path):
    index = hr.build_index(hr.Catalog([[0], [0], [1], [1]]))
    assert index.leaf_start is not None
    wrong = dataclasses.replace(index, leaf_start=np.asarray([0, 0, 4], np.int32))
    wrong.save(tmp_path / "x")
    with pytest.raises(hr.IndexFileError, match="a leaf has no item"):
        verify_trie(tmp_path / "x")


def test_error_for_repeated_item_ids(index, tmp_path):
    import pyarrow as pa

    table = pa.table({"item_id": [7] * 200})
    dataclasses.replace(index, _load_items=lambda: table).save(tmp_path / "x")
    with pytest.raises(hr.IndexFileError, match="item id 7 appears in rows 0 and 1"):
        verify_trie(tmp_path / "x")
