"""The log of a service: one JSON object per line on stderr. Prompts are logged only if the operator asks for it."""

from __future__ import annotations

import json
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
