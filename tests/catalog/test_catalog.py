"""Catalog: every way in, everything that travels along, and every defined error with the place it names."""

import datetime as dt
import decimal
import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import hedgerow as hr

SIDS = [[1, 200, 3], [0, 7, 3], [1, 200, 2]]
ORDER = [1, 2, 0]  # of the rows of SIDS, sorted
INTEGERS = [np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64, ">i4", ">u8"]


def error(make: Callable[[], Any]) -> str:
    with pytest.raises(hr.CatalogError) as caught:
        make()
    return str(caught.value)


def same(left: hr.Catalog, right: hr.Catalog) -> bool:
    return (
        left.sids.tolist() == right.sids.tolist()
        and left.codebook_sizes == right.codebook_sizes
        and left.item_ids.to_pylist() == right.item_ids.to_pylist()
        and left.attributes.to_pylist() == right.attributes.to_pylist()
    )


# The SIDs: every form


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("order", ["C", "F"])
def test_numpy_of_every_integer_type(dtype, order):
    sids = np.array([[1, 100, 3], [0, 7, 3]], dtype, order=order)
    catalog = hr.Catalog(sids)
    assert catalog.sids.tolist() == [[1, 100, 3], [0, 7, 3]]
    assert catalog.sids.dtype == np.uint8
    assert catalog.codebook_sizes == (2, 101, 4)
    assert (len(catalog), catalog.num_items, catalog.num_levels) == (2, 2, 3)


@pytest.mark.parametrize(
    "sids",
    [
        SIDS,
        tuple(tuple(row) for row in SIDS),
        np.array(SIDS)[::1, ::1],
        np.array(SIDS, np.int16)[::-1][::-1],
        list(np.array(SIDS)),
        np.ma.array(SIDS),
        pa.array(SIDS),
        pa.array(SIDS, pa.list_(pa.uint8())),
        pa.array(SIDS, pa.large_list(pa.int32())),
        pa.array(SIDS, pa.list_(pa.uint64(), 3)),
        pa.array([[9, 9, 9], *SIDS, [8, 8, 8]])[1:4],
        pa.array([[9, 9, 9], *SIDS, [8, 8, 8]], pa.list_(pa.int64(), 3))[1:4],
        pa.chunked_array([SIDS[:1], SIDS[1:]]),
        pa.chunked_array([pa.array(SIDS[:2], pa.list_(pa.int64(), 3)), pa.array(SIDS[2:], pa.list_(pa.int64(), 3))]),
        pd.Series(SIDS),
        pd.Series(SIDS).to_numpy(),
        pd.DataFrame(SIDS).to_numpy(),
        pl.Series(SIDS),
        pl.Series(SIDS, dtype=pl.Array(pl.UInt16, 3)),
    ],
    ids=lambda sids: f"{type(sids).__module__}.{type(sids).__name__}",
)
def test_every_form_of_sids(sids):
    catalog = hr.Catalog(sids)
    assert catalog.sids.tolist() == SIDS
    assert catalog.codebook_sizes == (2, 201, 4)
    assert catalog.item_ids.to_pylist() == [0, 1, 2]
    assert catalog.attributes.shape == (3, 0)


def test_sids_of_a_framework():
    torch = pytest.importorskip("torch")
    assert hr.Catalog(torch.tensor(SIDS)).sids.tolist() == SIDS


@pytest.mark.parametrize(
    ("sizes", "dtype"),
    [(256, np.uint8), ([1, 257, 2], np.uint16), (2**16, np.uint16), (2**16 + 1, np.uint32), (2**31, np.uint32)],
)
def test_codes_take_the_narrowest_type_of_all_codebooks(sizes, dtype):
    catalog = hr.Catalog([[0, 255, 1]] if sizes != 256 else [[255, 255, 255]], codebook_sizes=sizes)
    assert catalog.sids.dtype == dtype
    assert catalog.codebook_sizes == ((sizes,) * 3 if isinstance(sizes, int) else tuple(sizes))
    assert all(type(size) is int for size in catalog.codebook_sizes)


@pytest.mark.parametrize("sizes", [np.int16(300), np.array([300, 201, 300]), (300, 201, 300), range(300, 303)])
def test_codebook_sizes_in_every_form(sizes):
    catalog = hr.Catalog(SIDS, codebook_sizes=sizes)
    assert list(catalog.codebook_sizes) == np.broadcast_to(np.asarray(sizes), 3).tolist()


