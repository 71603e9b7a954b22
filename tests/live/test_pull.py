"""LiveIndex.pull: a folder is a copy of the current version of a live index elsewhere."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from livesupport import items_of
from remote import new_url, s3_server, upload, write

import hedgerow as hr
from hedgerow._urls import RemotePath, remote_path
from hedgerow.live import pull
from hedgerow.live.manifest import MANIFEST

pytest.importorskip("fsspec")

FIRST = hr.Catalog(
    [[0, 1], [0, 1], [2, 0]], item_ids=["a", "b", "c"], codebook_sizes=4, attributes={"price": [1, 2, 3]}
)
MORE = hr.Catalog([[3, 2]], item_ids=["d"], codebook_sizes=4, attributes={"price": [4]})


@pytest.fixture(scope="module")
def s3():
    with s3_server():
        yield


@pytest.fixture(params=["path", "file", "memory", "s3"])
def url(request, tmp_path):
    if request.param == "s3":
        request.getfixturevalue("s3")
    return new_url(request.param, tmp_path)


@pytest.fixture
def shop(tmp_path):
    return hr.LiveIndex.create(tmp_path / "shop.live", hr.build_index(FIRST))


def send(live: hr.LiveIndex, url: str) -> None:
    upload(live.path, url, MANIFEST)


def same(copy: hr.LiveIndex, live: hr.LiveIndex) -> bool:
    return copy.version.info == live.version.info and items_of(copy.version) == items_of(live.version)


def names_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def watch(monkeypatch, action=lambda _: None) -> list[str]:
    """Record the names of data files that are fetched; `action` is called with the number of each request before it."""
    read, seen = RemotePath.read_ranges, []

    def read_ranges(path: RemotePath, ranges):
        seen.append(path.path.rpartition("/")[2])
        action(len(seen))
        return read(path, ranges)

    monkeypatch.setattr(RemotePath, "read_ranges", read_ranges)
    return seen


def test_follows_every_change(shop, url, tmp_path):
    send(shop, url)
    copy = hr.LiveIndex.pull(url, tmp_path / "copy.live")
    assert same(copy, shop)
    for change in (
        lambda: shop.add(MORE),
        lambda: shop.remove(["a"]),
        lambda: shop.update_attributes({"item_id": ["b"], "price": [9]}),
        lambda: shop.rollback(2),
        lambda: shop.remove(["d"]),
    ):
        change()
        send(shop, url)
        again = hr.LiveIndex.pull(url, tmp_path / "copy.live")
        assert same(again, shop)
        copy.refresh()
        assert same(copy, shop)
        assert copy.verify() == {}
    files = {".lock", "versions", "current.json", "pulled.json"}
    assert set(os.listdir(copy.path)) == files


def test_fetches_only_what_is_missing(shop, tmp_path, monkeypatch):
    seen = watch(monkeypatch)
    folder = tmp_path / "copy.live"
    hr.LiveIndex.pull(shop.path, folder)
    first = {name.partition("-")[0] for name in seen}
    assert first == {"trie", "items"}
    seen.clear()
    hr.LiveIndex.pull(shop.path, folder)
    assert seen == []
    # The trie is that of version 1, whose file has the same name.
    shop.update_attributes({"item_id": ["b"], "price": [9]})
    copy = hr.LiveIndex.pull(shop.path, folder)
    assert [name.partition("-")[0] for name in seen] == ["items"]
    seen.clear()
    shop.remove(["a"])
    assert same(hr.LiveIndex.pull(shop.path, folder), shop)
    assert seen == ["removed.npy"]
    seen.clear()
    shop.rollback(1)
    assert same(hr.LiveIndex.pull(shop.path, folder), shop)
    assert seen == []
    del copy


def test_keeps_some_versions(shop, tmp_path):
    folder = tmp_path / "copy.live"
    for number in range(4):
        shop.update_attributes({"item_id": ["b"], "price": [number]})
        assert hr.LiveIndex.pull(shop.path, folder, keep=2).version.number == number + 2
    assert [info.number for info in hr.LiveIndex.open(folder).versions()] == [4, 5]
    shop.prune(0)
    held = hr.LiveIndex.open(folder).version
    shop.update_attributes({"item_id": ["b"], "price": [7]})
    hr.LiveIndex.pull(shop.path, folder, keep=0)
    # A process uses version 5.
    assert [info.number for info in hr.LiveIndex.open(folder).versions()] == [5, 6]
    assert held.index.num_items == 3


@pytest.mark.parametrize("call", range(1, 8))
def test_interrupted_pull_continues(tmp_path, monkeypatch, call):
    big = hr.Catalog(np.stack(np.unravel_index(np.arange(4096), (16, 16, 16)), 1), codebook_sizes=16)
    live = hr.LiveIndex.create(tmp_path / "big.live", hr.build_index(big))
    folder = tmp_path / "copy.live"
    monkeypatch.setattr(pull, "BLOCK", 4096)
    monkeypatch.setattr(pull, "BLOCKS_AT_ONCE", 2)

    def stop(number):
        if number == call:
            raise ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")

    with monkeypatch.context() as patch:
        watch(patch, stop)
        with pytest.raises(hr.IndexFileError, match="Connection reset"):
            hr.LiveIndex.pull(live.path, folder)
    with pytest.raises(hr.IndexFileError):
        hr.LiveIndex.open(folder)
    seen = watch(monkeypatch)
    done = []
    copy = hr.LiveIndex.pull(live.path, folder, progress=lambda _, now, total: done.append((now, total)))
    assert same(copy, live)
    # What was fetched is not fetched again.
    sizes = sorted(path.stat().st_size for path in (live.path / "versions/1").iterdir() if "-" in path.name)
    assert len(seen) + call - 1 == sum(-(-size // 8192) for size in sizes)
    assert [now for now, _ in done] == sorted(now for now, _ in done)
    assert done[-1][0] == done[-1][1]


def test_another_file_of_an_interrupted_pull_is_not_used(shop, tmp_path):
    folder = tmp_path / "copy.live"
    hr.LiveIndex.pull(shop.path, folder)
    shop.remove(["a"])
    staged = folder / "pulling" / "2"
    staged.mkdir(parents=True)
    (staged / "removed.npy.part").write_bytes(b"other")
    (staged / "left").touch()
    assert same(hr.LiveIndex.pull(shop.path, folder), shop)
    assert names_in(folder / "versions/2") == [".lock", "removed.npy", "version.json"]


@pytest.mark.parametrize("how", ["killed", "failed"])
def test_stopped_pull_leaves_old_or_new_version(how, tmp_path):
    pytest.importorskip("fcntl")
    script = Path(__file__).parents[1] / "stopped_pull.py"
    finished = subprocess.run(
        [sys.executable, str(script), str(tmp_path), how], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
    rounds = json.loads(finished.stdout)
    assert rounds[-1]["code"] == 0
    assert {entry["code"] for entry in rounds[:-1]} <= ({9} if how == "killed" else {1, 2})
    rounds = [entry for entry in rounds if entry["code"] != 2]
    old, new = rounds[0]["state"], rounds[-1]["state"]
    states = [entry["state"] for entry in rounds]
    switch = states.index(new)
    assert 10 < switch < len(rounds)
    assert all(state == old for state in states[:switch])
    assert all(state == new for state in states[switch:])
    for entry in rounds:
        assert entry["end"] == [new, {}, [".lock", "current.json", "pulled.json", "versions"]]


@pytest.mark.parametrize("name", ["trie", "items", "removed.npy", "version.json", "manifest.json", "current.json"])
@pytest.mark.parametrize("how", ["missing", "cut short", "altered"])
def test_damaged_source_changes_nothing(shop, tmp_path, name, how):
    folder = tmp_path / "copy.live"
    copy = hr.LiveIndex.pull(shop.path, folder)
    before = items_of(copy.version)
    shop.add(MORE)
    shop.remove(["a"])
    send(shop, url := new_url("memory", tmp_path))
    root = remote_path(url)
    path = next(path for path in reversed(root.find()) if path.path.rpartition("/")[2].startswith(name))
    content = path.read()
    if how == "missing":
        path.fs.rm_file(path.path)
    elif how == "cut short":
        write(path, content[: len(content) // 2])
    else:
        write(path, bytes([content[0] ^ 1]) + content[1:])
    (folder / "pulled.json").write_text((folder / "pulled.json").read_text().replace(f"file://{shop.path}", str(root)))
    with pytest.raises(hr.IndexFileError) as error:
        hr.LiveIndex.pull(url, folder)
    assert str(path) in str(error.value)
    assert str(folder) not in str(error.value)
    assert items_of(hr.LiveIndex.open(folder).version) == before
    assert copy.refresh().number == 1
    write(path, content)
    assert same(hr.LiveIndex.pull(url, folder), shop)


def test_source_that_changes_while_it_is_pulled(shop, tmp_path, monkeypatch):
    shop.update_attributes({"item_id": ["b"], "price": [0]})

    def change(call):
        if call <= 3:
            shop.update_attributes({"item_id": ["b"], "price": [call]})
            shop.prune(0)

    watch(monkeypatch, change)
    copy = hr.LiveIndex.pull(shop.path, tmp_path / "copy.live")
    assert copy.version.number >= 4
    assert copy.verify() == {}
    assert same(hr.LiveIndex.pull(shop.path, copy.path), shop)
    monkeypatch.setattr(pull, "ATTEMPTS", 2)
    watch(monkeypatch, lambda call: (shop.update_attributes({"item_id": ["b"], "price": [call]}), shop.prune(0)))
    shop.update_attributes({"item_id": ["b"], "price": [99]})
    with pytest.raises(hr.IndexFileError, match="has changed 2 times"):
        hr.LiveIndex.pull(shop.path, copy.path)


def test_damage_of_the_copy_is_repaired(shop, tmp_path):
    folder = tmp_path / "copy.live"
    shop.add(MORE)
    hr.LiveIndex.pull(shop.path, folder)
    trie = next((folder / "versions/2").glob("trie-*"))
    trie.write_bytes(trie.read_bytes()[:-1])
    assert same(hr.LiveIndex.pull(shop.path, folder), shop)
    (folder / "current.json").unlink()
    assert same(hr.LiveIndex.pull(shop.path, folder), shop)
    # An altered byte is found when the version becomes current again.
    trie = next((folder / "versions/2").glob("trie-*"))
    trie.write_bytes(trie.read_bytes()[:-1] + b"\xff")
    shop.rollback(1)
    hr.LiveIndex.pull(shop.path, folder)
    shop.rollback(2)
    copy = hr.LiveIndex.pull(shop.path, folder)
    assert same(copy, shop)
    assert copy.verify() == {}


def test_source_that_was_restored_from_a_copy(shop, tmp_path):
    """Other content has the number of a version that the copy has."""
    folder = tmp_path / "copy.live"
    url = new_url("memory", tmp_path)
    send(shop, url)
    shop.add(MORE)
    shop.remove(["a"])
    send(shop, other := new_url("memory", tmp_path))
    copy = hr.LiveIndex.pull(other, folder)
    held = copy.version
    upload(hr.LiveIndex.pull(url, tmp_path / "restored.live").path, other, MANIFEST)
    copy = hr.LiveIndex.pull(other, folder)
    assert copy.version.number == 1
    assert [info.number for info in copy.versions()] == [1]
    (tmp_path / "restored.live/pulled.json").unlink()
    restored = hr.LiveIndex.open(tmp_path / "restored.live")
    restored.add(hr.Catalog([[1, 1]], item_ids=["z"], codebook_sizes=4, attributes={"price": [4]}))
    send(restored, other)
    assert same(hr.LiveIndex.pull(other, folder), restored)
    assert sorted(items_of(held)) == ["b", "c", "d"]


def test_other_folders_are_refused(shop, tmp_path):
    def refused(source, folder, match: str) -> None:
        before = names_in(folder) if folder.is_dir() else None
        with pytest.raises(hr.IndexFileError, match=match):
            hr.LiveIndex.pull(source, folder)
        assert (names_in(folder) if folder.is_dir() else None) == before

    refused(shop.path, shop.path, "is a live index already")
    other = hr.LiveIndex.create(tmp_path / "other.live", hr.build_index(FIRST))
    refused(shop.path, other.path, "is a live index already")
    hr.LiveIndex.pull(shop.path, tmp_path / "copy.live")
    refused(other.path, tmp_path / "copy.live", r"is a copy of file://.*shop\.live, not of file://.*other\.live")
    (tmp_path / "file").touch()
    refused(shop.path, tmp_path / "file", "is a file")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/a.txt").touch()
    refused(shop.path, tmp_path / "notes", r"'a\.txt'")
    refused(tmp_path / "nothing", tmp_path / "new.live", r"current\.json does not exist")
    hr.build_index(FIRST).save(tmp_path / "saved.hedgerow")
    refused(tmp_path / "saved.hedgerow", tmp_path / "new.live", r"current\.json does not exist")
    assert not (tmp_path / "new.live").exists()
    (tmp_path / "copy.live/pulled.json").write_text("{}")
    refused(shop.path, tmp_path / "copy.live", r"pulled\.json does not name")


def test_copies_are_not_written_to(shop, tmp_path):
    shop.add(MORE)
    copy = hr.LiveIndex.pull(shop.path, tmp_path / "copy.live")
    for write_to in (
        lambda: copy.remove(["a"]),
        lambda: copy.add(hr.Catalog([[1, 1]], item_ids=["z"])),
        lambda: copy.publish(hr.build_index(FIRST)),
        lambda: copy.rollback(1),
    ):
        with pytest.raises(hr.VersionError, match=r"is a copy of file://.*Change that live index"):
            write_to()
    with pytest.raises(hr.IndexFileError, match="is a live index already"):
        hr.LiveIndex.create(copy.path, hr.build_index(FIRST))
    (copy.path / "pulled.json").unlink()
    assert copy.remove(["a"]).num_items == 3


@pytest.mark.parametrize(
    ("source", "error", "match"),
    [
        ("nothing://a/b", hr.ArgumentError, "Protocol not known: nothing"),
        ("memory://nothing", hr.IndexFileError, r"memory:///nothing/current\.json does not exist"),
    ],
)
def test_unknown_sources(source, error, match, tmp_path):
    with pytest.raises(error, match=match):
        hr.LiveIndex.pull(source, tmp_path / "copy.live")
    assert not (tmp_path / "copy.live").exists()


def test_missing_packages(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "gcsfs", None)
    with pytest.raises(hr.MissingDependencyError, match=r"gs://bucket/a needs the package gcsfs.*hedgerow\[remote\]"):
        hr.LiveIndex.pull("gs://bucket/a", tmp_path / "copy.live")


@pytest.mark.usefixtures("s3")
def test_errors_of_object_stores_are_read_errors(tmp_path):
    with pytest.raises(hr.IndexFileError, match=r"s3://elsewhere/items\.live/current\.json"):
        hr.LiveIndex.pull("s3://elsewhere/items.live", tmp_path / "copy.live")


def test_indexes_are_not_loaded_from_urls(shop, tmp_path):
    hr.build_index(FIRST).save(f"file://{tmp_path}/saved.hedgerow")
    assert hr.load_index(f"file://{tmp_path}/saved.hedgerow").num_items == 3
    assert hr.LiveIndex.open(Path(f"file://{shop.path}")).version.number == 1
    for url in ("s3://bucket/items", Path("s3://bucket/items")):
        for use in (hr.load_index, hr.LiveIndex.open, hr.build_index(FIRST).save):
            with pytest.raises(hr.IndexFileError, match=r"s3://bucket/items is not on this machine.*pull"):
                use(url)
