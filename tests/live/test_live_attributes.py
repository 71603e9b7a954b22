"""LiveIndex.update_attributes, and attributes that differ in add and update."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pytest
from livesupport import items_of
from naive import same_trie

import hedgerow as hr
from hedgerow.index.locks import locked

ITEMS = {"a": [0, 1], "b": [0, 1], "c": [2, 0], "d": [3, 3]}


def catalog(items, ragged=False, **attributes):
    return hr.Catalog(
        list(items.values()), item_ids=list(items), codebook_sizes=4, attributes=attributes, ragged=ragged
    )


def column(version, name="price"):
    """Item id -> value, of the items that were not removed."""
    index = version.index.filter(~version.removed, order="index")
    return dict(zip(index.item_ids.to_pylist(), index.attributes.column(name).to_pylist(), strict=True))


def uniform(beams):
    return np.zeros((*beams.states.shape, 4))


def names_in(path):
    return sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file())


@pytest.fixture
def path(tmp_path):
    return tmp_path / "shop.live"


@pytest.fixture
def live(path):
    return hr.LiveIndex.create(path, hr.build_index(catalog(ITEMS, price=[1, 2, 3, 4], brand=["x", "y", "x", "y"])))


def test_attributes_change_and_sids_stay(live, path):
    old = live.version
    cheap = old.index.where("price < 3")
    version = live.update_attributes({"item_id": ["c", "a"], "price": [2, 30]})
    assert (version.number, version.info.parent, live.version) == (2, 1, version)
    assert items_of(version) == ITEMS
    assert column(version) == {"a": 30, "b": 2, "c": 2, "d": 4}
    assert column(version, "brand") == dict(zip("abcd", "xyxy", strict=True))
    expected = hr.build_index(catalog(ITEMS, price=[30, 2, 2, 4], brand=["x", "y", "x", "y"]))
    for found in (version, hr.LiveIndex.open(path).version):
        assert same_trie(found.index, expected)
        assert found.index.items_table.equals(expected.items_table)
    # The old version and its sets are as before; the new version has its own.
    assert column(old) == {"a": 1, "b": 2, "c": 3, "d": 4}
    assert cheap.mask.tolist() == [True, True, False, False]
    assert version.index.where("price < 3").mask.tolist() == [False, True, True, False]
    beams = hr.beam_search(version.index, uniform, batch_size=1, beam_width=9)
    with pytest.raises(hr.ConstraintError, match="another index"):
        version.results(beams, constraints=cheap)
    results = version.results(beams, constraints=version.index.where("price < 3"))[0]
    assert sorted(zip(results.item_ids, results.attributes.column("price").to_pylist(), strict=True)) == [
        ("b", 2),
        ("c", 2),
    ]
    assert live.verify() == {}
    assert column(live.rollback()) == column(old)
    assert column(live.rollback(2)) == {"a": 30, "b": 2, "c": 2, "d": 4}


def test_removed_items_have_no_attributes_to_change(live):
    live.remove(["b"])
    with pytest.raises(hr.CatalogError, match="1 of 2 item ids are not in the index, the first is 'b'"):
        live.update_attributes({"item_id": ["a", "b"], "price": [1, 2]})
    version = live.update_attributes({"item_id": ["a"], "price": [10]})
    # As after an update, the new index does not contain them.
    assert (version.num_items, len(version.index), version.removed.any()) == (3, 3, False)
    assert column(version) == {"a": 10, "c": 3, "d": 4}
    expected = catalog({name: ITEMS[name] for name in "acd"}, price=[10, 3, 4], brand=["x", "x", "y"])
    assert same_trie(version.index, hr.build_index(expected))
    assert column(live.rollback(1)) == {"a": 1, "b": 2, "c": 3, "d": 4}


def test_refused_changes_leave_no_files(live, path):
    before = names_in(path)
    for table, message in (
        ({"item_id": ["z"], "price": [1]}, "'z'"),
        ({"item_id": ["a", "a"], "price": [1, 2]}, "rows 0 and 1"),
        ({"item_id": ["a"], "size": [1]}, "no attribute 'size'"),
        ({"item_id": ["a"], "price": ["dear"]}, "price has the type int64"),
    ):
        with pytest.raises(hr.CatalogError, match=message):
            live.update_attributes(table)
    with pytest.raises(hr.ArgumentError, match="nothing to change"):
        live.update_attributes()
    assert (names_in(path), live.refresh().number) == (before, 1)
    items = next((path / "versions" / "1").glob("items-*"))
    data = bytearray(items.read_bytes())
    data[len(data) // 2] ^= 1
    items.write_bytes(data)
    with pytest.raises(hr.VersionError, match="made from is damaged"):
        live.update_attributes({"item_id": ["a"], "price": [1]})
    assert names_in(path) == before


def test_a_change_waits_for_the_lock(live):
    other = hr.LiveIndex.open(live.path, lock_timeout=0.05)
    with locked(live.path, 1), pytest.raises(hr.IndexFileError, match="lock"):
        other.update_attributes({"item_id": ["a"], "price": [5]})
    assert column(other.update_attributes({"item_id": ["a"], "price": [5]}))["a"] == 5


def test_writers_take_turns(live):
    def change(price):
        pickle.loads(pickle.dumps(live)).update_attributes({"item_id": ["abcd"[price % 4]], "price": [price]})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(change, range(8, 16)))
    found = column(live.refresh())
    assert live.version.number == 9
    assert all(price % 4 == "abcd".index(name) and 8 <= price < 16 for name, price in found.items())


def test_columns_come_go_and_widen(live):
    version = live.add(
        catalog({"e": [1, 1]}, price=[2**40], sale=[True]), new_attributes="add", missing_attributes="null"
    )
    assert column(version, "sale") == {"a": None, "b": None, "c": None, "d": None, "e": True}
    assert column(version, "brand")["e"] is None
    for change in (live.add, live.update):
        with pytest.raises(hr.CatalogError, match="missing_attributes='null'"):
            change(catalog({"f": [1, 2]}, price=[1], sale=[True]))
        with pytest.raises(hr.ArgumentError, match="new_attributes must be"):
            change(catalog({"f": [1, 2]}, price=[1], sale=[True]), new_attributes=True)
    version = live.update(
        catalog({"a": [3, 0]}, price=[6], size=[1]), new_attributes="drop", missing_attributes="null", removed=["e"]
    )
    assert version.index.attributes.column_names == ["price", "brand", "sale"]
    assert (column(version, "brand")["a"], column(version)["a"], items_of(version)["a"]) == (None, 6, [3, 0])
    assert "e" not in items_of(version)
    version = live.update_attributes({"item_id": ["a"], "sale": [False]}, drop=["brand"])
    assert version.index.attributes.column_names == ["price", "sale"]
    assert column(version, "sale") == {"a": False, "b": None, "c": None, "d": None}
    future = live.update_in_background(catalog({"g": [1, 1]}, price=[1]), missing_attributes="null")
    assert column(future.result(), "sale")["g"] is None


def test_the_type_of_a_float32_column_widens(path):
    prices = pa.array([0.1, 0.2, 0.3, 0.4], pa.float32())
    live = hr.LiveIndex.create(path, hr.build_index(catalog(ITEMS, price=prices)))
    version = live.update_attributes({"item_id": ["b"], "price": [1e300]})
    assert column(version) == dict(zip("abcd", [*prices[:1].to_pylist(), 1e300, *prices[2:].to_pylist()], strict=True))
    assert version.index.attributes.column("price").type == pa.float64()


def test_ragged_items(path):
    items = {"a": [1], "b": [1, 2], "c": [2, 0, 1]}
    live = hr.LiveIndex.create(path, hr.build_index(catalog(items, ragged=True, price=[1, 2, 3])))
    assert column(live.update_attributes({"item_id": ["b", "a"], "price": [5, 6]})) == {"a": 6, "b": 5, "c": 3}
    version = live.add(catalog({"d": [2]}, ragged=True, sale=[1.5]), new_attributes="add", missing_attributes="null")
    assert column(version, "sale") == {"a": None, "b": None, "c": None, "d": 1.5}
    assert version.index.sids_of(["a", "d", "c"]).tolist() == [[1, -1, -1], [2, -1, -1], [2, 0, 1]]


def test_a_table_without_rows_and_an_index_without_items(live):
    version = live.update_attributes({"item_id": [], "sale": pa.array([], pa.bool_())}, new_attributes="add")
    assert (version.number, set(column(version, "sale").values())) == (2, {None})
    live.remove(list("abcd"), allow=["empty"])
    version = live.update_attributes({"item_id": [], "price": []})
    assert (version.number, version.num_items, len(version.index)) == (4, 0, 0)
    assert version.index.attributes.column_names == ["price", "brand", "sale"]
