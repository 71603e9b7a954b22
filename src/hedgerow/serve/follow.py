"""Follower: watches a live index, and lets the engine serve a new version when it is loaded and warm."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from typing import Protocol

from hedgerow.errors import HedgerowError, VersionError
from hedgerow.live.live import LiveIndex
from hedgerow.live.version import Version
from hedgerow.serve.engine import Engine
from hedgerow.serve.log import log
from hedgerow.serve.schemas import Refused
from hedgerow.serve.settings import Settings
from hedgerow.serve.snapshot import snapshot_of, warm_up_next

# Seconds between two looks at most, after failures; and the number of reasons that are remembered.
MAX_PAUSE, MAX_REASONS = 60.0, 100


class Observer(Protocol):
    """What is told of versions, for example metrics."""

    def switched(self, *, seconds: float, served: Collection[int | None]) -> None:
        """A version is served from now on; it took this long to load and warm."""

    def refused(self) -> None:
        """A version could not be loaded or warmed up."""


class Follower:
    """Looks at a live index from time to time. A version that cannot be loaded or warmed up is refused.

    Args:
        live: the live index; None if the index is not live. Rules that depend on the time are evaluated again anyway.
        engine: serves the versions.
        settings: the settings of the service.
        observer: what is told of versions.

    Attributes:
        refused: why the current version of the live index is not served, and since when; None if it is.
    """

    def __init__(self, live: LiveIndex | None, engine: Engine, settings: Settings, observer: Observer) -> None:
        self._live, self._engine, self._settings, self._observer = live, engine, settings, observer
        # One at a time: looks of the thread and those that clients ask for.
        self._looking = threading.Lock()
        # What was refused, to count each reason once; and the failures in a row, to look again later and later.
        self._reasons: set[str] = set()
        self.refused: Refused | None = None
        self._failures, self._next_look = 0, 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hedgerow-follow", daemon=True)
        self._thread.start()

    def refresh(self) -> None:
        """Serve the current version of the live index now.

        Raises:
            ArgumentError: the version does not fit the model or the rules. The one before is served on.
            VersionError: the version cannot be loaded, or the index is not live. The one before is served on.
        """
        with self._looking:
            live = self._checked_live()
            try:
                self._serve(live.refresh)
            except HedgerowError as error:
                self._refuse(error)
                raise

    def rollback(self, to: int | None) -> None:
        """Make an earlier version the current one, and serve it.

        Raises:
            VersionError: the version does not exist, cannot be loaded, or the index is not live.
            ArgumentError: as for `refresh`.
        """
        with self._looking:
            live, current = self._checked_live(), self._engine.current
            # Not that of the version: the one that is current may be damaged, and is rolled back for that.
            target = live._store.read().current.parent if to is None else to
            if target is not None:
                # First on trial: a service whose current version cannot be served does not start again.
                snapshot_of(current.retriever, live.load_version(target), current.rules)
            self._serve(lambda: live.rollback(to))

    def close(self) -> None:
        """End the thread."""
        self._stop.set()
        self._thread.join()

    def _checked_live(self) -> LiveIndex:
        if self._live is None:
            raise VersionError("the index of this service is not live: it has no versions.")
        return self._live

    def _run(self) -> None:
        seconds = self._settings.follow_seconds
        every = min(seconds or self._settings.rules_seconds, self._settings.rules_seconds)
        while not self._stop.wait(every):
            with self._looking:
                self._evaluate_rules()
                if self._live is None or seconds is None or time.monotonic() < self._next_look:
                    continue
                try:
                    self._serve(self._live.refresh)
                except Exception as error:
                    # Whatever is wrong with a version, the one before is served on.
                    self._refuse(error)
                    self._failures += 1
                    self._next_look = time.monotonic() + min(MAX_PAUSE, seconds * 2**self._failures)

    def _serve(self, load: Callable[[], Version]) -> None:
        started = time.perf_counter()
        version, current = load(), self._engine.current
        if current.version is not None and version.info == current.version.info:
            self._recovered()
            return
        snapshot = snapshot_of(current.retriever, version, current.rules)
        warm_up_next(snapshot, current, self._settings)
        self._engine.switch(snapshot)
        self._recovered()
        seconds = time.perf_counter() - started
        self._observer.switched(seconds=seconds, served=list(self._engine.served))
        log("version", version=snapshot.number, items=snapshot.num_items, seconds=round(seconds, 3))

    def _recovered(self) -> None:
        if self.refused is not None:
            log("version_readable", served=self._engine.current.number)
        self._failures, self.refused = 0, None

    def set_canary(self, number: int | None, share: float) -> None:
        """Let a version answer a share of the requests; None: there is no canary.

        Raises:
            VersionError: the version does not exist, cannot be loaded, or the index is not live.
            ArgumentError: the version does not fit the model or the rules.
        """
        with self._looking:
            live, current = self._checked_live(), self._engine.current
            if number is None:
                self._engine.set_canary(None, 0.0)
            else:
                snapshot = snapshot_of(current.retriever, live.load_version(number), current.rules)
                warm_up_next(snapshot, current, self._settings)
                self._engine.set_canary(snapshot, share)
        log("canary", version=number, share=share)

    def _refuse(self, error: Exception) -> None:
        """Record that a version was refused, once for each reason."""
        if self.refused is None or self.refused["error"] != str(error):
            self.refused = {"error": str(error), "since": datetime.now(UTC).isoformat(timespec="seconds")}
        if str(error) in self._reasons:
            return
        self._reasons = {*list(self._reasons)[-MAX_REASONS:], str(error)}
        self._observer.refused()
        log("version_refused", level="error", error=str(error), served=self._engine.current.number)

    def _evaluate_rules(self) -> None:
        for snapshot in self._engine.snapshots:
            if not snapshot.rules or time.monotonic() - snapshot.evaluated < self._settings.rules_seconds:
                continue
            try:
                self._engine.replace(snapshot, snapshot.with_new_sets())
            except Exception as error:
                # The sets of the last time are served on, and new versions are still looked for.
                self._engine.replace(snapshot, dataclasses.replace(snapshot, evaluated=time.monotonic()))
                log("rules_failed", level="error", error=str(error))
