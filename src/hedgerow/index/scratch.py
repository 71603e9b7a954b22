"""A folder for temporary files, which is removed at the end, on SIGTERM, or by the next process that makes one."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from hedgerow.index.locks import LOCK, open_lock, try_lock

PREFIX = ".hedgerow-build-"
# A folder without a lock file is about to be locked, or its process was killed before. It is removed a day later.
DAY = 24 * 60 * 60


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """Make a temporary folder in `parent`, and remove those that processes left behind when they were killed.

    A lock, which ends with its process, protects each folder. On a file system without locks nothing is left to find
    out whose folder it is, so that nothing is removed.
    """
    _sweep(parent)
    with _exit_on_sigterm():
        folder, handle = _new_folder(parent)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(handle)


def _new_folder(parent: Path) -> tuple[Path, int]:
    """Make and lock a folder. If another process sweeps it before it is locked, make another one."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        with suppress(FileNotFoundError):
            handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
            with suppress(OSError):
                try_lock(handle)
            if (folder / LOCK).exists():
                return folder, handle
            os.close(handle)


def _sweep(parent: Path) -> None:
    for folder in parent.glob(f"{PREFIX}*"):
        with suppress(OSError):
            if _is_abandoned(folder):
                shutil.rmtree(folder, ignore_errors=True)


def _is_abandoned(folder: Path) -> bool:
    """Whether the process that made the folder has ended. Raises OSError if that cannot be found out."""
    handle = open_lock(folder, create=False)
    if handle is None:
        return time.time() - folder.stat().st_mtime > DAY
    try:
        return os.name != "nt" and try_lock(handle)
    finally:
        os.close(handle)


@contextmanager
def _exit_on_sigterm() -> Iterator[None]:
    """Let SIGTERM raise SystemExit, so that temporary files are removed, and then end the process as it does.

    A handler of the program is kept. Only the main thread can set one.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    stopped = False

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        nonlocal stopped
        stopped = True
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if stopped:
            signal.raise_signal(signal.SIGTERM)
