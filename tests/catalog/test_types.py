"""Arrow types: each column works from the catalog to the results of a search, or the catalog refuses it by name."""

import decimal
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from catalog_cases import error

import hedgerow as hr
from hedgerow.catalog import types

NOT_UTF8 = pa.Array.from_buffers(
    pa.string(), 2, [None, pa.py_buffer(np.array([0, 1, 2], np.int32)), pa.py_buffer(b"\xff\xfe")]
)
INTERVALS = pa.array([pa.MonthDayNano([1, 2, 3])] * 2)
UNION = pa.UnionArray.from_sparse(pa.array([0, 1], pa.int8()), [pa.array([1, 2]), pa.array(["a", "b"])])
DICTIONARY = pa.dictionary(pa.int32(), pa.string())
RUN_ENDS = pa.RunEndEncodedArray.from_arrays(pa.array([1, 3], pa.int32()), pa.array(["x", "y"]))

HELD: dict[str, tuple[Any, list[Any], pa.DataType]] = {
    "run-end encoded": (RUN_ENDS[1:3], ["y", "y"], pa.string()),
    "half floats": (np.array([1, 2.5], np.float16), [1.0, 2.5], pa.float32()),
    "32-bit decimals": (
        pa.array([decimal.Decimal("1.25"), None], pa.decimal32(5, 2)),
        [decimal.Decimal("1.25"), None],
        pa.decimal128(5, 2),
    ),
    "64-bit decimals": (
        pa.array([decimal.Decimal("1.25"), None], pa.decimal64(15, 2)),
        [decimal.Decimal("1.25"), None],
        pa.decimal128(15, 2),
    ),
    "decimals of hundreds": (
        pa.array([decimal.Decimal(300), None], pa.decimal128(5, -2)),
        [decimal.Decimal(300), None],
        pa.decimal128(7, 0),
    ),
    "256-bit decimals": (
        pa.array([decimal.Decimal("1.25"), None], pa.decimal256(60, 2)),
        [decimal.Decimal("1.25"), None],
        pa.decimal128(38, 2),
    ),
    "list views": (pa.array([[1, 2], [3]], pa.list_view(pa.int64())), [[1, 2], [3]], pa.large_list(pa.int64())),
    "list views, cut": (
        pa.array([["a", "b"], None, ["c"]], pa.large_list_view(pa.string_view()))[1:],
        [None, ["c"]],
        pa.large_list(pa.large_string()),
    ),
    "maps of string views": (
        pa.array([[("k", "v")]] * 2, pa.map_(pa.string_view(), pa.string_view())),
        [[("k", "v")]] * 2,
        pa.map_(pa.large_string(), pa.large_string()),
    ),
    "lists of a dictionary": (pa.array([["a"], None], pa.list_(DICTIONARY)), [["a"], None], pa.list_(pa.string())),
    "structs of a dictionary": (
        pa.array([{"a": "x"}, {"a": None}], pa.struct([("a", DICTIONARY)])),
        [{"a": "x"}, {"a": None}],
        pa.struct([("a", pa.string())]),
    ),
    "polars enum": (pl.Series(["a", "b"], dtype=pl.Enum(["a", "b"])), ["a", "b"], pa.large_string()),
}


@pytest.mark.parametrize("kind", HELD)
def test_a_converted_column_works_from_the_catalog_to_the_results(kind, tmp_path):
    column, values, type_ = HELD[kind]
    catalog = hr.Catalog([[0], [1]], codebook_sizes=2, item_ids=["a", "b"], attributes={"x": column})
    assert catalog.attributes["x"].type.equals(type_)
    hr.build_index(catalog).save(tmp_path / "index")
    index = hr.load_index(tmp_path / "index")
    assert index.where("x IS NOT NULL").mask.tolist() == [value is not None for value in values]
    beams = hr.beam_search(index, lambda _: np.array([[[1.0, 0.0]]]), batch_size=1, beam_width=2)
    assert [item["x"] for item in index.results(beams)[0]] == values