def test_the_limits_of_levels_and_codes():
    assert hr.Catalog(np.zeros((2, 255), int)).num_levels == 255
    assert hr.Catalog([[3], [1]]).num_levels == 1
    highest = hr.Catalog(np.array([[2**31 - 1]], np.uint64))
    assert highest.codebook_sizes == (2**31,)
    assert highest.sids.tolist() == [[2**31 - 1]]


@pytest.mark.parametrize("sids", [np.zeros((0, 2), int), pa.array([], pa.list_(pa.int64(), 2))])
def test_an_empty_catalog_needs_codebook_sizes(sids):
    catalog = hr.Catalog(sids, codebook_sizes=[3, 300], item_ids=[], attributes={"name": []})
    assert (len(catalog), catalog.num_levels, catalog.codebook_sizes) == (0, 2, (3, 300))
    assert "codebook_sizes" in error(lambda: hr.Catalog(sids))
    assert "level 1 has 0" in error(lambda: hr.Catalog(sids, codebook_sizes=[3, 0]))


def test_a_catalog_is_a_copy_that_cannot_be_written():
    sids, ids, year = np.array(SIDS, np.uint8, order="F"), np.array([5, 6, 7]), np.array([1.0, 2.0, 3.0])
    frame, series = pd.DataFrame({"year": [1, 2, 3]}), pd.Series([1, 2, 3])
    made = [
        hr.Catalog(sids, item_ids=ids, attributes={"year": year}),
        hr.Catalog(sids, item_ids=ids, attributes={"year": series}),
        hr.Catalog(sids, item_ids=ids, attributes=frame),
    ]
    sids[:], ids[:], year[:], series.iloc[0], frame.iloc[0, 0] = 0, 0, 0, 0, 0
    for catalog in made:
        assert catalog.sids.tolist() == SIDS
        assert catalog.item_ids.to_pylist() == [5, 6, 7]
        assert catalog.attributes["year"].to_pylist() == [1, 2, 3]
    with pytest.raises(ValueError, match="read-only"):
        made[0].sids[0, 0] = 9
    with pytest.raises(AttributeError):
        made[0].sids = sids  # type: ignore[misc]


# The SIDs: every fault


@pytest.mark.parametrize(
    ("sids", "words"),
    [
        ([[1, 2], [3]], ["row 1", "has 1 codes", "row 0 has 2"]),
        ([[1, 2], [3, 4], 5], ["row 2 of sids is 5"]),
        ([[1, 2], [3, -4]], ["row 1, level 1", "code -4", "[3, -4]"]),
        (np.array([[1, 2], [-3, 4]], np.int8), ["row 1, level 0", "code -3"]),
        ([[1, 2], [3, 2**31]], ["row 1, level 1", "2147483648", "2147483647"]),
        (np.array([[1, 2**64 - 1]], np.uint64), ["row 0, level 1", str(2**64 - 1), "2147483647"]),
        ([[1, 2], [3, 2**63]], ["row 1, level 1", str(2**63)]),
        ([[1, 2], [3, 2**64]], ["row 1, level 1", str(2**64)]),
        ([[1, 2], [3, float("nan")]], ["row 1, level 1", "nan"]),
        ([[1, 2], [3, 4.5]], ["row 1, level 1", "4.5"]),
        ([[1, 2], [3.0, 4]], ["row 1, level 0", "3.0"]),
        ([[1, 2], [3, "4"]], ["row 1, level 1", "'4'"]),
        ([[1, 2], [3, None]], ["row 1, level 1", "None"]),
        ([[True, False]], ["row 0, level 0", "True"]),
        (np.array([[1, 2], [3, np.inf]]), ["row 1, level 1", "inf"]),
        (np.array([[1, 2], [3, 4.25]]), ["row 1, level 1", "4.25"]),
        (np.array([[1.0, 2.0]]), ["float64", "astype(int)"]),
        (np.array([[False, True]]), ["row 0, level 0", "False"]),
        (np.array([[1, 2], [3, "x"]], object), ["row 1, level 1", "'x'"]),
        (np.array([[1, 2]], object), ["integer array", "object"]),
        (np.ma.array([[1, 2], [3, 4]], mask=[[False, False], [False, True]]), ["row 1, level 1", "masked"]),
        (np.array([1, 2, 3]), ["shape (3,)", "reshape(-1, 1)"]),
        ([], ["shape (0,)"]),
        ([[]], ["1 to 255 levels", "got 0"]),
        (np.zeros((2, 256), int), ["1 to 255 levels", "got 256"]),
        (np.zeros((2, 2, 2), int), ["shape (2, 2, 2)"]),
        (None, ["shape ()"]),
        (pa.array([[1, 2], None]), ["row 1", "null"]),
        (pa.array([[1, 2], None], pa.list_(pa.int64(), 2)), ["row 1", "null"]),
        (pa.array([[1, 2], [3, None]]), ["row 1, level 1", "null"]),
        (pa.array([[1, 2], [3, None]], pa.list_(pa.int64(), 2)), ["row 1, level 1", "null"]),
        (pa.array([[1, 2], [3], [4, 5]]), ["row 1", "has 1 codes", "row 0 has 2"]),
        (pa.array([[1, 2], [3, -4]]), ["row 1, level 1", "code -4"]),
        (pa.array([[1.0]]), ["integers", "double"]),
        (pa.array([1, 2]), ["lists of codes", "int64"]),
        (pl.Series([[1, 2], [3]]), ["row 1", "has 1 codes"]),
    ],
)
def test_the_error_names_the_place(sids, words):
    message = error(lambda: hr.Catalog(sids))
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        (200, ["row 0, level 1", "code 200", "0 to 199"]),
        ([2, 201, 3], ["row 0, level 2", "code 3", "0 to 2"]),
        ([2, 201], ["2 entries", "3 levels"]),
        (0, ["level 0 has 0"]),
        ([2, 201, -1], ["level 2 has -1"]),
        (2**31 + 1, ["level 0 has 2147483649", "2,147,483,648"]),
        (2**64, ["codebook_sizes", "integer"]),
        (256.0, ["codebook_sizes", "integer", "256.0"]),
        (True, ["codebook_sizes", "integer", "True"]),
        ("256", ["codebook_sizes", "integer", "'256'"]),
        ([[1], [1, 2]], ["codebook_sizes", "integer"]),
        ([[256, 256, 256]], ["codebook_sizes", "integer"]),
    ],
)
def test_codebook_sizes_that_do_not_fit(sizes, words):
    message = error(lambda: hr.Catalog(SIDS, codebook_sizes=sizes))
    for word in words:
        assert word in message


