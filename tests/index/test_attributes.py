"""Attributes that come, go, widen or change: merge and with_attributes give the index that a build would give."""

import datetime as dt
import uuid
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from naive import same_trie

import hedgerow as hr

SIDS = [[3, 0], [0, 1], [2, 2], [0, 1]]
IDS = ["d", "a", "c", "b"]


def catalog(ids=IDS, sids=SIDS, **attributes):
    return hr.Catalog(sids, codebook_sizes=4, item_ids=ids, attributes=attributes)


def assert_same(index, expected):
    built = hr.build_index(expected)
    assert same_trie(index, built)
    assert index.items_table.schema.equals(built.items_table.schema)
    assert index.items_table.to_pylist() == built.items_table.to_pylist()


def uniform(beams):
    return np.zeros((*beams.states.shape, 4))


def element(type_):
    return pa.list_(pa.field("element", type_))


NANOSECONDS = [1_000_000_000, 1_000_000_001]
WIDENED = {
    "integers": (pa.array([7], pa.int32()), pa.array([2**40]), pa.array([7, 2**40])),
    "an integer that fits": (pa.array([7], pa.int8()), pa.array([9]), pa.array([7, 9], pa.int8())),
    "signed and unsigned": (pa.array([200], pa.uint8()), pa.array([-1], pa.int8()), pa.array([200, -1], pa.int16())),
    "floats": (pa.array([0.1], pa.float32()), pa.array([1e300]), pa.array([np.float32(0.1), 1e300], pa.float64())),
    "a float that fits": (pa.array([0.5], pa.float32()), pa.array([0.25]), pa.array([0.5, 0.25], pa.float32())),
    "nulls": (pa.nulls(1), pa.array(["x"]), pa.array([None, "x"])),
    "nulls and UUIDs": (
        pa.nulls(1),
        pa.array([uuid.UUID(int=3)], pa.uuid()),
        pa.array([None, uuid.UUID(int=3)], pa.uuid()),
    ),
    "lists of nothing": (pa.array([[]], element(pa.null())), pa.array([["x"]]), pa.array([[], ["x"]])),
    "lists": (pa.array([[1]], element(pa.int8())), pa.array([[300]]), pa.array([[1], [300]])),
    "structs": (
        pa.array([{"a": 1}], pa.struct([("a", pa.int8())])),
        pa.array([{"a": 300}]),
        pa.array([{"a": 1}, {"a": 300}]),
    ),
    "timestamps": (
        pa.array([1], pa.timestamp("s")),
        pa.array(NANOSECONDS[1:], pa.timestamp("ns")),
        pa.array(NANOSECONDS, pa.timestamp("ns")),
    ),
    "durations": (
        pa.array([1], pa.duration("s")),
        pa.array(NANOSECONDS[1:], pa.duration("ns")),
        pa.array(NANOSECONDS, pa.duration("ns")),
    ),
    "decimals": (
        pa.array([1], pa.decimal128(3, 1)),
        pa.array([1000], pa.decimal128(6, 2)),
        pa.array([1, 1000], pa.decimal128(6, 2)),
    ),
    "bytes": (
        pa.array([b"ab"], pa.binary(2)),
        pa.array([b"abc"], pa.binary()),
        pa.array([b"ab", b"abc"], pa.binary()),
    ),
    "text that needs no wider type": (pa.array(["x"]), pa.array(["y"], pa.large_string()), pa.array(["x", "y"])),
    "categories": (
        pa.array(["x"]).dictionary_encode(),
        pa.array(["y"]).dictionary_encode(),
        pa.array(["x", "y"]),
    ),
}


@pytest.mark.parametrize(("old", "new", "expected"), WIDENED.values(), ids=WIDENED.keys())
def test_a_column_widens_if_a_value_needs_it(old, new, expected):
    index = hr.build_index(catalog(["a"], [[1, 1]], x=old))
    merged = hr.merge(index, catalog(["b"], [[2, 2]], x=new))
    assert_same(merged, catalog(["a", "b"], [[1, 1], [2, 2]], x=expected))
    both = hr.build_index(catalog(["a", "b"], [[1, 1], [2, 2]], x=pa.concat_arrays([old, old])))
    changed = both.with_attributes({"item_id": ["b"], "x": new})
    assert_same(changed, catalog(["a", "b"], [[1, 1], [2, 2]], x=expected))


