"""`hedgerow retrieve`: the items that a model retrieves for prompts."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

import hedgerow as hr
from hedgerow.cli.common import (
    check_attributes,
    names_of,
    new_table,
    out,
    print_error,
    print_json,
    print_path,
    progress_bar,
    shared_options,
)
from hedgerow.cli.search import SearchOptions, check_model, text_of, title_of_history
from hedgerow.errors import ArgumentError, HedgerowError
from hedgerow.index.build import Progress
from hedgerow.request_documents import RequestOptions, request_of
from hedgerow.request_lines import LINES_AT_ONCE, STDIN, Line, answer_lines, count_lines, lines_of, results_text

if TYPE_CHECKING:
    from hedgerow.hf import Retriever

MAX_COLUMNS = 4
# What `Results.reason` means.
REASONS = {
    "beams": "the beams found no others; --beam-width or --fill may",
    "caps": "the caps leave out the others",
    "set": "the rules allow no others",
    "catalog": "the index has no others",
    "model": "the model gives all others probability 0",
}


@shared_options(SearchOptions)
def retrieve(
    search: SearchOptions,
    *,
    context: typer.Context,
    prompt: Annotated[
        list[str] | None,
        typer.Option("--prompt", "-p", metavar="TEXT", help="A prompt; repeat the option for several prompts."),
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(
            "--input",
            metavar="FILE",
            help=r'A file of JSON lines, or - for standard input: "text", \[token ids], or an object: '
            r'{"prompt": either, or "history": \[ids], "where": "SQL", "exclude": \[ids], "candidates": \[ids], '
            r'"k": 5, "beam_width": 20, "caps": {"director": 1}, "order_by": \["price", "ascending"], "id": any, '
            r'"extra": any}. '
            "id and extra are only printed. Answers come as they are done; a line that cannot be answered gives an "
            "error, and the exit code 1.",
        ),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMNS",
            help="The attributes to show: title,year. Default: the first four in a table, all in JSON.",
        ),
    ] = None,
    on_ray: Annotated[
        bool,
        typer.Option(
            "--ray",
            help="Answer --input with the processes of the Ray cluster of RAY_ADDRESS, or of this machine, into the "
            "folder --output. The same command goes on after an interruption.",
        ),
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            help="The folder for the answers of --ray: part-00000.jsonl, ... as --json.",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="The number of processes of --ray. Default: one per CPU."),
    ] = None,
) -> None:
    """Print the items that a model retrieves for each prompt. All of them are items of the index."""
    search = search.with_folders(context.args)
    given = sum(option is not None for option in (prompt, prompts, search.history))
    if given != 1:
        message = "pass --prompt, --history or --input" + ", and only one of them" * bool(given)
        raise typer.BadParameter(message, param_hint="--prompt, --history, --input")
    attributes = None if columns is None else names_of(columns)
    if on_ray or output is not None or workers is not None:
        if not on_ray or output is None or prompts is None or prompts == STDIN:
            message = "pass all three, with a file: --ray --input prompts.jsonl --output answers"
            raise typer.BadParameter(message, param_hint="--ray, --input, --output")
        _answer_on_ray(search, prompts, output, attributes, workers)
        return
    count = len(prompt or [""]) if prompts is None else count_lines(prompts)
    retriever = search.open_retriever(search.open_index())
    check_attributes(attributes or [], retriever.index.attributes.column_names)
    answering = Answering(search, retriever, attributes)
    if prompts is None:
        with progress_bar(enabled=count != 1) as progress:
            answering.answer(prompt or [None], progress)
        return
    with progress_bar(enabled=count != 1) as progress:
        done = 0
        for lines in lines_of(prompts):
            answering.answer_lines(lines)
            done += len(lines)
            progress("prompts", done, count or done)
    if answering.failed:
        raise typer.Exit(1)


def _answer_on_ray(
    search: SearchOptions, prompts: Path, output: Path, attributes: list[str] | None, workers: int | None
) -> None:
    """Answer a file with the processes of Ray.

    Raises:
        Exit: a line could not be answered.
    """
    from hedgerow.ray.lines import answer_file
    from hedgerow.ray.opening import Opening

    if search.model is not None:
        check_model(search.model)
    opening = Opening.of(search.model, search.index, options=search.loading)
    searched = opening.searched()
    index = searched if isinstance(searched, hr.TrieIndex) else searched.index
    check_attributes(attributes or [], index.attributes.column_names)
    with progress_bar(enabled=not search.as_json) as progress:
        options = search.request_options(index)
        failed = answer_file(
            prompts, output, opening, options, attributes=attributes, workers=workers, progress=progress
        )
    if search.as_json:
        print_json({"path": str(output), "failed": failed})
    else:
        wrong = f"; {failed:,} lines have an error" if failed != 1 else "; one line has an error"
        print_path(output, "done" + wrong * bool(failed))
    if failed:
        raise typer.Exit(1)


@dataclass
class Answering:
    """Answers requests, and prints the answers.

    Attributes:
        search: the options.
        retriever: the retriever.
        attributes: the attributes to show. None: see --columns.
        failed: whether a line was not answered.
        options: the options of all requests.
    """

    search: SearchOptions
    retriever: Retriever
    attributes: list[str] | None
    failed: bool = False
    options: RequestOptions = field(init=False)

    def __post_init__(self) -> None:
        self.options = self.search.request_options(self.retriever.index)

    def answer(self, prompts: Sequence[str | None], progress: Progress) -> None:
        """Answer prompts, or --history in place of None, and print the answers.

        Raises:
            HedgerowError: a prompt or a rule is invalid; nothing is printed.
        """
        lines = [self.search.asked(self.retriever.index, text) for text in prompts]
        requests = [request_of(self.retriever, line, self.options) for line in lines]
        answers = []
        for start in range(0, len(requests), LINES_AT_ONCE):
            answers += self.retriever.answer(requests[start : start + LINES_AT_ONCE])
            progress("prompts", len(answers), len(requests))
        for number, answer in enumerate(answers, 1):
            if isinstance(answer, HedgerowError):
                raise answer if len(answers) == 1 else ArgumentError(f"-p number {number}: {answer}")
        for line, request, answer in zip(lines, requests, answers, strict=True):
            self._print(line, request, answer)

    def answer_lines(self, lines: list[Line]) -> None:
        """Answer the requests of some lines, and print the answers and errors in the order of the lines."""
        for found in answer_lines(self.retriever, lines, self.options):
            self.failed |= found.error is not None
            if self.search.as_json:
                print(found.text(self.attributes))
            elif isinstance(found.answer, hr.Results) and isinstance(found.request, hr.Request):
                self._print(found.keys, found.request, found.answer)
            else:
                print_error(found.error or "")
        sys.stdout.flush()

    def _print(self, keys: dict[str, Any], request: hr.Request, results: hr.Results) -> None:
        allowed = request.constraints
        if self.search.as_json:
            print(results_text(keys, results, self.attributes))
            return
        reason = None if results.reason is None else REASONS[results.reason]
        if not results:
            found = "no item was found" if allowed is None or allowed.num_items else "no item matches --where"
            found += "" if reason is None or "where" in found else f": {reason.replace(' others', ' items')}"
            out.print(f"{escape(self._title(keys))}: {escape(found)}", soft_wrap=True)
            return
        out.print(_table(self._title(keys), results, self.attributes))
        if reason is not None:
            message = f"[dim]{len(results):,} of {request.k:,} items: {escape(reason)}.[/]"
            out.print(message, soft_wrap=True, highlight=False)

    def _title(self, keys: Mapping[str, Any]) -> str:
        prompt = keys.get("prompt")
        return title_of_history(self.retriever.index, keys["history"]) if prompt is None else str(prompt)


def _table(prompt: str, results: hr.Results, attributes: list[str] | None) -> Table:
    names = results.attributes.column_names[:MAX_COLUMNS] if attributes is None else attributes
    table = new_table(prompt)
    table.expand = any(not _is_number(results, name) for name in names)
    table.add_column("", justify="right", style="dim")
    # In a narrow terminal, text takes another line; ids and numbers do not.
    for name in ("item_id", *names):
        is_text = name != "item_id" and not _is_number(results, name)
        table.add_column(
            name, overflow="fold" if is_text else "ellipsis", no_wrap=not is_text, ratio=1 if is_text else None
        )
    table.add_column("score", justify="right", no_wrap=True)
    for rank, item in enumerate(results, 1):
        cells = (text_of(item[name]) for name in ("item_id", *names))
        table.add_row(str(rank), *map(escape, cells), f"{item['score']:.2f}")
    return table


def _is_number(results: hr.Results, column: str) -> bool:
    return str(results.attributes.schema.field(column).type).startswith(("int", "uint", "float", "double", "date"))
