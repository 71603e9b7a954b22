"""Batcher: collects asks from many clients into batches, and runs them one after another in one thread."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, Protocol

from hedgerow.serve.asking import Answered, Ask, RefusedError
from hedgerow.serve.engine import Engine, Outcome
from hedgerow.serve.settings import Settings


class Observer(Protocol):
    """What is told of the queue, for example metrics."""

    def queued(self, *, length: int) -> None:
        """The length of the queue has changed."""

    def waited(self, *, seconds: float) -> None:
        """A request has left the queue for a batch."""

    def shed(self, reason: str) -> None:
        """A request was refused, or dropped from the queue."""


class Queue(Protocol):
    """What puts asks before an engine: see `Batcher`."""

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits or runs."""
        ...

    def submit(self, ask: Ask) -> Future[Outcome]:
        """Put an ask into the queue."""
        ...

    def submit_all(self, asks: list[Ask]) -> list[Future[Outcome]]:
        """Put asks into the queue: all of them, or none."""
        ...

    def run(self, work: Callable[[Engine], Any]) -> Future[Any]:
        """Put other work on the engine into the queue."""
        ...

    def drop_late(self) -> None:
        """Drop the requests whose deadline has passed."""

    def close(self) -> None:
        """Finish what waits."""


@dataclass(frozen=True, eq=False)
class _Waiting:
    """A request in the queue: an ask, or other work on the engine, which runs alone."""

    future: Future[Any]
    arrived: float
    ask: Ask | None = None
    work: Callable[[Engine], Any] | None = None
    deadline: float | None = None

    @property
    def is_late(self) -> bool:
        return self.deadline is not None and time.monotonic() > self.deadline


