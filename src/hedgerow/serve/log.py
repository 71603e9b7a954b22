"""The log of a service: one JSON object per line on stderr. Prompts are logged only if the operator asks for it."""

from __future__ import annotations

import json
import logging
import sys
import threading
from datetime import UTC, datetime
from typing import Any

_LOCK = threading.Lock()


def log(event: str, *, level: str = "info", **facts: Any) -> None:
    """Write one line.

    Args:
        event: what has happened.
        level: "info", "warning" or "error".
        facts: further values; those without a JSON form become text.
    """
    line = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "level": level, "event": event} | facts
    text = json.dumps(line, default=str, ensure_ascii=True)
    with _LOCK:
        try:
            print(text, file=sys.stderr, flush=True)
        except (OSError, ValueError):
            # Nobody reads the log any more; requests are answered nevertheless.
            return


class _Lines(logging.Handler):
    """Writes the messages of libraries as lines of the log."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one message."""
        log("message", level=record.levelname.lower(), logger=record.name, message=record.getMessage())


def take_over() -> None:
    """Write warnings, and the messages of libraries, as lines of the log."""
    logging.captureWarnings(capture=True)
    logging.basicConfig(level=logging.WARNING, handlers=[_Lines()], force=True)
