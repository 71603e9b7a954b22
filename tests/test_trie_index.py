"""TrieIndex: length, look-up of SIDs by item id, and filter. tests/index covers the trie."""

import datetime as dt
import uuid

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import same_trie
from support import catalogs

import hedgerow as hr

SIDS = [[2, 0], [0, 1], [0, 1], [1, 1]]
IDS = ["d", "b", "a", "c"]
ATTRIBUTES = {"price": [4, 2, 1, 3]}


@pytest.fixture
def index():
    return hr.build_index(hr.Catalog(SIDS, item_ids=IDS, attributes=ATTRIBUTES))


class TestLength:
    def test_is_the_number_of_items(self, index):
        assert len(index) == index.num_items == 4

    def test_of_an_empty_index(self):
        index = hr.build_index(hr.Catalog(np.zeros((0, 2), int), codebook_sizes=3))
        assert len(index) == 0
        assert not index


class TestSidsOf:
    def test_keeps_order_and_repeats(self, index):
        sids = index.sids_of(["c", "a", "d", "c"])
        assert sids.dtype == np.int64
        assert sids.tolist() == [[1, 1], [0, 1], [2, 0], [1, 1]]

    def test_items_that_share_a_sid(self, index):
        assert index.sids_of(["a", "b"]).tolist() == [[0, 1], [0, 1]]

    def test_no_items(self, index):
        assert index.sids_of([]).shape == (0, 2)

    @pytest.mark.parametrize(
        "ids",
        [
            [7, -3, 2**40, 0],
            np.array([1, 2, 3, 4], np.int8),
            np.array([1, 2, 3, 4], np.uint64),
            ["ä", "", "b", "x" * 300],
            [b"\0", b"\xff", b"", b"a"],
            [dt.date(2020, 1, day) for day in (4, 1, 3, 2)],
            [dt.datetime(2020, 1, 1, hour, tzinfo=dt.UTC) for hour in (3, 1, 2, 0)],
            np.array(["2020-01-04", "2020-01-01", "2021-01-01", "1999-01-01"], "datetime64[ns]"),
            pa.array(["d", "b", "a", "c"], pa.string_view()),
            pa.array(["d", "b", "a", "c"]).dictionary_encode(),
            pa.array([uuid.UUID(int=number).bytes for number in (9, 1, 4, 2)], pa.uuid()),
        ],
        ids=["int", "int8", "uint64", "text", "bytes", "date", "datetime", "datetime64", "view", "dictionary", "uuid"],
    )
    def test_ids_of_every_type(self, ids):
        catalog = hr.Catalog(SIDS, item_ids=ids)
        index = hr.build_index(catalog)
        assert index.sids_of(ids).tolist() == SIDS
        assert index.sids_of(catalog.item_ids).tolist() == SIDS
        assert index.sids_of(catalog.item_ids[::-1]).tolist() == SIDS[::-1]

    def test_default_ids_are_row_numbers(self):
        index = hr.build_index(hr.Catalog(SIDS))
        assert index.sids_of(range(4)).tolist() == SIDS

    @pytest.mark.parametrize("ids", [{"a", "c"}, ("a", "c"), pa.chunked_array([["a"], ["c"]]), np.array(["a", "c"])])
    def test_accepts_any_collection(self, index, ids):
        assert sorted(index.sids_of(ids).tolist()) == [[0, 1], [1, 1]]

    def test_accepts_frames(self, index):
        pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
        for column in (pandas.Series(["c", "a"]), polars.Series(["c", "a"])):
            assert index.sids_of(column).tolist() == [[1, 1], [0, 1]]

    @pytest.mark.parametrize(
        ("ids", "message"),
        [
            (["a", "z", "y"], "2 of 3 item_ids .*'z'"),
            ([3], "item_ids must be item ids of this index, of type string"),
            ("a", r"item_ids must be a list of item ids; got 'a'.*\['a'\]"),
            (5, "item_ids must be a list of item ids; got 5"),
            (["a", None], "null"),
        ],
    )
    def test_rejects_unknown_ids_and_other_types(self, index, ids, message):
        with pytest.raises(hr.ArgumentError, match=message):
            index.sids_of(ids)

    def test_ragged_sids_are_padded(self):
        sids = {"rope": [4], "rope bag": [4, 1], "lamp": [0, 2, 3]}
        index = hr.build_index(hr.Catalog.from_json(sids, codebook_sizes=6, ragged=True))
        assert index.sids_of(["rope bag", "rope", "lamp"]).tolist() == [[4, 1, -1], [4, -1, -1], [0, 2, 3]]

    @settings(max_examples=30)
    @given(catalog=catalogs(), seed=st.integers(0, 2**32))
    def test_equals_the_catalog(self, catalog, seed):
        rows = np.random.default_rng(seed).integers(0, catalog.num_items, 20)
        assert hr.build_index(catalog).sids_of(rows).tolist() == catalog.sids[rows].tolist()

    def test_of_a_loaded_index(self, index, tmp_path):
        index.save(tmp_path / "x")
        assert hr.load_index(tmp_path / "x", mmap=True).sids_of(["d"]).tolist() == [[2, 0]]