# Item ids


def uuids(numbers: list[int]) -> list[uuid.UUID]:
    return [uuid.UUID(int=number) for number in numbers]


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
    "float": [3.5, -0.25, 2.0],
    "range": range(3),
}


@pytest.mark.parametrize("kind", IDS)
def test_item_ids_of_every_type_travel_through_build_and_items(kind, tmp_path):
    catalog = hr.Catalog(SIDS, item_ids=IDS[kind])
    given = catalog.item_ids.to_pylist()
    if isinstance(IDS[kind], list):
        assert given == IDS[kind]
    index = hr.build_index(catalog)
    assert index.item_ids.to_pylist() == [given[row] for row in ORDER]
    assert catalog.filter(np.array([True, False, True])).item_ids.to_pylist() == [given[0], given[2]]
    index.save(tmp_path / "index")
    loaded = hr.load_index(tmp_path / "index")
    assert loaded.items_table.schema.equals(index.items_table.schema)
    assert loaded.items_table.equals(index.items_table)


@pytest.mark.parametrize("kind", [kind for kind in IDS if kind != "range"])
def test_colliding_items_stand_in_the_order_of_their_ids(kind):
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
def test_item_ids_that_do_not_fit(ids, words):
    message = error(lambda: hr.Catalog(SIDS, item_ids=ids))
    for word in words:
        assert word in message


# Attributes

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
def test_attributes_of_every_kind_travel_along(kind, tmp_path):
    catalog = hr.Catalog(SIDS, attributes={kind: ATTRIBUTES[kind], "row": range(3)})
    given = catalog.attributes[kind].to_pylist()
    if isinstance(ATTRIBUTES[kind], list):
        assert given == ATTRIBUTES[kind]
    index = hr.build_index(catalog)
    assert index.attributes.column_names == [kind, "row"]
    assert index.attributes[kind].to_pylist() == [given[row] for row in ORDER]
    assert index.attributes["row"].to_pylist() == ORDER
    assert catalog.filter(np.array([False, False, True])).attributes.to_pylist() == [{kind: given[2], "row": 2}]
    index.save(tmp_path / "index")
    loaded = hr.load_index(tmp_path / "index").attributes
    assert loaded.schema.types == index.attributes.schema.types
    assert loaded[kind].to_pylist() == index.attributes[kind].to_pylist()


