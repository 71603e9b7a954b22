"""Item ids: every type, from the catalog through build, save and load, and the errors."""

import datetime as dt
import decimal

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from catalog_cases import ORDER, SIDS, error, uuids

import hedgerow as hr

IDS = {
    "int": [30, 10, 20],
    "uint64": np.array([2**64 - 1, 1, 2], np.uint64),
    "big-endian": np.array([3, 1, 2], ">i8"),
    "string": ["c", "a", "ü"],
    "numpy string": np.array(["c", "a", "b"]),
    "object string": np.array(["c", "a", "b"], object),
    "large string": pa.array(["c", "a", "b"], pa.large_string()),
    "string view": pa.array(["c", "a", "b"], pa.string_view()),
    "binary view": pa.array([b"c", b"a", b"b"], pa.binary_view()),
    "polars string": pl.Series(["c", "a", "b"]),
    "polars categorical": pl.Series(["c", "a", "b"], dtype=pl.Categorical),
    "pandas string": pd.Series(["c", "a", "b"], index=[7, 8, 9]),
    "pandas categorical": pd.Categorical(["c", "a", "b"]),
    "dictionary": pa.array(["c", "a", "b"]).dictionary_encode(),
    "chunked": pa.chunked_array([["c"], ["a", "b"]]),
    "bytes": [b"c", b"a\0", b"b"],
    "fixed bytes": pa.array([b"cc", b"aa", b"bb"], pa.binary(2)),
    "date": [dt.date(2024, 1, 3), dt.date(2024, 1, 1), dt.date(2024, 1, 2)],
    "timestamp": [dt.datetime(2024, 1, day, tzinfo=dt.UTC) for day in (3, 1, 2)],
    "numpy datetime": np.array(["2024-01-03", "2024-01-01", "2024-01-02"], "M8[ms]"),
    "uuid": uuids([3, 1, 2]),
    "uuid array": pa.array([number.bytes for number in uuids([3, 1, 2])], pa.uuid()),
    "decimal": [decimal.Decimal("3.5"), decimal.Decimal("1.25"), decimal.Decimal("2")],
    "range": range(3),
}


@pytest.mark.parametrize("kind", IDS)
def test_item_ids_of_every_type_survive_build_save_and_load(kind, tmp_path):
    catalog = hr.Catalog(SIDS, item_ids=IDS[kind])
    ids = catalog.item_ids.to_pylist()
    if isinstance(IDS[kind], list):
        assert ids == IDS[kind]
    index = hr.build_index(catalog)
    assert index.item_ids.to_pylist() == [ids[row] for row in ORDER]
    assert catalog.filter(np.array([True, False, True])).item_ids.to_pylist() == [ids[0], ids[2]]
    index.save(tmp_path / "index")
    loaded = hr.load_index(tmp_path / "index")
    assert loaded.items_table.schema.equals(index.items_table.schema)
    assert loaded.items_table.equals(index.items_table)


@pytest.mark.parametrize("kind", [kind for kind in IDS if kind != "range"])
def test_items_that_share_a_sid_are_sorted_by_id(kind):
    ids = hr.Catalog(SIDS, item_ids=IDS[kind]).item_ids.to_pylist()
    index = hr.build_index(hr.Catalog([[1], [1], [1]], item_ids=IDS[kind]))
    assert index.item_ids.to_pylist() == sorted(ids)


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        ([1, 2], ["2 entries", "3 rows"]),
        ([1, 2, 1], ["item id 1", "rows 0 and 2"]),
        (["x", "y", "y"], ["item id 'y'", "rows 1 and 2"]),
        (pa.array([number.bytes for number in uuids([3, 1, 3])], pa.uuid()), ["UUID", "rows 0 and 2"]),
        (["x", None, "y"], ["row 1", "null"]),
        ([1.0, 2.0, float("nan")], ["row 2", "NaN"]),
        (pa.array(["x", None, "y"]).dictionary_encode(), ["row 1", "null"]),
        (pd.Series(["x", "y", None]), ["row 2", "null"]),
        (np.ma.array([1, 2, 3], mask=[False, True, False]), ["row 1", "null"]),
        ([1, "a", 2], ["item_ids", "one type"]),
        (5, ["item_ids"]),
        ([[1], [2], [3]], ["list", "cannot be ordered"]),
        ([{"a": 1}, {"a": 2}, {"a": 3}], ["struct", "cannot be ordered"]),
    ],
)
def test_rejects_invalid_item_ids(ids, words):
    message = error(lambda: hr.Catalog(SIDS, item_ids=ids))
    for word in words:
        assert word in message


def test_ids_with_nul_characters_are_not_cut():
    assert hr.Catalog([[1], [2]], item_ids=np.array([b"a\0b", b"a\0c"])).item_ids.to_pylist() == [b"a\0b", b"a\0c"]
    assert hr.Catalog([[1], [2]], item_ids=np.array(["a\0b", "c"])).item_ids.to_pylist() == ["a\0b", "c"]


@pytest.mark.parametrize("ids", [{"a", "b"}, frozenset({"a", "b"}), {"a": 1, "b": 2}])
def test_rejects_sets_and_mappings_as_ids(ids):
    with pytest.raises(hr.CatalogError, match="has no order of rows"):
        hr.Catalog([[1], [2]], item_ids=ids)


class TestRowNumbers:
    """Ids that are row numbers, because no column was named, are named in messages about other ids."""

    INDEX = hr.build_index(hr.Catalog([[0], [1], [2]], attributes={"sku": ["a", "b", "c"]}))
    HINT = r"The ids of this index are 0 to 2, the row numbers of a file without a column item_id.*--item-id"

    @pytest.mark.parametrize("ids", [["a"], [7], [0, 3]])
    def test_lookups(self, ids):
        with pytest.raises(hr.ArgumentError, match=self.HINT):
            self.INDEX.rows(ids)
        with pytest.raises(hr.CatalogError, match=self.HINT):
            hr.merge(self.INDEX, removed=ids)
        with pytest.raises(hr.CatalogError, match=self.HINT):
            self.INDEX.with_attributes({"item_id": ids, "sku": ids}, new_attributes="add")

    def test_histories(self):
        pytest.importorskip("torch")
        from hedgerow.training import Histories

        for item in ("a", 7):
            table = pa.table({"user": [1], "item_id": [item], "timestamp": [1]})
            with pytest.raises(hr.ArgumentError, match=self.HINT):
                Histories.from_arrow(table, self.INDEX)

    @pytest.mark.parametrize("ids", [[0, 1, 3], [1, 2, 3], ["0", "1", "2"]])
    def test_other_ids_have_no_hint(self, ids):
        with pytest.raises(hr.ArgumentError) as raised:
            hr.build_index(hr.Catalog([[0], [1], [2]], item_ids=ids)).rows([99] if ids[0] != "0" else ["99"])
        assert "row numbers" not in str(raised.value)
