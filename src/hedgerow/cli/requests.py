"""The requests of `hedgerow retrieve --input`: JSON lines, read and answered a few at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from hedgerow.cli.common import advice_on_name
from hedgerow.errors import ArgumentError

# The keys of a request. "id" is not used, but printed with the items.
KEYS = ("prompt", "where", "exclude", "id")
# Lines of a file that are answered together.
LINES_AT_ONCE = 64


@dataclass(frozen=True)
class Line:
    """A line of a file of requests.

    Attributes:
        path: the file.
        number: the number of the line, from 1.
        content: the line.
    """

    path: Path
    number: int
    content: bytes

    def request(self) -> dict[str, Any]:
        """Parse the line.

        Raises:
            ArgumentError: the line is not a request.
        """
        where = f"{self.path}, line {self.number}"
        try:
            text = self.content.decode("utf-8-sig" if self.number == 1 else "utf-8").strip()
            request = json.loads(text)
        except UnicodeDecodeError as error:
            raise ArgumentError(f"{where} cannot be read as UTF-8: {error}") from None
        except (ValueError, RecursionError) as error:
            raise ArgumentError(f"{where} is not JSON: {error}") from None
        if not isinstance(request, dict):
            request = {"prompt": request}
        if not isinstance(request.get("prompt", ""), str | list):
            raise ArgumentError(f"{where}: a prompt must be text, or a list of token ids or messages; got {text[:50]}.")
        if "prompt" not in request:
            raise ArgumentError(f'{where} has no "prompt"; it has {", ".join(request) or "nothing"}.')
        unknown = next((key for key in request if key not in KEYS), None)
        if unknown is not None:
            raise ArgumentError(f"{where}: unknown key {unknown!r}{advice_on_name(unknown, KEYS, 'keys')}")
        return request


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn errors of the file system into errors that name the file.

    Raises:
        ArgumentError: the file cannot be read.
    """
    try:
        yield
    except OSError as error:
        raise ArgumentError(f"{path} cannot be read: {error}") from None


def count_lines(path: Path) -> int | None:
    """The number of lines that are not empty; None for a pipe.

    Raises:
        ArgumentError: the file cannot be read, or has no such line.
    """
    with reading(path):
        if path.exists() and not path.is_file() and not path.is_dir():
            return None
        with path.open("rb") as file:
            count = sum(1 for line in file if line.strip())
    if not count:
        raise ArgumentError(f"{path} contains no prompt.")
    return count


def lines_of(path: Path) -> Iterator[list[Line]]:
    """Read the lines that are not empty, a few at a time. A line of a pipe is given as soon as it is complete.

    Raises:
        ArgumentError: the file cannot be read, or has no such line.
    """
    with reading(path), path.open("rb") as file:
        lines = (Line(path, number, line) for number, line in enumerate(file, 1) if line.strip())
        size = LINES_AT_ONCE if path.is_file() else 1
        found = False
        while some := list(islice(lines, size)):
            found = True
            yield some
    if not found:
        raise ArgumentError(f"{path} contains no prompt.")
