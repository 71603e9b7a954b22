"""`hedgerow diff` and `hedgerow live`."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from livesupport import items_of
from typer.testing import CliRunner

import hedgerow as hr
from hedgerow.cli.main import app

runner = CliRunner()


def run(*words):
    done = runner.invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture
def folder(tmp_path):
    sids = [[0, 1], [2, 3], [2, 4]]
    hr.build_index(hr.Catalog(sids, item_ids=[7, 8, 9], codebook_sizes=6)).save(tmp_path / "items.hedgerow")
    table = pa.table({"item_id": [10, 8], "sid": [[5, 5], [1, 1]]})
    pq.write_table(table, tmp_path / "more.parquet")
    pq.write_table(table.slice(0, 1), tmp_path / "new.parquet")
    return tmp_path


def test_commands_of_a_live_index(folder):
    path = folder / "items.live"
    assert "serves Version(1" in run("live", "init", path, folder / "items.hedgerow")
    run("live", "add", path, folder / "new.parquet")
    run("live", "update", path, folder / "more.parquet")
    assert "removed=2" in run("live", "remove", path, 7, 9)
    assert items_of(hr.LiveIndex.open(path).version) == {8: [1, 1], 10: [5, 5]}
    assert "current" in run("live", "status", path)
    run("live", "rollback", path, "--to", 2)
    status = json.loads(run("live", "status", path, "--json"))
    assert status["current"] == 2
    assert [info["items"] for info in status["versions"]] == [3, 4, 4, 2]
    assert "removed: 1, 3" in run("live", "prune", path, "--keep", 0) + run("live", "prune", path, "--keep", 0)
    found = runner.invoke(app, ["live", "add", str(path), str(folder / "new.parquet")])
    assert isinstance(found.exception, hr.CatalogError)


def refused(*words):
    return str(runner.invoke(app, [str(word) for word in words]).exception)


def test_pull_and_follow(folder, monkeypatch):
    path, copy = folder / "items.live", folder / "copy.live"
    run("live", "init", path, folder / "items.hedgerow")
    assert "version 1, 3 items" in run("live", "pull", path, copy)
    manifest = (path / "current.json").read_bytes()
    waits = []

    def sleep(seconds: float) -> None:
        """The source changes, is damaged, and is repaired."""
        waits.append(seconds)
        if len(waits) == 1:
            run("live", "remove", path, 7)
        elif len(waits) == 3:
            (path / "current.json").write_bytes(manifest[:50])
        elif len(waits) == 4:
            (path / "current.json").write_bytes(manifest)
        elif len(waits) == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr("hedgerow.cli.live.time.sleep", sleep)
    done = runner.invoke(app, ["live", "pull", str(path), str(copy), "--follow", "--interval", "2"])
    assert waits == [2.0] * 5
    assert [line.partition(": ")[2] for line in done.stdout.splitlines() if "copy.live" in line] == [
        "version 1, 3 items",
        "version 2, 2 items",
        "version 1, 3 items",
    ]
    assert done.stderr.count("warning") == 1
    assert "items.live/current.json" in done.stderr
    assert hr.LiveIndex.open(copy).version.number == 1
    assert isinstance(runner.invoke(app, ["live", "remove", str(copy), "7"]).exception, hr.VersionError)


def test_a_live_index_instead_of_a_saved_one(folder):
    path = folder / "items.live"
    run("live", "init", path, folder / "items.hedgerow")
    for words in (("live", "init", folder / "other.live", path), ("live", "publish", path, path)):
        said = refused(*words)
        assert "is a live index, a folder of versions, and not a saved index" in said
        assert f"The index of version 1, which is served, is {path}/versions/1. See" in said
        assert "hedgerow live status" in said
    run("live", "remove", path, 7)
    assert f"{path}/versions/1, with the items that were removed since. See" in refused("live", "publish", path, path)
    assert "hedgerow live status" in refused("live", "init", path, folder / "items.hedgerow")
    assert "--allow empty" in refused("live", "remove", path, 8, 9)
    assert "hedgerow live init" in refused("live", "status", folder)
    assert "nope.live does not exist. Create one" in refused("live", "status", folder / "nope.live")


def test_the_column_of_ids(folder):
    """It can be the one column that is neither the SID nor an attribute; otherwise it must be named."""
    path = folder / "items.live"
    run("live", "init", path, folder / "items.hedgerow")
    pq.write_table(pa.table({"sku": [10], "sid": [[5, 5]]}), folder / "sku.parquet")
    run("live", "add", path, folder / "sku.parquet")
    assert items_of(hr.LiveIndex.open(path).version)[10] == [5, 5]
    pq.write_table(pa.table({"sku": [11], "year": [3], "sid": [[5, 4]]}), folder / "year.parquet")
    assert "name the column of item ids with --item-id NAME. Its columns are sku, year, sid." in refused(
        "live", "add", path, folder / "year.parquet"
    )


def test_ragged_items_are_added_and_replaced(folder):
    first = {"rope": [4], "rope bag": [4, 1], "lamp": [0, 2, 5]}
    catalog = hr.Catalog(list(first.values()), codebook_sizes=6, item_ids=list(first), ragged=True)
    hr.build_index(catalog).save(folder / "ragged.hedgerow")
    run("live", "init", folder / "ragged.live", folder / "ragged.hedgerow")
    more = {"kite": [3], "red kite": [3, 1], "big red kite": [3, 1, 2]}
    pq.write_table(pa.table({"item_id": list(more), "sid": list(more.values())}), folder / "kites.parquet")
    run("live", "add", folder / "ragged.live", folder / "kites.parquet")
    pq.write_table(pa.table({"item_id": ["kite", "rope"], "sid": [[5, 1], [4, 4]]}), folder / "two.parquet")
    run("live", "update", folder / "ragged.live", folder / "two.parquet")
    index = hr.LiveIndex.open(folder / "ragged.live").version.index
    expected = first | more | {"kite": [5, 1], "rope": [4, 4]}
    sids = index.sids_of(list(expected)).tolist()
    assert [[code for code in sid if code >= 0] for sid in sids] == list(expected.values())
    assert index.codebook_sizes == (6, 7, 7)


def test_items_from_csv_and_json_lines(folder):
    path = folder / "items.live"
    run("live", "init", path, folder / "items.hedgerow")
    (folder / "new.csv").write_text("item_id,sid,note\n10,5-5,x\n")
    run("live", "add", path, folder / "new.csv", "--attributes", "")
    (folder / "more.jsonl").write_text('{"sku": 10, "sid": ["<a_1>", "<b_2>"]}\n{"sku": 11, "sid": ["<a_0>", "<b_3>"]}')
    run("live", "update", path, folder / "more.jsonl")
    assert items_of(hr.LiveIndex.open(path).version) == {7: [0, 1], 8: [2, 3], 9: [2, 4], 10: [1, 2], 11: [0, 3]}


def attributes_of(path):
    index = hr.LiveIndex.open(path).version.index
    return {"item_id": index.item_ids.to_pylist()} | index.attributes.to_pydict()


def test_attributes_come_change_and_go(folder):
    path = folder / "items.live"
    run("live", "init", path, folder / "items.hedgerow")
    (folder / "prices.csv").write_text("sku,price,note\n9,2.5,x\n7,4.0,y\n")
    words = ("live", "update-attributes", path, folder / "prices.csv")
    assert "name the column of item ids with --item-id NAME" in refused(*words)
    assert "no attribute 'price'" in refused(*words, "--item-id", "sku")
    run(*words, "--item-id", "sku", "--attributes", "price", "--new-attributes", "add")
    assert attributes_of(path) == {"item_id": [7, 8, 9], "price": [4.0, None, 2.5]}
    (folder / "more.jsonl").write_text('{"item_id": 8, "price": 1}\n{"item_id": 9, "price": 3}')
    assert "serves Version(3" in run("live", "update-attributes", path, folder / "more.jsonl")
    assert attributes_of(path) == {"item_id": [7, 8, 9], "price": [4.0, 1.0, 3.0]}
    assert "no attribute column 'size'" in refused(*words, "--item-id", "sku", "--attributes", "size")
    assert "--missing-attributes null" in refused("live", "add", path, folder / "new.parquet")
    run("live", "add", path, folder / "new.parquet", "--missing-attributes", "null")
    rows = pa.table({"item_id": [7], "sid": [[0, 1]], "price": [5.0], "sale": [True]})
    pq.write_table(rows, folder / "sale.parquet")
    assert "--new-attributes add" in refused("live", "update", path, folder / "sale.parquet")
    run("live", "update", path, folder / "sale.parquet", "--new-attributes", "drop")
    assert attributes_of(path) == {"item_id": [7, 8, 9, 10], "price": [5.0, 1.0, 3.0, None]}
    run("live", "update", path, folder / "sale.parquet", "--new-attributes", "add")
    assert attributes_of(path)["sale"] == [True, None, None, None]
    run("live", "update-attributes", path, "--drop", "sale", "--drop", "price")
    assert list(attributes_of(path)) == ["item_id"]
    assert "nothing to change" in refused("live", "update-attributes", path)
    (folder / "map.json").write_text('{"7": [1, 2]}')
    assert "map.json: expected rows with named columns" in refused(
        "live", "update-attributes", path, folder / "map.json"
    )


def test_update_attributes_says_what_changed(folder):
    path, prices = folder / "items.live", folder / "prices.csv"
    run("live", "init", path, folder / "items.hedgerow")
    prices.write_text("item_id,price,tags\n9,2.5,x\n7,,\n")
    words = ("live", "update-attributes", path, prices)
    assert "items: 1 changed, 1 unchanged; values changed: price 1, tags 1" in run(*words, "--new-attributes", "add")
    prices.write_text("item_id,price,tags\n9,2.5,y\n7,3.0,\n8,,\n77,1,z\n")
    assert "the first is 77. It is in row 3." in refused(*words)
    assert "--unknown skip" in refused(*words)
    printed = run(*words, "--unknown", "skip")
    assert "items: 2 changed, 1 unchanged, 1 unknown id skipped; values changed: price 1, tags 1" in printed
    assert attributes_of(path) == {"item_id": [7, 8, 9], "price": [3.0, None, 2.5], "tags": [None, None, "y"]}
    run("live", "remove", path, 8)
    facts = json.loads(run(*words, "--unknown", "skip", "--attributes", "price", "--json"))
    assert facts == {
        "version": 5,
        "items": 2,
        "changed": 0,
        "unchanged": 2,
        "unknown": 2,
        "values": {"price": 0},
        "dropped": [],
    }
    facts = json.loads(run("live", "update-attributes", path, "--drop", "tags", "--json"))
    assert (facts["changed"], facts["dropped"], facts["values"]) == (0, ["tags"], {})
    prices.write_text("item_id,price\n77,1\n")
    assert "no item has one of the 1 ids of the column 'item_id', the first is 77" in refused(
        *words, "--unknown", "skip"
    )


def test_times_are_not_cut_in_a_narrow_terminal(folder):
    run("live", "init", folder / "items.live", folder / "items.hedgerow")
    created = hr.LiveIndex.open(folder / "items.live").version.info.created
    assert created[:19].replace("T", " ") in run("live", "status", folder / "items.live")


def test_diff(folder):
    index = hr.load_index(folder / "items.hedgerow")
    hr.merge(index, hr.Catalog.from_parquet(folder / "more.parquet"), [7]).save(folder / "other.hedgerow")
    words = ("diff", folder / "items.hedgerow", folder / "other.hedgerow")
    found = json.loads(run(*words, "--json"))
    assert found["counts"] == {
        "added": 1,
        "removed": 1,
        "moved": 1,
        "changed": 0,
        "sids_added": 2,
        "sids_removed": 2,
    }
    assert found["examples"]["sids_added"] == [[1, 1], [5, 5]]
    shown = run(*words)
    assert "items added" in shown
    assert "sparse → unary" in shown or "dense" in shown


def test_live_verify_names_the_damaged_versions(folder):
    run("live", "init", folder / "x.live", folder / "items.hedgerow")
    run("live", "add", folder / "x.live", folder / "new.parquet")
    assert "valid: all versions" in run("live", "verify", folder / "x.live")
    assert json.loads(run("live", "verify", folder / "x.live", "--json")) == {"valid": True, "damaged": {}}
    trie = next((folder / "x.live" / "versions" / "2").glob("trie-*"))
    trie.write_bytes(trie.read_bytes()[:-1])
    done = runner.invoke(app, ["live", "verify", str(folder / "x.live")])
    assert isinstance(done.exception, hr.IndexFileError)
    assert "has damaged versions: 2." in str(done.exception)
    assert "version 2: " in done.output
    done = runner.invoke(app, ["live", "verify", str(folder / "x.live"), "--json"])
    assert list(json.loads(done.stdout)["damaged"]) == ["2"]


def test_publish_names_what_it_replaces(folder):
    path, plain = folder / "items.live", folder / "items.hedgerow"
    hr.concat([hr.load_index(plain)], layout="compact").save(folder / "compact.hedgerow")
    run("live", "init", path, folder / "compact.hedgerow")
    run("live", "add", path, folder / "new.parquet")
    said = " ".join(run("live", "publish", path, plain).split())
    assert "3 items in place of the 4 of version 2" in said
    assert "the layout was compact and is now plain: build it with --compact" in said
    assert "the layout was" not in run("live", "publish", path, plain)