def test_attributes_as_a_table_or_a_frame_are_those_of_a_mapping():
    columns = {"name": ["x", "y", None], "kind": pd.Categorical(["p", "q", "p"])}
    expected = hr.Catalog(SIDS, attributes=columns).attributes.to_pylist()
    frame = pd.DataFrame(columns, index=[9, 8, 7])
    for table in (frame, pl.DataFrame(frame), pa.Table.from_pandas(frame, preserve_index=False)):
        attributes = hr.Catalog(SIDS, attributes=table).attributes
        assert attributes.to_pylist() == expected
        assert not pa.types.is_dictionary(attributes["kind"].type)


@pytest.mark.parametrize("none", [None, {}])
def test_no_attributes_are_a_table_of_no_columns(none, tmp_path):
    catalog = hr.Catalog(SIDS, attributes=none)
    index = hr.build_index(catalog)
    index.save(tmp_path / "index")
    for some in (catalog, index, hr.load_index(tmp_path / "index")):
        assert some.attributes.shape == (3, 0)
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
def test_attributes_that_do_not_fit(attributes, words):
    message = error(lambda: hr.Catalog(SIDS, attributes=attributes))
    for word in words:
        assert word in message


# Tables


def table_of(sids: Any = SIDS) -> pa.Table:
    return pa.table({"name": ["x", "y", "z"], "sid": sids, "id": ["c", "a", "b"], "year": [1, None, 3]})


EXPECTED = hr.Catalog(SIDS, item_ids=["c", "a", "b"], attributes={"name": ["x", "y", "z"], "year": [1, None, 3]})


@pytest.mark.parametrize(
    "frame",
    [
        table_of(),
        table_of(pa.array(SIDS, pa.list_(pa.uint8(), 3))),
        pa.concat_tables([table_of()[:1], table_of()[1:1], table_of()[1:]]),
        pa.RecordBatch.from_pylist(table_of().to_pylist()),
        table_of().to_reader(),
        pl.from_arrow(table_of()),
        pl.concat([pl.DataFrame(table_of())[:1], pl.DataFrame(table_of())[1:]], rechunk=False),
        table_of().to_pandas().astype({"year": "Int64"}).set_index(pd.Index([5, 1, 3])),
        table_of().to_pandas().astype({"year": "Int64"}).set_index("id"),
    ],
    ids=lambda frame: f"{type(frame).__module__}.{type(frame).__name__}",
)
def test_frames_of_every_kind(frame):
    assert same(hr.Catalog.from_arrow(frame, item_id="id"), EXPECTED)


def test_the_options_of_a_frame():
    catalog = hr.Catalog.from_arrow(table_of(), codebook_sizes=[4, 256, 4], attributes=["year"])
    assert catalog.codebook_sizes == (4, 256, 4)
    assert catalog.item_ids.to_pylist() == [0, 1, 2]
    assert catalog.attributes.column_names == ["year"]
    only_sids = hr.Catalog.from_arrow(table_of().select(["sid"]))
    assert hr.build_index(only_sids).items_table.to_pydict() == {"item_id": ORDER}


@pytest.mark.parametrize("types", [[pa.int64(), pa.uint64(), pa.int8()], [pa.uint64()] * 3, [pa.uint8()] * 3])
def test_one_column_a_level(types):
    columns = {f"sid_{at}": pa.array([row[at] for row in SIDS], type_) for at, type_ in enumerate(types)}
    if types[2] == pa.int8():
        columns["sid_1"] = columns["sid_1"].cast(pa.uint64())
    catalog = hr.Catalog.from_arrow(pa.table(columns | {"year": [1, 2, 3]}), sid=["sid_0", "sid_1", "sid_2"])
    assert catalog.sids.tolist() == SIDS
    assert catalog.attributes.column_names == ["year"]


