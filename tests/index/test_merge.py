"""merge and filter give exactly the index that build_index makes of the changed catalog."""

import datetime as dt
import json
import uuid

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from naive import same_trie
from support import catalogs

import hedgerow as hr


def saved_bytes(index, folder):
    index.save(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def catalog_of(items, sizes):
    """The catalog of a mapping of ids to (codes, price, tags)."""
    rows = list(items.values())
    sids = np.array([row[0] for row in rows], np.int64).reshape(len(rows), len(sizes))
    prices, tags = (
        pa.array([row[1] for row in rows], pa.int32()),
        pa.array([row[2] for row in rows], pa.list_(pa.string())),
    )
    ids = pa.array(list(items), pa.string())
    return hr.Catalog(sids, codebook_sizes=sizes, item_ids=ids, attributes={"price": prices, "tags": tags})


@st.composite
def changes(draw):
    """Codebook sizes, the items of an index, items to add (some with ids of the index), and ids to remove."""
    old = draw(catalogs())
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    sizes = old.codebook_sizes

    def item(codes):
        return codes, int(rng.integers(100)), [["x"], [], None][rng.integers(3)]

    before = {f"i{rng.integers(10**9)}": item(codes) for codes in old.sids.tolist()}
    after = {}
    for _ in range(draw(st.integers(0, 40))):
        codes = [int(rng.integers(size)) for size in sizes]
        if draw(st.booleans()):
            # A SID that shares a prefix, or all codes, with an existing one.
            kept = int(rng.integers(len(sizes) + 1))
            codes[:kept] = old.sids[rng.integers(len(old))][:kept].tolist()
        replaces = draw(st.booleans()) and rng.random() < 0.5
        after[str(rng.choice(list(before))) if replaces else f"i{rng.integers(10**9)}"] = item(codes)
    share = draw(st.sampled_from([0.0, 0.1, 0.7, 1.0]))
    return sizes, before, after, [name for name in before if rng.random() < share]


@given(change=changes(), data=st.data())
def test_merge_equals_build(change, data):
    sizes, before, after, removed = change
    index = hr.build_index(catalog_of(before, sizes))
    added = catalog_of(after, sizes) if after else None
    kept = {name: item for name, item in before.items() if name not in removed}
    dense = data.draw(st.sampled_from(["auto", [], [len(sizes) - 1]]))
    merged = hr.merge(index, added, removed, dense_levels=dense)
    built = hr.build_index(catalog_of(kept | after, sizes), dense_levels=dense)
    assert same_trie(merged, built)
    assert merged.items_table.equals(built.items_table)


@given(change=changes())
def test_filter_equals_build(change):
    sizes, before, _, removed = change
    catalog = catalog_of(before, sizes)
    index = hr.build_index(catalog)
    mask = ~np.isin(index.item_ids.to_pylist(), removed)
    built = hr.build_index(catalog.filter(~np.isin(catalog.item_ids.to_pylist(), removed)))
    part = index.filter(mask, order="index")
    assert same_trie(part, built)
    assert part.items_table.equals(built.items_table)


@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize("items", [300, 40_000])
def test_saved_bytes_equal_those_of_a_build(items, mmap, tmp_path):
    rng = np.random.default_rng(items)
    sizes = (16, 64, 300, 70_000)
    sids = np.stack([rng.integers(0, size, items) for size in sizes], axis=1)
    sids[: items // 10] = sids[items // 2 : items // 2 + items // 10]
    ids, prices = rng.permutation(items), rng.integers(0, 9, items)
    names = [[str(price)] * price for price in prices.tolist()]

    def part(rows):
        columns = {"price": prices[rows], "names": pa.array(names).take(pa.array(np.arange(items)[rows]))}
        return hr.Catalog(sids[rows], codebook_sizes=sizes, item_ids=ids[rows], attributes=columns)

    old, new = slice(0, items - items // 20), slice(items - items // 20, items)
    hr.build_index(part(old)).save(tmp_path / "old")
    index = hr.load_index(tmp_path / "old", mmap=mmap)
    merged = hr.merge(index, part(new), ids[: items // 50])
    assert saved_bytes(merged, tmp_path / "merged") == saved_bytes(
        hr.build_index(part(slice(items // 50, items))), tmp_path / "built"
    )
    again = hr.merge(merged, None, ids[new])
    built = hr.build_index(part(slice(items // 50, items - items // 20)))
    assert saved_bytes(again, tmp_path / "again") == saved_bytes(built, tmp_path / "built again")
    mask = rng.random(index.num_items) < 0.3
    kept = np.isin(ids, index.item_ids.filter(pa.array(mask)).to_numpy())
    built = hr.build_index(part(kept))
    assert saved_bytes(index.filter(mask, order="index"), tmp_path / "part") == saved_bytes(
        built, tmp_path / "built part"
    )


def test_representations_change_with_the_items():
    """Levels change between unary, forked and sparse while a catalog grows and shrinks."""
    rng = np.random.default_rng(0)
    sids = np.unique(rng.integers(0, 4, (3000, 6)), axis=0)
    order = rng.permutation(len(sids))
    seen = set()
    index = hr.build_index(hr.Catalog(sids[order[:5]], codebook_sizes=4, item_ids=order[:5]), dense_levels=())
    for end in (10, 30, 100, 400, len(sids)):
        added = order[index.num_items : end]
        index = hr.merge(index, hr.Catalog(sids[added], codebook_sizes=4, item_ids=added), dense_levels=())
        seen |= {level.representation for level in index.levels}
        assert same_trie(index, hr.build_index(hr.Catalog(sids[order[:end]], codebook_sizes=4), dense_levels=()))
    for end in (400, 100, 30, 10, 1, 0):
        index = hr.merge(index, None, order[end : index.num_items], dense_levels=())
        seen |= {level.representation for level in index.levels}
        expected = hr.Catalog(sids[order[:end]].reshape(end, 6), codebook_sizes=4)
        assert same_trie(index, hr.build_index(expected, dense_levels=()))
    assert seen == {"unary", "forked", "sparse"}


@pytest.fixture
def index():
    return hr.build_index(
        hr.Catalog(
            [[0, 1], [0, 1], [2, 0]], codebook_sizes=4, item_ids=["a", "b", "c"], attributes={"price": [1, 2, 3]}
        )
    )


def with_price(sids: list, ids: list, price: object = 7):
    return hr.Catalog(sids, item_ids=ids, attributes={"price": [price] * len(ids)})


def test_merge_replaces_an_item(index):
    moved = hr.merge(index, with_price([[3, 3]], ["a"]))
    assert moved.item_ids.to_pylist() == ["b", "c", "a"]
    assert moved.attributes.column("price").to_pylist() == [2, 3, 7]
    assert index.item_ids.to_pylist() == ["a", "b", "c"]


def test_merge_into_an_empty_index():
    empty = hr.build_index(hr.Catalog(np.zeros((0, 2), int), codebook_sizes=4))
    merged = hr.merge(empty, with_price([[1, 1]], ["x"]))
    assert (merged.codebook_sizes, merged.item_ids.to_pylist()) == ((4, 4), ["x"])
    assert hr.merge(empty).num_items == 0


def test_merge_with_ids_of_many_types():
    for ids in (
        [uuid.UUID(int=n) for n in (5, 1, 3)],
        [dt.date(2020, 1, day) for day in (5, 1, 3)],
        [b"5", b"1", b"3"],
        np.array([5, 1, 3], np.uint8),
        np.array([2**63 + 5, 1, 3], np.uint64),
        np.array([-5, 1, 3], np.int16),
    ):
        sids = [[0, 1], [0, 2], [0, 1]]
        old, new = (hr.Catalog(sids[part], codebook_sizes=4, item_ids=ids[part]) for part in (slice(0, 2), slice(1, 3)))
        merged = hr.merge(hr.build_index(old), new, [old.item_ids[0].as_py()])
        built = hr.build_index(new)
        assert same_trie(merged, built)
        assert merged.items_table.equals(built.items_table)


@pytest.mark.parametrize(
    ("added", "removed", "message"),
    [
        (hr.Catalog([[0, 1]]), (), "need ids"),
        (with_price([[0, 1, 2]], ["x"]), (), "SIDs of the index have 2 codes, but those of the items to add have 3"),
        (with_price([[0, 9]], ["x"]), (), "row 0, level 1: code 9 is outside the index's codebook of 4"),
        (hr.Catalog([[0, 1]], item_ids=["x"]), (), r"has the attributes \['price'\], but the items to add have \[\]"),
        (with_price([[0, 1]], ["x"], "dear"), (), "price has the type int64 in the index; got string"),
        (None, ["a", "z"], "1 of 2 item ids to remove are not in the index, the first is 'z'"),
        (None, [1], r"item ids to remove must be .* of type string; got \[1\]"),
        (None, [None], "item ids to remove: null is not an item id"),
    ],
)
def test_rejects_items_that_do_not_fit(index, added, removed, message):
    with pytest.raises(hr.CatalogError, match=message):
        hr.merge(index, added, removed)


def test_rejects_invalid_arguments(index):
    with pytest.raises(hr.ArgumentError, match="takes a TrieIndex"):
        hr.merge("x")  # type: ignore[arg-type]
    with pytest.raises(hr.ArgumentError, match="as a Catalog"):
        hr.merge(index, [1])  # type: ignore[arg-type]
    with pytest.raises(hr.ArgumentError, match=r"a list of item ids; got 'abc'"):
        hr.merge(index, None, "abc")
    with pytest.raises(hr.ArgumentError, match=r"mask must be bool \[3\]"):
        index.filter([1, 0, 1], order="index")
    with pytest.raises(hr.ArgumentError, match="level 7 does not exist"):
        hr.merge(index, None, ["a"], dense_levels=[7])


def test_manifest_after_merge(index, tmp_path):
    hr.merge(index, None, ["c"]).save(tmp_path / "x")
    assert json.loads((tmp_path / "x" / "manifest.json").read_text())["items"] == 2


def test_merge_into_a_ragged_index():
    index = hr.build_index(hr.Catalog([[1, 2], [2]], codebook_sizes=6, item_ids=[1, 2], ragged=True))
    merged = hr.merge(index, hr.Catalog([[3], [1]], codebook_sizes=6, item_ids=[7, 8], ragged=True))
    whole = hr.Catalog([[1, 2], [2], [3], [1]], codebook_sizes=6, item_ids=[1, 2, 7, 8], ragged=True)
    built = hr.build_index(whole)
    assert merged.ragged
    assert merged.end_codes == built.end_codes
    assert merged.sids().tolist() == built.sids().tolist()
    for mine, theirs in zip(merged.levels, built.levels, strict=True):
        assert {name: array.tolist() for name, array in mine.arrays.items()} == {
            name: array.tolist() for name, array in theirs.arrays.items()
        }
    with pytest.raises(hr.CatalogError, match="ragged"):
        hr.merge(
            hr.build_index(hr.Catalog([[1, 2]], item_ids=[1])), hr.Catalog([[1], [1, 2]], item_ids=[2, 3], ragged=True)
        )


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (dt.date(2020, 1, 1), dt.datetime(2020, 1, 1, 5)),
        ([dt.date(2020, 1, 1)], [dt.datetime(2020, 1, 1, 23, 59)]),
        # Nanoseconds do not hold the year 3000.
        (pa.scalar(32_503_680_000, pa.timestamp("s")), pa.scalar(1_000_000_001, pa.timestamp("ns"))),
    ],
)
def test_a_merge_truncates_no_date_or_time(before, after):
    index = hr.build_index(hr.Catalog([[0]], item_ids=["a"], attributes={"day": pa.array([before])}))
    added = hr.Catalog([[0]], item_ids=["b"], attributes={"day": pa.array([after])})
    with pytest.raises(hr.CatalogError, match="lose"):
        hr.merge(index, added)
    if not isinstance(before, list):
        index = hr.build_index(hr.Catalog([[0]], item_ids=pa.array([before])))
        with pytest.raises(hr.CatalogError, match="lose"):
            hr.merge(index, hr.Catalog([[0]], item_ids=pa.array([after])))


@pytest.mark.parametrize(
    ("before", "after", "row"),
    [
        (pa.array([1], pa.timestamp("s")), pa.array([1_700_000_000, 2]), "int64 holds other values than timestamp"),
        (pa.array([1]), pa.array([1, 1.5]), "row 1: .* 1.5"),
        (pa.array([True]), pa.array([1.0, float("nan")]), "double holds other values than bool"),
        (pa.array([{"a": 1}]), pa.array([{"a": 1, "b": None}, {"a": 1, "b": 2}]), "row 1: .* would lose data"),
    ],
    ids=["epoch", "float", "bool", "struct"],
)
def test_a_merge_and_a_live_index_refuse_values_that_change(before, after, row, tmp_path):
    first = hr.Catalog([[0]], item_ids=["a"], codebook_sizes=2, attributes={"price": before})
    index = hr.build_index(first)
    added = hr.Catalog([[0], [1]], item_ids=["b", "c"], codebook_sizes=2, attributes={"price": after})
    live = hr.LiveIndex.create(tmp_path / "live", index)
    for change in (lambda: hr.merge(index, added), lambda: live.add(added), lambda: live.update(added)):
        with pytest.raises(hr.CatalogError, match=f"price has the type .* in the index; .*{row}"):
            change()


def test_a_merge_converts_midnights_to_dates():
    index = hr.build_index(hr.Catalog([[0]], item_ids=[dt.date(2020, 1, 1)]))
    added = hr.Catalog([[0]], item_ids=[dt.datetime(2020, 1, 2)])
    assert hr.merge(index, added).item_ids.to_pylist() == [dt.date(2020, 1, 1), dt.date(2020, 1, 2)]
