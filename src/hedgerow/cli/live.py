"""`hedgerow diff` and `hedgerow live`: differences between indexes, and an index that is updated."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

import hedgerow as hr
from hedgerow.cli.catalogs import (
    AsText,
    ColumnTypes,
    CsvTypes,
    Dates,
    Items,
    id_column,
    read_catalog,
    types_of,
)
from hedgerow.cli.common import (
    AsJson,
    IndexPath,
    Sid,
    names_of,
    new_table,
    out,
    print_json,
    print_warning,
    printed_warnings,
    progress_bar,
    sid_columns,
)
from hedgerow.cli.live_attributes import update_attributes
from hedgerow.cli.live_options import Allow, Attributes, IdColumn, LivePath, Missing, New, print_current
from hedgerow.cli.search import ids_of
from hedgerow.cli.served import Served
from hedgerow.errors import ArgumentError, HedgerowError
from hedgerow.index.files import as_folder
from hedgerow.request_lines import read_file

if TYPE_CHECKING:
    from hedgerow.catalog.sources import DateOrder
    from hedgerow.live.manifest import VersionInfo

live = typer.Typer(
    no_args_is_help=True, help="Manage a live index: a folder of versions, one of which is the current one."
)


def diff(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="A saved or live index.", show_default=False)],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="Another saved or live index.", show_default=False)],
    *,
    limit: Annotated[
        int, typer.Option(metavar="N", min=0, help="Number of example ids and SIDs per kind of change.")
    ] = 5,
    as_json: AsJson = False,
) -> None:
    """Show the items and SIDs that changed between two indexes, and the levels before and after."""
    difference = hr.diff(*(Served.of(path).index for path in (old, new)))
    facts = difference.to_dict(limit)
    if as_json:
        print_json(facts)
        return
    table = new_table(f"{old} → {new}", "change", "count", "examples", numbers=("count",))
    for name, count in facts["counts"].items():
        change = name.replace("_", " ").replace("sids", "SIDs") if name.startswith("sids") else f"items {name}"
        table.add_row(change, f"{count:,}", escape(", ".join(map(str, facts["examples"][name]))))
    for name in ("columns_added", "columns_removed"):
        if facts[name]:
            table.add_row(name.replace("_", " "), f"{len(facts[name]):,}", escape(", ".join(facts[name])))
    out.print(table)
    levels = new_table(None, "level", "nodes", "max branch", "representation")
    for number, pair in enumerate(difference.levels):
        levels.add_row(str(number), *(_change(pair, name) for name in ("nodes", "max_branch", "representation")))
    out.print(levels)


def _change(pair: tuple[dict[str, Any] | None, dict[str, Any] | None], name: str) -> str:
    """A property of a level before and after."""
    values = ("none" if facts is None else facts[name] for facts in pair)
    old, new = (f"{value:,}" if isinstance(value, int) else value for value in values)
    return old if old == new else f"{old} → {new}"


@live.command(epilog="Example: hedgerow live init items.live items.hedgerow")
def init(path: LivePath, index: IndexPath) -> None:
    """Create a live index, with a saved index as version 1."""
    print_current(hr.LiveIndex.create(path, hr.load_index(index, mmap=True)))


@live.command(epilog="Example: hedgerow live pull s3://shop/items.live items.live --follow")
def pull(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A live index: a URL, such as s3://bucket/items.live, or a folder.",
            show_default=False,
        ),
    ],
    path: LivePath,
    *,
    keep: Annotated[int, typer.Option(metavar="N", min=0, help="Number of versions to keep in LIVE.")] = 3,
    follow: Annotated[bool, typer.Option("--follow", help="Pull new versions until stopped.")] = False,
    interval: Annotated[
        float, typer.Option(metavar="S", min=0.1, help="Seconds between two pulls of --follow.")
    ] = 10.0,
) -> None:
    """Make LIVE a copy of the current version of a live index elsewhere. Only missing files are fetched."""
    pulled = _pulled(source, path, keep, None)
    while follow:
        time.sleep(interval)
        try:
            pulled = _pulled(source, path, keep, pulled)
        except HedgerowError as error:
            # The network or the source may recover.
            print_warning(str(error))


def _pulled(source: str, path: Path, keep: int, before: VersionInfo | None) -> VersionInfo:
    """Pull once. Prints the version if it is another one than before."""
    from hedgerow.live.pull import pull as pull_version
    from hedgerow.live.store import Store

    with progress_bar(enabled=True) as progress:
        info = pull_version(source, Store(as_folder(path)), keep, progress)
    if info != before:
        out.print(f"[bold]{escape(str(path))}[/]: version {info.number}, {info.items:,} items", soft_wrap=True)
    return info


@live.command(epilog="Example: hedgerow live publish items.live rebuilt.hedgerow")
def publish(path: LivePath, index: IndexPath, allow: Allow = None) -> None:
    """Make an index that was built separately the current version."""
    live_index = hr.LiveIndex.open(path)
    before = live_index.version
    after = live_index.publish(hr.load_index(index, mmap=True), allow=allow or ())
    print_current(live_index)
    out.print(f"{after.num_items:,} items in place of the {before.num_items:,} of version {before.number}")
    old, new = before.index.layout, after.index.layout
    if old != new:
        advice = ": build it with --compact to keep that of the live index" if old == "compact" else ""
        print_warning(f"the layout was {old} and is now {new}{advice}.")


@live.command(epilog="Example: hedgerow live add items.live new.parquet")
def add(
    path: LivePath,
    items: Items,
    sid: Sid = "sid",
    item_id: IdColumn = None,
    attributes: Attributes = None,
    new_attributes: New = "error",
    missing_attributes: Missing = "error",
    types: ColumnTypes = None,
    as_text: AsText = None,
    dates: Dates = None,
    allow: Allow = None,
) -> None:
    """Add items with new ids, as a new version."""
    live_index = hr.LiveIndex.open(path)
    live_index.add(
        _catalog(live_index, items, sid, item_id, attributes, (types, as_text, dates)),
        new_attributes=new_attributes,
        missing_attributes=missing_attributes,
        allow=allow or (),
    )
    print_current(live_index)


@live.command(epilog="Example: hedgerow live update items.live changed.parquet")
def update(
    path: LivePath,
    items: Items,
    sid: Sid = "sid",
    item_id: IdColumn = None,
    attributes: Attributes = None,
    new_attributes: New = "error",
    missing_attributes: Missing = "error",
    types: ColumnTypes = None,
    as_text: AsText = None,
    dates: Dates = None,
    allow: Allow = None,
) -> None:
    """Add items, and replace items whose ids exist, as a new version."""
    live_index = hr.LiveIndex.open(path)
    live_index.update(
        _catalog(live_index, items, sid, item_id, attributes, (types, as_text, dates)),
        new_attributes=new_attributes,
        missing_attributes=missing_attributes,
        allow=allow or (),
    )
    print_current(live_index)


EXAMPLE = "Example: hedgerow live update-attributes items.live prices.csv"
live.command("update-attributes", epilog=EXAMPLE)(update_attributes)


@live.command(epilog="Example: hedgerow live remove items.live B0001 B0002")
def remove(
    path: LivePath,
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="ID...", help="The ids of the items.", show_default=False)
    ] = None,
    ids_file: Annotated[
        Path | None,
        typer.Option("--input", metavar="FILE", help="A file with one id per line, or - for standard input."),
    ] = None,
    allow: Allow = None,
) -> None:
    """Remove items, as a new version."""
    if (not ids) == (ids_file is None):
        raise typer.BadParameter("pass ids, or a file of ids", param_hint="ID..., --input")
    listed = list(ids or ()) if ids_file is None else _ids_in(ids_file)
    live_index = hr.LiveIndex.open(path)
    live_index.remove(ids_of(live_index.version.index, listed, "ID"), allow=allow or ())
    print_current(live_index)


@live.command(epilog="Example: hedgerow live rollback items.live --to 3")
def rollback(
    path: LivePath,
    to: Annotated[
        int | None, typer.Option(metavar="N", help="The number of the version. Default: the version before.")
    ] = None,
) -> None:
    """Make an earlier version the current one."""
    try:
        live_index = hr.LiveIndex.open(path)
    except hr.IndexFileError:
        # The current version is damaged: serve one that is not.
        live_index = hr.LiveIndex.open(path, recover=True)
        to = to or live_index.version.number
    if to != live_index.version.number:
        live_index.rollback(to)
    print_current(live_index)


@live.command(epilog="Example: hedgerow live prune items.live --keep 3")
def prune(
    path: LivePath, keep: Annotated[int, typer.Option(metavar="N", min=0, help="Number of versions to keep.")] = 3
) -> None:
    """Delete old versions that no process uses."""
    live_index = hr.LiveIndex.open(path)
    with printed_warnings():
        deleted = live_index.prune(keep)
    out.print(f"removed: {', '.join(map(str, deleted)) or 'none'}")


@live.command(epilog="Example: hedgerow live verify items.live")
def verify(path: LivePath, *, as_json: AsJson = False) -> None:
    """Check every checksum, array and SID of all versions."""
    from hedgerow.live import kept
    from hedgerow.live.store import Store

    # Not hr.LiveIndex.open, which fails if the current version is damaged.
    faults = kept.faults(Store(as_folder(path)))
    if as_json:
        print_json({"valid": not faults, "damaged": faults})
    for number, fault in faults.items() if not as_json else ():
        out.print(f"version {number}: {escape(fault)}", soft_wrap=True)
    if faults:
        raise hr.IndexFileError(f"{path} has damaged versions: {', '.join(map(str, faults))}.")
    if not as_json:
        out.print(f"[green]valid[/]: all versions of {escape(str(path))} are correct.", soft_wrap=True)


@live.command(epilog="Example: hedgerow live status items.live")
def status(path: LivePath, *, as_json: AsJson = False) -> None:
    """List the versions, and show which is the current one."""
    from hedgerow.live import kept
    from hedgerow.live.manifest import MANIFEST
    from hedgerow.live.store import Store

    # Not hr.LiveIndex.open, which fails if the current version or current.json is damaged.
    state, infos, damaged = kept.survey(Store(as_folder(path)))
    current = None if state is None else state.current.number
    if as_json:
        print_json({"current": current, "versions": [asdict(info) for info in infos], "damaged": damaged})
        return
    table = new_table(None, "version", "items", "index of", "parent", "created (UTC)", "")
    table.columns[4].no_wrap = True
    for info in infos:
        created = info.created.partition(".")[0].replace("T", " ")
        cells = (info.number, f"{info.items:,}", info.index, info.parent or "", created)
        table.add_row(*map(str, cells), "current" if info.number == current else "")
    out.print(table)
    for name, fault in damaged.items():
        print_warning(fault if name == MANIFEST else f"version {name} is damaged: {fault}")


def _ids_in(path: Path) -> list[str]:
    """The ids in a file with one per line.

    Raises:
        ArgumentError: the file cannot be read, or has no id.
    """
    content = read_file(path)
    try:
        ids = [line.strip() for line in content.decode("utf-8-sig").split("\n") if line.strip()]
    except UnicodeDecodeError as error:
        raise ArgumentError(f"{path} cannot be read as UTF-8: {error}") from None
    if not ids:
        raise ArgumentError(f"{path} contains no id; expected one per line.")
    return ids


def _catalog(
    live_index: hr.LiveIndex,
    paths: list[Path],
    sid: str,
    item_id: str | None,
    attributes: str | None,
    csv_options: tuple[str | None, str | None, DateOrder | None],
) -> hr.Catalog:
    """Read items; ragged SIDs if the live index has them. `csv_options` are --types, --as-text and --dates."""
    index, columns = live_index.version.index, sid_columns(sid)
    sids = [columns] if isinstance(columns, str) else columns
    options = {
        "sid": columns,
        "item_id": item_id or id_column(index, paths, sids),
        "codebook_sizes": None,
        "attributes": None if attributes is None else names_of(attributes),
    }
    kept = index.attributes.column_names if attributes is None else options["attributes"]
    known = types_of(index, options["item_id"] or "item_id", [name for name in kept if name not in sids])
    return read_catalog(paths, options, ragged=index.ragged, csv_types=CsvTypes.of(*csv_options, known))
