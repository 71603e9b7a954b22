"""The log of a service: one JSON object per line on stderr. Prompts are logged only if the operator asks for it.

A thread writes the lines, so that neither a slow reader of the log nor a signal handler waits for it.
"""

from __future__ import annotations

import atexit
import json
import logging
import sys
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from queue import SimpleQueue
from typing import Any

# Lines that wait at most. If nobody reads the log, later ones are dropped, and counted.
MAX_LINES = 10_000
FLUSH_SECONDS = 2.0


class _Writer:
    """Writes lines in a thread, which the first line starts. `put` takes no lock, so signal handlers can call it."""

    def __init__(self) -> None:
        self._lines: SimpleQueue[str] = SimpleQueue()
        self._dropped, self._written, self._put = 0, 0, 0
        self._thread: threading.Thread | None = None

    def put(self, line: str) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="hedgerow-log", daemon=True)
            self._thread.start()
            atexit.register(self.flush)
        if self._lines.qsize() >= MAX_LINES:
            self._dropped += 1
            return
        self._put += 1
        self._lines.put(line)

    def flush(self) -> None:
        """Wait until all lines are written, but not for long."""
        end = time.monotonic() + FLUSH_SECONDS
        while self._written < self._put and time.monotonic() < end:
            time.sleep(0.005)

    def _run(self) -> None:
        while True:
            line = self._lines.get()
            if self._dropped:
                dropped, self._dropped = self._dropped, 0
                line = f"{_line('log_dropped', 'warning', {'lines': dropped})}\n{line}"
            # If nobody reads the log any more, requests are answered nevertheless.
            with suppress(OSError, ValueError):
                print(line, file=sys.stderr, flush=True)
            self._written += 1


_WRITER = _Writer()


def log(event: str, *, level: str = "info", **facts: Any) -> None:
    """Write one line.

    Args:
        event: what has happened.
        level: "info", "warning" or "error".
        facts: further values; those without a JSON form become text.
    """
    _WRITER.put(_line(event, level, facts))


def flush() -> None:
    """Wait until all lines are written."""
    _WRITER.flush()


def _line(event: str, level: str, facts: dict[str, Any]) -> str:
    line = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "level": level, "event": event} | facts
    return json.dumps(line, default=str, ensure_ascii=True)


class _Lines(logging.Handler):
    """Writes the messages of libraries as lines of the log."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one message."""
        log("message", level=record.levelname.lower(), logger=record.name, message=record.getMessage())


def take_over() -> None:
    """Write warnings, and the messages of libraries, as lines of the log."""
    logging.captureWarnings(capture=True)
    logging.basicConfig(level=logging.WARNING, handlers=[_Lines()], force=True)
