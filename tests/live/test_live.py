"""LiveIndex: changes, refusals, readers and writers, and the lifetime of files."""

import os
import subprocess
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest
from livesupport import items_of
from naive import same_trie

import hedgerow as hr
from hedgerow.live.store import Store

FIRST = hr.Catalog([[0, 1], [0, 1], [2, 0]], item_ids=["a", "b", "c"], codebook_sizes=4)
ITEMS = {"a": [0, 1], "b": [0, 1], "c": [2, 0]}


def catalog(**items):
    return hr.Catalog(list(items.values()), item_ids=list(items), codebook_sizes=4)


def uniform(beams):
    return np.zeros((*beams.states.shape, 4))


def files(path):
    return sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file())


@pytest.fixture
def path(tmp_path):
    return tmp_path / "shop.live"


@pytest.fixture
def live(path):
    return hr.LiveIndex.create(path, hr.build_index(FIRST))


@pytest.mark.usefixtures("layout")
def test_add_update_and_remove(live, path):
    assert (live.version.number, items_of(live.version)) == (1, ITEMS)
    assert items_of(live.add(catalog(d=[3, 3]))) == ITEMS | {"d": [3, 3]}
    assert items_of(live.update(catalog(a=[3, 0]), removed=["b"])) == {"a": [3, 0], "c": [2, 0], "d": [3, 3]}
    assert items_of(live.remove(["d"])) == {"a": [3, 0], "c": [2, 0]}
    assert items_of(live.add(catalog(d=[1, 1]))) == {"a": [3, 0], "c": [2, 0], "d": [1, 1]}
    assert [info.items for info in live.versions()] == [3, 4, 3, 2, 3]
    assert [info.parent for info in live.versions()] == [None, 1, 2, 3, 4]
    reopened = hr.LiveIndex.open(path)
    assert (reopened.version.number, items_of(reopened.version)) == (5, items_of(live.version))
    built = hr.build_index(catalog(a=[3, 0], c=[2, 0], d=[1, 1]))
    assert same_trie(reopened.version.index, built)
    assert reopened.version.index.items_table.equals(built.items_table)


def test_removed_items_are_not_returned(live, path):
    def item_ids_of(version):
        beams = hr.beam_search(version.index, uniform, batch_size=2, beam_width=5)
        return [sorted(results.item_ids) for results in version.results(beams)]

    before = files(path)
    old = live.version
    version = live.remove(["a"])
    assert item_ids_of(version) == [["b", "c"]] * 2
    assert item_ids_of(old) == [["a", "b", "c"]] * 2
    assert version.removed.tolist() == [True, False, False]
    assert version.num_items == 2
    assert version.index is old.index
    # The index was not written again.
    assert set(files(path)) - set(before) == {f"versions/2/{name}" for name in (".lock", "removed.npy", "version.json")}
    assert item_ids_of(live.remove(["c"])) == [["b"]] * 2
    assert live.update().removed.tolist() == [False]
    assert item_ids_of(live.version) == [["b"]] * 2


def test_results_have_the_attributes_of_their_items(path):
    attributes = {"price": [1, 2, 3]}
    index = hr.build_index(hr.Catalog(FIRST.sids, item_ids=["a", "b", "c"], codebook_sizes=4, attributes=attributes))
    version = hr.LiveIndex.create(path, index).remove(["b"])
    beams = hr.beam_search(version.index, uniform, batch_size=1, beam_width=5)
    results = version.results(beams)[0]
    prices = dict(zip(results.item_ids, results.attributes.column("price").to_pylist(), strict=True))
    assert prices == {"a": 1, "c": 3}
    assert len(results.sids) == len(results.scores) == len(results.rows) == 2


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            lambda live: live.add(catalog(a=[1, 1])),
            hr.CatalogError,
            "item 'a' is already in version 1. To replace items, use update",
        ),
        (lambda live: live.remove(["z"]), hr.CatalogError, "1 of 1 item ids to remove are not in the index.*'z'"),
        (
            lambda live: live.update(removed=["b", "z"]),
            hr.CatalogError,
            "1 of 2 item ids to remove are not in the index.*'z'",
        ),
        (
            lambda live: live.remove(["a", "b", "c"]),
            hr.VersionError,
            r"version 2 was refused: it has no items\. Version 1 is still served\..*allow=\['empty'\]",
        ),
        (lambda live: live.remove(["a", "b"]), hr.VersionError, r"1 of 3 items.*allow=\['shrunk'\]"),
        (lambda live: live.update(removed=["a", "b"]), hr.VersionError, "1 of 3 items"),
        (lambda live: live.publish(hr.build_index(FIRST.filter([False] * 3))), hr.VersionError, "no items"),
        (
            lambda live: live.publish(hr.build_index(hr.Catalog([[0, 1]] * 3, codebook_sizes=5))),
            hr.VersionError,
            r"the current codebook sizes are \[4, 4\], and those of the version \[5, 5\]",
        ),
        (
            lambda live: live.publish(hr.build_index(hr.Catalog([[0]] * 3, codebook_sizes=4))),
            hr.VersionError,
            "codebooks",
        ),
        (lambda live: live.publish("index"), hr.ArgumentError, "expected a TrieIndex; got str"),
        (lambda live: live.remove(["a"], allow="shrunk"), hr.ArgumentError, "allow must be a list of"),
        (lambda live: live.remove(["a"], allow=["shrink"]), hr.ArgumentError, r"'shrunk', .*; got \['shrink'\]"),
        (lambda live: live.rollback(), hr.VersionError, "no version before it"),
        (lambda live: live.rollback(to=0), hr.ArgumentError, "to must be a positive integer; got 0"),
        (lambda live: live.rollback(7), hr.VersionError, "no version 7; the versions kept are 1"),
    ],
)
def test_refused_versions_leave_no_files(live, path, change, error, message):
    before = files(path)
    with pytest.raises(error, match=message):
        change(live)
    assert files(path) == before
    assert live.version.number == 1
    assert items_of(hr.LiveIndex.open(path).version) == ITEMS


