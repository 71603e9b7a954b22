"""`hedgerow inspect` and `hedgerow verify`."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.markup import escape

import hedgerow as hr
from hedgerow.cli.common import AsJson, out, print_json, progress_bar
from hedgerow.cli.filter import facts_of_rules, rules_table
from hedgerow.cli.served import Served, ServedPath
from hedgerow.errors import HedgerowError


def inspect(
    path: ServedPath,
    *,
    where: Annotated[
        list[str] | None,
        typer.Option("--where", metavar="SQL", help="Also show the items that match; repeat for several rules."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show the levels, columns and size of an index, and how many items match SQL rules."""
    from hedgerow.index.describe import kinds_of, level_table
    from hedgerow.index.manifest import read_manifest
    from hedgerow.index.trie import bytes_as_text

    served = Served.of(path)
    index, manifest = served.index, read_manifest(served.path)
    columns = {field.name: str(field.type) for field in index.items_table.schema}
    file_bytes = {part: entry["bytes"] for part, entry in manifest["files"].items()}
    if as_json:
        rules = {"rules": facts_of_rules(index, where)} if where else {}
        details = {"version": manifest["version"], "columns": columns, "file_bytes": file_bytes}
        print_json(facts_of_index(index) | details | _live_facts(served) | rules)
        return
    if served.note:
        out.print(served.note)
    out.print(level_table(index))
    out.print(f"[dim]{kinds_of(index)}[/]", highlight=False)
    print_collisions(index)
    named = ", ".join(f"{escape(name)} [dim]({escape(kind)})[/]" for name, kind in columns.items())
    out.print(f"columns: {named}", highlight=False)
    sizes = ", ".join(f"{part} {bytes_as_text(size)}" for part, size in file_bytes.items())
    out.print(f"on disk: {sizes} [dim](format {manifest['version']})[/]")
    if where:
        out.print(rules_table(index, where))


def verify(path: ServedPath, *, as_json: AsJson = False) -> None:
    """Check every checksum, array and SID of an index. `hedgerow live verify` checks all versions of a live index."""
    from hedgerow.index.verify import verify_trie

    try:
        with progress_bar(enabled=not as_json) as progress:
            served = Served.of(path)
            index = hr.TrieIndex._of(verify_trie(served.path, progress=progress))
    except HedgerowError as error:
        if as_json:
            print_json({"valid": False, "error": str(error)})
        raise
    if as_json:
        print_json(facts_of_index(index) | {"valid": True} | _live_facts(served))
    else:
        which = f" ({served.note})" * bool(served.note)
        out.print(
            f"[green]valid[/]: {escape(repr(index))}; all checksums, arrays and SIDs are correct{which}.",
            soft_wrap=True,
        )


def _live_facts(served: Served) -> dict[str, Any]:
    """The version of a live index, for JSON; nothing of a saved index."""
    version = served.version
    return {} if version is None else {"live": {"version": version.number, "removed": len(version.removed_rows)}}


def facts_of_index(index: hr.TrieIndex) -> dict[str, Any]:
    """The numbers of an index, for JSON."""
    from hedgerow.index.describe import level_facts

    return {
        "items": index.num_items,
        "sids": index.num_sids,
        "nbytes": index.nbytes,
        "layout": index.layout,
        "levels": level_facts(index),
    }


def print_collisions(index: hr.TrieIndex) -> None:
    """Print how many items share a SID."""
    items, sids, most = index.collisions()
    if items:
        shared = "1 SID" if sids == 1 else f"{sids:,} SIDs"
        out.print(f"collisions: {items:,} items share {shared}; at most {most:,} items have the same SID")
    else:
        out.print("collisions: none; every item has its own SID")
