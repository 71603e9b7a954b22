"""`hedgerow live` reads CSV files with the types of the live index, whatever values a file happens to have."""

import datetime as dt

import pyarrow as pa
import pytest
from typer.testing import CliRunner

import hedgerow as hr
from hedgerow.cli.main import app

runner = CliRunner()
NOON = dt.datetime(2024, 1, 31, 12)
COLUMNS = {
    "code": pa.array(["007", "x"]),
    "price": pa.array([0.5, 1.5], pa.float32()),
    "sale": pa.array([True, False]),
    "day": pa.array([NOON.date()] * 2),
    "seen": pa.array([NOON] * 2, pa.timestamp("s")),
    "stock": pa.array([1, 2], pa.int32()),
}
ROW = {"code": "1.50", "price": "2", "sale": "true", "day": "2024-02-01", "seen": "2024-02-01", "stock": "3"}
VALUES = ["1.50", 2.0, True, dt.date(2024, 2, 1), dt.datetime(2024, 2, 1), 3]
IDS = {
    "text": (["x1", "007"], "13"),
    "dates as text": (["x1", "2024-01-31"], "2024-01-31T12:00"),
    "truth": (["x1", "yes"], "True"),
    "decimals": (["x1", "2"], "2.50"),
}


def run(*words):
    done = runner.invoke(app, ["live", *map(str, words)])
    assert done.exit_code == 0, done.output


def refused(*words):
    done = runner.invoke(app, ["live", *map(str, words)])
    assert isinstance(done.exception, hr.CatalogError), done.output
    return str(done.exception)


def create(path, ids=("x1", "007"), attributes=COLUMNS):
    catalog = hr.Catalog([[0, 1], [2, 3]], codebook_sizes=6, item_ids=pa.array(ids), attributes=attributes)
    hr.LiveIndex.create(path / "a.live", hr.build_index(catalog))
    return path / "a.live"


def item(path, item_id):
    """The SID and the attributes of an item."""
    index = hr.LiveIndex.open(path).version.index
    assert index.attributes.schema.types == [COLUMNS[name].type for name in index.attributes.column_names]
    row = index.item_ids.to_pylist().index(item_id)
    return index.sids_of([item_id]).tolist()[0], list(index.attributes.slice(row, 1).to_pylist()[0].values())


def write(path, rows, delimiter=","):
    path.write_text("".join(delimiter.join(row) + "\n" for row in [list(rows[0]), *(row.values() for row in rows)]))
    return path


@pytest.mark.parametrize("kind", IDS)
@pytest.mark.parametrize(("name", "delimiter"), [("b.csv", ","), ("b.tsv", "\t")])
def test_ids_and_attributes_keep_the_types_of_the_index(kind, name, delimiter, tmp_path):
    ids, new = IDS[kind]
    path = create(tmp_path, ids)
    run("add", path, write(tmp_path / name, [{"item_id": new, "sid": "1-2"} | ROW], delimiter))
    assert item(path, new) == ([1, 2], VALUES)
    run("update", path, write(tmp_path / name, [{"sku": new, "sid": "3-3"} | ROW | {"code": "12"}], delimiter))
    assert item(path, new) == ([3, 3], ["12", *VALUES[1:]])
    changes = [{"item_id": new, "code": "True", "stock": "8"}]
    run("update-attributes", path, write(tmp_path / name, changes, delimiter))
    assert item(path, new) == ([3, 3], ["True", *VALUES[1:-1], 8])
    changes = [{"sku": new, "code": "2024-01-31T12:00", "stock": "many"}]
    run("update-attributes", path, write(tmp_path / name, changes, delimiter), "--attributes", "code")
    assert item(path, new) == ([3, 3], ["2024-01-31T12:00", *VALUES[1:-1], 8])


