"""Loading rejects files with correct checksums whose arrays do not form a trie."""

import dataclasses
from itertools import pairwise

import numpy as np
import pytest
from saved import load_error, same_index

import hedgerow as hr
from hedgerow.index import structure


def catalog_of(name: str) -> hr.Catalog:
    rng = np.random.default_rng(0)
    if name == "ragged":
        sids = [row[: 1 + number % 3] for number, row in enumerate(rng.integers(0, 5, (60, 3)).tolist())]
        return hr.Catalog(sids, codebook_sizes=(5, 6, 6), ragged=True)
    if name == "forked":
        # Of 16 nodes of level 0, two have two children at level 1, and one of these has two at level 2.
        return hr.Catalog(
            [[code, 0, 0] for code in range(16)] + [[2, 1, 0], [9, 1, 0], [9, 1, 3]], codebook_sizes=(300, 300, 4)
        )
    sids = np.stack([rng.integers(0, size, 200) for size in (4, 40, 6)], axis=1)
    return hr.Catalog(sids, codebook_sizes=(4, 40, 6))


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


def entries(array: np.ndarray) -> list[np.ndarray]:
    """Copies of an array with one entry changed, and one with the entries reversed."""
    changed = []
    top = np.iinfo(array.dtype)
    for place in {0, 1, array.size // 2, array.size - 1} & set(range(array.size)):
        old = int(array.flat[place])
        for value in {top.min, top.max, old + 1, old - 1, old ^ 1 << 5, 0} - {old}:
            if top.min <= value <= top.max:
                copy = array.copy()
                copy.flat[place] = value
                changed.append(copy)
    return [*changed, array[::-1].copy()]


def is_trie(index: hr.TrieIndex) -> bool:
    """Whether an index has the arrays that are built from its SIDs, read naively."""
    rows: list[tuple[int, ...]] = [()]
    for level in index.levels:
        spans = naive_spans(level.child_start, level.forks, len(rows), level.num_nodes)
        if spans is None:
            return False
        children = [[int(code) for code in level.codes[start:stop]] for start, stop in spans]
        if not all(codes == sorted(set(codes)) and codes and codes[-1] < level.codebook_size for codes in children):
            return False
        if level.allowed is not None and bits_of(level.allowed) != children:
            return False
        if max(map(len, children)) != level.max_branch:
            return False
        rows = [(*row, code) for row, codes in zip(rows, children, strict=True) for code in codes]
    for row in rows:
        ended = [code == end for code, end in zip(row, index.end_codes, strict=True)]
        if ended != sorted(ended):
            return False
    return naive_spans(index.leaf_start, index.leaf_forks, len(rows), index.num_items) is not None


def naive_spans(start, forks, parents: int, children: int) -> list[tuple[int, int]] | None:
    """The children of each parent, if each has one or more, in order."""
    if start is not None:
        edges = [int(edge) for edge in start]
    else:
        counts = [1] * parents
        for fork in [] if forks is None else [int(fork) for fork in forks]:
            if not 0 <= fork < parents:
                return None
            counts[fork] += 1
        if forks is not None and forks.tolist() != sorted(forks.tolist()):
            return None
        edges = [0, *np.cumsum(counts).tolist()]
    spans = list(pairwise(edges))
    whole = edges[0] == 0 and edges[-1] == children and len(spans) == parents
    return spans if whole and all(low < high for low, high in spans) else None


def bits_of(allowed: np.ndarray) -> list[list[int]]:
    return [
        [32 * word + bit for word in range(len(row)) for bit in range(32) if int(row[word]) >> bit & 1]
        for row in allowed
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
