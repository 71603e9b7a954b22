"""Options, output and parsers that the commands share."""

from __future__ import annotations

import inspect
import os
import time
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hedgerow._arguments import advice_on_name, json_text
from hedgerow._urls import opened
from hedgerow.errors import ArgumentError, CatalogError, HedgerowError
from hedgerow.index import manifest
from hedgerow.index.build import Progress, ignore_progress
from hedgerow.index.files import as_folder
from hedgerow.index.manifest import MANIFEST

# Between two lines of progress where stderr is no terminal.
PROGRESS_SECONDS = 10.0

out = Console()
err = Console(stderr=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
IndexPath = Annotated[Path, typer.Argument(metavar="INDEX", help="A saved index: a folder.", show_default=False)]
IndexOutput = Annotated[
    Path, typer.Option("--output", "-o", metavar="INDEX", help="The index to write: a folder.", show_default=False)
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")]
Sid = Annotated[
    str,
    typer.Option(metavar="COLUMNS", help="The column of SIDs (lists or text), or one column per level: a,b,c."),
]


def shared_options(
    options_class: type, *, omit: Collection[str] = (), first: bool = False
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorate a command whose first parameter is a dataclass: the fields become options.

    Args:
        options_class: the dataclass; its fields have annotations for Typer.
        omit: fields that are not options of this command.
        first: list these options before the command's own, not after them.
    """
    fields = inspect.signature(options_class, eval_str=True).parameters
    shared = {name: field for name, field in fields.items() if name not in omit}

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def wrapped(**values: Any) -> None:
            command(options_class(**{name: values.pop(name) for name in shared}), **values)

        own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
        options = [*shared.values(), *own] if first else [*own, *shared.values()]
        # Typer reads the options from the signature.
        vars(wrapped)["__signature__"] = inspect.Signature(options)
        return wrapped

    return decorate


def let_threads_sleep() -> None:
    """Let waiting threads of PyTorch sleep, unless the environment says otherwise. Call it before PyTorch is imported.

    Threads that wait actively take the cores from other processes: on a busy machine, a search can take ten times as
    long.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def print_json(facts: Any, *, indent: int | None = 2) -> None:
    """Print JSON: see `json_text`."""
    print(json_text(facts, indent=indent))


def print_error(message: str) -> None:
    """Print an error as one line on stderr."""
    err.print(f"[bold red]hedgerow:[/] {escape(' '.join(message.splitlines()))}", soft_wrap=True, highlight=False)


def print_warning(message: str) -> None:
    """Print a warning as one line on stderr."""
    err.print(f"[bold yellow]warning:[/] {escape(message)}", soft_wrap=True, highlight=False)


@contextmanager
def printed_warnings() -> Iterator[None]:
    """Print warnings as one line each."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield
    for warning in caught:
        print_warning(str(warning.message))


def print_path(path: Path, text: str) -> None:
    """Print a path and, after a colon, text that may have markup."""
    out.print(f"[bold]{escape(str(path))}[/]: {text}", soft_wrap=True)


def new_table(title: str | None, *headings: str, numbers: tuple[str, ...] = ()) -> Table:
    """Create a table.

    Args:
        title: the title, above the left edge. None: no title.
        headings: the headings of the columns.
        numbers: the headings of columns of numbers, which are aligned on the right.
    """
    table = Table(title=title and escape(title), title_justify="left", title_style="bold", box=None, padding=(0, 1))
    for heading in headings:
        table.add_column(heading, justify="right" if heading in numbers else "left", overflow="fold")
    return table


@contextmanager
def progress_bar(*, enabled: bool) -> Iterator[Progress]:
    """A progress bar on stderr with the time left, removed at the end; lines now and then if it is no terminal."""
    if not enabled:
        yield ignore_progress
        return
    if not err.is_terminal:
        yield _printed_progress()
        return
    from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as ProgressBar

    columns = SpinnerColumn(), TextColumn("{task.description:>8}"), BarColumn(), TimeElapsedColumn()
    # Speeds of the last minutes: a level of k-means can take one.
    estimate = TextColumn("left"), TimeRemainingColumn(compact=True)
    with ProgressBar(*columns, *estimate, console=err, transient=True, speed_estimate_period=300) as bar:
        task = bar.tasks[bar.add_task("", total=None)]

        def update(what: str, done: int, total: int) -> None:
            # The time left is an estimate from the speed of one stage: the next one starts anew.
            if total != task.total or done < task.completed:
                bar.reset(task.id, total=total, completed=done, description=what)
            bar.update(task.id, description=what, completed=done)

        yield update


def _printed_progress() -> Progress:
    """Prints a line after some seconds of work, and then at intervals."""
    last = time.monotonic()

    def update(what: str, done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= PROGRESS_SECONDS:
            last = time.monotonic()
            err.print(f"{what}: {done:,} of {total:,}", soft_wrap=True, highlight=False, markup=False)

    return update


def check_not_input(output: Path, inputs: Sequence[Path]) -> None:
    """Check that an output does not replace an input.

    Args:
        output: the file or folder to write.
        inputs: the files, folders and patterns that are read.

    Raises:
        ArgumentError: the output is an input, or a folder with an input.
    """
    target = output.resolve()
    for path in inputs:
        if target in (path.resolve(), *path.resolve().parents):
            raise ArgumentError(f"{output}: the output would replace the input {path}. Choose another path.")


def check_index_output(output: Path, inputs: Sequence[Path], *, overwrite: bool) -> None:
    """Check that saving an index replaces no input, and another index only with --overwrite.

    Raises:
        ArgumentError: it would.
    """
    # `TrieIndex.save` refuses files, and folders with other files.
    if not (output / MANIFEST).is_file():
        return
    check_not_input(output, inputs)
    if not overwrite:
        raise ArgumentError(f"{output} exists already. Choose another path, or pass --overwrite.")


def is_live(path: Path) -> bool:
    """Whether a path is the folder of a live index.

    Raises:
        IndexFileError: it is a URL.
    """
    return manifest.is_live(as_folder(path))


def names_of(text: str) -> list[str]:
    """Parse names separated by commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def whole_numbers(text: str, option: str) -> list[int]:
    """Parse integers separated by commas.

    Raises:
        BadParameter: the text is something else; the message names `option`.
    """
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        message = f"expected integers separated by commas; got {text!r}"
        raise typer.BadParameter(message, param_hint=option) from None


def parsed_sizes(text: str | None) -> int | list[int] | None:
    """Parse --codebook-sizes: one size for all levels, or one size per level."""
    sizes = None if text is None else whole_numbers(text, "--codebook-sizes")
    return sizes[0] if sizes is not None and len(sizes) == 1 else sizes


def sid_columns(text: str) -> str | list[str]:
    """Parse --sid: one column of lists, or one column per level."""
    names = [name.strip() for name in text.split(",")]
    return names[0] if len(names) == 1 else names


def read_npy(path: Path) -> Any:
    """Read the array of a .npy file.

    Raises:
        CatalogError: the file cannot be read.
    """
    import numpy as np

    try:
        with opened(path) as file:
            return np.load(file, allow_pickle=False)
    except HedgerowError:
        raise
    except Exception as error:
        # NumPy parses the header as Python, so a damaged file can raise any exception.
        raise CatalogError(f"{path} cannot be read as a NumPy array: {error}") from None


def check_attributes(names: list[str], existing: list[str]) -> None:
    """Check that attributes exist.

    Raises:
        ArgumentError: an attribute does not exist.
    """
    unknown = [name for name in names if name not in existing]
    if unknown:
        raise ArgumentError(f"there is no attribute {unknown[0]!r}{advice_on_name(unknown[0], existing, 'attributes')}")
