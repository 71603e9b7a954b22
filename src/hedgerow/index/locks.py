"""File locks: writers of a folder take turns, and readers of a live index protect their versions.

The locks are those of `flock`, which end with the process. Windows has none: there, the callers must ensure that only
one process writes to a folder.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Real
from pathlib import Path
from typing import Any

from hedgerow.errors import ArgumentError, IndexFileError

LOCK = ".lock"
# Seconds that a writer waits for another writer, and a reader for a writer that checks whether a version is in use.
LOCK_TIMEOUT = 300.0
SHARE_TIMEOUT = 5.0
LONGEST_PAUSE = 0.1
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP)


class LockedError(IndexFileError):
    """Another process holds the lock of a folder."""


def check_timeout(lock_timeout: Any) -> float:
    """Check a time limit for locks.

    Raises:
        ArgumentError: it is not a number of seconds, at least 0.
    """
    if isinstance(lock_timeout, bool) or not isinstance(lock_timeout, Real) or not float(lock_timeout) >= 0:
        raise ArgumentError(f"lock_timeout must be a number of seconds, at least 0; got {lock_timeout!r}.")
    return float(lock_timeout)


@contextmanager
def locked(folder: Path, timeout: float = LOCK_TIMEOUT) -> Iterator[None]:
    """Hold the folder's exclusive lock, so that one process at a time writes. The lock ends with the process.

    Raises:
        LockedError: another process held the lock for `timeout` seconds.
        IndexFileError: the file system has no locks.
        ArgumentError: `timeout` is not a number of seconds.
    """
    timeout = check_timeout(timeout)
    # Symbolic links are not followed, an existing file is not changed, and a FIFO does not block.
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    handle = os.open(folder / LOCK, flags, 0o644)
    try:
        _wait_for(handle, folder, timeout)
        yield
    finally:
        os.close(handle)


def _wait_for(handle: int, folder: Path, timeout: float) -> None:
    try:
        if _poll(handle, timeout, shared=False):
            return
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        raise IndexFileError(
            f"{folder} cannot be locked ({error.strerror or error}), so writers cannot take turns: its file system has "
            "no file locks. Write to a local folder and copy it there, or mount the file system with flock. Reading "
            "needs no lock."
        ) from error
    raise LockedError(
        f"another process holds the lock {folder / LOCK} and did not release it within {timeout:g} seconds. Find that "
        "process, for example with fuser or lsof, or wait longer with lock_timeout=."
    )


def _poll(handle: int, timeout: float, *, shared: bool) -> bool:
    """Try to acquire a lock until it is free or `timeout` seconds have passed, and return whether it was acquired."""
    until, pause = time.monotonic() + timeout, 0.001
    while not try_lock(handle, shared=shared):
        left = until - time.monotonic()
        if left <= 0:
            return False
        time.sleep(min(pause, left))
        pause = min(2 * pause, LONGEST_PAUSE)
    return True


def try_lock(handle: int, *, shared: bool = False) -> bool:
    """Acquire the exclusive or shared lock of an open file without waiting, and return whether that was possible."""
    try:
        import fcntl
    except ModuleNotFoundError:
        return True
    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def share_lock(folder: Path) -> int | None:
    """Hold the shared lock of a folder, so that writers do not remove its files until the returned file is closed.

    Returns:
        The open lock file; None if there is no lock to hold: the file system has none, the lock file is missing and
        cannot be created, or another process has kept it locked for `SHARE_TIMEOUT` seconds.

    Raises:
        FileNotFoundError: the folder does not exist.
    """
    handle = open_lock(folder, create=True)
    if handle is None:
        return None
    try:
        if _poll(handle, SHARE_TIMEOUT, shared=True):
            return handle
    except OSError as error:
        if error.errno not in NO_LOCKS:
            os.close(handle)
            raise
    os.close(handle)
    return None


def open_lock(folder: Path, *, create: bool) -> int | None:
    """Open the lock file of a folder; None if it is missing. Tools that copy folders may skip a hidden, empty file.

    Raises:
        FileNotFoundError: the folder does not exist, and `create` is true.
    """
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        return os.open(folder / LOCK, flags)
    except FileNotFoundError:
        if not create:
            return None
        folder.stat()
    try:
        return os.open(folder / LOCK, flags | os.O_CREAT, 0o644)
    except OSError:
        return None
