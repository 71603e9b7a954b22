"""The requests of `hedgerow retrieve --input`: JSON lines, read and answered a few at a time."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from hedgerow._arguments import distinct_keys, json_text
from hedgerow._urls import opened, url_of
from hedgerow.errors import ArgumentError, HedgerowError
from hedgerow.request import Request
from hedgerow.request_documents import RequestOptions, Searcher, answers_of, checked_document, request_of
from hedgerow.results import Results

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
        return checked_document(request if isinstance(request, dict) else {"prompt": request}, where)


@dataclass(frozen=True)
class LineAnswer:
    """The answer of a line.

    Attributes:
        line: the line.
        keys: the keys of its request; empty if it is none.
        request: the request, or what is wrong with it.
        answer: the results, or the error.
    """

    line: Line
    keys: dict[str, Any]
    request: Request | HedgerowError
    answer: Results | HedgerowError

    @property
    def error(self) -> str | None:
        """The error, with the place of the line; None if there are results."""
        if isinstance(self.answer, Results):
            return None
        message = str(self.answer)
        return message if message.startswith(self.line.where) else f"{self.line.where}: {message}"

    def text(self, attributes: Sequence[str] | None) -> str:
        """The answer as one line of JSON.

        Args:
            attributes: the attributes of the items to write. None: all.
        """
        if isinstance(self.answer, Results):
            return results_text(self.keys, self.answer, attributes)
        return json_text({"line": self.line.number, "error": self.error})


def results_text(keys: Mapping[str, Any], results: Results, attributes: Sequence[str] | None) -> str:
    """The results of a request as one line of JSON, after the keys of the request: see `LineAnswer.text`."""
    items = results.to_pylist()
    if attributes is not None:
        items = [{name: item[name] for name in (*attributes, "item_id", "score", "sid")} for item in items]
    return json_text({**keys, "items": items, "complete": results.complete, "reason": results.reason})


def answer_lines(searcher: Searcher, lines: Sequence[Line], options: RequestOptions) -> list[LineAnswer]:
    """Answer the requests of some lines. A line that cannot be answered gets its error."""
    parsed = [_parsed(searcher, line, options) for line in lines]
    answers = answers_of(searcher, [request for _, request in parsed])
    return [LineAnswer(line, *of_line, answer) for line, of_line, answer in zip(lines, parsed, answers, strict=True)]


def _parsed(searcher: Searcher, line: Line, options: RequestOptions) -> tuple[dict[str, Any], Request | HedgerowError]:
    """The keys of a line, and its request or what is wrong with it."""
    keys: dict[str, Any] = {}
    try:
        keys = line.request()
        return keys, request_of(searcher, keys, options)
    except HedgerowError as error:
        return keys, error


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
