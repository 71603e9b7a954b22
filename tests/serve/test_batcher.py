"""The queue before an engine: batches, deadlines, limits, and errors that must not end its thread."""

import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

import pytest
from serve.support import SETTINGS, ask_of, wait_until

from hedgerow.serve.asking import RefusedError
from hedgerow.serve.batcher import Batcher


@dataclass
class Seen:
    """An observer that remembers what it is told."""

    lengths: list[int] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)

    def queued(self, *, length):
        self.lengths.append(length)

    def waited(self, *, seconds):
        self.waits.append(seconds)

    def shed(self, reason):
        self.reasons.append(reason)


@dataclass
class Held:
    """An engine that answers an ask with its prompt, when the test lets it."""

    batches: list[list] = field(default_factory=list)
    go: threading.Event = field(default_factory=threading.Event)
    error: BaseException | None = None

    def answer(self, asks):
        self.batches.append([ask.prompt for ask in asks])
        assert self.go.wait(30)
        if self.error is not None:
            raise self.error
        return [ask.prompt for ask in asks]


@pytest.fixture
def engine():
    return Held()


@pytest.fixture
def seen():
    return Seen()


@pytest.fixture
def new(engine, seen):
    """Make a batcher; all are closed after the test."""
    made = []

    def make(**options):
        settings = replace(SETTINGS, **({"max_batch": 4, "max_wait_ms": 0.0, "queue": 8} | options))
        made.append(Batcher(engine, settings, seen))
        return made[-1]

    yield make
    engine.go.set()
    for batcher in made:
        batcher.close()


def hold(batcher, engine):
    """Let a batch of one begin, which does not end before `engine.go` is set."""
    future = batcher.submit(ask_of("held"))
    wait_until(lambda: engine.batches)
    return future


def test_what_waits_becomes_batches_in_order(new, engine, seen):
    batcher = new()
    held = hold(batcher, engine)
    futures = [batcher.submit(ask_of(number)) for number in range(6)]
    assert batcher.length == 6
    assert not batcher.is_idle
    engine.go.set()
    assert [future.result(30) for future in (held, *futures)] == ["held", *range(6)]
    assert engine.batches == [["held"], [0, 1, 2, 3], [4, 5]]
    wait_until(lambda: batcher.is_idle)
    assert seen.lengths[-1] == 0
    assert len(seen.waits) == 7


def test_a_batch_waits_for_more_while_nothing_runs(new, engine):
    engine.go.set()
    batcher = new(max_wait_ms=5_000.0)
    futures = [batcher.submit(ask_of(number)) for number in range(4)]
    started = time.monotonic()
    assert [future.result(30) for future in futures] == [0, 1, 2, 3]
    # The batch was full, so it did not wait.
    assert time.monotonic() - started < 4
    assert engine.batches == [[0, 1, 2, 3]]


def test_a_batch_does_not_wait_longer_than_allowed(new, engine):
    engine.go.set()
    batcher, started = new(max_wait_ms=50.0), time.monotonic()
    assert batcher.submit(ask_of(1)).result(30) == 1
    assert 0.04 < time.monotonic() - started < 10


def test_other_work_runs_alone_and_in_turn(new, engine):
    batcher = new()
    hold(batcher, engine)
    first, work, last = batcher.submit(ask_of(1)), batcher.run(lambda engine: engine), batcher.submit(ask_of(2))
    engine.go.set()
    assert (first.result(30), work.result(30), last.result(30)) == (1, engine, 2)
    assert engine.batches == [["held"], [1], [2]]


class TestAFullQueue:
    def test_refuses_more_and_says_when_to_come_back(self, new, engine, seen):
        batcher = new(queue=2)
        hold(batcher, engine)
        futures = [batcher.submit(ask_of(number)) for number in range(2)]
        for submit in (lambda: batcher.submit(ask_of(3)), lambda: batcher.run(lambda engine: engine)):
            with pytest.raises(RefusedError, match="2 requests wait already, of at most 2") as refused:
                submit()
            assert (refused.value.status, refused.value.code) == (429, "queue_full")
            assert refused.value.retry_after is not None
            assert 0 < refused.value.retry_after < 60
        assert seen.reasons == ["queue_full"] * 2
        engine.go.set()
        assert [future.result(30) for future in futures] == [0, 1]

    def test_refuses_for_good_what_it_could_never_take(self, new):
        with pytest.raises(RefusedError, match="a body with 3 never fits") as refused:
            new(queue=2).submit_all([ask_of(number) for number in range(3)])
        assert (refused.value.status, refused.value.retry_after) == (400, None)

    def test_takes_all_of_several_or_none(self, new, engine):
        batcher = new(queue=3)
        hold(batcher, engine)
        futures = batcher.submit_all([ask_of(number) for number in range(2)])
        with pytest.raises(RefusedError):
            batcher.submit_all([ask_of(number) for number in range(2, 4)])
        futures += batcher.submit_all([ask_of(9)])
        assert batcher.length == 3
        engine.go.set()
        assert [future.result(30) for future in futures] == [0, 1, 9]


