"""Types of the columns of CSV files: what `build` and `live` make of them, `--types` and `--as-text`."""

import datetime as dt

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import hedgerow as hr
from hedgerow.cli.main import app

HEADER = "item_id,sid,title,price,released,zip\n"


def run(*words):
    done = CliRunner().invoke(app, list(map(str, words)))
    assert done.exit_code == 0, (done.output, done.exception)
    return done.stdout


def refused(*words):
    done = CliRunner().invoke(app, list(map(str, words)), env={"COLUMNS": "300"})
    assert done.exit_code in (1, 2)
    return done.output + str(done.exception)


def rows(first, count):
    return "".join(
        f"{row},{row % 3}-{row % 5},thing {row},{row + 1}.0,2024-01-0{1 + row % 9},{10000 + row}\n"
        for row in range(first, first + count)
    )


@pytest.fixture
def shop(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "items.csv").write_text(HEADER + rows(0, 30))
    (tmp_path / "more.csv").write_text(HEADER + rows(30, 5))
    return tmp_path


@pytest.mark.usefixtures("shop")
def test_prices_and_dates_have_types_without_options():
    run("build", "items.csv", "-o", "shop.hedgerow")
    index = hr.load_index("shop.hedgerow")
    types = {field.name: field.type for field in index.items_table.schema}
    assert types == {
        "item_id": pa.int64(), "title": pa.string(), "price": pa.float64(), "released": pa.date32(), "zip": pa.int64(),
    }  # fmt: skip
    pytest.importorskip("duckdb")
    assert len(index.where("price < 20")) == 19
    assert len(index.newest("released", days=3, now=dt.date(2024, 1, 9))) == 12


@pytest.mark.usefixtures("shop")
def test_types_and_text():
    options = ["--types", "price=float32, released=timestamp[us]", "--as-text", "item_id,zip"]
    run("build", "items.csv", "-o", "shop.hedgerow", *options)
    index = hr.load_index("shop.hedgerow")
    types = {field.name: field.type for field in index.items_table.schema}
    assert types == {
        "item_id": pa.string(), "title": pa.string(), "price": pa.float32(), "released": pa.timestamp("us"),
        "zip": pa.string(),
    }  # fmt: skip
    assert "7" in index.item_ids.to_pylist()
    # Items that are added have the types of the index, with and without the options.
    run("live", "init", "shop.live", "shop.hedgerow")
    run("live", "add", "shop.live", "more.csv")
    run("live", "update", "shop.live", "more.csv", *options)
    live = hr.LiveIndex.open("shop.live").version
    assert live.num_items == 35
    assert live.index.items_table.schema.equals(index.items_table.schema)


@pytest.mark.usefixtures("shop")
def test_types_of_new_attributes():
    run("build", "items.csv", "-o", "shop.hedgerow", "--attributes", "title")
    run("live", "init", "shop.live", "shop.hedgerow")
    words = ["--new-attributes", "add", "--types", "price=float32", "--as-text", "zip"]
    run("live", "add", "shop.live", "more.csv", *words)
    schema = hr.LiveIndex.open("shop.live").version.index.attributes.schema
    assert (schema.field("price").type, schema.field("zip").type) == (pa.float32(), pa.string())


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--types", "prize=float64"], "--types: there is no column 'prize' that is kept; those are title, price, "),
        (["--types", "price=money"], "expected columns and types of Arrow, as price=float64"),
        (["--types", "price"], "expected columns and types of Arrow, as price=float64"),
        (["--types", "price=binary"], "expected columns and types of Arrow"),
        (["--types", "title=float64"], "row 0 of column 'title': 'thing 0' cannot be converted to double"),
        (["--types", "price=int64"], "--types: column 'price' has values of type double, which int64 does not hold"),
        (["--as-text", "zipp"], "there is no column 'zipp' to keep as text; the columns are"),
        (["--types", "zip=int64", "--as-text", "zip"], "'zip' is in --types, too"),
    ],
)
@pytest.mark.usefixtures("shop")
def test_wrong_types(options, expected):
    assert expected in " ".join(
        refused("build", "items.csv", "-o", "shop.hedgerow", *options).replace("│", " ").split()
    )


@pytest.mark.parametrize("memory", [[], ["--memory", "100MB"]])
@pytest.mark.usefixtures("shop")
def test_files_with_types_of_their_own(memory):
    pq.write_table(pa.table({"sid": [[0], [1]], "price": [1, 2]}), "a.parquet")
    said = refused("build", "a.parquet", "-o", "a.hedgerow", "--as-text", "price", *memory)
    assert "for CSV files, whose columns are text" in said
