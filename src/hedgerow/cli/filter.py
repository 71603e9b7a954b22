"""`hedgerow filter`, and the table of `hedgerow inspect --where`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

import hedgerow as hr
from hedgerow.cli.common import (
    AsJson,
    IndexOutput,
    Overwrite,
    check_index_output,
    new_table,
    print_json,
    print_path,
)
from hedgerow.cli.served import Served, ServedPath
from hedgerow.errors import ConstraintError


def filter_index(
    index: ServedPath,
    expression: Annotated[
        str | None, typer.Argument(metavar="SQL", help="The same as --where SQL.", show_default=False)
    ] = None,
    *,
    where: Annotated[str | None, typer.Option(metavar="SQL", help="The items to keep: 'year >= 2000'.")] = None,
    output: IndexOutput,
    allow_empty: Annotated[
        bool, typer.Option("--allow-empty", help="Write the index even if it has no items.")
    ] = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Save the index of the items for which an SQL expression is true, as if built from the filtered catalog."""
    if (expression is None) == (where is None):
        given = "neither" if where is None else "both"
        raise typer.BadParameter(f"pass one SQL expression; got {given}", param_hint="--where, SQL")
    rule = expression if where is None else where
    assert rule is not None
    check_index_output(output, [index], overwrite=overwrite)
    whole = Served.of(index).index
    items = whole.where(rule)
    if items.num_items == 0 and not allow_empty:
        raise ConstraintError(
            f"{rule!r} is true for none of the {whole.num_items:,} items, so nothing was written. To write an empty "
            "index, pass --allow-empty."
        )
    filtered = whole.filter(items)
    filtered.save(output)
    if as_json:
        facts = {"path": str(output), "of": whole.num_items, "nbytes": filtered.nbytes}
        print_json(_facts(items) | facts)
        return
    print_path(output, f"{filtered.num_items:,} of {whole.num_items:,} items, {escape(repr(filtered))}")


def facts_of_rules(index: hr.TrieIndex, rules: Sequence[str]) -> list[dict[str, Any]]:
    """The numbers of the constraint set of each SQL expression: items, SIDs, share, nodes per level, bytes.

    Raises:
        ConstraintError: an expression is invalid or not boolean.
    """
    return [_facts(index.where(rule)) for rule in rules]


def rules_table(index: hr.TrieIndex, rules: Sequence[str]) -> Table:
    """`facts_of_rules` as a table."""
    numbers = ("items", "share", "SIDs", "nodes per level", "bytes")
    table = new_table("rules", "where", *numbers, numbers=numbers)
    for facts in facts_of_rules(index, rules):
        share = "-" if facts["share"] is None else f"{100 * facts['share']:.1f} %"
        nodes = ", ".join(f"{count:,}" for count in facts["nodes_per_level"])
        cells = (f"{facts['items']:,}", share, f"{facts['sids']:,}", nodes, f"{facts['nbytes']:,}")
        table.add_row(escape(facts["where"]), *cells)
    return table


def _facts(items: hr.ConstraintSet) -> dict[str, Any]:
    num_items = items.index.num_items
    return {
        "where": items.name,
        "items": items.num_items,
        "share": items.num_items / num_items if num_items else None,
        "sids": items.num_sids,
        "nodes_per_level": list(items.nodes_per_level),
        "nbytes": items.nbytes,
    }
