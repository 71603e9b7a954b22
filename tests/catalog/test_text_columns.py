"""Catalog.from_csv(types=): columns of text become values of given types, or an error names the row."""

import datetime as dt
import io
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

import hedgerow as hr


def read(values, type_: Any, name="x", **options):
    rows = "".join(f"{row}-1,{value}\n" for row, value in enumerate(values))
    return hr.Catalog.from_csv(io.BytesIO(f"sid,{name}\n{rows}".encode()), types={name: type_}, **options)


DAY = dt.date(2024, 1, 31)
NOON = dt.datetime(2024, 1, 31, 12)


@pytest.mark.parametrize(
    ("values", "type_", "expected"),
    [
        (["12", "7"], pa.string(), ["12", "7"]),
        (["1.50", "007", ""], pa.large_string(), ["1.50", "007", None]),
        (["True", "FALSE"], pa.string(), ["True", "FALSE"]),
        (["2024-01-31T12:00", "2024-01-31"], pa.string(), ["2024-01-31T12:00", "2024-01-31"]),
        (["12", ""], pa.uint8(), [12, None]),
        (["18446744073709551615", "0"], pa.uint64(), [2**64 - 1, 0]),
        (["5", "-3"], pa.float64(), [5.0, -3.0]),
        (["0.1", "9.50"], pa.float32(), pa.array([0.1, 9.5], pa.float32()).to_pylist()),
        (["0.1", "1e2"], pa.decimal128(30, 20), [Decimal("0.1"), Decimal(100)]),
        (["true", "False"], pa.bool_(), [True, False]),
        (["2024-01-31"], pa.date32(), [DAY]),
        (["2024-01-31"], pa.timestamp("s"), [dt.datetime(2024, 1, 31)]),
        (["2024-01-31T12:00:00", "2024-01-31"], pa.timestamp("ms"), [NOON, dt.datetime(2024, 1, 31)]),
        (["2024-01-31T13:00+01:00"], pa.timestamp("us", "UTC"), [NOON.replace(tzinfo=dt.UTC)]),
        (["", ""], pa.int64(), [None, None]),
        (["1", "2"], pa.null(), [1, 2]),
    ],
)
def test_values_get_the_type(values, type_, expected):
    column = read(values, type_).attributes["x"]
    assert column.to_pylist() == expected
    if column.null_count < len(column) and not pa.types.is_null(type_) and not pa.types.is_large_string(type_):
        assert column.type == type_


@pytest.mark.parametrize(
    ("values", "type_", "expected"),
    [
        (["1", "1099511627776"], pa.int32(), pa.int64()),
        (["0.1", "0.123456789"], pa.float32(), pa.float64()),
        (["5.0", "2"], pa.int64(), pa.float64()),
        (["2024-01-31", "2024-01-31T12:00"], pa.date32(), pa.timestamp("us")),
        (["2024-01-31T12:00:00.5"], pa.timestamp("s"), pa.timestamp("us")),
    ],
)
def test_attributes_get_a_wider_type_of_the_same_kind_and_ids_do_not(values, type_, expected):
    assert read(values, type_).attributes["x"].type == expected
    with pytest.raises(hr.CatalogError, match=rf"row {len(values) - 1 if values[0] != '5.0' else 0} of column 'x'"):
        read(values, type_, item_id="x")


@pytest.mark.parametrize(
    ("values", "type_", "row"),
    [
        (["1", "007", "x"], pa.int64(), 1),
        (["1", "", "x5"], pa.int64(), 2),
        (["1.5", "01.5"], pa.float64(), 1),
        (["1.5", "9007199254740993.0"], pa.float64(), 1),
        (["1.5", "dear"], pa.float32(), 1),
        (["9.99", "9.999"], pa.decimal128(10, 2), 1),
        (["true", "1"], pa.bool_(), 1),
        (["1", "0"], pa.bool_(), 0),
        (["true", "false"], pa.int64(), 0),
        (["2024-01-31", "2024-02-30"], pa.date32(), 1),
        (["2024-01-31", "31.01.2024"], pa.timestamp("us"), 1),
        (["5"], pa.date32(), 0),
        (["2024-01-31"], pa.int64(), 0),
    ],
)
def test_other_values_are_an_error_that_names_the_row(values, type_, row):
    for options in ({}, {"item_id": "x"}):
        with pytest.raises(hr.CatalogError) as caught:
            read(values, type_, **options)
        assert f"row {row} of column 'x': {values[row]!r} cannot be converted to {type_}" in str(caught.value)


def test_text_wins_and_unknown_names_are_ignored():
    assert read(["7"], pa.int64(), text=["x"]).attributes["x"].to_pylist() == ["7"]
    catalog = hr.Catalog.from_csv(io.BytesIO(b"sid,x\n0-1,7\n"), types=pa.schema({"y": pa.int64(), "x": pa.string()}))
    assert catalog.attributes.to_pydict() == {"x": ["7"]}
    for types in (5, {"x": 5}, "x"):
        with pytest.raises(hr.CatalogError, match="types must map names of columns to Arrow types"):
            hr.Catalog.from_csv(io.BytesIO(b"sid,x\n0-1,7\n"), types=types)  # pyright: ignore[reportArgumentType]


def test_errors_name_the_file_and_its_row(tmp_path):
    (tmp_path / "a.csv").write_text("item_id,sid\n1,0-1\n2,0-2\n")
    (tmp_path / "b.tsv").write_text("item_id\tsid\n3\t0-3\n04\t0-4\n")
    paths = [tmp_path / "a.csv", tmp_path / "b.tsv"]
    with pytest.raises(hr.CatalogError, match=r"row 3 is row 1 of .*b.tsv: row 3 of column 'item_id': '04'"):
        hr.Catalog.from_csv(paths, types={"item_id": pa.int64()})
    assert hr.Catalog.from_csv(paths, types={"item_id": pa.string()}).item_ids.to_pylist() == ["1", "2", "3", "04"]
    (tmp_path / "b.tsv").write_text("item_id\tsid\nx\t0-3\n")
    with pytest.raises(hr.CatalogError, match=r"^\S*b.tsv: row 0 of column 'item_id': 'x'"):
        hr.Catalog.from_csv(paths[1], types={"item_id": pa.int64()})


@pytest.mark.parametrize("mark", [";", "\t"])
def test_semicolons_and_tabs_of_a_header_without_commas(mark, tmp_path):
    lines = ["item_id;sid;title", 'a;0-1;"one; two"', "b;0-2;three, four"]
    (tmp_path / "a.csv").write_text("\n".join(lines).replace(";", mark).replace(f"one{mark}", "one;"))
    catalog = hr.Catalog.from_csv(tmp_path / "a.csv")
    assert catalog.item_ids.to_pylist() == ["a", "b"]
    assert catalog.attributes["title"].to_pylist() == ["one; two", "three, four"]


def test_a_header_with_commas_has_commas(tmp_path):
    (tmp_path / "a.csv").write_text("item_id,sid,a;b\nx,0-1,1;2\n")
    assert hr.Catalog.from_csv(tmp_path / "a.csv").attributes["a;b"].to_pylist() == ["1;2"]


def test_another_encoding(tmp_path):
    (tmp_path / "a.csv").write_bytes("item_id,sid,title\na,0-1,x\nb,0-2,café\n".encode("latin-1"))
    with pytest.raises(
        hr.CatalogError, match=r"a\.csv cannot be read as CSV: it is not UTF-8: line 3 has the byte 0xe9"
    ):
        hr.Catalog.from_csv(tmp_path / "a.csv")