class Batcher:
    """A bounded queue before an engine.

    A batch takes what waits, up to `max_batch` asks. If nothing runs, it waits up to `max_wait_ms` for more. Requests
    whose deadline has passed are dropped from the queue before they cost a step.

    Args:
        engine: answers the batches.
        settings: the settings of the service.
        observer: what is told of the queue.
    """

    def __init__(self, engine: Engine, settings: Settings, observer: Observer) -> None:
        self._engine, self._settings, self._observer = engine, settings, observer
        self._queue: deque[_Waiting] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._running = 0
        # The seconds that a request takes of the thread, smoothed, to tell clients when to come back.
        self._seconds_each = 0.01
        self._thread = threading.Thread(target=self._run, name="hedgerow-batches", daemon=True)
        self._thread.start()

    @property
    def length(self) -> int:
        """The number of requests that wait."""
        return len(self._queue)

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits or runs."""
        with self._changed:
            return not self._queue and not self._running

    def submit(self, ask: Ask) -> Future[Outcome]:
        """Put an ask into the queue.

        Returns:
            A future of its answer.

        Raises:
            RefusedError: the queue is full.
        """
        (future,) = self.submit_all([ask])
        return future

    def submit_all(self, asks: list[Ask]) -> list[Future[Outcome]]:
        """Put asks into the queue: all of them, or none if there is no room for all.

        Raises:
            RefusedError: the queue has no room, or would have none if it were empty.
        """
        arrived = time.monotonic()
        limit = arrived + self._settings.deadline_ms / 1e3
        waiting = []
        for ask in asks:
            deadline = limit if ask.deadline is None else ask.deadline
            waiting.append(_Waiting(Future(), arrived, replace(ask, deadline=deadline), deadline=deadline))
        self._put(waiting)
        return [each.future for each in waiting]

    def run(self, work: Callable[[Engine], Any]) -> Future[Any]:
        """Put other work on the engine into the queue.

        Raises:
            RefusedError: the queue is full.
        """
        arrived = time.monotonic()
        waiting = _Waiting(Future(), arrived, work=work, deadline=arrived + self._settings.deadline_ms / 1e3)
        self._put([waiting])
        return waiting.future

    def close(self) -> None:
        """Finish what waits, then end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def drop_late(self) -> None:
        """Drop the requests whose deadline has passed; their futures get the error."""
        with self._changed:
            self._drop_late()

    def _put(self, waiting: list[_Waiting]) -> None:
        with self._changed:
            if self._closed:
                raise RefusedError(503, "draining", "the service is shutting down.", retry_after=1.0)
            if len(waiting) > self._settings.queue:
                message = f"the queue holds {self._settings.queue} requests; a body with {len(waiting)} never fits."
                raise RefusedError(400, "limit", message, param="requests")
            if len(self._queue) + len(waiting) > self._settings.queue:
                self._observer.shed("queue_full")
                raise RefusedError(
                    429,
                    "queue_full",
                    f"{len(self._queue)} requests wait already, of at most {self._settings.queue}.",
                    retry_after=max(0.05, len(self._queue) * self._seconds_each),
                )
            self._queue.extend(waiting)
            self._observer.queued(length=len(self._queue))
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            batch = self._next()
            if batch is None:
                return
            if not batch:
                continue
            started = time.monotonic()
            for each in batch:
                self._observer.waited(seconds=started - each.arrived)
            try:
                if batch[0].work is not None:
                    batch[0].future.set_result(batch[0].work(self._engine))
                else:
                    self._answer(batch, started)
            except BaseException as error:
                # The thread must not end: each request gets the error, and the next batch runs.
                for each in batch:
                    if not each.future.done():
                        each.future.set_exception(error)
            finally:
                with self._changed:
                    self._running = 0
            spent = (time.monotonic() - started) / len(batch)
            self._seconds_each += 0.2 * (spent - self._seconds_each)

    def _answer(self, batch: list[_Waiting], started: float) -> None:
        outcomes = self._engine.answer([each.ask for each in batch if each.ask is not None])
        for each, outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, Answered):
                outcome = replace(outcome, queue_seconds=started - each.arrived)
            if isinstance(outcome, Exception) and not isinstance(outcome, RefusedError):
                each.future.set_exception(outcome)
            else:
                each.future.set_result(outcome)

    def _next(self) -> list[_Waiting] | None:
        """The next batch: asks, or one other work. None if the batcher is closed and nothing waits."""
        with self._changed:
            while True:
                self._drop_late()
                if self._queue:
                    break
                if self._closed:
                    return None
                self._changed.wait()
            if self._queue[0].work is None:
                self._wait_for_more()
            batch = [self._queue.popleft()]
            while batch[0].work is None and self._queue and len(batch) < self._settings.max_batch:
                if self._queue[0].work is not None:
                    break
                batch.append(self._queue.popleft())
            # From here on, a client that goes away cannot cancel its request.
            batch = [each for each in batch if each.future.set_running_or_notify_cancel()]
            self._running = len(batch)
            self._observer.queued(length=len(self._queue))
        return batch

    def _wait_for_more(self) -> None:
        """Wait until the queue holds a batch, or the first ask has waited long enough."""
        until = self._queue[0].arrived + self._settings.max_wait_ms / 1e3
        while len(self._queue) < self._settings.max_batch and not self._closed:
            left = until - time.monotonic()
            if left <= 0:
                return
            self._changed.wait(left)

    def _drop_late(self) -> None:
        late = [each for each in self._queue if each.is_late or each.future.cancelled()]
        if not late:
            return
        kept = set(self._queue) - set(late)
        self._queue = deque(each for each in self._queue if each in kept)
        self._observer.queued(length=len(self._queue))
        for each in late:
            # A future that is running cannot be cancelled between this line and its error.
            if not each.future.set_running_or_notify_cancel():
                self._observer.shed("cancelled")
                continue
            self._observer.shed("deadline")
            self._observer.waited(seconds=time.monotonic() - each.arrived)
            each.future.set_exception(
                RefusedError(504, "deadline", "the request waited in the queue until its deadline had passed.")
            )
