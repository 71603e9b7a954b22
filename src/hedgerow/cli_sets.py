"""`hedgerow filter`, the rules of `inspect --where`, and those of prompts: constraint sets on the command line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import hedgerow as hr
from hedgerow.errors import ArgumentError, ConstraintError

out = Console()

Where = Annotated[
    str | None, typer.Option("--where", metavar="SQL", help="Only items of which this is true: 'year >= 2000'.")
]
Exclude = Annotated[str | None, typer.Option("--exclude", metavar="IDS", help="Items not to be shown: id,id,id.")]


def filter_index(
    index: Annotated[Path, typer.Argument(metavar="INDEX", help="A saved index: a folder.", show_default=False)],
    where: Annotated[str, typer.Argument(metavar="SQL", help="Which items stay: 'year >= 2000'.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where it goes: a folder.", show_default=False)],
    allow_empty: Annotated[bool, typer.Option("--allow-empty", help="Write an index even of no items.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Save the index of the items of which an SQL expression is true: what a build of the filtered catalog gives."""
    whole = hr.load_index(index)
    chosen = whole.where(where)
    if chosen.num_items == 0 and not allow_empty:
        raise ConstraintError(
            f"{where!r} is true of none of the {whole.num_items:,} items, and nothing was written. "
            "If that is meant: --allow-empty."
        )
    left = hr.subset(whole, chosen.mask)
    left.save(output)
    if as_json:
        facts = {"path": str(output), "of": whole.num_items, "nbytes": left.nbytes}
        print(json.dumps(_facts(chosen) | facts, indent=2, ensure_ascii=False))
        return
    share = f"{left.num_items:,} of {whole.num_items:,} items"
    out.print(f"[bold]{escape(str(output))}[/]: {share}, {escape(repr(left))}", soft_wrap=True)


def facts_of_rules(index: hr.TrieIndex, rules: Sequence[str]) -> list[dict[str, Any]]:
    """Returns for each SQL expression what its set has: items, SIDs, share, alive nodes by level, bytes.

    Raises:
        ConstraintError: one of them is not an expression that is true or false of each item.
    """
    return [_facts(index.where(rule)) for rule in rules]


def rules_table(index: hr.TrieIndex, rules: Sequence[str]) -> Table:
    """Returns `facts_of_rules` as a rich table."""
    table = Table(title="rules", title_justify="left", title_style="bold")
    table.add_column("where", overflow="fold")
    for heading in ("items", "share", "SIDs", "alive nodes by level", "bytes"):
        table.add_column(heading, justify="right")
    for fact in facts_of_rules(index, rules):
        nodes = ", ".join(f"{count:,}" for count in fact["nodes_per_level"])
        share = "-" if fact["share"] is None else f"{100 * fact['share']:.1f} %"
        numbers = (f"{fact['items']:,}", share, f"{fact['sids']:,}", nodes, f"{fact['nbytes']:,}")
        table.add_row(escape(fact["where"]), *numbers)
    return table


def _facts(items: hr.ConstraintSet) -> dict[str, Any]:
    whole = items.index.num_items
    return {
        "where": items.name,
        "items": items.num_items,
        "share": items.num_items / whole if whole else None,
        "sids": items.num_sids,
        "nodes_per_level": list(items.nodes_per_level),
        "nbytes": items.nbytes,
    }


def rules_of_requests(
    index: hr.TrieIndex, requests: Sequence[dict[str, Any]], where: str | None, exclude: str | None
) -> dict[str, Any]:
    """Returns `constraints` and `exclude` for a retriever: those of all requests, and each one's own besides.

    Args:
        index: the one that is searched.
        requests: each may have "where", an SQL expression, and "exclude", a list of item ids.
        where: an SQL expression for all.
        exclude: item ids for all, separated by commas, as text of any type of id.

    Raises:
        ArgumentError: a request's "exclude" is no list.
        ConstraintError: an expression or an id is not one of the index.
    """
    for number, request in enumerate(requests):
        if not isinstance(request.get("exclude") or [], list):
            raise ArgumentError(f'request {number}: "exclude" is a list of item ids; got {request["exclude"]!r}.')
    shared = [] if exclude is None else _ids(index, exclude)
    return {
        "constraints": [_set_of(index, where, request.get("where")) for request in requests],
        "exclude": [shared + (request.get("exclude") or []) for request in requests],
    }


def _set_of(index: hr.TrieIndex, shared: str | None, own: Any) -> hr.ConstraintSet | None:
    sets = [index.where(rule) for rule in (shared, own) if rule is not None]
    return sets[0] & sets[1] if len(sets) == 2 else next(iter(sets), None)


def _ids(index: hr.TrieIndex, text: str) -> list[Any]:
    """Returns the ids of a command line as the index has them.

    Raises:
        ConstraintError: they are not of the type of its ids.
    """
    import pyarrow as pa

    words = pa.array([word.strip() for word in text.split(",") if word.strip()], pa.string())
    try:
        return words.cast(index.item_ids.type).to_pylist()
    except pa.ArrowException as error:
        raise ConstraintError(
            f"--exclude must be item ids of the type of this index, {index.item_ids.type}; {error}"
        ) from None
