"""Lookups of TrieIndex, compared with a naive trie."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import NaiveTrie
from support import catalogs

import hedgerow as hr

EXAMPLES = settings(max_examples=80)
TINY = hr.Catalog([[1, 0, 2], [0, 3, 1], [1, 0, 0], [1, 0, 2]], codebook_sizes=4, item_ids=["d", "c", "b", "a"])


def queries_about(naive: NaiveTrie, sizes: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """SIDs of items, random SIDs, and neighbours of SIDs, including codes below 0 and beyond the codebook."""
    present = np.array(naive.rows)
    random = np.stack([rng.integers(-2, size + 3, 40) for size in sizes], axis=1)
    near = present[rng.integers(0, len(present), 40)]
    near[np.arange(40), rng.integers(0, len(sizes), 40)] += rng.choice([-300, -256, -1, 1, 256, 2**31], 40)
    return np.concatenate([present, random, near])


@EXAMPLES
@given(catalog=catalogs(), seed=st.integers(0, 1000), dense=st.booleans())
def test_find_and_contains(catalog, seed, dense):
    index = hr.build_index(catalog, dense_levels=range(catalog.num_levels) if dense else ())
    naive = NaiveTrie(catalog)
    queries = queries_about(naive, catalog.codebook_sizes, np.random.default_rng(seed))
    leaf_of = {sid: leaf for leaf, sid in enumerate(naive.sids)}
    expected = [leaf_of.get(tuple(sid), -1) for sid in queries.tolist()]
    assert index.find(queries).tolist() == expected
    assert index.contains(queries).tolist() == [leaf >= 0 for leaf in expected]
    assert index.contains(queries).dtype == bool


@EXAMPLES
@given(catalog=catalogs())
def test_allowed_codes_of_every_prefix(catalog):
    index = hr.build_index(catalog)
    naive = NaiveTrie(catalog)
    for prefix in {(), *(sid[:depth] for sid in naive.sids for depth in range(catalog.num_levels))}:
        codes = index.allowed_codes(prefix)
        assert codes.tolist() == naive.allowed_codes(prefix)
        assert codes.dtype == np.int64


@EXAMPLES
@given(catalog=catalogs(), seed=st.integers(0, 1000))
def test_allowed_codes_of_absent_prefixes(catalog, seed):
    index = hr.build_index(catalog)
    naive = NaiveTrie(catalog)
    for sid in queries_about(naive, catalog.codebook_sizes, np.random.default_rng(seed))[len(naive.rows) :].tolist():
        for depth in range(1, catalog.num_levels):
            prefix = tuple(sid[:depth])
            if all(0 <= code < size for code, size in zip(prefix, catalog.codebook_sizes, strict=False)):
                assert index.allowed_codes(prefix).tolist() == naive.allowed_codes(prefix)
            else:
                with pytest.raises(hr.ArgumentError, match="is out of range"):
                    index.allowed_codes(prefix)


@EXAMPLES
@given(catalog=catalogs(), seed=st.integers(0, 1000))
def test_sids_of_leaves(catalog, seed):
    index = hr.build_index(catalog)
    naive = NaiveTrie(catalog)
    assert [tuple(sid) for sid in index.sids().tolist()] == naive.sids
    leaves = np.random.default_rng(seed).integers(0, len(naive.sids), 20)
    assert [tuple(sid) for sid in index.sids(leaves).tolist()] == [naive.sids[leaf] for leaf in leaves]
    assert index.find(index.sids(leaves)).tolist() == leaves.tolist()
    assert index.sids([]).shape == (0, catalog.num_levels)


def test_contains_for_every_sid_of_a_small_space():
    index = hr.build_index(TINY)
    space = list(itertools.product(range(-1, 6), repeat=3))
    assert [sid for sid, exists in zip(space, index.contains(space), strict=True) if exists] == [
        (0, 3, 1),
        (1, 0, 0),
        (1, 0, 2),
    ]


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int64, np.uint8, np.uint32, np.uint64])
def test_find_accepts_every_integer_type(dtype):
    index = hr.build_index(TINY)
    assert index.find(np.array([[1, 0, 2], [1, 0, 1]], dtype)).tolist() == [2, -1]
    extreme = np.full((1, 3), np.iinfo(dtype).max, dtype)
    assert index.find(extreme).tolist() == [-1]


def test_find_does_not_wrap_codes():
    index = hr.build_index(hr.Catalog([[0, 255]]))
    queries = np.array([[256, 255], [0, -1], [0, 511], [2**32, 255], [-256, 255], [0, 255]])
    assert index.contains(queries).tolist() == [False] * 5 + [True]


def test_rejects_invalid_queries():
    index = hr.build_index(TINY)
    assert index.find(np.zeros((0, 3), int)).shape == (0,)
    with pytest.raises(hr.ArgumentError, match=r"\[R, 3\].*\[2, 2\]"):
        index.find([[1, 2], [3, 4]])
    with pytest.raises(hr.CatalogError, match="row 1"):
        index.contains([[1, 2, 3], [4, 5]])
    with pytest.raises(hr.CatalogError, match="float64"):
        index.contains(np.zeros((1, 3)))
    with pytest.raises(hr.ArgumentError, match="0 to 2 codes; got 3"):
        index.allowed_codes([1, 0, 2])
    with pytest.raises(hr.CatalogError, match="level 0"):
        index.allowed_codes([0.5])  # type: ignore[list-item]


@pytest.mark.parametrize("leaf", [-1, -2, 3, 2**40])
def test_rejects_leaves_that_do_not_exist(leaf):
    with pytest.raises(hr.ArgumentError, match=f"leaf {leaf} does not exist.*0 to 2"):
        hr.build_index(TINY).sids([0, leaf])


def test_allowed_codes_accepts_arrays():
    index = hr.build_index(TINY)
    for prefix in ((1, 0), [1, 0], np.array([1, 0]), np.array([1, 0], np.uint8)):
        assert index.allowed_codes(prefix).tolist() == [0, 2]  # type: ignore[arg-type]


def test_properties_of_a_tiny_index():
    index = hr.build_index(TINY)
    assert (index.num_items, index.num_sids, index.num_levels) == (4, 3, 3)
    assert index.codebook_sizes == (4, 4, 4)
    assert index.nodes_per_level == (2, 2, 3)
    assert index.max_branch_factors == (2, 1, 2)
    assert index.item_ids.to_pylist() == ["c", "b", "a", "d"]
    assert [level.representation for level in index.levels] == ["dense", "unary", "dense"]
    # Codes, row pointers and bitmaps; then leaf_start for three leaves.
    assert [level.nbytes for level in index.levels] == [2 + 8 + 4, 2, 3 + 12 + 8]
    assert index.nbytes == 14 + 2 + 23 + 16


def test_repr():
    assert repr(hr.build_index(TINY)) == "TrieIndex(items=4, sids=3, levels=3, nodes=7, 0.1 kB)"
    assert repr(hr.build_index(TINY.filter(np.array([1, 1, 1, 0], bool)))).startswith("TrieIndex(items=3, levels=3, ")
    many = hr.Catalog(np.stack([np.arange(250_000)] * 2, axis=1))
    assert repr(hr.build_index(many)) == "TrieIndex(items=250,000, levels=2, nodes=500,000, 2.0 MB)"


def test_describe_lists_every_level():
    text = hr.build_index(hr.Catalog(TINY.sids, codebook_sizes=[4, 2048, 1024])).describe()
    lines = text.splitlines()
    assert lines[0].strip() == "TrieIndex(items=4, sids=3, levels=3, nodes=7, 0.1 kB)"
    rows = [line.replace("│", " ").split() for line in lines if line[:6].strip().isdigit()]
    assert lines[-1] == "dense: bitmap; sparse: row pointers; forked: forks; unary: codes only"
    assert max(map(len, lines)) <= 80
    assert rows == [
        ["0", "4", "2", "2.00", "2", "dense", "14"],
        ["1", "2,048", "2", "1.00", "1", "unary", "4"],
        ["2", "1,024", "3", "1.50", "2", "sparse", "18"],
    ]


def test_describe_of_an_empty_index():
    index = hr.build_index(hr.Catalog(np.zeros((0, 2), int), codebook_sizes=4))
    assert "items=0" in index.describe()


def test_index_is_immutable():
    index = hr.build_index(TINY)
    with pytest.raises(AttributeError):
        index.leaf_start = None  # type: ignore[misc]
    with pytest.raises(AttributeError):
        index.levels[0].codes = None  # type: ignore[misc]


@pytest.mark.parametrize("leaves", [[1.9], [True, False], [-1], [10**6]])
def test_rejects_invalid_leaves(leaves):
    index = hr.build_index(TINY)
    for ask in (index.sids, index.rows_of):
        with pytest.raises(hr.ArgumentError, match="lea"):
            ask(leaves)


def test_dense_level_of_an_empty_index():
    index = hr.build_index(hr.Catalog(np.zeros((0, 2), int), codebook_sizes=8), dense_levels=[0, 1])
    beams = hr.beam_search(index, lambda b: np.zeros((*b.states.shape, 8)), batch_size=1, beam_width=2)
    assert beams.num_valid.tolist() == [0]


@pytest.mark.parametrize("prefix", [[99], [6], [-1], [0, 7]])
def test_rejects_a_prefix_with_codes_out_of_range(prefix):
    index = hr.build_index(hr.Catalog([[0, 1, 2]], codebook_sizes=[6, 7, 8]))
    with pytest.raises(hr.ArgumentError, match=f"level {len(prefix) - 1}: code {prefix[-1]} is out of range"):
        index.allowed_codes(prefix)
    assert index.allowed_codes([5]).tolist() == []