REFUSED = {
    "an integer beyond all types": (pa.array([2**63], pa.uint64()), pa.array([-1])),
    "a fraction among integers": (pa.array([1]), pa.array([1.5])),
    "a number among text": (pa.array([dt.time(1)]), pa.array([1])),
    "a time of day among dates": (pa.array([dt.date(2020, 1, 1)]), pa.array([dt.datetime(2020, 1, 1, 5)])),
    "a date beyond nanoseconds": (
        pa.array([32_503_680_000], pa.timestamp("s")),
        pa.array([1_000_000_001], pa.timestamp("ns")),
    ),
    "a field more": (pa.array([{"a": 1}]), pa.array([{"a": 1, "b": 2}])),
    "a decimal of too many digits": (pa.array([10**37], pa.decimal128(38, 0)), pa.array([0], pa.decimal128(38, 38))),
    "text among numbers": (pa.array([1]), pa.array(["x"])),
}


@pytest.mark.parametrize(("old", "new"), REFUSED.values(), ids=REFUSED.keys())
def test_other_changes_of_type_are_refused(old, new):
    if new.type == pa.decimal128(38, 38):
        new = pa.array(["0.00000000000000000000000000000000000001"]).cast(pa.decimal128(38, 38))
    index = hr.build_index(catalog(["a"], [[1, 1]], x=old))
    with pytest.raises(
        hr.CatalogError, match=r"x has the type .* in the index; .*drop=\['x'\].*live\.publish\(index\)"
    ):
        hr.merge(index, catalog(["b"], [[2, 2]], x=new))
    assert index.attributes.column("x").type == old.type


def test_attributes_that_only_one_has_are_refused_by_default():
    index = hr.build_index(catalog(price=[1, 2, 3, 4], brand=["x"] * 4))
    more = {"price": [5], "brand": ["y"], "sale": [True], "size": [3]}
    with pytest.raises(
        hr.CatalogError, match=r"\['price', 'brand'\], .* \['price', 'brand', 'sale', 'size'\]\. To add .*'add'"
    ) as found:
        hr.merge(index, catalog(["e"], [[1, 1]], **more))
    assert "missing_attributes" not in str(found.value)
    with pytest.raises(hr.CatalogError, match="missing_attributes='null'") as found:
        hr.merge(index, catalog(["e"], [[1, 1]], price=[5]))
    assert "new_attributes" not in str(found.value)
    with pytest.raises(hr.CatalogError, match=r"new_attributes='add'.*missing_attributes='null'"):
        hr.merge(index, catalog(["e"], [[1, 1]], sale=[True]))
    wrong: list[dict[str, Any]] = [{"new_attributes": "null"}, {"missing_attributes": "drop"}]
    for options in wrong:
        with pytest.raises(hr.ArgumentError, match=f"{next(iter(options))} must be one of error"):
            hr.merge(index, catalog(["e"], [[1, 1]], price=[5], brand=["y"]), **options)


def test_attributes_come_and_are_missing_as_asked():
    index = hr.build_index(catalog(price=[1, 2, 3, 4], brand=["x", "y", "z", "w"]))
    added = catalog(["e", "a"], [[1, 1], [3, 3]], sale=[True, False], price=[5, 6])
    ids, sids = ["d", "c", "b", "e", "a"], [[3, 0], [2, 2], [0, 1], [1, 1], [3, 3]]
    shared = {"price": [1, 3, 4, 5, 6], "brand": ["x", "z", "w", None, None]}
    merged = hr.merge(index, added, new_attributes="add", missing_attributes="null")
    assert_same(merged, catalog(ids, sids, **shared, sale=[None, None, None, True, False]))
    assert_same(hr.merge(index, added, new_attributes="drop", missing_attributes="null"), catalog(ids, sids, **shared))
    # An item that was replaced has the values of the new one.
    assert merged.with_attributes({"item_id": ["a"], "brand": ["new"]}).where("brand = 'new'").mask.sum() == 1


def test_changed_attributes_are_those_of_a_build(tmp_path):
    tags = pa.array([["p"], [], None, ["q", "r"]])
    old = catalog(price=[1, 2, 3, 4], tags=tags, stock=[True] * 4)
    new_tags = pa.array([["p"], ["s"], None, None], element(pa.string()))
    expected = catalog(price=[1, 20, 3, 40], tags=new_tags, stock=[True] * 4)
    hr.build_index(old).save(tmp_path / "index")
    table = {"item_id": ["b", "a"], "tags": [None, ["s"]], "price": [40, 20]}
    for index in (hr.build_index(old), hr.load_index(tmp_path / "index", mmap=True)):
        before = index.items_table.to_pylist()
        changed = index.with_attributes(table)
        assert_same(changed, expected)
        assert changed.levels is index.levels
        assert index.items_table.to_pylist() == before
        changed.save(tmp_path / "changed")
        assert_same(hr.load_index(tmp_path / "changed"), expected)


