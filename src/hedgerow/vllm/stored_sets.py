"""Sets as files: the API process evaluates a rule once, and the engine's process reads which items are in it.

So both processes have the same items, also of rules that depend on the time, and the engine evaluates nothing.
"""

from __future__ import annotations

import atexit
import os
import re
import shutil
import tempfile
from collections import OrderedDict
from pathlib import Path
from secrets import token_hex

import numpy as np

from hedgerow.constraints.sets import ConstraintSet, key_of
from hedgerow.errors import ArgumentError
from hedgerow.index.trie import Trie
from hedgerow.vllm.settings import SETS_FOLDER

# Files that a process keeps, and sets that an engine keeps in memory for each version.
MAX_FILES, MAX_IN_MEMORY = 4_096, 256


def prepare_folder() -> Path:
    """The folder of the files, made by the first process. Processes that it starts inherit its name."""
    given = os.environ.get(SETS_FOLDER)
    if given:
        return Path(given)
    folder = Path(tempfile.mkdtemp(prefix="hedgerow-sets-"))
    os.environ[SETS_FOLDER] = str(folder)
    atexit.register(_remove, folder, os.getpid())
    return folder


def _remove(folder: Path, process: int) -> None:
    # A forked process must not remove what its parent uses.
    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)


class SetWriter:
    """Writes sets into files, each once. The names of files are digests of the items.

    Args:
        folder: the folder that all processes see. This process has a folder of its own in it.
    """

    def __init__(self, folder: Path) -> None:
        self._own = token_hex(16)
        self._folder = folder / self._own
        self._folder.mkdir(parents=True)
        self._written: OrderedDict[str, None] = OrderedDict()

    def name_of(self, items: ConstraintSet) -> str:
        """The name under which an engine finds a set. The file is written if it is not there."""
        key = items._key.hex()
        if key not in self._written:
            new = self._folder / f"{key}.new"
            new.write_bytes(items._words.tobytes())
            os.replace(new, self._folder / key)
            while len(self._written) >= MAX_FILES:
                oldest, _ = self._written.popitem(last=False)
                (self._folder / oldest).unlink(missing_ok=True)
        self._written[key] = None
        self._written.move_to_end(key)
        return f"{self._own}/{key}"


class SetReader:
    """Reads the sets of one index, and keeps those that were used last.

    Args:
        folder: the folder of the files.
        index: the index that the items belong to.
    """

    def __init__(self, folder: Path, index: Trie) -> None:
        self._folder, self._index = folder, index
        self._read: OrderedDict[str, ConstraintSet] = OrderedDict()

    def __call__(self, name: str) -> ConstraintSet:
        """The set of a name.

        Raises:
            ArgumentError: the name has another form, or the file is not there or not of this index.
        """
        if not re.fullmatch(r"[0-9a-f]{32}/[0-9a-f]{32}", name):
            raise ArgumentError(f"{name[:80]!r} is not the name of a stored set.")
        key = name[-32:]
        if key not in self._read:
            self._read[key] = self._load(name, key)
            if len(self._read) > MAX_IN_MEMORY:
                self._read.popitem(last=False)
        self._read.move_to_end(key)
        return self._read[key]

    def _load(self, name: str, key: str) -> ConstraintSet:
        try:
            words = np.fromfile(self._folder / name, np.uint32)
        except OSError as error:
            raise ArgumentError(f"the stored set {name} cannot be read: {error}") from None
        size = -(-self._index.num_items // 32)
        if len(words) != size or key_of(words).hex() != key:
            raise ArgumentError(f"the stored set {name} is not one of this index, which has {size} words.")
        return ConstraintSet(self._index, words, name)