def levels(**columns: Any) -> Callable[[], hr.Catalog]:
    table = pa.table({"a": [1, 2]} | columns)
    return lambda: hr.Catalog.from_arrow(table, sid=["a", *columns])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: hr.Catalog.from_arrow(table_of(), sid="semantic"),
            ["SID column 'semantic'", "name, sid", "SIDs: sid"],
        ),
        (lambda: hr.Catalog.from_arrow(table_of(), item_id="asin"), ["item id column 'asin'", "name, sid, id, year"]),
        (lambda: hr.Catalog.from_arrow(table_of(), attributes=["colour"]), ["attribute column 'colour'"]),
        (lambda: hr.Catalog.from_arrow(table_of(), sid="name"), ["'name'", "lists of codes", "string"]),
        (lambda: hr.Catalog.from_arrow(table_of(), sid=[]), ["no SID column"]),
        (lambda: hr.Catalog.from_arrow(table_of(), sid=["year", "sid"]), ["row 1, level 0", "'year' is null"]),
        (lambda: hr.Catalog.from_arrow([1, 2]), ["Arrow table", "list"]),
        (
            lambda: hr.Catalog.from_arrow(table_of().append_column("sid", pa.array(SIDS))),
            ["2 columns 'sid'", "Rename"],
        ),
        (levels(b=[1.0, 2.0]), ["level 1", "'b'", "double"]),
        (levels(b=[1, None]), ["row 1, level 1", "'b' is null"]),
        (levels(b=pa.array([1, 2**64 - 1], pa.uint64())), ["row 1, level 1", str(2**64 - 1)]),
        (levels(b=[1, -2]), ["row 1, level 1", "code -2"]),
        (lambda: hr.Catalog.from_arrow(table_of([[1], [2, 3], [4]])), ["row 1", "'sid'", "has 2 codes", "row 0 has 1"]),
        (lambda: hr.Catalog.from_arrow(table_of([[1], None, [4]])), ["row 1", "'sid' is null"]),
        (lambda: hr.Catalog.from_arrow(table_of([[1, 2], [4, None], [4, 5]])), ["row 1, level 1", "'sid' is null"]),
    ],
)
def test_tables_that_do_not_fit(make, words):
    message = error(make)
    for word in words:
        assert word in message


@pytest.mark.parametrize("sids", [SIDS, pa.array(SIDS, pa.list_(pa.int16(), 3))])
def test_parquet(sids, tmp_path):
    pq.write_table(table_of(sids), tmp_path / "items.parquet", row_group_size=2)
    for path in (tmp_path / "items.parquet", str(tmp_path / "items.parquet")):
        assert same(hr.Catalog.from_parquet(path, item_id="id"), EXPECTED)


def test_parquet_of_one_column_a_level(tmp_path):
    table = pa.table({f"level_{at}": [row[at] for row in SIDS] for at in range(3)})
    pq.write_table(table, tmp_path / "items.parquet")
    catalog = hr.Catalog.from_parquet(tmp_path / "items.parquet", sid=table.column_names, codebook_sizes=256)
    assert catalog.sids.tolist() == SIDS
    assert catalog.codebook_sizes == (256,) * 3


def test_parquet_that_cannot_be_read(tmp_path):
    assert "missing.parquet" in error(lambda: hr.Catalog.from_parquet(tmp_path / "missing.parquet"))
    for content in (b"", b"PAR1", b"{}" * 100, b"PAR1" + b"\0" * 20 + b"PAR1"):
        (tmp_path / "items.parquet").write_bytes(content)
        message = error(lambda: hr.Catalog.from_parquet(tmp_path / "items.parquet"))
        assert "items.parquet cannot be read as Parquet" in message


# JSON


def test_json_file_and_mapping(tmp_path):
    items = {"c": [1, 200, 3], "a": [0, 7, 3], "ü": [1, 200, 2]}
    (tmp_path / "items.json").write_text(json.dumps(items, ensure_ascii=False), "utf-8")
    expected = hr.Catalog(SIDS, item_ids=list(items), codebook_sizes=256)
    for source in (tmp_path / "items.json", str(tmp_path / "items.json"), items):
        assert same(hr.Catalog.from_json(source, codebook_sizes=256), expected)
    assert hr.Catalog.from_json({7: [1], 3: (0,)}).item_ids.to_pylist() == [7, 3]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a": [1], "b": [2], "a": [3]}', ["'a'", "twice"]),
        ("[[1, 2]]", ["one JSON object", "list"]),
        ("5", ["one JSON object", "int"]),
        ("null", ["one JSON object", "NoneType"]),
        ('{"a": 1}', ["'a'", "list of integer codes", "1"]),
        ('{"a": "12"}', ["'a'", "list of integer codes", "'12'"]),
        ('{"a": {"b": 1}}', ["'a'", "list of integer codes"]),
        ("{}", ["no item"]),
        ('{"a": []}', ["levels", "got 0"]),
        ('{"a": [1], "b": [1, 2]}', ["row 1", "2 codes"]),
        ('{"a": [1, 2], "b": [1, "2"]}', ["row 1, level 1", "'2'"]),
        ('{"a": [1, 2], "b": [1, 2.5]}', ["row 1, level 1", "2.5"]),
        ('{"a": [1, 2], "b": [1, null]}', ["row 1, level 1", "None"]),
        ('{"a": [1, 2], "b": [1, NaN]}', ["row 1, level 1", "nan"]),
        ('{"a": [1, 2], "b": [1, 1e999]}', ["row 1, level 1", "inf"]),
        ('{"a": [1, 2], "b": [1, -3]}', ["row 1, level 1", "-3"]),
        ('{"a": [1, 2', ["cannot be read as JSON", "line 1"]),
        ("", ["cannot be read as JSON"]),
        ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", ["items.json cannot be read as JSON"]),
        ('{"a": ' + "[" * 70 + "]" * 70 + "}", ["sids"]),
    ],
)
def test_json_that_does_not_fit(text, words, tmp_path):
    (tmp_path / "items.json").write_text(text, "utf-8")
    message = error(lambda: hr.Catalog.from_json(tmp_path / "items.json"))
    for word in words:
        assert word in message