def test_changes_of_random_items_equal_a_build():
    rng = np.random.default_rng(0)
    n = 3000
    sids, ids, prices = rng.integers(0, 16, (n, 3)), rng.permutation(n) * 7, rng.integers(0, 99, n)
    index = hr.build_index(hr.Catalog(sids, codebook_sizes=16, item_ids=ids, attributes={"price": prices}))
    rows = rng.permutation(n)[:500]
    new = rng.integers(100, 2**40, 500)
    changed = index.with_attributes(pa.table({"sku": ids[rows].astype(np.int32), "price": new}), item_id="sku")
    prices[rows] = new
    built = hr.build_index(hr.Catalog(sids, codebook_sizes=16, item_ids=ids, attributes={"price": prices}))
    assert changed.items_table.equals(built.items_table)


@pytest.mark.parametrize("make", [dict, pa.table, pd.DataFrame, pl.DataFrame, pa.RecordBatch.from_pydict])
def test_tables_of_all_kinds(make):
    index = hr.build_index(catalog(price=[1, 2, 3, 4]))
    changed = index.with_attributes(make({"item_id": ["c", "a"], "price": [30, 20]}))
    assert_same(changed, catalog(price=[1, 20, 30, 4]))


def test_pandas_labels():
    index = hr.build_index(catalog(price=[1, 2, 3, 4]))
    frame = pd.DataFrame({"sku": ["x", "a", "c"], "price": [0, 20, 30]})
    assert_same(index.with_attributes(frame[1:], item_id="sku"), catalog(price=[1, 20, 30, 4]))
    assert_same(index.with_attributes(frame[1:].set_index("sku"), item_id="sku"), catalog(price=[1, 20, 30, 4]))


def test_new_and_dropped_attributes():
    index = hr.build_index(catalog(price=[1, 2, 3, 4], brand=["x"] * 4))
    sale = {"item_id": ["c"], "sale": [0.5]}
    with pytest.raises(hr.CatalogError, match=r"no attribute 'sale'; its attributes are \['price', 'brand'\].*'add'"):
        index.with_attributes(sale)
    added = index.with_attributes(sale, new_attributes="add")
    assert_same(added, catalog(price=[1, 2, 3, 4], brand=["x"] * 4, sale=[None, None, 0.5, None]))
    both = sale | {"price": [30]}
    assert_same(index.with_attributes(both, new_attributes="drop"), catalog(price=[1, 2, 30, 4], brand=["x"] * 4))
    assert index.with_attributes(sale, new_attributes="drop").items_table.equals(index.items_table)
    assert_same(index.with_attributes(drop=["price"]), catalog(brand=["x"] * 4))
    assert index.with_attributes(drop=["price", "brand"]).attributes.num_rows == 4
    # Another type, as the error of a change of type says.
    prices = {"item_id": IDS, "price": [1.5, 2.5, 3.5, 4.5]}
    retyped = index.with_attributes(prices, drop=["price"], new_attributes="add")
    assert_same(retyped, catalog(brand=["x"] * 4, price=[1.5, 2.5, 3.5, 4.5]))


def test_no_rows():
    index = hr.build_index(catalog(price=[1, 2, 3, 4]))
    for table in ({"item_id": [], "price": []}, pa.table({"item_id": pa.array([], pa.string()), "price": pa.nulls(0)})):
        assert_same(index.with_attributes(table), catalog(price=[1, 2, 3, 4]))
    new = {"item_id": [], "sale": pa.array([], pa.bool_())}
    added = index.with_attributes(new, new_attributes="add")
    assert_same(added, catalog(price=[1, 2, 3, 4], sale=pa.nulls(4, pa.bool_())))
    empty = hr.build_index(catalog([], np.zeros((0, 2), int), price=pa.array([], pa.int32())))
    assert empty.with_attributes({"item_id": [], "price": pa.array([], pa.int64())}).num_items == 0
    with pytest.raises(hr.CatalogError, match="are not in the index, the first is 5"):
        empty.with_attributes({"item_id": [5], "price": [1]})