class TestDeadlines:
    def test_late_requests_never_reach_the_engine(self, new, engine, seen):
        batcher = new()
        hold(batcher, engine)
        late = batcher.submit(ask_of("late", deadline=time.monotonic() + 0.01))
        good = batcher.submit(ask_of("good"))
        time.sleep(0.02)
        engine.go.set()
        assert good.result(30) == "good"
        error = late.exception(30)
        assert isinstance(error, RefusedError)
        assert (error.status, error.code) == (504, "deadline")
        assert engine.batches == [["held"], ["good"]]
        assert seen.reasons == ["deadline"]

    def test_of_the_service_where_requests_have_none(self, new, engine):
        batcher = new(deadline_ms=10.0)
        hold(batcher, engine)
        late = [batcher.submit(ask_of("late")), batcher.run(lambda engine: engine)]
        time.sleep(0.02)
        engine.go.set()
        assert [future.exception(30).status for future in late] == [504, 504]  # type: ignore[union-attr]
        assert engine.batches == [["held"]]

    def test_own_deadlines_may_be_longer(self, new, engine):
        batcher = new(deadline_ms=10.0)
        hold(batcher, engine)
        patient = batcher.submit(ask_of("patient", deadline=time.monotonic() + 60))
        time.sleep(0.02)
        engine.go.set()
        assert patient.result(30) == "patient"

    def test_the_length_of_the_queue_is_reported_after_late_ones_are_dropped(self, new, engine, seen):
        batcher = new()
        hold(batcher, engine)
        late = batcher.submit(ask_of("late", deadline=time.monotonic() + 0.01))
        time.sleep(0.02)
        engine.go.set()
        assert late.exception(30) is not None
        wait_until(lambda: seen.lengths[-1] == 0, 5)


@pytest.mark.parametrize("error", [ValueError("wrong"), MemoryError(), SystemExit(3), KeyboardInterrupt()])
def test_an_error_of_the_engine_does_not_end_the_thread(error, new, engine):
    batcher, engine.error = new(), error
    engine.go.set()
    failed = [batcher.submit(ask_of(1)), batcher.submit(ask_of(2))]
    assert [future.exception(30) for future in failed] == [error, error]

    def wrong(_):
        raise error

    assert batcher.run(wrong).exception(30) is error
    engine.error = None
    assert batcher.submit(ask_of(3)).result(30) == 3
    wait_until(lambda: batcher.is_idle)


class TestCancelled:
    """Futures that are cancelled while they wait, as when the web server gives up on a request."""

    def test_is_not_searched(self, new, engine, seen):
        batcher = new()
        hold(batcher, engine)
        cancelled, good = batcher.submit(ask_of("cancelled")), batcher.submit(ask_of("good"))
        assert cancelled.cancel()
        engine.go.set()
        assert good.result(30) == "good"
        assert engine.batches == [["held"], ["good"]]
        assert seen.reasons == ["cancelled"]

    def test_while_a_batch_waits_for_more(self, new, engine):
        engine.go.set()
        batcher = new(max_wait_ms=100.0)
        cancelled = batcher.submit(ask_of("cancelled"))
        time.sleep(0.03)
        assert cancelled.cancel()
        time.sleep(0.15)
        assert engine.batches == []
        wait_until(lambda: batcher.is_idle, 5)
        assert batcher.submit(ask_of("good")).result(30) == "good"

    def test_at_the_moment_at_which_it_is_dropped(self, new, engine, seen, monkeypatch):
        batcher = new()
        hold(batcher, engine)
        late = batcher.submit(ask_of("late", deadline=time.monotonic()))
        monkeypatch.setattr(seen, "shed", lambda _: late.cancel())
        time.sleep(0.01)
        engine.go.set()
        assert batcher.submit(ask_of("good")).result(5) == "good"

    def test_of_a_batch_that_runs_is_too_late(self, new, engine):
        held: Future = hold(new(), engine)
        assert not held.cancel()
        engine.go.set()
        assert held.result(30) == "held"


def test_closing_finishes_the_queue_and_refuses_more(new, engine):
    batcher = new()
    held = hold(batcher, engine)
    futures = [batcher.submit(ask_of(number)) for number in range(6)]
    closing = threading.Thread(target=batcher.close)
    closing.start()
    wait_until(lambda: batcher._closed)
    with pytest.raises(RefusedError, match="shutting down") as refused:
        batcher.submit(ask_of(7))
    assert (refused.value.status, refused.value.code) == (503, "draining")
    engine.go.set()
    closing.join(30)
    assert not closing.is_alive()
    assert [future.result(0) for future in (held, *futures)] == ["held", *range(6)]
    assert batcher.is_idle
