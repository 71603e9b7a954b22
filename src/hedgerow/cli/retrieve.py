"""`hedgerow retrieve`: the items that a model retrieves for prompts."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

import hedgerow as hr
from hedgerow.cli.common import (
    check_attributes,
    check_no_words,
    names_of,
    new_table,
    out,
    print_error,
    print_json,
    progress_bar,
    shared_options,
)
from hedgerow.cli.requests import Line, count_lines, lines_of
from hedgerow.cli.search import MANY_PROMPTS, SearchOptions, text_of
from hedgerow.errors import HedgerowError

if TYPE_CHECKING:
    from hedgerow.hf import Retriever

MAX_COLUMNS = 4


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
            help=r'A file of JSON lines, or - for standard input: "text", \[token ids], or '
            r'{"prompt": either, "where": "SQL", "exclude": \[ids], '
            '"id": any}. No other keys; id is only printed. Answers come as they are done; a line that cannot be '
            "answered gives an error, and the exit code 1.",
        ),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMNS",
            help="The attributes to show: title,year. Default: the first four in a table, all in JSON.",
        ),
    ] = None,
) -> None:
    """Print the items that a model retrieves for each prompt. All of them are items of the index."""
    check_no_words(context.args)
    if prompt is None and prompts is None:
        raise typer.BadParameter("pass --prompt or --input", param_hint="--prompt, --input")
    if prompt is not None and prompts is not None:
        raise typer.BadParameter("pass --prompt or --input, not both", param_hint="--prompt, --input")
    count = len(prompt or ()) if prompts is None else count_lines(prompts)
    retriever = search.open_retriever(search.open_index(), num_prompts=MANY_PROMPTS if count is None else count)
    attributes = None if columns is None else names_of(columns)
    check_attributes(attributes or [], retriever.index.attributes.column_names)
    answering = Answering(search, retriever, attributes)
    if prompts is None:
        with progress_bar(enabled=count != 1) as progress:
            answering.answer(
                [{"prompt": text} for text in prompt or ()], lambda done, total: progress("prompts", done, total)
            )
        return
    with progress_bar(enabled=count != 1) as progress:
        done = 0
        for lines in lines_of(prompts):
            answering.answer_lines(lines)
            done += len(lines)
            progress("prompts", done, count or done)
    if answering.failed:
        raise typer.Exit(1)


@dataclass
class Answering:
    """Answers requests, and prints the answers.

    Attributes:
        search: the options.
        retriever: the retriever.
        attributes: the attributes to show. None: see --columns.
        failed: whether a line was not answered.
    """

    search: SearchOptions
    retriever: Retriever
    attributes: list[str] | None
    failed: bool = False

    def answer(self, requests: list[dict[str, Any]], progress: Callable[[int, int], None] | None = None) -> None:
        """Answer requests together, and print the answers.

        Raises:
            HedgerowError: a request is invalid; nothing is printed.
        """
        for answer in self._answers(requests, self.search.rules(self.retriever.index, requests), progress):
            self._print(*answer)

    def answer_lines(self, lines: list[Line]) -> None:
        """Answer the requests of some lines, and print the answers and errors in the order of the lines."""
        answers: dict[int, tuple[Any, ...] | HedgerowError] = {}
        valid: list[tuple[int, dict[str, Any], dict[str, Any]]] = []
        for line in lines:
            try:
                request = line.request()
                valid.append((line.number, request, self.search.rules(self.retriever.index, [request])))
            except HedgerowError as error:
                answers[line.number] = error
        requests = [request for _, request, _ in valid]
        rules = {name: [own[name][0] for _, _, own in valid] for name in ("constraints", "exclude")}
        try:
            found = self._answers(requests, rules) if valid else []
            answers |= zip((number for number, _, _ in valid), found, strict=True)
        except HedgerowError:
            # One of them is invalid: each is answered alone.
            for number, request, own in valid:
                try:
                    answers |= {number: self._answers([request], own)[0]}
                except HedgerowError as error:
                    answers[number] = error
        for line in lines:
            answer = answers[line.number]
            if isinstance(answer, HedgerowError):
                self._print_error(line, answer)
            else:
                self._print(*answer)
        sys.stdout.flush()

    def _answers(
        self,
        requests: list[dict[str, Any]],
        rules: dict[str, Any],
        progress: Callable[[int, int], None] | None = None,
    ) -> list[tuple[dict[str, Any], hr.Results, hr.ConstraintSet | None]]:
        """Each request, its results, and its constraint set."""
        results = self.retriever.retrieve(
            [request["prompt"] for request in requests],
            beam_width=self.search.beam_width,
            k=self.search.k,
            progress=progress,
            **rules,
        )
        return list(zip(requests, results, rules["constraints"], strict=True))

    def _print(self, request: dict[str, Any], results: hr.Results, allowed: hr.ConstraintSet | None) -> None:
        if self.search.as_json:
            print_json(request | {"items": _plain(results, self.attributes)}, indent=None)
        elif not results:
            reason = "no item was found" if allowed is None or allowed.num_items else "no item matches --where"
            out.print(f"{escape(str(request['prompt']))}: {escape(reason)}", soft_wrap=True)
        else:
            out.print(_table(str(request["prompt"]), results, self.attributes))

    def _print_error(self, line: Line, error: HedgerowError) -> None:
        """Print an error: as JSON with the number of the line, or on stderr."""
        self.failed = True
        message = str(error) if str(error).startswith(line.where) else f"{line.where}: {error}"
        if self.search.as_json:
            print_json({"line": line.number, "error": message}, indent=None)
        else:
            print_error(message)


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


def _plain(results: hr.Results, attributes: list[str] | None) -> list[dict[str, Any]]:
    items = results.to_pylist()
    if attributes is None:
        return items
    return [{name: item[name] for name in (*attributes, "item_id", "score", "sid")} for item in items]
