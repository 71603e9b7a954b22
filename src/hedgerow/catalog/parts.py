"""The rows of files that are read: one part per file, with its name in all errors."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from hedgerow._urls import RemotePath
from hedgerow.catalog.sources import COMPRESSED, File, arrow_buffer
from hedgerow.errors import CatalogError

Part = tuple[str, pa.Table]


def concatenated(parts: Sequence[Part]) -> pa.Table:
    """The rows of all parts.

    Raises:
        CatalogError: a column has types that do not fit each other.
    """
    if len(parts) == 1:
        return parts[0][1]
    try:
        return pa.concat_tables([table for _, table in parts], promote_options="permissive")
    except pa.ArrowException as error:
        names = ", ".join(name for name, _ in parts[:3])
        raise CatalogError(f"the columns of {names} do not fit each other: {error}") from None


def divided(rows: pa.Table, parts: Sequence[Part]) -> list[Part]:
    """The rows of all parts, divided among them again."""
    found, start = [], 0
    for name, table in parts:
        found.append((name, rows.slice(start, table.num_rows)))
        start += table.num_rows
    return found


def place(parts: Sequence[Part], message: str) -> str:
    """The file of the row that a message names, which is counted over all files."""
    if len(parts) == 1:
        return parts[0][0]
    match = re.search(r"\brows? (?:[0-9]+ and )?([0-9]+)", message)
    row = int(match[1]) if match else sum(len(table) for _, table in parts)
    start = 0
    for name, table in parts:
        if row < start + len(table):
            return f"{len(parts)} files, with rows counted over all; row {row} is row {row - start} of {name}"
        start += len(table)
    return f"{len(parts)} files, {parts[0][0]} to {parts[-1][0]}"


@contextmanager
def located(name: str) -> Iterator[None]:
    """Add the name of a file to the errors about its content."""
    try:
        yield
    except CatalogError as error:
        raise CatalogError(f"{name}: {error}") from None


@contextmanager
def readable(file: File, kind: str) -> Iterator[None]:
    """Convert the errors of reading a file to a CatalogError that names it."""
    try:
        yield
    except CatalogError:
        raise
    except (OSError, ValueError, RecursionError, pa.ArrowException) as error:
        raise CatalogError(f"{file.name} cannot be read as {kind}: {error}") from None


def content_of(file: File) -> bytes:
    """The bytes of a file, decompressed by its suffix."""
    if isinstance(file.content, Path):
        with pa.input_stream(str(file.content), compression="detect") as stream:
            return stream.read()
    if isinstance(file.content, RemotePath):
        content = file.content.read()
        if Path(file.name).suffix.lower() not in COMPRESSED:
            return content
        with pa.input_stream(arrow_buffer(content), compression=pa.Codec.detect(file.name).name) as stream:
            return stream.read()
    content = file.content.read()
    return content.encode() if isinstance(content, str) else content
