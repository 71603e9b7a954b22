"""Indexes and live indexes that were written in format version 1: read, and written again in version 2."""

import datetime as dt
import json
import shutil

import numpy as np
import pytest
from livesupport import items_of
from naive import same_trie
from saved import CATALOG, FORMAT_1, WAYS, file_of, load_error

import hedgerow as hr
from hedgerow.index.manifest import digest_of

ITEMS = {
    "item_id": ["a", "d", "c", "b"],
    "year": [2004, 2003, 2001, None],
    "tags": [["y", "z"], None, ["x"], []],
    "day": [dt.datetime(2020, 1, 4), dt.datetime(2020, 1, 3), dt.datetime(2020, 1, 1), None],
}
SIDS = {"a": [1, 300, 5], "d": [1, 300, 5], "c": [1, 300, 69_999]}


def version_of(folder):
    return json.loads((folder / "manifest.json").read_bytes())["version"]


@pytest.fixture
def path(tmp_path):
    shutil.copytree(FORMAT_1, tmp_path / "x.live")
    return tmp_path / "x.live"


@pytest.fixture
def folder(path):
    return path / "versions" / "1"


@pytest.mark.parametrize(("mmap", "verify"), WAYS)
def test_an_index_is_read(folder, mmap, verify):
    assert version_of(folder) == 1
    loaded = hr.load_index(folder, mmap=mmap, verify=verify)
    assert same_trie(loaded, hr.build_index(CATALOG))
    assert loaded.items_table.to_pydict() == ITEMS
    assert str(loaded.attributes.schema.field("day").type) == "timestamp[s]"
    assert loaded.rows(["c", "a", "z"], missing="ignore").tolist() == [2, 0, -1]


@pytest.mark.parametrize("mmap", [False, True])
def test_an_index_is_saved_as_version_2(folder, mmap):
    (folder / "version.json").unlink()
    loaded = hr.load_index(folder, mmap=mmap)
    loaded.save(folder)
    assert version_of(folder) == 2
    assert {file.suffix for file in folder.iterdir()} == {"", ".arrow", ".json", ".safetensors"}
    again = hr.load_index(folder, mmap=mmap)
    assert again.items_table.equals(loaded.items_table)
    assert again._id_order.tolist() == [0, 3, 2, 1]


@pytest.mark.parametrize("part", ["trie", "items"])
def test_a_damaged_index_is_rejected(folder, part):
    data = bytearray(file_of(folder, part).read_bytes())
    data[-1] ^= 1
    file_of(folder, part).write_bytes(data)
    assert "checksum differs" in load_error(folder, verify="full")


def test_a_version_has_its_own_files(folder):
    manifest = json.loads((folder / "manifest.json").read_bytes()) | {"version": 2}
    (folder / "manifest.json").write_text(json.dumps(manifest | {"sha256": digest_of(manifest)}))
    assert "altered or damaged" in load_error(folder)


def test_a_live_index_is_read_changed_and_pruned(path):
    live = hr.LiveIndex.open(path)
    assert (live.version.number, items_of(live.version)) == (2, SIDS)
    assert live.verify() == {}
    live.remove(["d"])
    more = hr.Catalog(
        [[0, 1, 2]], item_ids=["e"], attributes={"year": [2020], "tags": [["q"]], "day": [dt.datetime(2020, 1, 5)]}
    )
    version = live.add(more)
    assert version_of(path / "versions" / "4") == 2
    assert items_of(version) == {"e": [0, 1, 2], "a": SIDS["a"], "c": SIDS["c"]}
    assert version.index.attributes["day"].to_pylist() == [dt.datetime(2020, 1, 5), ITEMS["day"][0], ITEMS["day"][2]]
    assert hr.LiveIndex.open(path).version.index._id_order.tolist() == [1, 2, 0]
    assert items_of(live.rollback(2)) == SIDS
    live.rollback(4)
    assert live.prune(keep=0) == [1, 2, 3]
    assert live.verify() == {}


def test_a_live_index_without_changes_is_published_again(path):
    live = hr.LiveIndex.open(path)
    assert live.update().num_items == 3
    assert version_of(path / "versions" / "3") == 2
    np.testing.assert_array_equal(live.version.index.rows(["d", "a"]), [1, 0])
