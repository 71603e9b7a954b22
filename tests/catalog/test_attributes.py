"""Attributes: every type, from the catalog through build, save and load, and the errors."""

import datetime as dt
import decimal

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from catalog_cases import ORDER, SIDS, error, uuids

import hedgerow as hr

ATTRIBUTES = {
    "ints with a null": [1, None, 3],
    "strings": ["x", None, "ü"],
    "booleans": np.array([True, False, True]),
    "floats with NaN": np.array([1.5, np.inf, -0.0], np.float32),
    "half floats": np.array([1, 2, 3], np.float16),
    "decimals": [decimal.Decimal("1.25"), None, decimal.Decimal("2")],
    "dates": [dt.date(2024, 1, 1), None, dt.date(1960, 2, 29)],
    "times": [dt.time(1, 2), None, dt.time(23)],
    "durations": np.array([1, 2, 3], "m8[ms]"),
    "timestamps with a zone": pa.array([1, None, 3], pa.timestamp("us", "Europe/Berlin")),
    "pandas timestamps": pd.Series(pd.to_datetime(["2024-03-31", "2024-04-01", None])).dt.tz_localize("Asia/Tokyo"),
    "dictionary": pa.array(["x", "y", None]).dictionary_encode(),
    "pandas categorical": pd.Categorical(["x", "y", None]),
    "pandas nullable": pd.array([1, None, 3], dtype="Int64"),
    "polars categorical": pl.Series(["x", "y", None], dtype=pl.Categorical),
    "polars lists of strings": pl.Series([["x"], None, []], dtype=pl.List(pl.String)),
    "polars structs": pl.Series([{"a": "x", "b": 1}, None, {"a": None, "b": 2}]),
    "polars arrays": pl.Series([["x"], ["y"], ["z"]], dtype=pl.Array(pl.String, 1)),
    "string views": pa.array(["x", None, "z"], pa.string_view()),
    "nested lists": [[[1], []], None, [None, [2, None]]],
    "structs": [{"a": 1, "b": [1]}, None, {"a": None, "b": None}],
    "maps": pa.array([[("k", 1)], [], None], pa.map_(pa.string(), pa.int64())),
    "embeddings": pa.FixedSizeListArray.from_arrays(pa.array(np.arange(6, dtype=np.float32)), 2),
    "uuids": pa.array([number.bytes for number in uuids([3, 1, 2])], pa.uuid()),
    "bytes": [b"\0", None, b""],
    "chunked": pa.chunked_array([[1], [2, 3]]),
    "nulls": [None, None, None],
}


@pytest.mark.parametrize("kind", ATTRIBUTES)
def test_attributes_of_every_type_survive_build_save_and_load(kind, tmp_path):
    catalog = hr.Catalog(SIDS, attributes={kind: ATTRIBUTES[kind], "row": range(3)})
    values = catalog.attributes[kind].to_pylist()
    if isinstance(ATTRIBUTES[kind], list):
        assert values == ATTRIBUTES[kind]
    index = hr.build_index(catalog)
    assert index.attributes.column_names == [kind, "row"]
    assert index.attributes[kind].to_pylist() == [values[row] for row in ORDER]
    assert index.attributes["row"].to_pylist() == ORDER
    assert catalog.filter(np.array([False, False, True])).attributes.to_pylist() == [{kind: values[2], "row": 2}]
    index.save(tmp_path / "index")
    loaded = hr.load_index(tmp_path / "index").attributes
    assert loaded.schema.types == index.attributes.schema.types
    assert loaded[kind].to_pylist() == index.attributes[kind].to_pylist()


def test_table_frame_and_mapping_give_equal_attributes():
    columns = {"name": ["x", "y", None], "kind": pd.Categorical(["p", "q", "p"])}
    expected = hr.Catalog(SIDS, attributes=columns).attributes.to_pylist()
    frame = pd.DataFrame(columns, index=[9, 8, 7])
    for table in (frame, pl.DataFrame(frame), pa.Table.from_pandas(frame, preserve_index=False)):
        attributes = hr.Catalog(SIDS, attributes=table).attributes
        assert attributes.to_pylist() == expected
        assert not pa.types.is_dictionary(attributes["kind"].type)


@pytest.mark.parametrize("attributes", [None, {}])
def test_no_attributes_give_a_table_without_columns(attributes, tmp_path):
    catalog = hr.Catalog(SIDS, attributes=attributes)
    index = hr.build_index(catalog)
    index.save(tmp_path / "index")
    for owner in (catalog, index, hr.load_index(tmp_path / "index")):
        assert owner.attributes.shape == (3, 0)
    assert catalog.filter(np.array([True, False, False])).attributes.shape == (1, 0)


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"year": [1, 2]}, ["'year'", "2 values", "3 items"]),
        ({"year": 5}, ["'year'"]),
        ({"year": [1, "x", 2]}, ["'year'", "one type"]),
        ({"vectors": np.zeros((3, 2))}, ["'vectors'"]),
        ({"item_id": [1, 2, 3]}, ["'item_id'", "Rename"]),
        (pa.table({"item_id": [1, 2, 3]}), ["'item_id'"]),
        (pa.table({"year": [1, 2]}), ["2 rows", "3 items"]),
        (pa.table({}), ["0 rows", "3 items"]),
        (pa.table([[1, 2, 3], [4, 5, 6]], names=["year", "year"]), ["year", "Rename"]),
        ([1, 2, 3], ["Arrow table", "list"]),
    ],
)
def test_rejects_invalid_attributes(attributes, words):
    message = error(lambda: hr.Catalog(SIDS, attributes=attributes))
    for word in words:
        assert word in message


def test_rejects_two_attributes_with_the_same_name_as_text():
    with pytest.raises(hr.CatalogError, match="two attributes have the same name"):
        hr.Catalog([[1]], attributes={1: [1], "1": [2]})
