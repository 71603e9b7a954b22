"""What an index is, level by level, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

    from hedgerow.index.trie import Trie


# What is held beside the codes of a level, by representation.
KINDS = "dense: bitmap; sparse: row pointers; forked: few forks; unary: codes alone"


def level_facts(index: Trie) -> list[dict[str, Any]]:
    """Returns the facts of every level, from the root's children on."""
    facts = []
    parents = 1
    for number, level in enumerate(index.levels):
        facts.append(
            {
                "level": number,
                "codebook_size": level.codebook_size,
                "end": level.end,
                "nodes": level.num_nodes,
                "mean_branch": level.num_nodes / parents if parents else 0.0,
                "max_branch": level.max_branch,
                "representation": level.representation,
                "nbytes": level.nbytes,
            }
        )
        parents = level.num_nodes
    return facts


def size_of(codebook_size: int, end: int | None) -> str:
    """Returns a codebook's size as text; the end code is told apart."""
    return f"{codebook_size:,}" if end is None else f"{end:,} + end"


def level_table(index: Trie) -> Table:
    """Returns the facts of every level as a rich table."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title=repr(index), title_justify="left", title_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in ("level", "codebook", "nodes", "mean branch", "max branch", "representation", "bytes"):
        words = heading == "representation"
        table.add_column(heading, justify="left" if words else "right", no_wrap=words)
    for fact in level_facts(index):
        table.add_row(
            str(fact["level"]),
            size_of(fact["codebook_size"], fact["end"]),
            f"{fact['nodes']:,}",
            f"{fact['mean_branch']:,.2f}",
            f"{fact['max_branch']:,}",
            fact["representation"],
            f"{fact['nbytes']:,}",
        )
    return table


def describe(index: Trie) -> str:
    """Returns `level_table` and what its words mean, as plain text."""
    from rich.console import Console

    console = Console(width=80, color_system=None, force_terminal=False)
    with console.capture() as capture:
        console.print(level_table(index), KINDS, sep="\n", soft_wrap=True)
    return capture.get()