def test_ragged_sids():
    items = {"a": [1], "b": [1, 2], "c": [2, 0, 1]}
    index = hr.build_index(
        hr.Catalog(list(items.values()), item_ids=list(items), ragged=True, attributes={"price": [1, 2, 3]})
    )
    changed = index.with_attributes({"item_id": ["b"], "price": [20]})
    assert (changed.ragged, changed.end_codes) == (True, index.end_codes)
    assert changed.attributes.column("price").to_pylist() == [20, 1, 3]
    assert changed.sids_of(["a", "b"]).tolist() == [[1, -1, -1], [1, 2, -1]]
    more = hr.Catalog([[2]], item_ids=["d"], ragged=True, attributes={"sale": [True]})
    merged = hr.merge(index, more, new_attributes="add", missing_attributes="null")
    assert merged.items_table.to_pydict() == {
        "item_id": ["b", "a", "c", "d"],
        "price": [2, 1, 3, None],
        "sale": [None, None, None, True],
    }


@pytest.mark.parametrize(
    ("table", "options", "error", "message"),
    [
        ({"item_id": ["a", "z"], "price": [1, 2]}, {}, "CatalogError", "1 of 2 item ids are not .* 'z'.* row 1"),
        ({"item_id": ["a", "a"], "price": [1, 2]}, {}, "CatalogError", "item id 'a' appears in rows 0 and 1"),
        ({"item_id": ["a", None], "price": [1, 2]}, {}, "CatalogError", "row 1 has no item id"),
        ({"item_id": [1.0], "price": [1]}, {}, "CatalogError", "item_ids are floats"),
        ({"item_id": [b"a"], "price": ["x"]}, {}, "CatalogError", "price has the type int64 in the index; got string"),
        ({"item_id": ["a", "b"], "price": [1, 1.5]}, {}, "CatalogError", "price has .*: row 1: .*drop=.'price'.,"),
        ({"item_id": ["a"], "price": [1, 2]}, {}, "CatalogError", "attribute 'price' has 2 values"),
        ({"sku": ["a"], "price": [1]}, {}, "CatalogError", "no item id column 'item_id'; the columns are sku, price"),
        ({"item_id": ["a"]}, {}, "CatalogError", "no attributes to change beside .* 'item_id'"),
        ({"item_id": ["a"], "sid": [[1, 1]]}, {}, "CatalogError", "SIDs cannot be changed in this way"),
        ({"item_id": ["a"], "score": [1]}, {"new_attributes": "add"}, "CatalogError", "cannot be named 'score'"),
        (pa.table([["a"], [1], [1]], ["item_id", "price", "price"]), {}, "CatalogError", "2 columns 'price'"),
        (5, {}, "CatalogError", "expected an Arrow table"),
        (None, {}, "ArgumentError", "nothing to change"),
        (None, {"drop": ["size"]}, "CatalogError", "no attribute 'size' to drop; the attributes are price"),
        (None, {"drop": ["item_id"]}, "CatalogError", "no attribute 'item_id' to drop"),
        (None, {"drop": "price"}, "ArgumentError", "drop must be a list of attributes; got 'price'"),
        ({"item_id": ["a"], "price": [1]}, {"new_attributes": "x"}, "ArgumentError", "new_attributes must be one of"),
    ],
)
def test_changes_that_do_not_fit(table, options, error, message):
    index = hr.build_index(catalog(price=[1, 2, 3, 4]))
    with pytest.raises(getattr(hr, error), match=message):
        index.with_attributes(table, **options)


def test_null_in_a_column_of_a_file_that_has_none():
    """A file can declare that a column, or the entries of its lists, are never null; added items may have nulls."""
    fields = [
        pa.field("sid", element(pa.int64())),
        pa.field("price", pa.int64(), nullable=False),
        pa.field("tags", pa.list_(pa.field("element", pa.int8(), nullable=False)), nullable=False),
    ]
    rows = pa.table({"sid": [[1, 1]], "price": [1], "tags": [[1]]}, pa.schema(fields))
    index = hr.build_index(hr.Catalog.from_arrow(rows.append_column("item_id", [["a"]]), codebook_sizes=4))
    merged = hr.merge(index, catalog(["b"], [[2, 2]], tags=[[None]]), missing_attributes="null")
    assert merged.attributes.to_pydict() == {"price": [1, None], "tags": [[1], [None]]}


def test_constraint_sets_belong_to_one_index():
    index = hr.build_index(catalog(price=[1, 2, 3, 4]))
    changed = index.with_attributes({"item_id": ["a"], "price": [9]})
    assert "a" in index.where("price < 3")
    assert "a" not in changed.where("price < 3")
    beams = hr.beam_search(changed, uniform, batch_size=1, beam_width=4)
    assert sorted(changed.results(beams, constraints=changed.where("price < 5"))[0].item_ids) == ["b", "c", "d"]
    with pytest.raises(hr.ConstraintError, match="another index"):
        changed.results(beams, constraints=index.where("price < 3"))
