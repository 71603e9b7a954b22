"""A writer that stops anywhere leaves the old version current, or the new one, and never neither."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("fcntl")

OLD = [3, {"a": [0, 1], "b": [0, 1], "c": [2, 0]}, [1, 2, 3]]
NEW = {
    "create": [1, {"a": [0, 1], "b": [0, 1], "c": [2, 0]}, [1]],
    "update": [4, {"a": [3, 2], "b": [0, 1], "d": [1, 1]}, [1, 2, 3, 4]],
    "remove": [4, {"a": [0, 1], "c": [2, 0]}, [1, 2, 3, 4]],
    "publish": [4, {"d": [1, 1], "a": [3, 2]}, [1, 2, 3, 4]],
    "rollback": [2, {"a": [0, 1], "b": [0, 1], "c": [2, 0], "z": [1, 0]}, [1, 2, 3]],
    "prune": [3, OLD[1], [2, 3]],
}


@pytest.mark.parametrize(
    ("action", "how"), [*((action, "killed") for action in NEW), ("update", "failed"), ("remove", "failed")]
)
def test_a_writer_that_stops_anywhere(action, how, tmp_path):
    script = Path(__file__).parents[1] / "stopped.py"
    command = [sys.executable, str(script), str(tmp_path), how, action]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rounds = json.loads(done.stdout)
    assert rounds[-1]["code"] == 0
    assert {entry["code"] for entry in rounds[:-1]} <= ({9} if how == "killed" else {1, 2})
    # What a writer gets over, a date that cannot be set, does not matter.
    rounds = [entry for entry in rounds if entry["code"] != 2]
    old = None if action == "create" else OLD
    seen = [entry["found"] for entry in rounds]
    turn = seen.index(NEW[action])
    assert 3 < turn < len(rounds)
    assert all(entry == old for entry in seen[:turn])
    assert all(entry == NEW[action] for entry in seen[turn:])
    if how == "failed":
        # A writer that lives on takes away what it began.
        assert all(entry["left"] == ["1", "2", "3"] for entry in rounds[:turn])
    for entry in rounds:
        (number, items, versions), folders, names = entry["end"]
        assert items["last"] == [3, 3]
        assert number == versions[-1]
        assert folders == [str(version) for version in versions]
        assert names == [".lock", "current.json", "versions"]
