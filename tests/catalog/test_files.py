"""Files: CSV, JSON lines, folders of a dataset, globs, lists of paths and open files."""

import datetime as dt
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from catalog_cases import error

import hedgerow as hr
from hedgerow.catalog import sources

CSV = """item_id,sid,price,day,seen,sold,code,note
a,"2,6",10.0,2024-01-31,2024-01-31T12:00:00,true,007,
b,"0,1",3,2024-02-01,2024-02-01 00:00:00,false,8,x
"""
LINES = '{"item_id": "a", "sid": [2, 6]}\n\n{"item_id": "b", "sid": [0, 1], "meta": {"score": 0.5}}\n'


def folder_of(path: Path, count: int = 3) -> Path:
    """A folder as Spark writes it."""
    path.mkdir(parents=True)
    (path / "_SUCCESS").touch()
    (path / ".part-00000.crc").write_text("checksum")
    for part in range(count):
        rows = pa.table({"item_id": [f"i{part}"], "sid": [[part, 1]], "price": [part]})
        pq.write_table(rows, path / f"part-{part:05}-c000.snappy.parquet")
    return path


def test_csv_columns_get_types_that_lose_nothing(tmp_path):
    (tmp_path / "items.csv").write_text(CSV)
    catalog = hr.Catalog.from_csv(tmp_path / "items.csv")
    assert catalog.sids.tolist() == [[2, 6], [0, 1]]
    assert catalog.attributes.to_pylist() == [
        {
            "price": 10.0,
            "day": dt.date(2024, 1, 31),
            "seen": dt.datetime(2024, 1, 31, 12),
            "sold": True,
            "code": "007",
            "note": None,
        },
        {
            "price": 3.0,
            "day": dt.date(2024, 2, 1),
            "seen": dt.datetime(2024, 2, 1),
            "sold": False,
            "code": "8",
            "note": "x",
        },
    ]
    text = hr.Catalog.from_csv(tmp_path / "items.csv", text=["price"], attributes=["price"])
    assert text.attributes["price"].to_pylist() == ["10.0", "3"]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["1", "-2"], [1, -2]),
        (["1", ""], [1, None]),
        (["1.50", "2e3"], [1.5, 2000.0]),
        (["0.30000000000000004", "1"], [0.30000000000000004, 1.0]),
        (["01", "2"], ["01", "2"]),
        (["01.5", "2"], ["01.5", "2"]),
        (["12345678901234567890", "1"], ["12345678901234567890", "1"]),
        (["+1", "2"], ["+1", "2"]),
        (["1", "x"], ["1", "x"]),
        (["1_0", "2"], ["1_0", "2"]),
        (["2024-02-30", "2024-01-01"], ["2024-02-30", "2024-01-01"]),
        (
            ["2024-01-01T00:00:00Z", "2024-01-02T00:00:00Z"],
            [dt.datetime(2024, 1, day, tzinfo=dt.UTC) for day in (1, 2)],
        ),
        (["NA", "null"], ["NA", "null"]),
        (["True", "False"], [True, False]),
        (["yes", "no"], ["yes", "no"]),
    ],
)
def test_types_of_csv_columns(values, expected):
    rows = "".join(f"{level}-1,{value}\n" for level, value in enumerate(values))
    catalog = hr.Catalog.from_csv(io.BytesIO(f"sid,x\n{rows}".encode()))
    assert catalog.attributes["x"].to_pylist() == expected


def test_tsv_and_ids_of_a_csv(tmp_path):
    (tmp_path / "items.tsv").write_text("asin\tsid\n0012\t<a_2><b_6>\n")
    catalog = hr.Catalog.from_csv(tmp_path / "items.tsv", item_id="asin", codebook_sizes=8)
    assert catalog.item_ids.to_pylist() == ["0012"]
    assert catalog.sids.tolist() == [[2, 6]]


@pytest.mark.parametrize("name", ["items.jsonl", "items.ndjson", "items.json"])
def test_one_json_object_per_line(name, tmp_path):
    (tmp_path / name).write_text(LINES.replace("\n", "\r\n"))
    catalog = hr.Catalog.from_json(tmp_path / name, codebook_sizes=8)
    assert catalog.sids.tolist() == [[2, 6], [0, 1]]
    assert catalog.item_ids.to_pylist() == ["a", "b"]
    assert catalog.attributes.to_pylist() == [{"meta": None}, {"meta": {"score": 0.5}}]