def test_allowed_versions_are_not_refused(live):
    assert live.remove(["a", "b"], allow=["shrunk"]).num_items == 1
    assert live.remove(["c"], allow=["empty"]).num_items == 0
    assert live.add(catalog(a=[1, 1])).num_items == 1
    other = hr.build_index(hr.Catalog([[7, 1, 1]], codebook_sizes=8, item_ids=["x"]))
    assert live.publish(other, allow=["codebooks"]).index.codebook_sizes == (8, 8, 8)


def test_an_invalid_index_is_refused(live, path):
    index = hr.build_index(catalog(a=[0, 1], b=[0, 2], c=[2, 0]))
    broken = replace(index.levels[1], codes=index.levels[1].codes[::-1].copy())
    before = files(path)
    with pytest.raises(
        hr.VersionError, match=r"version 2 was refused, and the version before it is still served.*level 1"
    ):
        live.publish(replace(index, levels=(index.levels[0], broken)))
    assert files(path) == before
    assert live.refresh().number == 1


def test_if_prepare_fails_the_old_version_is_served(path):
    hr.LiveIndex.create(path, hr.build_index(FIRST))
    prepared = []

    def prepare(version):
        if version.num_items > 3:
            raise MemoryError("no room on the device")
        prepared.append(version.number)

    live = hr.LiveIndex.open(path, prepare=prepare)
    before = files(path)
    with pytest.raises(MemoryError):
        live.add(catalog(d=[3, 3]))
    assert (live.version.number, prepared, files(path)) == (1, [1], before)
    assert live.remove(["a"]).number == 2


def test_rollback_to_the_parent_or_to_a_number(live, path):
    live.add(catalog(d=[3, 3]))
    live.remove(["d"])
    assert items_of(live.rollback()) == ITEMS | {"d": [3, 3]}
    assert items_of(live.rollback()) == ITEMS
    assert items_of(live.rollback(3)) == ITEMS
    assert live.rollback(2).number == 2
    # Numbers are not reused.
    assert live.add(catalog(e=[1, 1])).info.parent == 2
    assert live.version.number == 4
    assert items_of(hr.LiveIndex.open(path).version) == ITEMS | {"d": [3, 3], "e": [1, 1]}


def test_rollback_to_a_damaged_version_is_refused(live, path):
    live.add(catalog(d=[3, 3]))
    trie = next((path / "versions" / "1").glob("trie-*"))
    data = bytearray(trie.read_bytes())
    data[-1] ^= 1
    trie.write_bytes(data)
    with pytest.raises(hr.VersionError, match=r"version 1 was refused, and version 2 is still served.*checksum"):
        live.rollback()
    assert live.refresh().number == 2


def test_readers_keep_their_version_until_refresh(live, path):
    reader = hr.LiveIndex.open(path)
    version = reader.version
    live.add(catalog(d=[3, 3]))
    assert reader.version.number == 1
    assert reader.refresh().number == 2
    assert items_of(version) == ITEMS
    live.rollback()
    assert items_of(reader.refresh()) == ITEMS
    assert reader.refresh() is reader.version


def test_if_refresh_fails_the_old_version_is_served(path):
    reader = hr.LiveIndex.create(path, hr.build_index(FIRST))
    manifest = path / "current.json"
    content = manifest.read_text()
    manifest.write_text(content.replace('"items": 3', '"items": 4'))
    with pytest.raises(hr.VersionError, match=r"checksum differs.* Version 1 is still served"):
        reader.refresh()
    assert items_of(reader.version) == ITEMS
    manifest.write_text(content)
    assert reader.refresh().number == 1