class TestRows:
    def test_keeps_order_and_repeats(self, index):
        rows = index.rows(["c", "a", "d", "c"])
        assert rows.dtype == np.int64
        assert index.item_ids.take(pa.array(rows)).to_pylist() == ["c", "a", "d", "c"]
        assert index.attributes["price"].take(pa.array(rows)).to_pylist() == [3, 1, 4, 3]

    def test_no_items(self, index):
        assert index.rows([]).shape == (0,)
        empty = hr.build_index(hr.Catalog(np.zeros((0, 2), int), codebook_sizes=3, item_ids=[]))
        assert empty.rows([7], missing="ignore").tolist() == [-1]

    def test_unknown_ids(self, index):
        with pytest.raises(hr.ArgumentError, match=r"2 of 3 ids .*'z'.*missing='ignore'"):
            index.rows(["a", "z", "y"])
        assert index.rows(["z", "b", "y"], missing="ignore").tolist() == [-1, 1, -1]
        with pytest.raises(hr.ArgumentError, match="missing must be one of raise, ignore"):
            index.rows(["a"], missing="skip")

    @pytest.mark.parametrize("ids", [[1, 300, 2], np.array([1, 300, 2]), pa.array([1, 300, 2]), iter([1, 300, 2])])
    def test_ids_that_their_type_cannot_hold_keep_their_place(self, ids):
        index = hr.build_index(hr.Catalog([[0], [1]], item_ids=np.array([1, 2], np.int8)))
        assert index.rows(ids, missing="ignore").tolist() == [0, -1, 1]

    @pytest.mark.parametrize("missing", ["raise", "ignore"])
    @pytest.mark.parametrize(
        ("ids", "message"), [([3], "of type string"), ("a", "must be a list of item ids"), (["a", None], "null")]
    )
    def test_rejects_ids_of_other_types(self, index, ids, message, missing):
        with pytest.raises(hr.ArgumentError, match=message):
            index.rows(ids, missing=missing)


class TestFilter:
    @settings(max_examples=30)
    @given(catalog=catalogs(), seed=st.integers(0, 2**32), share=st.sampled_from([0.0, 0.1, 0.5, 1.0]))
    def test_equals_a_build_of_the_filtered_catalog(self, catalog, seed, share):
        index = hr.build_index(catalog)
        mask = np.random.default_rng(seed).random(catalog.num_items) < share
        filtered = index.filter(mask, order="index")
        kept = np.zeros(catalog.num_items, bool)
        kept[np.asarray(index.item_ids)[mask]] = True
        assert type(filtered) is hr.TrieIndex
        assert same_trie(filtered, hr.build_index(catalog.filter(kept)))

    def test_mask_is_in_the_order_of_the_index(self, index):
        filtered = index.filter([True, False, False, True], order="index")
        assert filtered.item_ids.to_pylist() == ["a", "d"]
        assert filtered.attributes["price"].to_pylist() == [1, 4]
        assert filtered.codebook_sizes == index.codebook_sizes
        assert len(index) == 4

    def test_mask_of_a_constraint_set(self, index):
        assert index.filter(index.constraint(ids=["c", "a"])).item_ids.to_pylist() == ["a", "c"]
        with pytest.raises(hr.ArgumentError, match="a set of another index object"):
            index.filter(index.filter(index.constraint(ids=["c"])).constraint(ids=["c"]))

    def test_dense_levels(self, index):
        filtered = index.filter([True] * 4, order="index", dense_levels=[0, 1])
        assert [level.allowed is not None for level in filtered.levels] == [True, True]
        with pytest.raises(hr.ArgumentError):
            index.filter([True] * 4, order="index", dense_levels=[7])

    def test_of_a_ragged_index(self):
        catalog = hr.Catalog([[4], [4, 1], [0, 2]], codebook_sizes=6, item_ids=["a", "b", "c"], ragged=True)
        filtered = hr.build_index(catalog).filter([True, False, True], order="index")
        assert same_trie(filtered, hr.build_index(catalog.filter([True, False, True])))
        assert filtered.end_codes == (None, 6)

    @pytest.mark.parametrize("mask", [[True] * 3, [1, 0, 1, 0], np.ones((4, 1), bool), None, "price > 2"])
    def test_rejects_other_masks(self, index, mask):
        with pytest.raises(hr.ArgumentError, match=r"bool \[4\]"):
            index.filter(mask, order="index")


def test_rejects_other_capacities(index):
    with pytest.raises(hr.ArgumentError, match="capacity must be a Capacity or None; got 'x'"):
        index.to("numpy", capacity="x")
