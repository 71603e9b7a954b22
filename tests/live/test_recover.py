"""LiveIndex: a damaged current version, rollback from it, and copies of a LiveIndex and a Version."""

import copy
import json
import multiprocessing
import pickle
import shutil

import pytest
from livesupport import items_of
from typer.testing import CliRunner

import hedgerow as hr
from hedgerow.cli.main import app

FIRST = hr.Catalog([[0, 1], [2, 0]], item_ids=["a", "b"], codebook_sizes=4)
MORE = hr.Catalog([[3, 3]], item_ids=["c"], codebook_sizes=4)


@pytest.fixture
def live(tmp_path):
    """Versions 1 (a, b), 2 (a, b, c) and 3 (a, c, the index of 2)."""
    live = hr.LiveIndex.create(tmp_path / "shop.live", hr.build_index(FIRST))
    live.add(MORE)
    live.remove(["b"])
    return live


def damage(live, number):
    trie = next((live.path / "versions" / str(number)).glob("trie-*"))
    trie.write_bytes(trie.read_bytes()[:-3])


def test_open_names_the_way_out(live):
    damage(live, 2)
    with pytest.raises(hr.IndexFileError, match=r"version 3 of .*recover=True\), or hedgerow live rollback"):
        hr.LiveIndex.open(live.path)


def test_recover_serves_the_latest_correct_version(live):
    damage(live, 2)
    recovered = hr.LiveIndex.open(live.path, recover=True, headroom=1.5)
    assert (recovered.version.number, items_of(recovered.version)) == (1, {"a": [0, 1], "b": [2, 0]})
    assert hr.LiveIndex.open(live.path).version.number == 1
    # Numbers of damaged versions are not reused.
    assert recovered.add(MORE).number == 4
    assert items_of(hr.LiveIndex.open(live.path).version) == {"a": [0, 1], "b": [2, 0], "c": [3, 3]}


def test_recover_changes_nothing_if_the_current_version_is_correct(live):
    damage(live, 1)
    assert hr.LiveIndex.open(live.path, recover=True).version.number == 3


def test_recover_without_a_correct_version(live):
    damage(live, 1)
    damage(live, 2)
    with pytest.raises(hr.IndexFileError, match=r"has no correct version to serve\. version 3: .* version 1: "):
        hr.LiveIndex.open(live.path, recover=True)
    with pytest.raises(hr.IndexFileError, match="does not exist"):
        hr.LiveIndex.open(live.path / "nothing", recover=True)


def run(*words):
    done = CliRunner().invoke(app, ["live", *map(str, words)])
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.parametrize(
    ("damaged", "words", "number"), [(2, (), 1), (2, ("--to", 1), 1), (1, (), 2), (1, ("--to", 2), 2)]
)
def test_the_command_rolls_back_a_damaged_version(live, damaged, words, number):
    damage(live, damaged)
    assert json.loads(run("status", live.path, "--json"))["current"] == 3
    assert f"serves Version({number}" in run("rollback", live.path, *words)
    assert hr.LiveIndex.open(live.path).version.number == number


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda live: pickle.loads(pickle.dumps(live))])
def test_a_copy_opens_the_folder(live, copied):
    live = hr.LiveIndex.open(live.path, headroom=2.0, max_shrink=0.9, lock_timeout=3, verify="full", prepare=repr)
    other = copied(live)
    assert other is not live
    assert other.version.number == 3
    assert (other._max_shrink, other._options) == (live._max_shrink, live._options)
    assert live.remove(["a"]).number == 4
    assert other.refresh().number == 4


def test_a_version_is_pickled_by_path(live):
    live = hr.LiveIndex.open(live.path, headroom=2.0, verify="full")
    version = live.remove(["a"])
    assert copy.deepcopy(version) is copy.copy(version) is version
    allowed = version.restrict(version.index.constraint(ids=version.index.item_ids[:1]))
    pickled = pickle.dumps((version, allowed))
    assert len(pickled) < 2000
    live.rollback()
    again, sets = pickle.loads(pickled)
    assert (again.info, repr(again)) == (version.info, repr(version))
    assert again.removed_rows.tolist() == version.removed_rows.tolist()
    assert again.restrict(sets) == sets
    assert again.to("numpy").capacity == version.to("numpy").capacity
    # The copy protects its files as the original does.
    number, index = version.number, version.info.index
    del version, allowed, sets
    assert not {number, index} & set(live.prune(keep=0))
    del again
    live.prune(keep=0)


def test_a_pickled_version_that_is_gone_or_was_replaced(live):
    index = live.version.index
    version = live.publish(index)
    pickled = pickle.dumps(version)
    folder = live.path / "versions" / str(version.number)
    shutil.copytree(folder, live.path.parent / "kept")
    shutil.rmtree(folder)
    with pytest.raises(hr.IndexFileError, match="does not exist"):
        pickle.loads(pickled)
    shutil.copytree(live.path.parent / "kept", folder)
    assert pickle.loads(pickled).number == version.number
    (folder / "version.json").unlink()
    hr.build_index(hr.Catalog([[0], [1]])).save(folder)
    with pytest.raises(hr.IndexFileError, match="contains another index than the one that was pickled"):
        pickle.loads(pickled)


def test_a_spawned_process_opens_the_folder(live):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply_async(repr, (live,)).get(timeout=300) == repr(live)