def test_a_version_in_use_is_not_pruned(live, path):
    reader = hr.LiveIndex.open(path)
    version = reader.version
    for name, sid in (("d", [3, 3]), ("e", [1, 1]), ("f", [1, 2])):
        live.add(catalog(**{name: sid}))
    assert live.prune(keep=2) == [2]
    assert items_of(version) == ITEMS
    assert live.rollback(1).number == 1
    live.rollback(4)
    reader.refresh()
    del version
    assert live.prune(keep=1) == [1, 3]
    assert os.listdir(path / "versions") == ["4"]
    with pytest.raises(hr.VersionError, match="the versions kept are 4"):
        live.rollback(1)


def test_a_version_in_use_by_another_process_is_not_pruned(live, path):
    code = "import sys, hedgerow as hr; live = hr.LiveIndex.open(sys.argv[1]); print(flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        live.add(catalog(d=[3, 3]))
        assert live.prune(keep=0) == []
        child.communicate()
    assert live.prune(keep=0) == [1]


def test_the_index_of_a_removal_is_not_pruned(live):
    live.remove(["a"])
    live.remove(["b"], allow=["shrunk"])
    assert live.prune(keep=0) == [2]
    assert items_of(live.rollback(1)) == ITEMS


def test_two_processes_write_and_no_update_is_lost(live, path):
    code = """
import sys, hedgerow as hr
live = hr.LiveIndex.open(sys.argv[1])
for number in range(12):
    live.add(hr.Catalog([[number % 4, int(sys.argv[2])]], item_ids=[f"{sys.argv[2]}-{number}"], codebook_sizes=4))
    live.prune(keep=2)
"""
    children = [subprocess.Popen([sys.executable, "-c", code, str(path), str(writer)]) for writer in range(2)]
    reader, numbers = hr.LiveIndex.open(path), set()
    while any(child.poll() is None for child in children):
        version = reader.refresh()
        numbers.add(version.number)
        # Each version has one more item than the version before.
        assert len(items_of(version)) == version.num_items == 2 + version.number
    assert [child.returncode for child in children] == [0, 0]
    assert live.refresh().number == 25
    assert set(items_of(live.version)) == set(ITEMS) | {
        f"{writer}-{number}" for writer in range(2) for number in range(12)
    }
    assert len(numbers) > 2


