"""A table of the levels of an index, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

    from hedgerow.index.trie import Trie


# The arrays stored in addition to the codes of a level, by representation.
KINDS = "dense: bitmap; sparse: row pointers; forked: forks; unary: codes only"
COMPACT_KINDS = f"{KINDS}; elias-fano: bit vector; all codes packed"


def kinds_of(index: Trie) -> str:
    """The legend of the representations of an index."""
    return COMPACT_KINDS if index.layout == "compact" else KINDS


def level_facts(index: Trie) -> list[dict[str, Any]]:
    """The properties of each level, from the children of the root on."""
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
    """Format a codebook size, with the end code separate."""
    return f"{codebook_size:,}" if end is None else f"{end:,} + end"


def level_table(index: Trie) -> Table:
    """A rich table of the properties of each level."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title=repr(index), title_justify="left", title_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in ("level", "codebook", "nodes", "mean branch", "max branch", "representation", "bytes"):
        is_text = heading == "representation"
        table.add_column(heading, justify="left" if is_text else "right", no_wrap=is_text)
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
    """Format `level_table` and a legend of the representations as plain text."""
    from rich.console import Console

    console = Console(width=80, color_system=None, force_terminal=False)
    with console.capture() as capture:
        console.print(level_table(index), kinds_of(index), sep="\n", soft_wrap=True)
    return capture.get()
