"""Stops a writer of a live index once at each of its file operations. Run by tests/live/test_crash.py.

Usage: ``stopped.py FOLDER HOW ACTION``, with HOW as in tests/crash.py. Prints the states of the folder as JSON.
"""

import json
import os
import shutil
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from crash import in_child  # type: ignore[import-not-found]
from livesupport import items_of

import hedgerow as hr

FIRST = hr.Catalog([[0, 1], [0, 1], [2, 0]], item_ids=["a", "b", "c"], codebook_sizes=4)
MORE = hr.Catalog([[1, 1], [3, 2]], item_ids=["d", "a"], codebook_sizes=4)
ACTIONS = {
    "create": lambda folder: hr.LiveIndex.create(folder, hr.build_index(FIRST)),
    "update": lambda folder: hr.LiveIndex.open(folder).update(MORE, removed=["c"]),
    "remove": lambda folder: hr.LiveIndex.open(folder).remove(["b"]),
    "publish": lambda folder: hr.LiveIndex.open(folder).publish(hr.build_index(MORE)),
    "rollback": lambda folder: hr.LiveIndex.open(folder).rollback(),
    "prune": lambda folder: hr.LiveIndex.open(folder).prune(0),
}


def state_of(folder: Path) -> list | None:
    """The current version's number and items, and the numbers of all versions; None if there is no live index."""
    try:
        live = hr.LiveIndex.open(folder)
    except hr.IndexFileError as error:
        return None if "hr.LiveIndex.create(path, index)" in str(error) else [str(error)]
    return [live.version.number, items_of(live.version), [info.number for info in live.versions()]]


def main(folder: Path, how: str, action: str) -> None:
    before = folder / "before"
    if action != "create":
        live = hr.LiveIndex.create(before, hr.build_index(FIRST))
        live.add(hr.Catalog([[1, 0]], item_ids=["z"]))
        live.remove(["z"])
        del live
    rounds = []
    for count in range(1, 500):
        work = folder / str(count)
        if before.exists():
            shutil.copytree(before, work)
        code = in_child(partial(ACTIONS[action], work), work, count, how)
        after = state_of(work)
        folders = sorted(os.listdir(work / "versions")) if (work / "versions").exists() else []
        # The next writer succeeds, whatever the stopped one left.
        if after is None:
            hr.LiveIndex.create(work, hr.build_index(FIRST))
        live = hr.LiveIndex.open(work)
        live.update(hr.Catalog([[3, 3]], item_ids=["last"]))
        end = [state_of(work), sorted(os.listdir(work / "versions")), sorted(os.listdir(work))]
        rounds.append({"code": code, "state": after, "folders": folders, "end": end})
        shutil.rmtree(work)
        if code == 0:
            break
    print(json.dumps(rounds))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
