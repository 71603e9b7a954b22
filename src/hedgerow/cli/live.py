"""`hedgerow diff` and `hedgerow live`: what changed between indexes, and an index that changes."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

import hedgerow as hr
from hedgerow.cli.common import AsJson, IndexPath, Sid, out, print_json, sid_columns

live = typer.Typer(
    no_args_is_help=True, help="Manage a live index: a folder of versions, one of which is the current one."
)

LivePath = Annotated[Path, typer.Argument(metavar="LIVE", help="A live index: a folder.", show_default=False)]
Items = Annotated[Path, typer.Argument(metavar="ITEMS", help="Parquet, with item ids.", show_default=False)]
IdColumn = Annotated[
    str | None,
    typer.Option(
        help="The column of item ids; left out, item_id, or the one that is neither the SID nor an attribute."
    ),
]
Allow = Annotated[list[str] | None, typer.Option(help="Do not refuse: empty, shrunk or codebooks.")]


def diff(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="A saved index.", show_default=False)],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="Another one.", show_default=False)],
    limit: Annotated[int, typer.Option(min=0, help="How many ids and SIDs of each kind to name.")] = 5,
    as_json: AsJson = False,
) -> None:
    """Show which items and SIDs came, went and changed between two indexes, and what became of each level."""
    found = hr.diff(*(hr.load_index(path, mmap=True) for path in (old, new)))
    facts = found.to_dict(limit)
    if as_json:
        print_json(facts)
        return
    table = Table("what", "", "such as", title=f"{escape(str(old))} → {escape(str(new))}", title_justify="left")
    table.columns[1].justify = "right"
    for name, count in facts["counts"].items():
        what = name.replace("_", " ") if name.startswith("sids") else f"items {name}"
        table.add_row(what, f"{count:,}", escape(", ".join(map(str, facts["examples"][name]))))
    for name in ("columns_added", "columns_removed"):
        if facts[name]:
            table.add_row(name.replace("_", " "), f"{len(facts[name]):,}", escape(", ".join(facts[name])))
    out.print(table)
    levels = Table("level", "nodes", "max branch", "representation")
    for number, pair in enumerate(found.levels):
        levels.add_row(str(number), *(_change(pair, name) for name in ("nodes", "max_branch", "representation")))
    out.print(levels)


def _change(pair: tuple[dict[str, Any] | None, dict[str, Any] | None], name: str) -> str:
    old, new = ("none" if facts is None else facts[name] for facts in pair)
    words = [f"{value:,}" if isinstance(value, int) else value for value in (old, new)]
    return words[0] if old == new else " → ".join(words)


@live.command(epilog="Example: hedgerow live init items.live items.hedgerow")
def init(path: LivePath, index: IndexPath) -> None:
    """Make a live index, with a saved one as version 1."""
    _print_served(hr.LiveIndex.create(path, hr.load_index(index, mmap=True)))


@live.command(epilog="Example: hedgerow live add items.live new.parquet")
def add(path: LivePath, items: Items, sid: Sid = "sid", item_id: IdColumn = None, allow: Allow = None) -> None:
    """Serve a version with more items, whose ids are new."""
    served = hr.LiveIndex.open(path)
    served.add(_catalog(served, items, sid, item_id), allow=allow or ())
    _print_served(served)


@live.command(epilog="Example: hedgerow live update items.live changed.parquet")
def update(path: LivePath, items: Items, sid: Sid = "sid", item_id: IdColumn = None, allow: Allow = None) -> None:
    """Serve a version with items added, or replaced where their ids are there."""
    served = hr.LiveIndex.open(path)
    served.update(_catalog(served, items, sid, item_id), allow=allow or ())
    _print_served(served)


@live.command(epilog="Example: hedgerow live remove items.live B0001 B0002")
def remove(
    path: LivePath,
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Items' ids.", show_default=False)],
    allow: Allow = None,
) -> None:
    """Serve a version without some items, at once."""
    import pyarrow as pa

    served = hr.LiveIndex.open(path)
    # As an Arrow column, which the type of the ids may be made from: numbers too.
    served.remove(pa.array(ids), allow=allow or ())
    _print_served(served)


@live.command(epilog="Example: hedgerow live rollback items.live --to 3")
def rollback(
    path: LivePath, to: Annotated[int | None, typer.Option(help="A version; left out, the one before.")] = None
) -> None:
    """Serve an earlier version again."""
    served = hr.LiveIndex.open(path)
    served.rollback(to)
    _print_served(served)


@live.command(epilog="Example: hedgerow live prune items.live --keep 3")
def prune(path: LivePath, keep: Annotated[int, typer.Option(min=0, help="How many versions stay.")] = 3) -> None:
    """Remove old versions that no process holds."""
    gone = hr.LiveIndex.open(path).prune(keep)
    out.print(f"removed: {', '.join(map(str, gone)) or 'none'}")


@live.command(epilog="Example: hedgerow live status items.live")
def status(path: LivePath, as_json: AsJson = False) -> None:
    """Show the versions that are kept, and which is served."""
    served = hr.LiveIndex.open(path)
    infos = served.versions()
    if as_json:
        print_json({"current": served.version.number, "versions": [asdict(info) for info in infos]})
        return
    table = Table("version", "items", "index of", "made from", "created (UTC)", "", box=SIMPLE_HEAD)
    table.columns[4].no_wrap = True
    for info in infos:
        created = info.created.partition(".")[0].replace("T", " ")
        row = (info.number, f"{info.items:,}", info.index, info.parent or "", created)
        table.add_row(*map(str, row), "served" if info.number == served.version.number else "")
    out.print(table)


def _catalog(served: hr.LiveIndex, path: Path, sid: str, item_id: str | None) -> hr.Catalog:
    columns = sid_columns(sid)
    if item_id is None and path.is_file():
        item_id = _id_column(served.version.index, path, [columns] if isinstance(columns, str) else columns)
    return hr.Catalog.from_parquet(path, sid=columns, item_id=item_id)


def _id_column(index: hr.TrieIndex, path: Path, sids: list[str]) -> str | None:
    """Returns the column that must be that of the ids; None where the file is not one that can be read.

    Raises:
        CatalogError: several columns may be.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        columns = pq.read_schema(path).names
    except (OSError, pa.ArrowException):
        return None
    left = [name for name in columns if name not in (*sids, *index.attributes.column_names)]
    if "item_id" in columns or len(left) == 1:
        return "item_id" if "item_id" in columns else left[0]
    raise hr.CatalogError(
        f"{path} has no column item_id; say which one has the item ids: --item-id NAME. Its columns are "
        f"{', '.join(columns)}."
    )


def _print_served(served: hr.LiveIndex) -> None:
    out.print(f"[bold]{escape(str(served.path))}[/] serves {escape(repr(served.version))}", soft_wrap=True)
