"""LiveIndex: damaged entries of versions, and a damaged or missing manifest."""

import json
import os
import shutil
import warnings

import pytest
from livesupport import items_of
from typer.testing import CliRunner

import hedgerow as hr
from hedgerow.cli.main import app
from hedgerow.live.manifest import State
from hedgerow.live.store import Store

SIDS = {"a": [0, 1], "b": [2, 0], "c": [3, 3], "d": [3, 2]}


def items(*names):
    return hr.Catalog([SIDS[name] for name in names], item_ids=list(names), codebook_sizes=4)


@pytest.fixture
def live(tmp_path):
    """Versions 1 (a), 2 (a, b), 3 (a, b, c) and 4 (a, b, c, d)."""
    live = hr.LiveIndex.create(tmp_path / "shop.live", hr.build_index(items("a")))
    for name in "bcd":
        live.add(items(name))
    return live


def entry(live, number):
    return live.path / "versions" / str(number) / "version.json"


def empty(path):
    path.write_bytes(b"")


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGES = {"empty": empty, "flip": flip, "missing": os.unlink, "folder": lambda path: (path.unlink(), path.mkdir())}


@pytest.mark.parametrize("damage", DAMAGES)
def test_versions_lists_the_others(live, damage):
    DAMAGES[damage](entry(live, 1))
    with pytest.warns(UserWarning, match=r"version 1 is damaged: .*version\.json|version 1 is damaged: .*read"):
        assert [info.number for info in live.versions()] == [2, 3, 4]
    assert list(live.verify()) == [1]
    assert hr.LiveIndex.open(live.path).rollback(2).num_items == 2


def test_prune_deletes_the_others(live):
    empty(entry(live, 1))
    path = live.path
    del live
    with pytest.warns(UserWarning, match="version 1 is damaged"):
        assert hr.LiveIndex.open(path).prune(keep=1) == [2, 3]
    assert sorted(os.listdir(path / "versions")) == ["1", "4"]


def test_several_damaged_entries(live):
    empty(entry(live, 1))
    flip(entry(live, 3))
    with pytest.warns(UserWarning, match="damaged") as caught:
        assert [info.number for info in live.versions()] == [2, 4]
    assert ["version 1" in str(caught[0].message), "version 3" in str(caught[1].message)] == [True, True]
    with pytest.warns(UserWarning, match="damaged"):
        # Two versions are kept: those that can be served.
        assert live.prune(keep=2) == []
    with pytest.warns(UserWarning, match="damaged"):
        assert live.prune(keep=1) == [2]


def test_prune_keeps_the_index_of_a_damaged_version_that_it_would_keep(live):
    live.remove(["a"])
    live.update()
    path = live.path
    del live
    kept = hr.LiveIndex.open(path)
    empty(entry(kept, 5))
    with pytest.warns(UserWarning, match="version 5 is damaged"):
        assert kept.prune(keep=2) == []
    with pytest.warns(UserWarning, match="version 5 is damaged"):
        # Version 5 is older than all that are kept, so that its index is not needed.
        assert kept.prune(keep=1) == [1, 2, 3, 4]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_entry_of_the_current_version(live, damage):
    """The manifest has the same entry, so the version is served, and recover=True writes its file again."""
    DAMAGES[damage](entry(live, 4))
    assert [info.number for info in live.versions()] == [1, 2, 3, 4]
    assert hr.LiveIndex.open(live.path).version.num_items == 4
    assert list(live.verify()) == [4]
    if damage == "folder":
        with pytest.raises(hr.IndexFileError, match="cannot be written"):
            hr.LiveIndex.open(live.path, recover=True)
        return
    assert hr.LiveIndex.open(live.path, recover=True).version.number == 4
    assert live.verify() == {}


def test_a_missing_folder_of_the_current_version_is_a_fault(live):
    shutil.rmtree(live.path / "versions" / "4")
    assert list(live.verify()) == [4]
    assert hr.LiveIndex.open(live.path, recover=True).version.number == 3


def test_missing_removed_rows(live):
    live.remove(["a"])
    (live.path / "versions" / "5" / "removed.npy").unlink()
    with pytest.raises(hr.IndexFileError, match=r"removed\.npy is missing\. Roll back to another version"):
        hr.LiveIndex.open(live.path)
    with pytest.raises(hr.VersionError, match=r"version 6 was refused.*removed\.npy is missing"):
        live.remove(["b"])
    assert "is missing" in live.verify()[5]
    assert items_of(hr.LiveIndex.open(live.path, recover=True).version) == SIDS


def truncate(path):
    path.write_bytes(path.read_bytes()[:50])


MANIFESTS = {"truncated": truncate, **{name: DAMAGES[name] for name in ("empty", "flip", "missing")}}


@pytest.mark.parametrize("damage", MANIFESTS)
def test_the_manifest_is_written_again(live, damage):
    manifest = live.path / "current.json"
    content = json.loads(manifest.read_bytes())
    MANIFESTS[damage](manifest)
    with pytest.raises(hr.IndexFileError, match=r"current\.json .*recover=True\), or hedgerow live rollback"):
        hr.LiveIndex.open(live.path)
    with pytest.raises(hr.IndexFileError, match=r"is a live index already, and it is damaged: .*recover=True"):
        hr.LiveIndex.create(live.path, hr.build_index(items("a")))
    for write in (live.rollback, lambda: live.remove(["a"])):
        with pytest.raises(hr.IndexFileError, match="recover=True"):
            write()
    recovered = hr.LiveIndex.open(live.path, recover=True)
    assert (recovered.version.number, items_of(recovered.version)) == (4, SIDS)
    assert json.loads(manifest.read_bytes()) == content
    # The process that served the version goes on.
    assert live.refresh().number == 4
    assert live.remove(["a"]).number == 5


