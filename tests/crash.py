"""Stops a save once at each of its file operations. Run by tests/index/test_file_writers.py.

Usage: ``crash.py FOLDER HOW FIRST``. HOW is "killed" (the process ends, as in a power cut) or "failed" (the operation
raises, as on a full disk). FIRST is "True" if no index exists before the save. Prints the states of the folder as JSON.
"""

import json
import os
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import hedgerow as hr

OLD = hr.Catalog([[0, 1], [0, 1], [2, 0]], item_ids=["a", "b", "c"], codebook_sizes=4)
NEW = hr.Catalog([[1, 1], [3, 2], [3, 3], [3, 0]], item_ids=[4, 3, 2, 1], codebook_sizes=4)
CHANGES = ("os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.truncate", "os.utime")
WATCHED = ("open", "os.listdir", *CHANGES)


def stop_at(count: int, how: str, folder: Path) -> Callable[[], bool]:
    """Stop at file operation number `count`, and return a function that checks whether it was reached."""
    seen = 0

    def hook(event: str, args: tuple) -> None:
        nonlocal seen
        if event not in WATCHED or not args or not str(args[0]).startswith(str(folder)):
            return
        seen += 1
        if seen == count and how == "killed":
            os._exit(9)
        if seen == count:
            raise OSError(28, "No space left on device")

    sys.addaudithook(hook)
    return lambda: seen >= count


def in_child(action: Callable[[], object], folder: Path, count: int, how: str) -> int:
    """Run an action in a child process that stops at operation number `count`.

    Returns:
        0 if the action has fewer operations, 9 if it was killed, 1 if it raised the expected error, 2 if it completed
        in spite of the failure; 3 or 4 for another error.
    """
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    stopped = stop_at(count, how, folder)
    try:
        action()
    except (hr.IndexFileError, hr.VersionError) as error:
        os._exit(1 if "No space left" in str(error) else 3)
    except BaseException:
        os._exit(4)
    os._exit(2 if stopped() else 0)


def loaded(folder: Path) -> str | list:
    """The items and SIDs of the index in a folder, or the error message."""
    try:
        index = hr.load_index(folder)
        return [index.item_ids.to_pylist(), index.sids().tolist()]
    except hr.IndexFileError as error:
        return str(error)


def main(folder: Path, how: str, first: bool) -> None:
    old, new = hr.build_index(OLD), hr.build_index(NEW)
    rounds = []
    for count in range(1, 100):
        work = folder / str(count)
        if not first:
            old.save(work)
        code = in_child(partial(new.save, work), work, count, how)
        after = loaded(work)
        left = sorted(name for name in os.listdir(work) if name.endswith("-new")) if work.exists() else []
        new.save(work)
        rounds.append({"code": code, "loaded": after, "left": left, "again": loaded(work), "end": os.listdir(work)})
        shutil.rmtree(work)
        if code == 0:
            break
    print(json.dumps(rounds))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "True")
