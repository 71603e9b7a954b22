"""`hedgerow retrieve`: the items that a model retrieves for prompts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

import hedgerow as hr
from hedgerow.cli.common import (
    advice_on_name,
    check_attributes,
    check_no_words,
    names_of,
    new_table,
    out,
    print_json,
    progress_bar,
    shared_options,
)
from hedgerow.cli.search import SearchOptions, text_of
from hedgerow.errors import ArgumentError

MAX_COLUMNS = 4
# The keys of a request. "id" is not used, but printed with the items.
KEYS = ("prompt", "where", "exclude", "id")


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
            help=r'JSON lines: "text", \[token ids], or {"prompt": either, "where": "SQL", "exclude": \[ids], '
            '"id": any}. No other keys; id is only printed.',
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
    requests = _read_requests(prompts) if prompts is not None else [{"prompt": text} for text in prompt or ()]
    retriever = search.open_retriever(search.open_index(), num_prompts=len(requests))
    attributes = None if columns is None else names_of(columns)
    check_attributes(attributes or [], retriever.index.attributes.column_names)
    rules = search.rules(retriever.index, requests)
    with progress_bar(enabled=len(requests) > 1) as progress:
        all_results = retriever.retrieve(
            [request["prompt"] for request in requests],
            beam_width=search.beam_width,
            k=search.k,
            progress=lambda done, total: progress("prompts", done, total),
            **rules,
        )
    for request, results, allowed in zip(requests, all_results, rules["constraints"], strict=True):
        if search.as_json:
            print_json(request | {"items": _plain(results, attributes)}, indent=None)
        elif not results:
            reason = "no item was found" if allowed is None or allowed.num_items else "no item matches --where"
            out.print(f"{escape(str(request['prompt']))}: {escape(reason)}", soft_wrap=True)
        else:
            out.print(_table(str(request["prompt"]), results, attributes))


def _read_requests(path: Path) -> list[dict[str, Any]]:
    """Read requests from a file of JSON lines.

    Raises:
        ArgumentError: the file cannot be read, has no prompt, or a line is not a request.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ArgumentError(f"{path} cannot be read: {error}") from None
    requests = [_request(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not requests:
        raise ArgumentError(f"{path} contains no prompt.")
    return requests


def _request(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        request = json.loads(line)
    except ValueError as error:
        raise ArgumentError(f"{path}, line {number} is not JSON: {error}") from None
    if not isinstance(request, dict):
        request = {"prompt": request}
    if not isinstance(request.get("prompt", ""), str | list):
        raise ArgumentError(
            f"{path}, line {number}: a prompt must be text, or a list of token ids or messages; got {line[:50]}."
        )
    if "prompt" not in request:
        raise ArgumentError(f'{path}, line {number} has no "prompt"; it has {", ".join(request) or "nothing"}.')
    unknown = next((key for key in request if key not in KEYS), None)
    if unknown is not None:
        advice = advice_on_name(unknown, KEYS, "keys")
        raise ArgumentError(f"{path}, line {number}: unknown key {unknown!r}{advice}")
    return request


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
