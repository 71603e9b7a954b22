"""LiveIndex: folders that were restored or replaced while a process served them."""

import os
import shutil

import numpy as np
import pytest
from livesupport import items_of

import hedgerow as hr
from hedgerow.live.manifest import State
from hedgerow.live.store import Store

FIRST = hr.Catalog([[0, 1], [1, 1], [2, 0]], item_ids=["a", "b", "c"], codebook_sizes=6)
ITEMS = {"a": [0, 1], "b": [1, 1], "c": [2, 0]}


def items(**sids):
    return hr.Catalog(list(sids.values()), item_ids=list(sids), codebook_sizes=6)


def restore(backup, path):
    shutil.rmtree(path)
    shutil.copytree(backup, path)


@pytest.fixture
def live(tmp_path):
    """Version 3 has the item m; another version 3, in the folder fork.live, has the item n instead."""
    live = hr.LiveIndex.create(tmp_path / "shop.live", hr.build_index(FIRST))
    live.add(items(l=[3, 3]))
    shutil.copytree(live.path, tmp_path / "fork.live")
    live.add(items(m=[1, 3]))
    hr.LiveIndex.open(tmp_path / "fork.live").add(items(n=[5, 5]))
    return live


@pytest.fixture
def fork(live):
    return live.path.parent / "fork.live"


NEW = ITEMS | {"l": [3, 3], "n": [5, 5]}


def test_refresh_serves_another_version_with_the_same_number(live, fork):
    served = live.version
    on_device = served.to("numpy")
    restore(fork, live.path)
    assert (live.refresh().number, items_of(live.version)) == (3, NEW)
    assert live.version.to("numpy") is not on_device
    assert items_of(served) == ITEMS | {"l": [3, 3], "m": [1, 3]}


def test_removals_are_those_of_the_restored_index(live, fork):
    restore(fork, live.path)
    with pytest.raises(hr.CatalogError, match="'m'"):
        live.remove(["m"])
    assert items_of(live.version) == NEW
    assert live.remove(["n"]).number == 4
    rest = {name: sid for name, sid in NEW.items() if name != "n"}
    assert items_of(live.version) == items_of(hr.LiveIndex.open(live.path).version) == rest


WRITES = {
    "add": lambda live: live.add(items(z=[4, 4])),
    "update": lambda live: live.update(items(z=[4, 4])),
    "publish": lambda live: live.publish(hr.build_index(items(**NEW, z=[4, 4]))),
    "attributes": lambda live: live.update_attributes({"item_id": ["n"], "x": [1]}, new_attributes="add"),
}


@pytest.mark.parametrize("write", WRITES)
def test_writes_start_from_the_restored_index(live, fork, write):
    restore(fork, live.path)
    version = WRITES[write](live)
    assert version.number == 4
    assert items_of(version) == (NEW if write == "attributes" else NEW | {"z": [4, 4]})


def test_a_restored_version_that_removes_other_items(live, tmp_path):
    shutil.copytree(live.path, tmp_path / "other.live")
    live.remove(["a"])
    hr.LiveIndex.open(tmp_path / "other.live").remove(["b"])
    restore(tmp_path / "other.live", live.path)
    assert "b" not in items_of(live.refresh())
    assert "a" in items_of(live.version)


def replace_version(live, fork, number):
    shutil.rmtree(live.path / "versions" / str(number))
    shutil.copytree(fork / "versions" / str(number), live.path / "versions" / str(number))


def test_a_replaced_folder_of_the_current_version(live, fork):
    """The manifest still names the version that the process serves, which is right; the files are another's."""
    served = items_of(live.version)
    replace_version(live, fork, 3)
    assert items_of(live.refresh()) == served
    for write in (lambda: live.remove(["m"]), lambda: live.add(items(z=[4, 4])), lambda: live.update(removed=["m"])):
        with pytest.raises(hr.VersionError, match=r"version 4 was refused.* was replaced: its index is not that of"):
            write()
    with pytest.raises(hr.IndexFileError, match=r"versions/3 was replaced: its index is not that of version 3"):
        hr.LiveIndex.open(live.path)
    assert list(live.verify()) == [3]
    recovered = hr.LiveIndex.open(live.path, recover=True)
    assert (recovered.version.number, items_of(recovered.version)) == (3, NEW)
    assert recovered.verify() == {}
    assert items_of(live.refresh()) == NEW


def test_removed_rows_are_not_applied_to_a_replaced_index(live, fork):
    """Version 4 is the index of version 3 without rows of it."""
    live.remove(["m"])
    replace_version(live, fork, 3)
    for wrong in (lambda: hr.LiveIndex.open(live.path), lambda: live.remove(["a"]), lambda: live.rollback(4)):
        with pytest.raises((hr.IndexFileError, hr.VersionError), match="its index is not that of version 4"):
            wrong()
    assert list(live.verify()) == [4]


def test_a_replaced_entry_is_a_fault(live, fork):
    shutil.copy(fork / "versions" / "3" / "version.json", live.path / "versions" / "3" / "version.json")
    assert "was replaced" in live.verify()[3]


def test_an_entry_that_differs_from_the_manifest(live):
    """Of the same content, but made at another time."""
    store = Store(live.path)
    info = live.version.info
    store.write_entry(type(info)(**{**vars(info), "created": "2020-01-01T00:00:00.000+00:00"}))
    assert "differs from the entry in" in live.verify()[3]
    assert hr.LiveIndex.open(live.path, recover=True).version.info == info
    assert live.verify() == {}


def test_a_manifest_restored_with_its_inode_and_date(live, tmp_path):
    """Copied over the old one, which keeps the inode, with the modification time of the one that was read."""
    manifest = live.path / "current.json"
    dates = manifest.stat()
    manifest.write_bytes((tmp_path / "fork.live" / "current.json").read_bytes())
    replace_version(live, tmp_path / "fork.live", 3)
    os.utime(manifest, ns=(dates.st_atime_ns, dates.st_mtime_ns))
    assert (manifest.stat().st_ino, manifest.stat().st_mtime_ns) == (dates.st_ino, dates.st_mtime_ns)
    assert items_of(live.refresh()) == NEW


def test_a_number_that_a_process_still_uses_is_not_written_again(live):
    """An older manifest was restored alone: the next number is that of the version in use."""
    store, served = Store(live.path), live.version
    store.switch(State(store.entry(2), 3))
    writer = hr.LiveIndex.open(live.path)
    assert writer.remove(["a"]).number == 4
    assert items_of(served) == ITEMS | {"l": [3, 3], "m": [1, 3]}
    assert items_of(live.refresh()) == {"b": [1, 1], "c": [2, 0], "l": [3, 3]}


def test_an_entry_without_the_checksum_of_its_index(live):
    """Of an earlier hedgerow: its index is loaded again, and the next entry has the checksum."""
    store = Store(live.path)
    info = type(live.version.info)(**{**vars(live.version.info), "index_sha256": None})
    store.write_entry(info)
    store.switch(State(info, 4))
    old = live.refresh()
    assert old.info.index_sha256 is None
    new = live.remove(["a"])
    assert new.index is not old.index
    assert new.info.index_sha256 == store.index_sha256(3)
    assert np.array_equal(new.removed_rows, [0])
    assert live.verify() == {}
