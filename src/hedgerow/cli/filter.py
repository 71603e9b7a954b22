"""`hedgerow filter`, and the table of `hedgerow inspect --where`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

import hedgerow as hr
from hedgerow.cli.common import AsJson, IndexOutput, IndexPath, out, print_json
from hedgerow.errors import ConstraintError


def filter_index(
    index: IndexPath,
    where: Annotated[str, typer.Argument(metavar="SQL", help="Which items stay: 'year >= 2000'.", show_default=False)],
    output: IndexOutput,
    allow_empty: Annotated[
        bool, typer.Option("--allow-empty", help="Write the index even if it has no items.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Save the index of the items of which an SQL expression is true: what a build of the filtered catalog gives."""
    whole = hr.load_index(index)
    chosen = whole.where(where)
    if chosen.num_items == 0 and not allow_empty:
        raise ConstraintError(
            f"{where!r} is true of none of the {whole.num_items:,} items, and nothing was written. "
            "If that is meant: --allow-empty."
        )
    left = whole.filter(chosen.mask)
    left.save(output)
    if as_json:
        facts = {"path": str(output), "of": whole.num_items, "nbytes": left.nbytes}
        print_json(_facts(chosen) | facts)
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
