"""Loading rejects files with correct checksums whose arrays do not form a trie."""

import dataclasses

import numpy as np
import pytest
from damaged import catalog_of, entries, is_trie
from saved import load_error, same_index

import hedgerow as hr
from hedgerow.index import structure


@pytest.fixture(params=[structure.BLOCK, 3], ids=["one block", "many blocks"], autouse=True)
def block(request, monkeypatch):
    monkeypatch.setattr(structure, "BLOCK", request.param)


def indexes() -> list[hr.TrieIndex]:
    plain, dense, forked, ragged = (catalog_of(name) for name in ("plain", "plain", "forked", "ragged"))
    return [
        hr.build_index(plain, dense_levels=[0]),
        hr.build_index(dense, dense_levels=[0, 1, 2]),
        hr.build_index(forked, dense_levels=[1]),
        hr.build_index(ragged, dense_levels=[]),
        hr.build_index(hr.Catalog([[0], [1], [1], [0], [1]])),
    ]


def changed_indexes(index: hr.TrieIndex):
    for number, level in enumerate(index.levels):
        for name, array in level.arrays.items():
            for changed in entries(array):
                yield with_level(index, number, **{name: changed})
        for largest in (0, level.max_branch - 1, level.max_branch + 1, 2**40):
            yield with_level(index, number, max_branch=largest)
    for name in ("leaf_start", "leaf_forks"):
        if (array := getattr(index, name)) is not None:
            for changed in entries(array):
                yield dataclasses.replace(index, **{name: changed})


def with_level(index: hr.TrieIndex, number: int, **changed) -> hr.TrieIndex:
    levels = [*index.levels]
    levels[number] = dataclasses.replace(levels[number], **changed)
    return dataclasses.replace(index, levels=tuple(levels))


@pytest.mark.parametrize("number", range(5))
def test_an_index_has_a_fault_if_and_only_if_it_is_no_trie(number):
    index = indexes()[number]
    assert is_trie(index)
    assert structure.structure_fault(index) is None
    rejected = 0
    for changed in changed_indexes(index):
        fault = structure.structure_fault(changed)
        assert (fault is None) == is_trie(changed), fault
        rejected += fault is not None
    assert rejected > 10


@pytest.mark.parametrize(("mmap", "verify"), [(False, None), (True, None), (True, "full"), (False, "structure")])
def test_load_rejects_a_wrong_structure_with_correct_checksums(mmap, verify, tmp_path):
    index = indexes()[0]
    changed, (first, second) = index, index.levels[:2]
    assert first.allowed is not None
    assert second.child_start is not None
    assert index.leaf_forks is not None
    for changed in (
        with_level(index, 1, codes=second.codes[::-1].copy()),
        with_level(index, 1, child_start=np.where(second.child_start == 0, 0, 2**30).astype(np.int32)),
        with_level(index, 0, allowed=first.allowed ^ 1),
        dataclasses.replace(index, leaf_forks=index.leaf_forks[::-1].copy()),
    ):
        changed.save(tmp_path / "x")
        message = load_error(tmp_path / "x", mmap=mmap, verify=verify)
        assert "was altered, damaged or written incorrectly" in message
    assert same_index(hr.load_index(tmp_path / "x", mmap=mmap, verify="none"), changed)


@pytest.mark.parametrize("nodes", [[1, 0], [0, 0]])
def test_only_the_root_may_have_no_children(nodes):
    codes, empty = np.zeros(nodes[0], np.uint8), np.zeros(0, np.uint8)
    first = hr.build_index(hr.Catalog([[0, 0]])).levels[0]
    starts = [None if count else np.zeros(2, np.int32) for count in nodes]
    levels = (
        dataclasses.replace(first, codes=codes, child_start=starts[0], max_branch=nodes[0]),
        dataclasses.replace(first, codes=empty, child_start=starts[1] if nodes[0] else None, max_branch=0),
    )
    index = hr.TrieIndex(levels, None, None, lambda: None)  # pyright: ignore[reportArgumentType]
    assert (structure.structure_fault(index) is None) == (nodes == [0, 0])
