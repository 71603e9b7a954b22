"""The requests of `hedgerow retrieve --input`: JSON lines, read and answered a few at a time."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from hedgerow._arguments import distinct_keys
from hedgerow._urls import opened, url_of
from hedgerow.cli.common import advice_on_name
from hedgerow.errors import ArgumentError

# The keys of a request. "id" and "extra" are not used, but printed with the items.
KEYS = ("prompt", "history", "where", "exclude", "candidates", "k", "beam_width", "caps", "order_by", "id", "extra")
# The path that stands for standard input.
STDIN = Path("-")
# Lines of a file that are answered together.
LINES_AT_ONCE = 64


@dataclass(frozen=True)
class Line:
    """A line of a file of requests.

    Attributes:
        path: the file; STDIN for standard input.
        number: the number of the line, from 1.
        content: the line.
    """

    path: Path
    number: int
    content: bytes

    @property
    def where(self) -> str:
        """The place of the line, for messages."""
        return f"{_name(self.path)}, line {self.number}"

    def request(self) -> dict[str, Any]:
        """Parse the line.

        Raises:
            ArgumentError: the line is not a request.
        """
        where = self.where
        try:
            text = self.content.decode("utf-8-sig" if self.number == 1 else "utf-8").strip()
            request = json.loads(text, object_pairs_hook=distinct_keys)
        except UnicodeDecodeError as error:
            raise ArgumentError(f"{where} cannot be read as UTF-8: {error}") from None
        except (ValueError, RecursionError) as error:
            raise ArgumentError(f"{where} is not JSON: {error}") from None
        if not isinstance(request, dict):
            request = {"prompt": request}
        if not isinstance(request.get("prompt", ""), str | list):
            raise ArgumentError(f"{where}: a prompt must be text, or a list of token ids or messages; got {text[:50]}.")
        given = [name for name in ("prompt", "history") if request.get(name) is not None]
        if len(given) != 1:
            wrong = 'both "prompt" and "history"; pass one' if given else 'neither "prompt" nor "history"'
            raise ArgumentError(f"{where} has {wrong}; it has {', '.join(request) or 'nothing'}.")
        unknown = next((key for key in request if key not in KEYS), None)
        if unknown is not None:
            advice = advice_on_name(unknown, KEYS, "keys")
            raise ArgumentError(f'{where}: unknown key {unknown!r}{advice} Keys of your own belong in "extra".')
        return request


def _name(path: Path) -> str:
    return "standard input" if path == STDIN else str(path)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn errors of the file system into errors that name the file.

    Raises:
        ArgumentError: the file cannot be read.
    """
    try:
        yield
    except OSError as error:
        raise ArgumentError(f"{_name(path)} cannot be read: {error}") from None


def _opened(path: Path) -> AbstractContextManager[BinaryIO]:
    if path != STDIN:
        return opened(path)
    if sys.stdin is None:
        raise OSError("it is closed")
    return nullcontext(sys.stdin.buffer)


def read_file(path: Path) -> bytes:
    """The content of a file, or of standard input.

    Raises:
        ArgumentError: it cannot be read.
    """
    with reading(path), _opened(path) as file:
        return file.read()


def count_lines(path: Path) -> int | None:
    """The number of lines that are not empty; None for a pipe and standard input.

    Raises:
        ArgumentError: the file cannot be read, or has no such line.
    """
    with reading(path):
        if path == STDIN or (path.exists() and not path.is_file() and not path.is_dir()):
            return None
        with _opened(path) as file:
            count = sum(1 for line in file if line.strip())
    if not count:
        raise ArgumentError(f"{path} contains no prompt.")
    return count


def lines_of(path: Path) -> Iterator[list[Line]]:
    """Read the lines that are not empty, a few at a time. A line of a pipe is given as soon as it is complete.

    Raises:
        ArgumentError: the file cannot be read, or has no such line.
    """
    with reading(path), _opened(path) as file:
        lines = (Line(path, number, line) for number, line in enumerate(file, 1) if line.strip())
        size = LINES_AT_ONCE if path != STDIN and (path.is_file() or url_of(path)) else 1
        found = False
        while some := list(islice(lines, size)):
            found = True
            yield some
    if not found:
        raise ArgumentError(f"{_name(path)} contains no prompt.")
