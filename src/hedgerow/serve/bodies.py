"""Bodies of requests: JSON objects, as they are, without a loss of digits."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import orjson
from starlette.requests import Request

from hedgerow.serve.asking import RefusedError

# The content type that curl sends, and texts, can have JSON as well.
JSON_TYPES = ("application/json", "application/x-www-form-urlencoded", "text/plain", "text/json")
# Some clients quote the name, also with single quotes.
CHARSET = re.compile(r"""charset=["']?([^"';\s]+)""")
# Integers that orjson may read as floats have at least so many digits.
LONG = re.compile(rb"[0-9]{19}")
LEAST, MOST = -(2**63), 2**64 - 1
# Names in a body may have any length.
MOST_OF_PATH = 100
GZIP = b"\x1f\x8b"


class _TooLong(str):
    """The digits of an integer that 64 bits do not hold."""

    __slots__ = ()


def check_headers(headers: Mapping[str, str]) -> None:
    """Check that a body is JSON in UTF-8, and not compressed, as far as its headers say.

    Raises:
        RefusedError: it is not.
    """
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        message = f"content-encoding {encoding[:50]!r} is not supported: send the body as it is, not compressed."
        raise RefusedError(415, "unsupported_media_type", message)
    kind, _, parameters = headers.get("content-type", "").lower().partition(";")
    kind, charset = kind.strip(), CHARSET.search(parameters)
    if kind not in ("", *JSON_TYPES) and not re.fullmatch(r"application/[^/]+\+json", kind):
        message = f"content-type {kind[:50]!r} is not supported: send JSON, as application/json."
        raise RefusedError(415, "unsupported_media_type", message)
    if charset and charset[1] not in ("utf-8", "utf8", "us-ascii"):
        raise RefusedError(415, "unsupported_media_type", f"JSON is sent in UTF-8; got charset {charset[1][:50]!r}.")


def document_of(content: bytes, headers: Mapping[str, str], depth: int) -> dict[str, Any]:
    """The JSON object of a body.

    Args:
        content: the body.
        headers: the headers of the request.
        depth: how deep lists and objects may be inside each other.

    Raises:
        RefusedError: it is not one, it is too deep, or an integer has more than 64 bits.
    """
    try:
        document = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        hint = " It is compressed with gzip: send it as it is." if content.startswith(GZIP) else ""
        kind = headers.get("content-type", "")
        hint = hint or f" Its content-type is {kind[:50]!r}; send a JSON object." * bool(kind and "json" not in kind)
        raise RefusedError(400, "invalid_json", f"the body is not JSON: {error}.{hint}") from None
    if not isinstance(document, dict):
        raise RefusedError(400, "invalid_json", f"the body must be a JSON object; got {type(document).__name__}.")
    check_depth(document, depth)
    if LONG.search(content):
        _check_integers(content)
    return document


def _check_integers(content: bytes) -> None:
    """Check that integers have at most 64 bits: orjson reads longer ones as floats, which are other numbers.

    Raises:
        RefusedError: one has more. The message names its place.
    """

    def parsed(digits: str) -> int | _TooLong:
        fits = len(digits) <= 20 and LEAST <= int(digits) <= MOST
        return int(digits) if fits else _TooLong(digits)

    for path, value in _values([], json.loads(content, parse_int=parsed)):
        if isinstance(value, _TooLong):
            where = ".".join(map(str, path))[:MOST_OF_PATH]
            message = f"{where}: the integer {value:.40} has more than 64 bits. Ids that are text are in quotes."
            raise RefusedError(400, "invalid_request", message, param=where)


def _values(path: list[str | int], value: Any) -> Iterator[tuple[list[str | int], Any]]:
    """All values of a document that are no lists and objects, with their places."""
    if not isinstance(value, dict | list):
        yield path, value
        return
    for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
        yield from _values([*path, name], inner)


async def content_of(request: Request, limit: int) -> bytes:
    """The bytes of a body.

    Raises:
        RefusedError: there are more than `limit`.
    """
    length, chunks, size = request.headers.get("content-length", ""), [], 0
    too_large = length.isdecimal() and (len(length) > 18 or int(length) > limit)
    if not too_large:
        async for chunk in request.stream():
            chunks.append(chunk)
            size += len(chunk)
            if size > limit:
                break
    if too_large or size > limit:
        raise RefusedError(413, "body_too_large", f"the body has more than {limit:,} bytes.")
    return b"".join(chunks)


def check_depth(document: Any, limit: int) -> None:
    """Check how deep lists and objects are inside each other, which recursive code would not survive.

    Raises:
        RefusedError: deeper than `limit`.
    """
    level = [document]
    for _ in range(limit):
        level = [inner for outer in level for inner in _parts(outer)]
        if not level:
            return
    raise RefusedError(400, "limit", f"a body has at most {limit} lists and objects inside each other.")


def _parts(value: Any) -> Iterable[Any]:
    parts = value.values() if isinstance(value, dict) else value
    return [part for part in parts if isinstance(part, dict | list)]