def test_json_that_cannot_be_read(tmp_path):
    assert "missing.json" in error(lambda: hr.Catalog.from_json(tmp_path / "missing.json"))
    (tmp_path / "latin.json").write_bytes('{"ü": [1]}'.encode("latin-1"))
    assert "latin.json cannot be read as JSON" in error(lambda: hr.Catalog.from_json(tmp_path / "latin.json"))


# Filter, repr


def test_filter_keeps_codebooks_ids_and_attributes():
    kept = EXPECTED.filter(np.array([True, False, True]))
    assert kept.sids.tolist() == [SIDS[0], SIDS[2]]
    assert kept.codebook_sizes == EXPECTED.codebook_sizes
    assert kept.item_ids.to_pylist() == ["c", "b"]
    assert kept.attributes.to_pylist() == [{"name": "x", "year": 1}, {"name": "z", "year": 3}]
    assert hr.Catalog(SIDS).filter(np.array([False, True, True])).item_ids.to_pylist() == [1, 2]
    assert len(EXPECTED.filter([False] * 3)) == 0
    assert same(EXPECTED.filter(np.ones(3, bool)), EXPECTED)


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        ([1, 0, 1], ["bool [3]", "int64"]),
        (np.array([True]), ["bool [3]", "[1]"]),
        (np.ones((3, 1), bool), ["bool [3]", "[3, 1]"]),
        (True, ["bool [3]", "[]"]),
    ],
)
def test_filter_wants_a_boolean_for_every_item(mask, words):
    message = error(lambda: EXPECTED.filter(mask))
    for word in words:
        assert word in message


def test_repr():
    assert repr(EXPECTED) == "Catalog(items=3, levels=3, codebook_sizes=[2, 201, 4], attributes=[name, year])"
    assert repr(hr.Catalog([[1]])) == "Catalog(items=1, levels=1, codebook_sizes=[2], attributes=[])"


def test_errors_can_be_caught_as_value_errors(tmp_path: Path):
    with pytest.raises(ValueError, match="row 1"):
        hr.Catalog([[1, 2], [3]])
    with pytest.raises(hr.HedgerowError):
        hr.Catalog.from_parquet(tmp_path / "missing.parquet")


def test_ids_with_nuls_stay_whole():
    assert hr.Catalog([[1], [2]], item_ids=np.array([b"a\0b", b"a\0c"])).item_ids.to_pylist() == [b"a\0b", b"a\0c"]
    assert hr.Catalog([[1], [2]], item_ids=np.array(["a\0b", "c"])).item_ids.to_pylist() == ["a\0b", "c"]


@pytest.mark.parametrize("ids", [{"a", "b"}, frozenset({"a", "b"}), {"a": 1, "b": 2}])
def test_ids_without_an_order_are_refused(ids):
    with pytest.raises(hr.CatalogError, match="has no order of rows"):
        hr.Catalog([[1], [2]], item_ids=ids)


def test_a_masked_mask_is_refused():
    with pytest.raises(hr.CatalogError, match="masked entries"):
        hr.Catalog([[1], [2]]).filter(np.ma.array([True, False], mask=[True, False]))


def test_attributes_of_one_name_as_text_are_refused():
    with pytest.raises(hr.CatalogError, match="two attributes have the same name"):
        hr.Catalog([[1]], attributes={1: [1], "1": [2]})