def test_options_for_json_rows(tmp_path):
    (tmp_path / "items.jsonl").write_text('{"id": 7, "token_ids": [1, 10], "x": 1, "y": 2}')
    options: dict[str, Any] = {"sid": "token_ids", "item_id": "id", "attributes": ["y"], "codebook_sizes": 32}
    catalog = hr.Catalog.from_json(tmp_path / "items.jsonl", **options)
    assert catalog.sids.tolist() == [[1, 10]]
    assert (catalog.item_ids.to_pylist(), catalog.attribute_names) == ([7], ("y",))


def test_a_byte_order_mark_is_skipped(tmp_path):
    mark = "\ufeff"
    (tmp_path / "items.csv").write_text(mark + CSV, "utf-8")
    (tmp_path / "items.jsonl").write_text(mark + LINES, "utf-8")
    (tmp_path / "items.json").write_text(mark + '{"a": [2, 6]}', "utf-8")
    assert hr.Catalog.from_csv(tmp_path / "items.csv").item_ids.to_pylist() == ["a", "b"]
    assert hr.Catalog.from_json(tmp_path / "items.jsonl").item_ids.to_pylist() == ["a", "b"]
    assert hr.Catalog.from_json(tmp_path / "items.json").item_ids.to_pylist() == ["a"]


def test_open_and_compressed_files(tmp_path):
    parquet = folder_of(tmp_path / "items") / "part-00001-c000.snappy.parquet"
    with open(parquet, "rb") as file:
        assert hr.Catalog.from_parquet(file).item_ids.to_pylist() == ["i1"]
        assert not file.closed
    assert hr.Catalog.from_parquet(io.BytesIO(parquet.read_bytes())).sids.tolist() == [[1, 1]]
    text: Any = io.StringIO(CSV)
    assert hr.Catalog.from_csv(text).sids.tolist() == [[2, 6], [0, 1]]
    assert hr.Catalog.from_json(io.BytesIO(LINES.encode())).sids.tolist() == [[2, 6], [0, 1]]
    (tmp_path / "items.jsonl.gz").write_bytes(gzip.compress(LINES.encode()))
    assert hr.Catalog.from_json(tmp_path / "items.jsonl.gz").sids.tolist() == [[2, 6], [0, 1]]
    (tmp_path / "items.csv.gz").write_bytes(gzip.compress(CSV.encode()))
    assert hr.Catalog.from_csv(tmp_path / "items.csv.gz").sids.tolist() == [[2, 6], [0, 1]]


def test_folders_globs_and_lists_give_the_rows_of_all_files(tmp_path):
    folder = folder_of(tmp_path / "items.parquet")
    files = sorted(folder.glob("*.parquet"))
    for source in (folder, str(folder), folder / "part-*", str(folder / "*.parquet"), files, list(map(str, files))):
        catalog = hr.Catalog.from_parquet(source, codebook_sizes=8)
        assert catalog.item_ids.to_pylist() == ["i0", "i1", "i2"]
        assert catalog.sids.tolist() == [[0, 1], [1, 1], [2, 1]]
    assert hr.Catalog.from_parquet(files[::-1]).item_ids.to_pylist() == ["i2", "i1", "i0"]
    for number, text in enumerate((CSV, CSV.replace("a,", "c,").replace("b,", "d,").replace("10.0", "x"))):
        (tmp_path / f"{number}.csv").write_text(text)
    both = hr.Catalog.from_csv(tmp_path / "*.csv")
    assert both.item_ids.to_pylist() == ["a", "b", "c", "d"]
    assert both.attributes["price"].to_pylist() == ["10.0", "3", "x", "3"]
    (tmp_path / "0.json").write_text('{"a": [1]}')
    (tmp_path / "1.json").write_text('{"b": [2]}')
    assert hr.Catalog.from_json(tmp_path / "*.json").item_ids.to_pylist() == ["a", "b"]


