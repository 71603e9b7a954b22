"""Stops a pull once at each of its file operations. Run by tests/live/test_pull.py.

Usage: ``stopped_pull.py FOLDER HOW``, with HOW as in tests/crash.py. Prints the states of the folder as JSON.
"""

import json
import os
import shutil
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from crash import in_child  # type: ignore[import-not-found]
from stopped import FIRST, MORE, state_of  # type: ignore[import-not-found]

import hedgerow as hr


def main(folder: Path, how: str) -> None:
    source, before = folder / "source", folder / "before"
    live = hr.LiveIndex.create(source, hr.build_index(FIRST))
    hr.LiveIndex.pull(source, before)
    live.update(MORE)
    live.remove(["c"])
    rounds = []
    for count in range(1, 500):
        work = folder / str(count)
        shutil.copytree(before, work)
        code = in_child(partial(hr.LiveIndex.pull, source, work), work, count, how)
        after = state_of(work)
        copy = hr.LiveIndex.pull(source, work)
        end = [state_of(work), copy.verify(), sorted(os.listdir(work))]
        rounds.append({"code": code, "state": after, "end": end})
        del copy
        shutil.rmtree(work)
        if code == 0:
            break
    print(json.dumps(rounds))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
