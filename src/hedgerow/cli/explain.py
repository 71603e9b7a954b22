"""`hedgerow explain`: why an item was or was not returned for a prompt."""

from __future__ import annotations

import shlex
from dataclasses import replace
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

import hedgerow as hr
from hedgerow._arguments import advice_on_name
from hedgerow.cli.common import (
    err,
    new_table,
    out,
    print_json,
    shared_options,
)
from hedgerow.cli.search import SearchOptions, text_of, title_of_history
from hedgerow.errors import ArgumentError, MissingDependencyError
from hedgerow.index.lookup import checked_row_of_id, row_of_value

if TYPE_CHECKING:
    from hedgerow.hf import Explanation

# The number of similar ids that a message lists, and the number of ids that are compared.
MAX_SIMILAR, MAX_COMPARED = 3, 100_000
LEGEND = (
    "score: of the item's prefix up to this code; rank: of this prefix among the candidates (-: it left the beam "
    "earlier); kept: candidates that stayed in the beam; to beat: the lowest score among them"
)


@shared_options(SearchOptions, omit={"fill"})
def explain(
    search: SearchOptions,
    *,
    context: typer.Context,
    prompt: Annotated[str | None, typer.Option("--prompt", "-p", metavar="TEXT", help="The prompt.")] = None,
    item: Annotated[
        str | None,
        typer.Option(metavar="ITEM", help="The item: its id, or an attribute that only this item has: title=Alien."),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the beam as a tree: .png, .svg or .pdf.")
    ] = None,
) -> None:
    """Explain why an item was or was not returned: where its prefix left the beam, and which score it had to beat."""
    search = search.with_folders(context.args)
    if prompt is None and search.history is None:
        raise typer.BadParameter("pass a prompt or a history; got neither", param_hint="--prompt, --history")
    if item is None and plot is None:
        raise typer.BadParameter("pass an item, a file for a figure, or both", param_hint="--item, --plot")
    if plot is not None and find_spec("matplotlib") is None:
        raise MissingDependencyError.of("--plot", "matplotlib", "plot")
    if plot is not None:
        from hedgerow.hf.plot import check_figure_path

        check_figure_path(plot)
    opened = search.open_index()
    index = opened if isinstance(opened, hr.TrieIndex) else opened.index
    item_id, name = (None, None) if item is None else item_named(index, item)
    retriever = search.open_retriever(opened)
    asked = search.asked(index, prompt)
    request = search.request(retriever, asked)
    listed = None if request.candidates is None else [request.candidates]
    rules = {"constraints": request.constraints, "exclude": [request.exclude], "candidates": listed}
    explanation = None
    if item is not None:
        options: dict[str, Any] = rules | {"order_by": request.order_by, "caps": request.caps}
        explanation = retriever.explain(request.prompt, item_id, beam_width=search.beam_width, k=search.k, **options)
        explanation = replace(explanation, name=name)
        if search.as_json:
            print_json(explanation.to_dict())
        else:
            out.print(escape(str(explanation)), soft_wrap=True)
            if explanation.levels:
                out.print(_levels_table(explanation))
                out.print(f"[dim]{LEGEND}[/]", highlight=False)
    if plot is not None:
        from hedgerow.hf.plot import plot_beams

        beams = retriever.trace(request.prompt, beam_width=search.beam_width, **rules)
        codes = [level.code for level in explanation.levels] if explanation else ()
        title = prompt if prompt is not None else title_of_history(index, asked["history"])
        plot_beams(beams, plot, title=title, names=_beam_names(retriever.index, beams[-1]), sid=codes)
        err.print(f"wrote {escape(str(plot))}")


def item_named(index: hr.TrieIndex, text: str) -> tuple[Any, str | None]:
    """Find the item that --item names: an id, or "column=value".

    Returns:
        Its id, and the value that names it; None if the id does.

    Raises:
        ArgumentError: no item or several items have that id or value, or the text is no id of the type of the index's
            ids. The message suggests others.
    """
    column, _, value = text.partition("=")
    if column in index.attributes.column_names and value:
        return index.item_ids[row_of_value(index, column, value, "--item")].as_py(), value
    try:
        row = checked_row_of_id(index, text, "--item")
    except ArgumentError as error:
        raise ArgumentError(f"{error}{_suggestion(index, text)}") from None
    if row is None:
        raise ArgumentError(f"item {text!r} is not in the index, so no prompt can return it.{_suggestion(index, text)}")
    return index.item_ids[row].as_py(), None


def _suggestion(index: hr.TrieIndex, text: str) -> str:
    """For an id that no item has: the items with an attribute of that value, or similar ids."""
    from hedgerow.catalog.columns import rows_equal

    for column in index.attributes.column_names:
        rows = rows_equal(index.attributes.column(column), text)
        if rows:
            ids = ", ".join(repr(index.item_ids[row].as_py()) for row in rows[:MAX_SIMILAR])
            return f" An item has this {column}: pass --item {shlex.quote(f'{column}={text}')}, or the id {ids}."
    ids = (str(item_id) for item_id in index.item_ids.slice(0, MAX_COMPARED).to_pylist())
    similar = get_close_matches(text, ids, MAX_SIMILAR)
    column, _, value = text.partition("=")
    if value and not similar:
        advice = advice_on_name(column, index.attributes.column_names, "attributes")
        return f" There is no attribute {column!r}{advice}"
    return f" Similar ids: {', '.join(similar)}." if similar else ""


def _levels_table(explanation: Explanation) -> Table:
    headings = ("level", "code", "score", "rank", "candidates", "kept", "to beat")
    table = new_table(None, *headings, numbers=headings)
    for number, level in enumerate(explanation.levels):
        cells = (
            str(level.code),
            f"{level.score:.3f}",
            "-" if level.rank is None else f"{level.rank:,}",
            f"{level.candidates:,}",
            str(level.kept),
            f"{level.to_beat:.3f}",
        )
        table.add_row(str(number), *cells, style="red" if number == explanation.level else None)
    return table


def _beam_names(index: hr.TrieIndex, beams: hr.Beams) -> list[str]:
    """The name of each finished beam: the first attribute of its first item, or the id of that item."""
    results = index.results(beams)[0]
    column = next(iter(results.attributes.column_names), "item_id")
    names: dict[tuple[int, ...], str] = {}
    for item in results:
        names.setdefault(tuple(item["sid"]), text_of(item[column]))
    return list(names.values())