def test_columns_of_some_files_are_null_in_the_others_and_types_are_widened(tmp_path):
    folder = folder_of(tmp_path / "items", 2)
    rows = pa.table(
        {"item_id": ["new"], "sid": pa.array([[2, 1]], pa.list_(pa.int32())), "price": [0.5], "brand": ["x"]}
    )
    pq.write_table(rows, folder / "part-9.parquet")
    catalog = hr.Catalog.from_parquet(folder)
    assert catalog.sids.tolist() == [[0, 1], [1, 1], [2, 1]]
    assert catalog.attributes.to_pydict() == {"price": [0.0, 1.0, 0.5], "brand": [None, None, "x"]}


def test_categories_of_one_file_fit_the_text_of_another(tmp_path):
    for name, column in {"a": pa.array(["x"]).dictionary_encode(), "b": pa.array(["y"])}.items():
        pq.write_table(pa.table({"item_id": [name], "sid": [[1]], "kind": column}), tmp_path / f"{name}.parquet")
    assert hr.Catalog.from_parquet(tmp_path).attributes["kind"].to_pylist() == ["x", "y"]


def test_names_of_folders_become_columns(tmp_path):
    for year in (2020, 2021):
        for country in ("de", sources.NULL_PARTITION):
            folder = tmp_path / "items" / f"year={year}" / f"country={country}"
            folder.mkdir(parents=True)
            rows = pa.table({"item_id": [f"{year} {country[:2]}"], "sid": [[year % 2, 1]]})
            pq.write_table(rows, folder / "part.parquet")
    root = tmp_path / "items"
    for source in (root, root / "*" / "*" / "*.parquet", root / "year=*", sorted(root.rglob("*.parquet"))):
        catalog = hr.Catalog.from_parquet(source)
        assert catalog.item_ids.to_pylist() == ["2020 __", "2020 de", "2021 __", "2021 de"]
        assert catalog.attributes["year"].to_pylist() == [2020, 2020, 2021, 2021]
        assert catalog.attributes["country"].to_pylist() == [None, "de", None, "de"]
    # The folders above a source are not part of it.
    assert hr.Catalog.from_parquet(root / "year=2020" / "country=de").attribute_names == ()
    assert hr.Catalog.from_parquet(root / "year=2020" / "country=de" / "part.parquet").attribute_names == ()


def test_files_of_another_kind_in_a_folder_are_skipped(tmp_path):
    folder = folder_of(tmp_path / "items")
    (folder / "README.md").write_text("A data set.")
    assert len(hr.Catalog.from_parquet(folder)) == 3


def codes(*rows: list[int]) -> pa.Table:
    return pa.table({"item_id": [f"n{row}" for row in range(len(rows))], "sid": list(rows)})


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (codes([0, 1], [0, -1]), ["part-9.parquet: row 1, level 1: code -1"]),
        (codes([0, 1], [0]), ["part-9.parquet: row 1", "has 1 codes"]),
        (codes([0]), ["row 3 is row 0 of", "part-9.parquet", "has 1 codes"]),
        (pa.table({"item_id": ["i1"], "sid": [[0, 1]]}), ["row 3 is row 0 of", "part-9.parquet", "item id 'i1'"]),
        (pa.table({"item_id": [5], "sid": [[0, 1]]}), ["part-00000", "do not fit each other", "item_id"]),
    ],
)
def test_an_error_names_the_file_and_the_row(rows, words, tmp_path):
    pq.write_table(rows, folder_of(tmp_path / "items") / "part-9.parquet")
    message = error(lambda: hr.Catalog.from_parquet(tmp_path / "items"))
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", "", ["a.csv cannot be read as CSV"]),
        ("a.csv", "item_id,sid\na,2-6\nb\n", ["a.csv", "Row #3", "Expected 2 columns"]),
        ("a.csv", "item_id,codes\na,2-6\n", ["a.csv", "'sid'", "can hold SIDs: codes"]),
        ("a.csv", "item_id,sid\na,2-6\nb,\n", ["a.csv: row 1", "null"]),
        ("a.csv", "item_id,sid\na,2-6\nb,x\n", ["a.csv: row 1", "'x'", '"2-6-4"']),
        ("a.csv", b"item_id,sid\n\xfc,2-6\n", ["a.csv", "not UTF-8", "line 2", "iconv"]),
        ("a.jsonl", '{"sid": [1]}\n{"sid":', ["a.jsonl, line 2", "JSON"]),
        ("a.jsonl", '{"sid": [1]}\n[1]', ["a.jsonl, line 2", "JSON object", "[1]"]),
        ("a.jsonl", "\n", ["a.jsonl contains no rows"]),
        ("a.jsonl", '{"sid": [1]}\n{"sid": ["x"]}', ["a.jsonl: row 1", "'sid'", "'x'"]),
        ("a.jsonl", '{"sid": [1]}\n{"sid": [1, 2]}', ["a.jsonl: row 1", "2 codes"]),
        ("a.jsonl", '{"sid": [1]}\n{}', ["a.jsonl: row 1", "null"]),
        ("a.jsonl", '{"sid": [1], "sid": [2]}', ["a.jsonl, line 1", "'sid' twice"]),
        ("a.json", '{"a": "2-6", "b": "2-"}', ["a.json: item 'b'", "'2-'"]),
        ("a.json", '{"<a_1>": {"x": 1}}', ["a.json: SID '<a_1>'", "item id"]),
    ],
)
def test_errors_of_csv_and_json(name, content, words, tmp_path):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    read = hr.Catalog.from_csv if path.suffix == ".csv" else hr.Catalog.from_json
    message = error(lambda: read(path))
    for word in words:
        assert word in message