REFUSED: dict[str, tuple[Any, str]] = {
    "intervals": (INTERVALS, "intervals"),
    "structs of intervals": (pa.StructArray.from_arrays([INTERVALS], ["i"]), "intervals"),
    "a union": (UNION, "unions"),
    "lists of a union": (pa.ListArray.from_arrays([0, 1, 2], UNION), "unions"),
    "nested run-end encoded": (pa.StructArray.from_arrays([RUN_ENDS[:2]], ["a"]), "run-end"),
    "structs without fields": (pa.array([{}, {}], pa.struct([])), "distinct names"),
    "structs with one name twice": (pa.StructArray.from_arrays([pa.array([1, 2])] * 2, ["a", "a"]), "distinct names"),
    "lists of size 0": (pa.array([[], []], pa.list_(pa.int64(), 0)), "fixed-size lists"),
    "an unknown time zone": (pa.array([0, 1], pa.timestamp("us", "Mars/Base")), "no time zone 'Mars/Base' here"),
    "an impossible offset": (pa.array([0, 1], pa.timestamp("us", "+25:99")), "no time zone '+25:99' here"),
    "zones inside lists": (pa.array([[0], [1]], pa.list_(pa.timestamp("us", "X/Y"))), "no time zone 'X/Y' here"),
    "too many digits of hundreds": (
        pa.array([1, 2]).cast(pa.decimal128(38, 0)).view(pa.decimal128(38, -2)),
        "38 digits",
    ),
    "too many digits": (pa.array([decimal.Decimal(10**40)] * 2, pa.decimal256(60, 0)), "precision 38"),
    "text in another encoding": (NOT_UTF8, "not UTF-8"),
    "lists of such text": (pa.ListArray.from_arrays([0, 1, 2], NOT_UTF8), "not UTF-8"),
    "structs of such text": (pa.StructArray.from_arrays([NOT_UTF8], ["a"]), "not UTF-8"),
    "a dictionary of such text": (pa.DictionaryArray.from_arrays([0, 1], NOT_UTF8), "not UTF-8"),
    "polars objects": (pl.Series([object(), object()]), "Object"),
    "python objects": (pd.Series([object(), 1]), "one type"),
    "a matrix": (np.zeros((2, 1)).view(np.matrix), "1-dimensional"),
    "complex numbers": (np.array([1j, 2]), "numpy type"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_column_that_an_index_cannot_hold_is_refused_by_name(kind):
    column, word = REFUSED[kind]
    message = error(lambda: hr.Catalog([[0], [1]], attributes={"colour": column}))
    assert "'colour'" in message
    assert word in message


def test_columns_of_a_file_are_refused_by_name(tmp_path):
    pq.write_table(pa.table({"sid": [[0], [1]], "title": NOT_UTF8}), tmp_path / "items.parquet")
    assert "'title' holds text that is not UTF-8" in error(lambda: hr.Catalog.from_parquet(tmp_path / "items.parquet"))
    pq.write_table(pa.table({"sid": [[0], [1]], "id": NOT_UTF8}), tmp_path / "items.parquet")
    with pytest.raises(hr.CatalogError, match="'id' holds text that is not UTF-8"):
        hr.Catalog.from_parquet(tmp_path / "items.parquet", item_id="id")


def test_a_frame_of_python_objects_is_refused_by_the_name_of_the_column():
    frame = pl.DataFrame({"sid": [[1], [2]], "maker": pl.Series([object(), object()])})
    assert "'maker'" in error(lambda: hr.Catalog.from_arrow(frame))
    assert "'maker'" in error(lambda: hr.Catalog([[1], [2]], attributes=frame.select("maker")))


@pytest.mark.parametrize("ids", [[1.0, 2.0], [0.0, -0.0], np.array([1, 2], np.float16), pd.Series([1.0, 2.0])])
def test_float_ids_are_refused(ids):
    message = error(lambda: hr.Catalog([[0], [1]], item_ids=ids))
    assert "item_ids are floats" in message
    assert "integers or strings" in message


@pytest.mark.parametrize("name", ["item_id", "score", "sid"])
def test_names_of_the_results_are_refused(name):
    for attributes in ({name: [1, 2]}, pa.table({name: [1, 2]})):
        message = error(lambda attributes=attributes: hr.Catalog([[0], [1]], attributes=attributes))
        assert repr(name) in message
        assert "Rename" in message
    table = pa.table({"codes": [[0], [1]], "id": ["a", "b"], name: [1, 2]})
    assert repr(name) in error(lambda: hr.Catalog.from_arrow(table, sid="codes", item_id="id"))
    kept = hr.Catalog.from_arrow(table, sid="codes", item_id="id", attributes=[])
    assert kept.attribute_names == ()


def test_row_labels_of_pandas_are_dropped_on_every_road(tmp_path):
    frame = pd.DataFrame({"sid": [[1], [2]], "price": [1, 2]}, index=["x", "y"])
    table = pa.Table.from_pandas(frame)
    assert "__index_level_0__" in table.column_names
    pq.write_table(table, tmp_path / "items.parquet")
    for catalog in (
        hr.Catalog.from_arrow(frame),
        hr.Catalog.from_arrow(table),
        hr.Catalog.from_parquet(tmp_path / "items.parquet"),
        hr.Catalog([[1], [2]], attributes=frame.drop(columns="sid")),
        hr.Catalog([[1], [2]], attributes=table.drop_columns(["sid"])),
    ):
        assert catalog.attribute_names == ("price",)
        assert catalog.item_ids.to_pylist() == [0, 1]
    named = hr.Catalog.from_parquet(tmp_path / "items.parquet", item_id="__index_level_0__")
    assert named.item_ids.to_pylist() == ["x", "y"]


@pytest.mark.parametrize(
    ("type_", "large"),
    [
        (pa.string(), pa.large_string()),
        (pa.binary(), pa.large_binary()),
        (pa.list_(pa.string()), pa.large_list(pa.large_string())),
        (DICTIONARY, pa.dictionary(pa.int32(), pa.large_string())),
    ],
)
def test_chunks_that_overflow_are_combined_with_64_bit_offsets(type_, large, monkeypatch):
    value = {"list": ["x"], "binary": b"x"}.get(str(type_).split("<")[0], "x")
    column = pa.chunked_array([pa.array([value], type_), pa.array([value, None], type_)])
    concat = pa.concat_arrays

    def overflowing(arrays):
        if arrays[0].type == type_:
            raise pa.ArrowInvalid("offset overflow while concatenating arrays")
        return concat(arrays)

    monkeypatch.setattr(pa, "concat_arrays", overflowing)
    combined = types.one_array(column)
    assert combined.type.equals(large)
    assert combined.to_pylist() == [value, value, None]
