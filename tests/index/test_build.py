"""build_index: compared with a naive trie, its rule for representations, and its limits."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import DATA
from hypothesis import example, given, settings
from hypothesis import strategies as st
from naive import NaiveTrie, same_trie
from support import catalogs

import hedgerow as hr
from hedgerow.index.sort import sorted_rows
from hedgerow.index.trie import leaf_arrays

EXAMPLES = settings(max_examples=80)


def bits_of(words: np.ndarray) -> list[int]:
    """The positions of the set bits in a row of uint32 words."""
    return [32 * position + bit for position, word in enumerate(words.tolist()) for bit in range(32) if word >> bit & 1]


def assert_layout(index: hr.TrieIndex, naive: NaiveTrie) -> None:
    """Compare every array of every level with its definition."""
    for number, level in enumerate(index.levels):
        nodes, parents = naive.nodes(number), naive.parents(number)
        assert level.codes.tolist() == [node[-1] for node in nodes]
        assert level.codes.dtype == np.min_scalar_type(level.codebook_size - 1)
        assert level.num_nodes == len(nodes)
        assert level.max_branch == naive.max_branch(number)
        counts = [len(naive.allowed_codes(parent)) for parent in parents]
        extra = len(nodes) - len(parents)
        assert (level.child_start is not None) == (extra != 0 and not 0 < extra <= len(parents) // 8)
        assert (level.forks is not None) == (0 < extra <= len(parents) // 8)
        assert level.num_parents == len(parents)
        if level.child_start is not None:
            assert level.child_start.dtype == np.int32
            assert level.child_start.tolist() == np.cumsum([0, *counts]).tolist()
        if level.forks is not None:
            assert level.forks.dtype == np.int32
            assert level.forks.tolist() == [parent for parent, count in enumerate(counts) for _ in range(count - 1)]
        first, end = level.children(np.arange(len(parents)))
        assert first.tolist() == np.cumsum([0, *counts])[:-1].tolist()
        assert (end - first).tolist() == counts
        assert level.parents(np.arange(len(nodes))).tolist() == np.repeat(np.arange(len(parents)), counts).tolist()
        if level.allowed is not None:
            assert level.allowed.dtype == np.uint32
            assert level.allowed.shape == (len(parents), -(-level.codebook_size // 32))
            assert [bits_of(row) for row in level.allowed] == [naive.allowed_codes(parent) for parent in parents]


@EXAMPLES
@given(catalog=catalogs(), dense=st.sampled_from(["auto", "all", "none"]))
def test_arrays_equal_those_of_the_naive_trie(catalog, dense):
    levels = {"auto": "auto", "all": range(catalog.num_levels), "none": ()}[dense]
    index = hr.build_index(catalog, dense_levels=levels)
    naive = NaiveTrie(catalog)
    assert_layout(index, naive)
    assert index.nodes_per_level == tuple(len(naive.nodes(level)) for level in range(naive.num_levels))
    assert index.max_branch_factors == tuple(naive.max_branch(level) for level in range(naive.num_levels))
    assert (index.num_sids, index.num_items, index.num_levels) == (len(naive.sids), len(catalog), catalog.num_levels)
    assert index.codebook_sizes == catalog.codebook_sizes
    assert index.item_ids.to_pylist() == naive.items(list(range(len(catalog))))
    arrays = [array for level in index.levels for array in level.arrays.values()]
    assert index.nbytes == sum(array.nbytes for array in [*arrays, *leaf_arrays(index).values()])
    if dense != "auto":
        assert {level.allowed is None for level in index.levels} == {dense == "none"}


@EXAMPLES
@given(catalog=catalogs())
def test_leaves_map_to_their_items(catalog):
    index = hr.build_index(catalog)
    naive = NaiveTrie(catalog)
    leaves, extra = len(naive.sids), len(catalog) - len(naive.sids)
    counts = [naive.rows.count(sid) for sid in naive.sids]
    assert (index.leaf_start is not None) == (extra > leaves // 8)
    assert (index.leaf_forks is not None) == (0 < extra <= leaves // 8)
    if index.leaf_start is not None:
        assert index.leaf_start.dtype == np.int32
        assert index.leaf_start.tolist() == np.cumsum([0, *counts]).tolist()
    if index.leaf_forks is not None:
        assert index.leaf_forks.dtype == np.int32
        assert index.leaf_forks.tolist() == [leaf for leaf, count in enumerate(counts) for _ in range(count - 1)]
    shared = [count for count in counts if count > 1]
    assert index.collisions() == (sum(shared), len(shared), max(shared, default=0))
    first, end = index.rows_of(np.arange(leaves))
    assert first.tolist() == np.cumsum([0, *counts])[:-1].tolist()
    assert (end - first).tolist() == counts


@EXAMPLES
@given(catalog=catalogs(), seed=st.integers(0, 1000))
def test_index_does_not_depend_on_row_order(catalog, seed):
    ids = np.random.default_rng(seed).permutation(len(catalog))
    shuffle = np.random.default_rng(seed + 1).permutation(len(catalog))
    sizes = catalog.codebook_sizes
    ordered = hr.Catalog(catalog.sids, codebook_sizes=sizes, item_ids=ids, attributes={"twice": ids * 2})
    shuffled = hr.Catalog(
        catalog.sids[shuffle], codebook_sizes=sizes, item_ids=ids[shuffle], attributes={"twice": ids[shuffle] * 2}
    )
    left, right = hr.build_index(ordered), hr.build_index(shuffled)
    assert same_trie(left, right)
    assert left.items_table.equals(right.items_table)
    assert left.item_ids.to_pylist() == NaiveTrie(ordered).items(ids.tolist())
    assert left.attributes["twice"].to_pylist() == [item * 2 for item in left.item_ids.to_pylist()]


def test_items_that_share_a_sid_are_sorted_by_id():
    catalog = hr.Catalog([[2, 1], [0, 1], [2, 1], [0, 1], [2, 1]], item_ids=["z", "b", "a", "c", "m"])
    index = hr.build_index(catalog)
    assert index.item_ids.to_pylist() == ["b", "c", "a", "m", "z"]
    assert index.leaf_start is not None
    assert index.leaf_start.tolist() == [0, 2, 5]
    assert (index.num_items, index.num_sids) == (5, 2)


# SIDs of more than 64 bits


@st.composite
def deep_sids(draw: st.DrawFn) -> tuple[np.ndarray, tuple[int, ...]]:
    """SIDs that need two to six 64-bit keys. Most rows share the leading bits."""
    levels = draw(st.integers(3, 12))
    sizes = tuple(draw(st.sampled_from([1, 2, 2049, 2**16, 2**31])) for _ in range(levels))
    items = draw(st.integers(2, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    pool = [np.unique(rng.integers(0, size, 2)) for size in sizes]
    sids = np.stack([rng.choice(codes, items) for codes in pool], axis=1)
    shared = draw(st.integers(0, levels))
    sids[:, :shared] = sids[0, :shared]
    return sids, sizes


@EXAMPLES
@given(deep=deep_sids())
@example(deep=(np.array([[2**31 - 1] * 8, [2**31 - 1] * 7 + [0]]), (2**31,) * 8))
def test_sorted_rows_are_in_sid_order(deep):
    sids, sizes = deep
    order = sorted_rows(hr.Catalog(sids, codebook_sizes=sizes))
    assert sorted(order.tolist()) == list(range(len(sids)))
    assert sids[order].tolist() == sorted(sids.tolist())


@EXAMPLES
@given(deep=deep_sids())
def test_arrays_of_deep_catalogs(deep):
    catalog = hr.Catalog(deep[0], codebook_sizes=deep[1])
    index = hr.build_index(catalog, dense_levels=())
    assert_layout(index, NaiveTrie(catalog))
    assert index.item_ids.to_pylist() == NaiveTrie(catalog).items(list(range(len(catalog))))


def test_groups_with_equal_keys_stay_apart_in_the_next_pass():
    # Two keys of two levels each. The second keys of one group lie between those of the other.
    sids = np.array([[1, 0, 5, 1], [0, 0, 9, 1], [1, 0, 0, 0], [0, 0, 5, 0], [1, 0, 9, 0], [0, 0, 9, 0], [2, 0, 0, 0]])
    catalog = hr.Catalog(sids, codebook_sizes=2**31)
    assert sorted_rows(catalog).tolist() == [3, 5, 1, 2, 0, 4, 6]


def test_255_levels():
    sids = np.zeros((4, 255), int)
    sids[[1, 3], 254] = 1
    sids[[2, 3], 100] = 1
    index = hr.build_index(hr.Catalog(sids, item_ids=["a", "b", "c", "d"]))
    assert index.nodes_per_level == (1,) * 100 + (2,) * 154 + (4,)
    assert [level.representation for level in index.levels] == ["unary"] * 100 + ["dense"] + ["unary"] * 153 + ["dense"]
    assert index.item_ids.to_pylist() == ["a", "b", "c", "d"]
    assert index.sids().tolist() == sorted(sids.tolist())


# Codebook sizes, one item, no items


@pytest.mark.parametrize("size", [1, 2, 63, 64, 65, 256, 257, 2049, 65_536, 65_537, 200_000, 2**31])
def test_codebooks_of_every_size(size):
    codes = sorted({0, size // 2, size - 1})
    catalog = hr.Catalog([[a, b] for a in codes for b in codes], codebook_sizes=size)
    index = hr.build_index(catalog)
    expected = np.uint8 if size <= 256 else np.uint16 if size <= 65_536 else np.uint32
    assert [level.codes.dtype for level in index.levels] == [expected] * 2
    assert_layout(index, NaiveTrie(catalog))
    assert index.allowed_codes().tolist() == codes
    assert index.allowed_codes([size - 1]).tolist() == codes
    assert index.contains(catalog.sids).all()


def test_dtype_of_codes_depends_on_the_codebook_of_the_level():
    index = hr.build_index(hr.Catalog([[0, 299, 0, 99_999]], codebook_sizes=[1, 300, 256, 100_000]))
    assert [level.codes.dtype for level in index.levels] == [np.uint8, np.uint16, np.uint8, np.uint32]


@pytest.mark.parametrize("levels", [1, 3])
def test_one_item(levels):
    index = hr.build_index(hr.Catalog([[3] * levels], codebook_sizes=256, item_ids=["only"]))
    assert index.nodes_per_level == index.max_branch_factors == (1,) * levels
    assert [level.representation for level in index.levels] == ["unary"] * levels
    assert index.contains([[3] * levels, [2] * levels]).tolist() == [True, False]
    assert index.item_ids.to_pylist() == ["only"]


@pytest.mark.parametrize("dense", ["auto", range(3), ()])
def test_no_items(dense):
    catalog = hr.Catalog(np.zeros((0, 3), int), codebook_sizes=[4, 300, 4], attributes={"year": []})
    index = hr.build_index(catalog, dense_levels=dense)
    assert (index.num_items, index.num_sids, index.num_levels) == (0, 0, 3)
    assert index.nodes_per_level == index.max_branch_factors == (0, 0, 0)
    assert index.sids().shape == (0, 3)
    assert index.contains([[0, 0, 0]]).tolist() == [False]
    assert index.allowed_codes().tolist() == index.allowed_codes([0, 0]).tolist() == []
    assert index.items_table.to_pydict() == {"item_id": [], "year": []}
    assert [level.allowed for level in index.levels] == [None] * 3


# The rule for representations


def of_branches(counts: list[int], size: int) -> hr.Catalog:
    """A catalog whose second level has these numbers of children, out of a codebook of `size`."""
    return hr.Catalog(
        [[parent, code] for parent, count in enumerate(counts) for code in range(count)],
        codebook_sizes=[len(counts), size],
    )


@pytest.mark.parametrize(
    ("counts", "size", "representation"),
    [
        ([1, 1, 1], 2, "unary"),
        # A quarter of the codebook, or less.
        ([32, 32], 128, "dense"),
        ([31, 31], 128, "sparse"),
        # Codes take 1 byte and pointers 4. A bitmap of 4 bytes per parent is not larger; one of 32 bytes is.
        ([8, 1, 1, 1], 32, "dense"),
        ([64, 1, 1, 1, 1], 256, "sparse"),
        # 7 bitmaps of 8 bytes equal 24 codes and 8 pointers of 4 bytes. With one code less, they are larger.
        ([18] + [1] * 6, 64, "dense"),
        ([17] + [1] * 6, 64, "sparse"),
    ],
)
def test_dense_rule(counts, size, representation):
    assert hr.build_index(of_branches(counts, size)).levels[1].representation == representation


def test_bitmap_is_not_larger_than_the_other_arrays():
    # One parent has 64 of 256 codes, the others have 1. The bitmap takes 32 bytes per parent; the other arrays take 4
    # bytes per parent and 1 per child.
    for singles in range(1, 12):
        level = hr.build_index(of_branches([64] + [1] * singles, 256)).levels[1]
        others = 64 + singles + 4 * (singles + 2)
        assert level.representation == ("dense" if 32 * (singles + 1) <= others else "sparse")


@pytest.mark.parametrize(
    ("dense", "expected"),
    [((), []), ({0}, [0]), ([2, 1], [1, 2]), (1, [1]), (np.array([0, 2]), [0, 2]), (range(3), [0, 1, 2])],
)
def test_dense_levels_argument(dense, expected):
    catalog = hr.Catalog([[0, 1, 5], [3, 1, 40], [3, 2, 40]], codebook_sizes=64)
    index = hr.build_index(catalog, dense_levels=dense)
    assert [number for number, level in enumerate(index.levels) if level.allowed is not None] == expected
    assert_layout(index, NaiveTrie(catalog))


def test_bitmap_made_in_blocks(monkeypatch):
    monkeypatch.setattr("hedgerow.index.build.CHUNK_BITS", 128)
    catalog = hr.Catalog([[a, (a * b) % 50] for a in range(9) for b in range(12)], codebook_sizes=[9, 50])
    assert_layout(hr.build_index(catalog, dense_levels=range(2)), NaiveTrie(catalog))


@pytest.mark.parametrize(
    ("dense", "words"),
    [
        ({2}, ["level 2", "0 to 1"]),
        ([-1], ["level -1", "0 to 1"]),
        (5, ["level 5"]),
        ({0.5}, ["level 0.5"]),
        (["x"], ["level x"]),
        ("all", ["auto", "'all'"]),
        ({1}, ["level 1", "40 parents", "2,147,483,648 codes", "10 GiB", "limit is 8 GiB"]),
    ],
)
def test_rejects_invalid_dense_levels(dense, words):
    catalog = hr.Catalog([[a, 0] for a in range(40)], codebook_sizes=[40, 2**31])
    with pytest.raises(hr.ArgumentError) as caught:
        hr.build_index(catalog, dense_levels=dense)
    for word in words:
        assert word in str(caught.value)


def test_progress_is_called_between_the_passes():
    calls = []
    catalog = hr.Catalog([[0, 1], [1, 1]])
    index = hr.build_index(catalog, progress=lambda *call: calls.append(call))
    assert calls == [("sort", 0, 4), ("level 0", 1, 4), ("level 1", 2, 4), ("items", 3, 4), ("done", 4, 4)]
    assert same_trie(index, hr.build_index(catalog))


# Real catalogs


@pytest.mark.parametrize(
    ("folder", "column", "items", "nodes", "branches"),
    [
        ("amazon_beauty_2014", "sid_rqvae", 12_101, (256, 7373, 11_412, 12_101), (256, 73, 14, 13)),
        ("amazon_beauty_2014", "sid_letter", 12_101, (197, 7931, 11_696, 12_088), (197, 199, 23, 23)),
        ("amazon_office_2018", "sid_minionerec", 3459, (88, 2488, 3444), (88, 66, 12)),
    ],
)
def test_properties_of_real_catalogs(folder, column, items, nodes, branches):
    path = DATA / folder / "items.parquet"
    if not path.exists():
        pytest.skip(f"the data of the real catalog {folder} are not installed in ../shared/data")
    index = hr.build_index(hr.Catalog.from_parquet(path, sid=column, item_id="item"))
    assert (index.num_items, index.num_sids) == (items, nodes[-1])
    assert index.nodes_per_level == nodes
    assert index.max_branch_factors == branches
    ids, sids = pq.read_table(path, columns=["item", column]).to_pydict().values()
    assert index.item_ids.to_pylist() == [item for _, item in sorted(zip(sids, ids, strict=True))]
    assert index.sids().tolist() == [list(sid) for sid in sorted({tuple(sid) for sid in sids})]


@pytest.mark.parametrize("dense_levels", [None, 1.5, [[0]], [0.0], [True], "all", b"0", ["auto"]])
def test_rejects_other_dense_levels(dense_levels):
    with pytest.raises(hr.ArgumentError, match="dense_levels"):
        hr.build_index(hr.Catalog([[0, 1]]), dense_levels=dense_levels)