def test_a_column_that_is_not_kept_may_have_any_values(tmp_path):
    path = create(tmp_path, attributes={"code": ["a", "b"]})
    file = write(tmp_path / "b.csv", [{"item_id": "13", "sid": "1-2", "code": "1.0", "note": "5"}])
    run("add", path, file, "--attributes", "code")
    assert item(path, "13") == ([1, 2], ["1.0"])
    path = create(tmp_path / "two", attributes={"stock": [1, 2]})
    file = write(tmp_path / "b.csv", [{"item_id": "13", "sid": "1-2", "stock": "many"}])
    assert "b.csv: row 0 of column 'stock': 'many' cannot be converted to int64" in refused("add", path, file)
    run("add", path, file, "--attributes", "", "--missing-attributes", "null")
    assert hr.LiveIndex.open(path).version.index.attributes["stock"].to_pylist() == [1, None, 2]
    # A dropped column takes the type of the file.
    file = write(tmp_path / "b.csv", [{"item_id": "13", "stock": "many"}])
    run("update-attributes", path, file, "--drop", "stock", "--new-attributes", "add")
    assert hr.LiveIndex.open(path).version.index.attributes["stock"].to_pylist() == [None, "many", None]


@pytest.mark.parametrize("bad", ["007", "x5", "5.0", "true", "2024-01-31"])
def test_an_id_that_is_no_number_names_its_row(bad, tmp_path):
    path = create(tmp_path, [7, 8], {"stock": [1, 2]})
    rows = [{"item_id": name, "sid": "1-2", "stock": "3"} for name in ("9", bad)]
    for command in ("add", "update", "update-attributes"):
        if command == "update-attributes":
            rows = [{"item_id": name, "stock": "3"} for name in ("8", bad)]
        message = refused(command, path, write(tmp_path / "b.csv", rows))
        assert f"b.csv: row 1 of column 'item_id': {bad!r} cannot be converted to int64" in message
    assert hr.LiveIndex.open(path).version.number == 1


def test_whole_floats_and_wider_numbers_of_an_attribute(tmp_path):
    path = create(tmp_path, [7, 8], {"stock": pa.array([1, 2], pa.int32())})
    write(tmp_path / "b.csv", [{"item_id": "7", "stock": "5.0"}, {"item_id": "8", "stock": ""}])
    run("update-attributes", path, tmp_path / "b.csv")
    assert hr.LiveIndex.open(path).version.index.attributes["stock"].to_pylist() == [5, None]
    write(tmp_path / "b.csv", [{"item_id": "7", "stock": "1"}, {"item_id": "8", "stock": "2.5"}])
    assert "row 1: Float value 2.5" in refused("update-attributes", path, tmp_path / "b.csv")
    write(tmp_path / "b.csv", [{"item_id": "8", "stock": str(2**40)}])
    run("update-attributes", path, tmp_path / "b.csv")
    assert hr.LiveIndex.open(path).version.index.attributes["stock"].to_pylist() == [5, 2**40]


def test_an_index_without_items_keeps_text_as_text(tmp_path):
    path = create(tmp_path, attributes={"code": ["a", "b"]})
    run("remove", path, "x1", "007", "--allow", "empty")
    run("update-attributes", path, "--drop", "code")
    run("add", path, write(tmp_path / "b.csv", [{"item_id": "13", "sid": "1-2", "stock": "3"}]))
    index = hr.LiveIndex.open(path).version.index
    assert (index.item_ids.to_pylist(), index.attributes["stock"].to_pylist()) == (["13"], [3])


def test_json_lines_have_types_of_their_own(tmp_path):
    path = create(tmp_path, attributes={})
    (tmp_path / "b.jsonl").write_text('{"item_id": 13, "sid": [1, 2]}\n')
    assert "the item ids of the index are string, but those of the items to add are int64" in refused(
        "add", path, tmp_path / "b.jsonl"
    )


def test_the_same_in_python(tmp_path):
    live = hr.LiveIndex.open(create(tmp_path, attributes={"code": ["a", "b"]}))
    file = write(tmp_path / "b.csv", [{"item_id": "13", "sid": "1-2", "code": "1.50"}])
    with pytest.raises(hr.CatalogError, match=r"types=index\.items_table\.schema"):
        live.add(hr.Catalog.from_csv(file))
    version = live.add(hr.Catalog.from_csv(file, types=live.version.index.items_table.schema))
    assert version.index.items_table.to_pylist()[1] == {"item_id": "13", "code": "1.50"}