def test_any_flipped_bit_of_the_manifest_is_recovered(live):
    manifest = live.path / "current.json"
    content = manifest.read_bytes()
    expected = json.loads(content)
    store = Store(live.path)
    for place in range(0, len(content), 3):
        data = bytearray(content)
        data[place] ^= 1 << place % 8
        manifest.write_bytes(data)
        with pytest.raises(hr.IndexFileError, match="recover=True"):
            store.read()
    hr.LiveIndex.open(live.path, recover=True)
    assert json.loads(manifest.read_bytes()) == expected


def test_the_digit_of_the_format_version_is_flipped(live):
    """The checksum tells damage from a newer format, whose manifest is not replaced."""
    manifest = live.path / "current.json"
    manifest.write_text(manifest.read_text().replace('"version": 2', '"version": 3'))
    assert hr.LiveIndex.open(live.path, recover=True).version.number == 4


def test_a_newer_manifest_is_not_replaced(live):
    from hedgerow.index.manifest import digest_of

    manifest = live.path / "current.json"
    content = json.loads(manifest.read_bytes()) | {"version": 3}
    manifest.write_text(json.dumps(content | {"sha256": digest_of(content)}))
    for recover in (False, True):
        with pytest.raises(hr.IndexFileError, match=r"has format version 3.*Upgrade hedgerow"):
            hr.LiveIndex.open(live.path, recover=recover)
    assert json.loads(manifest.read_bytes())["version"] == 3


def test_the_latest_correct_version_is_recovered_and_no_number_used_again(live):
    (live.path / "current.json").unlink()
    empty(entry(live, 4))
    trie = next((live.path / "versions" / "3").glob("trie-*"))
    trie.write_bytes(trie.read_bytes()[:-1])
    (live.path / "versions" / "7").mkdir()
    recovered = hr.LiveIndex.open(live.path, recover=True)
    assert (recovered.version.number, items_of(recovered.version)) == (2, {"a": [0, 1], "b": [2, 0]})
    assert recovered.add(items("d")).number == 8


@pytest.mark.parametrize("manifest", ["intact", "damaged"])
def test_no_entry_is_intact(live, manifest):
    """The manifest has the entry of the current version; without it, nothing says what a version contains."""
    for number in range(1, 5):
        empty(entry(live, number))
    if manifest == "intact":
        assert hr.LiveIndex.open(live.path, recover=True).version.number == 4
        assert list(live.verify()) == [1, 2, 3]
        return
    truncate(live.path / "current.json")
    with pytest.raises(hr.IndexFileError, match=r"has no correct version to serve\. version 4: .* version 1: .*copy"):
        hr.LiveIndex.open(live.path, recover=True)
    index = hr.load_index(live.path / "versions" / "4")
    assert hr.LiveIndex.create(live.path.parent / "new.live", index).version.num_items == 4


def test_create_does_not_replace_versions_without_a_manifest(tmp_path):
    live = hr.LiveIndex.create(tmp_path / "x.live", hr.build_index(items("a", "b")))
    (live.path / "current.json").unlink()
    with pytest.raises(hr.IndexFileError, match=r"current\.json is missing.*recover=True"):
        hr.LiveIndex.create(live.path, hr.build_index(items("c")))
    assert items_of(hr.LiveIndex.open(live.path, recover=True).version) == {"a": [0, 1], "b": [2, 0]}


def test_recover_after_a_rollback_does_not_go_forward(live):
    live.rollback(2)
    assert hr.LiveIndex.open(live.path, recover=True).version.number == 2
    trie = next((live.path / "versions" / "2").glob("trie-*"))
    trie.write_bytes(trie.read_bytes()[:-1])
    assert hr.LiveIndex.open(live.path, recover=True).version.number == 1


def run(*words):
    done = CliRunner().invoke(app, ["live", *map(str, words)])
    assert done.exit_code == 0, done.output
    return done


def test_commands_with_a_damaged_entry(live):
    empty(entry(live, 1))
    shown = run("status", live.path)
    assert "version 1 is damaged: " in shown.stderr
    assert "current" in shown.stdout
    facts = json.loads(run("status", live.path, "--json").stdout)
    assert (facts["current"], list(facts["damaged"])) == (4, ["1"])
    assert [info["number"] for info in facts["versions"]] == [2, 3, 4]
    path = live.path
    del live
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pruned = run("prune", path, "--keep", 1)
    assert "removed: 2, 3" in pruned.stdout
    assert "version 1 is damaged" in pruned.stderr


@pytest.mark.parametrize(("words", "number"), [((), 4), (("--to", 1), 1)])
@pytest.mark.parametrize("damage", ["truncated", "missing"])
def test_commands_with_a_damaged_manifest(live, damage, words, number):
    MANIFESTS[damage](live.path / "current.json")
    facts = json.loads(run("status", live.path, "--json").stdout)
    assert (facts["current"], list(facts["damaged"])) == (None, ["current.json"])
    assert [info["number"] for info in facts["versions"]] == [1, 2, 3, 4]
    assert "recover=True), or hedgerow live rollback" in run("status", live.path).stderr
    assert f"serves Version({number}" in run("rollback", live.path, *words).stdout
    assert json.loads(run("status", live.path, "--json").stdout)["current"] == number


def test_a_manifest_with_a_smaller_next_number(live):
    """A restored older manifest: the later versions are not listed, and a writer replaces them."""
    store = Store(live.path)
    store.switch(State(store.entry(3), 4))
    assert live.refresh().number == 3
    assert [info.number for info in live.versions()] == [1, 2, 3]
    assert live.remove(["a"]).number == 4
    assert not list((live.path / "versions" / "4").glob("trie-*"))
    assert items_of(live.version) == {"b": [2, 0], "c": [3, 3]}
