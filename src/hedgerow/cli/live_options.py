"""Options and output that the commands of `hedgerow live` share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

import hedgerow as hr
from hedgerow.cli.common import out
from hedgerow.index.attributes import MissingAttributes, NewAttributes

LivePath = Annotated[Path, typer.Argument(metavar="LIVE", help="A live index: a folder.", show_default=False)]
IdColumn = Annotated[
    str | None,
    typer.Option(
        metavar="COLUMN",
        help="The column of item ids. Default: item_id, or the one column that is neither the SID nor an attribute.",
    ),
]
Attributes = Annotated[
    str | None, typer.Option(metavar="COLUMNS", help="The attributes to keep, a,b,c or ''. Default: all other columns.")
]
Allow = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KIND",
        help="Accept an unusual version: empty, shrunk or codebooks (other codebook sizes); repeat for several.",
    ),
]
New = Annotated[
    NewAttributes,
    typer.Option(
        "--new-attributes",
        help="Attributes that the live index does not have: refuse, add (null for other items) or drop them.",
    ),
]
Missing = Annotated[
    MissingAttributes,
    typer.Option(
        "--missing-attributes", help="Attributes that the files do not have: refuse, or null for their items."
    ),
]


def print_current(live_index: hr.LiveIndex) -> None:
    """Print the version that a live index serves."""
    out.print(f"[bold]{escape(str(live_index.path))}[/] serves {escape(repr(live_index.version))}", soft_wrap=True)