def test_threads_and_background_updates(live):
    threads = [threading.Thread(target=live.add, args=[catalog(**{f"t{n}": [1, n]})]) for n in range(4)]
    futures = [live.update_in_background(catalog(**{f"b{n}": [3, n]})) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {future.result().number for future in futures} <= set(range(2, 10))
    assert live.version.number == 9
    assert set(items_of(live.version)) == set(ITEMS) | {f"{kind}{n}" for kind in "tb" for n in range(4)}
    with pytest.raises(hr.CatalogError):
        live.update_in_background(removed=["z"]).result()


def test_versions_are_copied_to_a_device_once(live):
    first = live.version
    assert first.to("numpy") is first.to("numpy")
    # A removal does not change the index.
    assert live.remove(["a"]).to("numpy") is first.to("numpy")
    assert live.update().to("numpy") is not first.to("numpy")


@pytest.mark.usefixtures("layout")
def test_versions_with_headroom_share_a_capacity_until_they_do_not_fit(path):
    def part(items):
        sids = np.stack([items // 64, items % 64], axis=1)
        return hr.Catalog(sids, item_ids=items, codebook_sizes=64)

    live = hr.LiveIndex.create(path, hr.build_index(part(np.arange(0, 300, 3))), headroom=2)
    first = live.version.to("numpy")
    second = live.add(part(np.arange(1, 100, 3))).to("numpy")
    assert second is not first
    assert second.capacity is first.capacity
    assert [level.codes.shape for level in second.levels] == [level.codes.shape for level in first.levels]
    assert live.add(part(np.arange(300, 4000))).to("numpy").capacity != first.capacity
    with pytest.raises(hr.ArgumentError, match=r"headroom must be a factor of at least 1, or None; got 0\.9"):
        hr.LiveIndex.open(path, headroom=0.9)


def test_rejects_other_paths_and_options(tmp_path, path, live):
    with pytest.raises(hr.IndexFileError, match=r"nothing does not exist\. Create one"):
        hr.LiveIndex.open(tmp_path / "nothing")
    with pytest.raises(hr.IndexFileError, match=r"contains no current.json, so it is not a live index"):
        hr.LiveIndex.open(tmp_path)
    with pytest.raises(hr.IndexFileError, match="is a live index already"):
        hr.LiveIndex.create(path, hr.build_index(FIRST))
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "precious").touch()
    with pytest.raises(hr.IndexFileError, match="contains 'precious'"):
        hr.LiveIndex.create(tmp_path / "x", hr.build_index(FIRST))
    (tmp_path / "file").touch()
    with pytest.raises(hr.IndexFileError, match="is a file"):
        hr.LiveIndex.create(tmp_path / "file", hr.build_index(FIRST))
    with pytest.raises(hr.ArgumentError, match="max_shrink must be a share from 0 to 1; got 2"):
        hr.LiveIndex.open(path, max_shrink=2)
    with pytest.raises(hr.ArgumentError, match="keep must be an integer from 0; got -1"):
        live.prune(keep=-1)


@pytest.mark.parametrize("change", [('"hedgerow-live"', '"other"'), ('"version": 2', '"version": 3'), ("{", "[")])
def test_rejects_a_foreign_or_newer_manifest(live, path, change):
    manifest = path / "current.json"
    manifest.write_text(manifest.read_text().replace(*change))
    with pytest.raises(hr.IndexFileError, match=r"not the manifest of a live index|format version 3"):
        hr.LiveIndex.open(path)
    assert live.version.number == 1


def test_an_older_manifest_is_rejected_with_the_way_out(live, path):
    manifest = path / "current.json"
    manifest.write_text(manifest.read_text().replace('"version": 2', '"version": 1'))
    with pytest.raises(hr.IndexFileError, match=r"format version 1.*Create the live index again.*versions"):
        hr.LiveIndex.open(path)
    assert live.version.number == 1


def test_every_manifest_has_another_stamp(live, path):
    """Even if the file system reuses inodes and the clock does not advance."""
    stamps = [Store(path).stamp()]
    for _ in range(20):
        live.remove(["a"])
        live.rollback()
        stamps.append(Store(path).stamp())
    assert len(set(stamps)) == len(stamps)


INVALID_OPTIONS = [
    {"headroom": "x"},
    {"headroom": 0.5},
    {"max_shrink": 7},
    {"max_shrink": "x"},
    {"max_shrink": None},
    {"prepare": 5},
    {"verify": "x"},
    {"lock_timeout": -1},
]


@pytest.mark.parametrize("options", INVALID_OPTIONS, ids=str)
def test_create_and_open_check_their_options_before_anything_is_written(tmp_path, options):
    index = hr.build_index(catalog(a=[0]))
    with pytest.raises(hr.ArgumentError, match=next(iter(options))):
        hr.LiveIndex.create(tmp_path / "new", index, **options)
    assert not (tmp_path / "new").exists()
    live = hr.LiveIndex.create(tmp_path / "new", index)
    with pytest.raises(hr.ArgumentError, match=next(iter(options))):
        hr.LiveIndex.open(live.path, **options)


@pytest.mark.parametrize("wrong", [None, catalog(a=[0]), 5])
def test_create_rejects_other_indexes_before_anything_is_written(tmp_path, wrong):
    with pytest.raises(hr.ArgumentError, match="expected a TrieIndex; got"):
        hr.LiveIndex.create(tmp_path / "new", wrong)
    with pytest.raises(TypeError, match="speed"):
        hr.LiveIndex.create(tmp_path / "new", hr.build_index(catalog(a=[0])), speed=1)
    assert not (tmp_path / "new").exists()


def test_a_path_that_is_too_long():
    with pytest.raises(hr.IndexFileError):
        hr.LiveIndex.open("x" * 5000)
    with pytest.raises(hr.IndexFileError):
        hr.LiveIndex.create("x" * 5000, hr.build_index(catalog(a=[0])))


@pytest.mark.parametrize("allow", [None, 5, "empty", ["x"], (reason for reason in ["empty"])])
def test_rejects_other_reasons_to_allow(live, allow):
    with pytest.raises(hr.ArgumentError, match="allow must be a list of"):
        live.update(catalog(z=[0, 0]), allow=allow)


def test_restrict_checks_constraints_without_removals(live):
    version = live.version
    items = version.index.constraint(ids=version.index.item_ids.to_pylist()[:1])
    assert version.restrict(items) is items
    assert version.restrict([items, None]) == [items, None]
    other = hr.build_index(catalog(a=[0, 1])).constraint(ids=["a"])
    for wrong in ("x", 5, ["x"], other):
        with pytest.raises(hr.ConstraintError):
            version.restrict(wrong)


@pytest.mark.parametrize("catalog", [None, {"sid": [[0]]}, []])
def test_add_takes_a_catalog(tmp_path, catalog):
    live = hr.LiveIndex.create(tmp_path / "live", hr.build_index(hr.Catalog([[0]], item_ids=["a"])))
    with pytest.raises(hr.ArgumentError, match=f"add takes a Catalog; got {type(catalog).__name__}"):
        live.add(catalog)
    assert live.refresh().number == 1