def test_sources_that_do_not_exist(tmp_path):
    (tmp_path / "empty").mkdir()
    for source, word in [
        (tmp_path / "empty", "contains no files"),
        (tmp_path / "x*.parquet", "matches no files"),
        (tmp_path / "x.parquet", "does not exist"),
        ([], "list of paths is empty"),
        ([5], "contains 5"),
        (5, "got int"),
    ]:
        assert word in error(lambda source=source: hr.Catalog.from_parquet(source))
    (tmp_path / "a.json").write_text('{"a": [1]}')
    (tmp_path / "b.json").write_text('[{"sid": [1]}]')
    assert "one layout" in error(lambda: hr.Catalog.from_json([tmp_path / "a.json", tmp_path / "b.json"]))
    (tmp_path / "b.json").write_text(json.dumps({"a": [2]}))
    assert "as another file does" in error(lambda: hr.Catalog.from_json(tmp_path / "*.json"))


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (["a.parquet"], "parquet"),
        (["a.csv.gz"], "csv"),
        (["a.tsv", "b.csv"], "csv"),
        (["a.ndjson"], "json"),
        (["items/part-0.csv", "items/_SUCCESS"], "csv"),
        (["items.parquet/part-0"], "parquet"),
        (["items/a.parquet", "items/b.csv"], None),
        (["a.txt"], None),
    ],
)
def test_kind_of_files(names, kind, tmp_path):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    source = sorted({tmp_path / Path(name).parts[0] for name in names})
    if kind is None:
        assert "files of one kind" in error(lambda: sources.kind_of(source))
    else:
        assert sources.kind_of(source) == kind


def test_floats_of_csv_lose_no_digit(tmp_path):
    rows = [
        ("9007199254740993.0", "1e400", "1e-400", "0.30000000000000004", "1.50"),
        ("1.5", "1", "1", "2.5e-7", "nan"),
    ]
    text = "sid,a,b,c,d,e\n" + "".join(f"{number}-0,{','.join(row)}\n" for number, row in enumerate(rows))
    (tmp_path / "items.csv").write_text(text)
    attributes = hr.Catalog.from_csv(tmp_path / "items.csv").attributes
    assert [attributes[name].to_pylist() for name in "abc"] == [[rows[0][n], rows[1][n]] for n in range(3)]
    assert attributes["d"].to_pylist() == [0.30000000000000004, 2.5e-7]
    assert attributes["e"].type == pa.float64()


def test_dates_are_not_named_as_possible_sids():
    table = pa.table({"day": ["2026-01-01", None], "code": ["2026-01-99", "1-2-3"], "codes": ["1-2", "3-4"]})
    with pytest.raises(hr.CatalogError, match=r"Columns that can hold SIDs: code, codes\.$"):
        hr.Catalog.from_arrow(table)
