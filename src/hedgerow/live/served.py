"""Served: the version of a live index that a process serves. It follows the manifest, and switches it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from numbers import Real
from typing import Any

from hedgerow._arguments import check_choice, positive_number
from hedgerow.errors import ArgumentError, IndexFileError, VersionError
from hedgerow.index.files import VERIFY, Verify, as_folder
from hedgerow.index.locks import check_timeout
from hedgerow.live.copied import check_own
from hedgerow.live.manifest import State
from hedgerow.live.store import Store, Written
from hedgerow.live.version import Version

LOGGER = logging.getLogger(__name__)
# The stamp of no manifest.
UNKNOWN = (0, 0, 0)
Prepare = Callable[[Version], object]


def do_nothing(version: Version) -> None:
    """The default `prepare`."""


class Served:
    """The version that a process serves.

    Attributes:
        version: the version.
    """

    def __init__(self, store: Store, prepare: Prepare) -> None:
        self._store, self._prepare = store, prepare
        self._loading = threading.Lock()
        self._stamp, self.version = self._follow(None)

    def refresh(self) -> Version:
        """Load the current version, if it has changed: see `LiveIndex.refresh`."""
        if not self._loading.acquire(blocking=False):
            return self.version
        try:
            if self._store.stamp() != self._stamp:
                self._stamp, self.version = self._follow(self.version)
        except IndexFileError as error:
            raise VersionError(f"{error} Version {self.version.number} is still served.") from error
        finally:
            self._loading.release()
        return self.version

    def switch(self, state: State, version: Version) -> Version:
        """Prepare a version, write the manifest in which it is current, and serve it."""
        self._prepare(version)
        self._store.switch(state)
        with self._loading:
            # If the date cannot be read now, the next refresh reads the manifest.
            before, self._stamp, self.version = self.version.number, UNKNOWN, version
            with suppress(IndexFileError):
                self._stamp = self._store.stamp()
        LOGGER.info(
            "%s: version %d is current, with %d items; before it, version %d",
            self._store.path,
            version.number,
            version.num_items,
            before,
        )
        return version

    def write(self, make: Callable[[Version, int], Written]) -> Version:
        """Write the next version and serve it. If that fails, the files of the version are deleted.

        Args:
            make: writes the files of a version, from the current version and the number of the next one.
        """
        with self._store.locked():
            check_own(self._store.path)
            state = self._store.read()
            self._store.clean(state.next)
            current = self.refresh()
            if current.info != state.current:
                current = self._store.load(state.current)
            number = self._store.free_number(state)
            try:
                written = make(current, number)
                self._store.write_entry(written.info)
                version = self._store.load(written.info, current, verified=written.index)
                return self.switch(State(written.info, number + 1), version)
            except BaseException as error:
                LOGGER.warning("%s: version %d was not published: %s", self._store.path, number, error)
                if self._store.read().next == state.next:
                    self._store.remove(number)
                raise

    def _follow(self, loaded: Version | None) -> tuple[tuple[int, int, int] | None, Version]:
        """The stamp of the manifest, and the current version: `loaded`, if it is still current."""
        while True:
            stamp = self._store.stamp()
            info = self._store.read().current
            if loaded is not None and loaded.info == info:
                return stamp, loaded
            try:
                version = self._store.load(info, loaded)
                self._prepare(version)
                LOGGER.info("%s: loaded version %d, with %d items", self._store.path, info.number, info.items)
                return stamp, version
            except (IndexFileError, OSError) as error:
                # If the manifest has changed since it was read, the version may have been pruned: try again.
                if self._store.stamp() == stamp:
                    LOGGER.warning("%s: version %d cannot be read: %s", self._store.path, info.number, error)
                    advice = (
                        ""
                        if loaded is not None
                        else " Roll back to a correct version: hr.LiveIndex.open(path, recover=True), or hedgerow live "
                        "rollback."
                    )
                    raise IndexFileError(
                        f"version {info.number} of {self._store.path} cannot be read: {error}{advice}"
                    ) from error


def checked_store(
    path: Any, max_shrink: Any, prepare: Any, headroom: Any, verify: Verify, lock_timeout: float
) -> Store:
    """Check the arguments of `LiveIndex`, and return its store. Nothing is written.

    Raises:
        ArgumentError: as for `LiveIndex`.
    """
    if isinstance(max_shrink, bool) or not isinstance(max_shrink, Real) or not 0 <= float(max_shrink) <= 1:
        raise ArgumentError(f"max_shrink must be a share from 0 to 1; got {max_shrink!r}.")
    if headroom is not None and positive_number(headroom, "headroom") < 1:
        raise ArgumentError(f"headroom must be a factor of at least 1, or None; got {headroom!r}.")
    if not callable(prepare):
        raise ArgumentError(f"prepare must be a function that takes a version; got {prepare!r}.")
    check_choice(verify, "verify", VERIFY)
    return Store(as_folder(path), headroom, verify, check_timeout(lock_timeout))
