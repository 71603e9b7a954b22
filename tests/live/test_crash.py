"""If a writer is stopped at any point, either the old or the new version is current and complete."""

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
def test_stopped_writer_leaves_old_or_new_version(action, how, tmp_path):
    script = Path(__file__).parents[1] / "stopped.py"
    command = [sys.executable, str(script), str(tmp_path), how, action]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    rounds = json.loads(finished.stdout)
    assert rounds[-1]["code"] == 0
    assert {entry["code"] for entry in rounds[:-1]} <= ({9} if how == "killed" else {1, 2})
    # Code 2: the writer continues after the failure, for example if a date cannot be set.
    rounds = [entry for entry in rounds if entry["code"] != 2]
    old = None if action == "create" else OLD
    states = [entry["state"] for entry in rounds]
    switch = states.index(NEW[action])
    assert 3 < switch < len(rounds)
    assert all(state == old for state in states[:switch])
    assert all(state == NEW[action] for state in states[switch:])
    if how == "failed":
        # A writer that was not killed deletes its unfinished version.
        assert all(entry["folders"] == ["1", "2", "3"] for entry in rounds[:switch])
    for entry in rounds:
        (number, items, versions), folders, names = entry["end"]
        assert items["last"] == [3, 3]
        assert number == versions[-1]
        assert folders == [str(version) for version in versions]
        assert names == [".lock", "current.json", "versions"]
