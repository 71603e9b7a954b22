"""Measurements in a process of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from hedgerow.errors import HedgerowError


def run_module(module: str, arguments: Sequence[str], what: str, environment: Mapping[str, str] | None = None) -> Any:
    """Run a module in a new process. Its result is the JSON that it prints.

    Args:
        module: its name, as for `python -m`.
        arguments: those of its command line.
        what: what it does, for the message.
        environment: its environment variables. Default: those of this process.

    Raises:
        HedgerowError: it failed; the message ends with the last line of its error output.
    """
    command = [sys.executable, "-m", module, *arguments]
    process = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if process.returncode:
        last_line = process.stderr.strip().splitlines()[-1:] or [f"signal {-process.returncode}"]
        raise HedgerowError(f"{what} failed: {last_line[0]}")
    return json.loads(process.stdout)
