"""Catalogs from Arrow tables, data frames, Parquet files, JSON files and mappings."""

import json
import sys
from collections.abc import Callable
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from catalog_cases import EXPECTED, ORDER, SIDS, error, same, table_of

import hedgerow as hr


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
def test_from_arrow_accepts_every_kind_of_frame(frame):
    assert same(hr.Catalog.from_arrow(frame, item_id="id"), EXPECTED)


def test_from_arrow_options():
    catalog = hr.Catalog.from_arrow(table_of(), codebook_sizes=[4, 256, 4], attributes=["year"])
    assert catalog.codebook_sizes == (4, 256, 4)
    assert catalog.item_ids.to_pylist() == [0, 1, 2]
    assert catalog.attributes.column_names == ["year"]
    only_sids = hr.Catalog.from_arrow(table_of().select(["sid"]))
    assert hr.build_index(only_sids).items_table.to_pydict() == {"item_id": ORDER}


@pytest.mark.parametrize("types", [[pa.int64(), pa.uint64(), pa.int8()], [pa.uint64()] * 3, [pa.uint8()] * 3])
def test_one_column_per_level(types):
    columns = {f"sid_{level}": pa.array([row[level] for row in SIDS], type_) for level, type_ in enumerate(types)}
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
def test_rejects_invalid_tables(make, words):
    message = error(make)
    for word in words:
        assert word in message


@pytest.mark.parametrize("sids", [SIDS, pa.array(SIDS, pa.list_(pa.int16(), 3))])
def test_parquet(sids, tmp_path):
    pq.write_table(table_of(sids), tmp_path / "items.parquet", row_group_size=2)
    for path in (tmp_path / "items.parquet", str(tmp_path / "items.parquet")):
        assert same(hr.Catalog.from_parquet(path, item_id="id"), EXPECTED)


def test_parquet_with_one_column_per_level(tmp_path):
    table = pa.table({f"level_{level}": [row[level] for row in SIDS] for level in range(3)})
    pq.write_table(table, tmp_path / "items.parquet")
    catalog = hr.Catalog.from_parquet(tmp_path / "items.parquet", sid=table.column_names, codebook_sizes=256)
    assert catalog.sids.tolist() == SIDS
    assert catalog.codebook_sizes == (256,) * 3


def test_rejects_unreadable_parquet(tmp_path):
    assert "missing.parquet" in error(lambda: hr.Catalog.from_parquet(tmp_path / "missing.parquet"))
    for content in (b"", b"PAR1", b"{}" * 100, b"PAR1" + b"\0" * 20 + b"PAR1"):
        (tmp_path / "items.parquet").write_bytes(content)
        message = error(lambda: hr.Catalog.from_parquet(tmp_path / "items.parquet"))
        assert "items.parquet cannot be read as Parquet" in message


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
def test_rejects_invalid_json(text, words, tmp_path):
    (tmp_path / "items.json").write_text(text, "utf-8")
    message = error(lambda: hr.Catalog.from_json(tmp_path / "items.json"))
    for word in words:
        assert word in message


def test_rejects_unreadable_json(tmp_path):
    assert "missing.json" in error(lambda: hr.Catalog.from_json(tmp_path / "missing.json"))
    (tmp_path / "latin.json").write_bytes('{"ü": [1]}'.encode("latin-1"))
    assert "latin.json cannot be read as JSON" in error(lambda: hr.Catalog.from_json(tmp_path / "latin.json"))


class TestDuckdb:
    ITEMS = "CREATE TABLE items AS SELECT * FROM (VALUES ('a', [3, 1], 9.5), ('b', [0, 2], 4.0)) t(item_id, sid, price)"

    def test_queries_and_relations(self):
        duckdb = pytest.importorskip("duckdb")
        with duckdb.connect() as connection:
            connection.sql(self.ITEMS)
            whole = hr.Catalog.from_duckdb("FROM items ORDER BY item_id", connection=connection)
            some = hr.Catalog.from_duckdb(
                connection.sql("SELECT sid AS codes, price::DOUBLE AS p FROM items"), sid="codes"
            )
            with pytest.raises(hr.CatalogError, match="Omit connection"):
                hr.Catalog.from_duckdb(connection.sql("FROM items"), connection=connection)
            for query, expected in (
                ("FROM nothing", "DuckDB: .*nothing"),
                ("", "no result"),
                ("SELECT price FROM items", "sid"),
                (7, "expected SQL or a relation of DuckDB; got int"),
            ):
                with pytest.raises(hr.CatalogError, match=expected):
                    hr.Catalog.from_duckdb(query, connection=connection)
        assert whole.item_ids.to_pylist() == ["a", "b"]
        assert whole.sids.tolist() == [[3, 1], [0, 2]]
        assert some.attributes.schema.field("p").type == "double"
        assert hr.Catalog.from_duckdb("SELECT [1, 2] AS sid").sids.tolist() == [[1, 2]]

    def test_without_duckdb(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "duckdb", None)
        with pytest.raises(hr.MissingDependencyError, match=r"Catalog\.from_duckdb needs"):
            hr.Catalog.from_duckdb("SELECT 1")
