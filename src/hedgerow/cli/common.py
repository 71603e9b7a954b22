"""Options, output and conversions that the verbs share."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

import hedgerow as hr
from hedgerow.errors import ArgumentError, CatalogError, ConstraintError
from hedgerow.index.build import Progress, ignore_progress

out = Console()
err = Console(stderr=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
IndexPath = Annotated[Path, typer.Argument(metavar="INDEX", help="A saved index: a folder.", show_default=False)]
IndexOutput = Annotated[
    Path, typer.Option("--output", "-o", metavar="INDEX", help="The index to write: a folder.", show_default=False)
]
Sid = Annotated[
    str,
    typer.Option(metavar="COLUMNS", help="The column of lists that holds the SIDs, or one column per level: a,b,c."),
]
Where = Annotated[
    str | None, typer.Option("--where", metavar="SQL", help="Return only items for which this is true: 'year >= 2000'.")
]
Exclude = Annotated[
    str | None, typer.Option("--exclude", metavar="IDS", help="Exclude the items with these ids: id,id.")
]


def print_json(facts: Any, *, indent: int | None = 2) -> None:
    """Prints valid JSON: NaN and infinities become null; values without a JSON form, such as dates, become text."""
    print(json.dumps(_finite(facts), indent=indent, ensure_ascii=False, allow_nan=False, default=str))


def _finite(facts: Any) -> Any:
    if isinstance(facts, dict):
        return {name: _finite(value) for name, value in facts.items()}
    if isinstance(facts, list | tuple):
        return [_finite(value) for value in facts]
    return None if isinstance(facts, float) and not math.isfinite(facts) else facts


@contextmanager
def progress_bar(wanted: bool) -> Iterator[Progress]:
    """A progress bar on stderr that is removed at the end; none if stderr is not a terminal."""
    if not (wanted and err.is_terminal):
        yield ignore_progress
        return
    from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as ProgressBar

    columns = SpinnerColumn(), TextColumn("{task.description:>8}"), BarColumn(), TimeElapsedColumn()
    with ProgressBar(*columns, console=err, transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda what, done, total: bar.update(task, description=what, completed=done, total=total)


def whole_numbers(text: str, option: str) -> list[int]:
    """Parses integers separated by commas."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        message = f"expected integers separated by commas; got {text!r}"
        raise typer.BadParameter(message, param_hint=option) from None


def parsed_sizes(text: str | None) -> int | list[int] | None:
    """Parses --codebook-sizes: one size for all levels, or one size per level."""
    sizes = None if text is None else whole_numbers(text, "--codebook-sizes")
    return sizes[0] if sizes is not None and len(sizes) == 1 else sizes


def names_of(text: str) -> list[str]:
    """Parses names separated by commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def sid_columns(text: str) -> str | list[str]:
    """Parses --sid: one column of lists, or one column per level."""
    names = [name.strip() for name in text.split(",")]
    return names[0] if len(names) == 1 else names


def read_npy(path: Path) -> Any:
    """Reads the array of a .npy file.

    Raises:
        CatalogError: the file cannot be read.
    """
    import numpy as np

    try:
        return np.load(path, allow_pickle=False)
    except Exception as error:
        # NumPy parses the header as Python, so damage can raise any exception.
        raise CatalogError(f"{path} cannot be read as a NumPy array: {error}") from None


def rules_of_requests(
    index: hr.TrieIndex, requests: Sequence[dict[str, Any]], where: str | None, exclude: str | None
) -> dict[str, Any]:
    """The arguments `constraints` and `exclude` of a retriever: the rules of all requests and of each one.

    Args:
        index: the index that is searched.
        requests: each may have "where", an SQL expression, and "exclude", a list of item ids.
        where: an SQL expression for all requests.
        exclude: item ids for all requests, separated by commas.

    Raises:
        ArgumentError: "exclude" of a request is not a list.
        ConstraintError: an expression is invalid, or an id is not of the type of the index's ids.
    """
    for number, request in enumerate(requests):
        if not isinstance(request.get("exclude") or [], list):
            raise ArgumentError(f'request {number}: "exclude" must be a list of item ids; got {request["exclude"]!r}.')
    shared = [] if exclude is None else _ids(index, exclude)
    return {
        "constraints": [_set_of(index, where, request.get("where")) for request in requests],
        "exclude": [shared + (request.get("exclude") or []) for request in requests],
    }


def _set_of(index: hr.TrieIndex, shared: str | None, own: Any) -> hr.ConstraintSet | None:
    sets = [index.where(rule) for rule in (shared, own) if rule is not None]
    return sets[0] & sets[1] if len(sets) == 2 else next(iter(sets), None)


def _ids(index: hr.TrieIndex, text: str) -> list[Any]:
    """Parses ids separated by commas, as the type of the index's ids.

    Raises:
        ConstraintError: they are not of that type.
    """
    import pyarrow as pa

    try:
        return pa.array(names_of(text), pa.string()).cast(index.item_ids.type).to_pylist()
    except pa.ArrowException as error:
        raise ConstraintError(
            f"--exclude must be item ids of the type of this index, {index.item_ids.type}; {error}"
        ) from None


def requests_progress(progress: Progress, what: str) -> Callable[[int, int], None]:
    """Adapts a progress bar to callbacks of (done, total)."""
    return lambda done, total: progress(what, done, total)
