"""Interrupted writers, concurrent writers, and readers during a save."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from saved import OTHER, contents, same_index

import hedgerow as hr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork to stop a process in the middle of a save")
@pytest.mark.parametrize("how", ["killed", "failed"])
@pytest.mark.parametrize("first", [False, True])
def test_interrupted_save_leaves_the_old_or_the_new_index(how, first, tmp_path):
    script = Path(__file__).parents[1] / "crash.py"
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path), how, str(first)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    rounds = json.loads(done.stdout)
    old = [["a", "b", "c"], [[0, 1], [2, 0]]]
    new = [[4, 1, 3, 2], [[1, 1], [3, 0], [3, 2], [3, 3]]]
    assert len(rounds) > 12
    assert {entry["code"] for entry in rounds[:-1]} == {9 if how == "killed" else 1}
    # Before one operation, every load gives the old state; from it on, the new index.
    turn = next(number for number, entry in enumerate(rounds) if entry["loaded"] == new)
    assert 8 < turn < len(rounds)
    for entry in rounds[:turn]:
        if first:
            assert "does not exist" in entry["loaded"] or "holds no manifest.json" in entry["loaded"]
        else:
            assert entry["loaded"] == old
    assert all(entry["loaded"] == new for entry in rounds[turn:])
    for entry in rounds:
        assert entry["again"] == new
        assert len(entry["end"]) == 4
        assert how == "killed" or entry["left"] == []


@pytest.mark.parametrize("mmap", [False, True])
def test_reader_during_saves_sees_a_complete_index(index, folder, mmap):
    indexes = [index, hr.build_index(OTHER)]
    stop = threading.Event()
    failures: list[BaseException] = []

    def write() -> None:
        try:
            for round_ in range(30):
                indexes[round_ % 2].save(folder)
        except BaseException as error:
            failures.append(error)
        finally:
            stop.set()

    writer = threading.Thread(target=write)
    writer.start()
    loads = 0
    while not stop.is_set() or loads < 2:
        loaded = hr.load_index(folder, mmap=mmap, verify="full")
        assert any(same_index(loaded, saved) for saved in indexes)
        loads += 1
    writer.join()
    assert failures == []


def test_concurrent_writers_take_turns(index, tmp_path):
    indexes = [index, hr.build_index(OTHER)]
    failures: list[BaseException] = []

    def write(index_: hr.TrieIndex) -> None:
        try:
            for _ in range(15):
                index_.save(tmp_path / "index")
        except BaseException as error:
            failures.append(error)

    writers = [threading.Thread(target=write, args=(saved,)) for saved in indexes]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert failures == []
    assert any(same_index(hr.load_index(tmp_path / "index"), saved) for saved in indexes)
    assert len(contents(tmp_path / "index")) == 4
