"""Service: the parts of a running service, from loading to shutting down."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from hedgerow.hf import Retriever
from hedgerow.live.live import LiveIndex
from hedgerow.serve.asking import RefusedError
from hedgerow.serve.batcher import Batcher, Queue
from hedgerow.serve.engine import Engine
from hedgerow.serve.follow import Follower
from hedgerow.serve.log import log
from hedgerow.serve.metrics import Metrics
from hedgerow.serve.rules import Rule
from hedgerow.serve.settings import Settings
from hedgerow.serve.snapshot import Snapshot, snapshot_of, warm_up

PROGRESS_SECONDS = 2.0
State = Literal["cold", "ready", "draining", "failed"]


@dataclass(frozen=True)
class Source:
    """What a service serves.

    Attributes:
        open: opens the retriever, and the live index if the index is live.
        model: the name of the model, for clients.
        index: the name of the index, for clients.
        rules: the named rules.
        canary: the number of the canary version; None: there is none.
    """

    open: Callable[[], tuple[Retriever, LiveIndex | None]]
    model: str
    index: str
    rules: Mapping[str, Rule]
    canary: int | None = None


class Service:
    """A service: cold until its model and index are loaded and warm, then ready, and draining before it ends.

    Attributes:
        settings: its settings.
        source: what it serves.
        metrics: its metrics.
        state: "cold", "ready", "draining" or "failed".
        error: why it has failed.
    """

    def __init__(self, source: Source, settings: Settings) -> None:
        self.source, self.settings, self.metrics = source, settings, Metrics()
        self.state: State = "cold"
        self.error: Exception | None = None
        self.started = time.time()
        # Load balancers are told that the service will end, while it still answers.
        self.leaving = False
        self._starting: threading.Thread | None = None
        self._engine: Engine | None = None
        self._batcher: Queue | None = None
        self._follower: Follower | None = None

    @property
    def engine(self) -> Engine:
        """The engine.

        Raises:
            RefusedError: the service is not ready.
        """
        self._check_ready()
        assert self._engine is not None
        return self._engine

    @property
    def batcher(self) -> Queue:
        """The queue of the engine.

        Raises:
            RefusedError: the service is not ready, or shuts down.
        """
        if self.state == "draining":
            self.metrics.shed("draining")
            raise RefusedError(503, "draining", "the service is shutting down.", retry_after=1.0)
        self._check_ready()
        assert self._batcher is not None
        return self._batcher

    @property
    def follower(self) -> Follower:
        """What switches versions.

        Raises:
            RefusedError: the service is not ready.
        """
        self._check_ready()
        assert self._follower is not None
        return self._follower

    def start(self) -> None:
        """Load and warm up, then be ready. If that fails, `error` says why."""
        started = time.perf_counter()
        try:
            self._load()
        except Exception as error:
            # Also an unexpected one, or the service would be cold for ever.
            self.state, self.error = "failed", error
            return
        if self.state != "cold":
            return
        self.state = "ready"
        log("ready", seconds=round(time.perf_counter() - started, 3), index=self.source.index)

    def start_in_background(self, done: Callable[[], Any]) -> None:
        """As `start`, in another thread, which then calls `done`."""

        def run() -> None:
            self.start()
            done()

        self._starting = threading.Thread(target=run, name="hedgerow-start", daemon=True)
        self._starting.start()

    @property
    def is_starting(self) -> bool:
        """Whether the model and the index are being loaded."""
        return self._starting is not None and self._starting.is_alive()

    def drain(self) -> None:
        """Refuse new requests from now on; those in the queue are still answered."""
        if self.state != "failed":
            self.state = "draining"

    def drop_late(self) -> None:
        """Drop requests whose deadline has passed."""
        if self._batcher is not None:
            self._batcher.drop_late()

    @property
    def is_idle(self) -> bool:
        """Whether no request waits or runs."""
        return self._batcher is None or self._batcher.is_idle

    def close(self) -> None:
        """Finish the queue, and end the threads."""
        self.drain()
        if self._follower is not None:
            self._follower.close()
        if self._batcher is not None:
            self._batcher.close()

    def _check_ready(self) -> None:
        if self._engine is None:
            raise RefusedError(503, "cold", "the service is loading its model and index.", retry_after=1.0)

    def _load(self) -> None:
        log("loading", model=self.source.model, index=self.source.index)
        retriever, live = self.source.open()
        log(
            "loaded",
            items=len(retriever.index),
            version=retriever.version and retriever.version.number,
            device=str(retriever.device_index.device),
            sets=sorted(self.source.rules),
        )
        version = retriever.index if retriever.version is None else retriever.version
        snapshot = snapshot_of(retriever, version, self.source.rules)
        self._warm_up(snapshot)
        engine = Engine(snapshot, self.settings, self.metrics)
        self._batcher = self._queue_before(engine)
        self._follower = Follower(live, engine, self.settings, self.metrics)
        if self.source.canary is not None and live is not None:
            self._follower.set_canary(self.source.canary, self.settings.canary_share)
        self._engine = engine

    def _warm_up(self, snapshot: Snapshot) -> None:
        warm_up(snapshot, self.settings, _logged_progress())

    def _queue_before(self, engine: Engine) -> Queue:
        return Batcher(engine, self.settings, self.metrics)


def _logged_progress() -> Callable[[int, int], None]:
    """Writes the progress of the warm-up into the log, not more often than every two seconds."""
    last = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= PROGRESS_SECONDS:
            last = time.monotonic()
            log("warming_up", done=done, total=total)

    return progress
