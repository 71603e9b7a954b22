"""What tests of the command line check of its output."""

from __future__ import annotations

import json


def lines_of(stdout: str) -> list[dict]:
    return [json.loads(line) for line in stdout.splitlines()]


def assert_refused(called: tuple[int, str, str], expected: str) -> None:
    code, stdout, stderr = called
    assert (code, stdout) == (1, "")
    assert stderr.startswith("hedgerow: ")
    assert stderr.count("\n") == 1
    assert expected in stderr
