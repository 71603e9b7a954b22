"""`hedgerow live update-attributes`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

import hedgerow as hr
from hedgerow.catalog.constructors import ITEM_ID
from hedgerow.cli.catalogs import Dates, id_column, read_rows, types_of
from hedgerow.cli.common import AsJson, names_of, out, print_json
from hedgerow.cli.live_options import LivePath, New, print_current
from hedgerow.errors import CatalogError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


def update_attributes(
    path: LivePath,
    rows: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="ROWS",
            help="Files with item ids and attributes: Parquet, CSV, JSON or JSON lines; a folder, or a quoted pattern.",
            show_default=False,
        ),
    ] = None,
    item_id: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="The column of item ids. Default: item_id, or the one unknown column."),
    ] = None,
    attributes: Annotated[
        str | None, typer.Option(metavar="COLUMNS", help="The attributes to change, a,b,c. Default: all other columns.")
    ] = None,
    new_attributes: New = "error",
    drop: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN", help="First remove this attribute from all items; repeat for several."),
    ] = None,
    unknown: Annotated[
        Literal["error", "skip"], typer.Option(help="Ids that no item has: refuse, or skip and count them.")
    ] = "error",
    dates: Dates = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Change attributes of items, as a new version. SIDs and other attributes stay."""
    live_index = hr.LiveIndex.open(path)
    before, table = live_index.version, None
    id_name, asked = item_id or ITEM_ID, 0
    if rows:
        names, index = None if attributes is None else names_of(attributes), before.index
        id_name = item_id or id_column(index, rows, names or ()) or ITEM_ID
        kept = index.attributes.column_names if names is None else names
        types = types_of(index, id_name, [name for name in kept if name not in (drop or ())])
        table = read_rows(rows, id_name, names, types, dates)
        asked = len(table[id_name])
        table = _known(before, table, id_name) if unknown == "skip" else table
    live_index.update_attributes(table, item_id=id_name, new_attributes=new_attributes, drop=drop or ())
    changes = _Changes(0, 0, 0, {})
    if table is not None:
        changes = _Changes.of(before.index, live_index.version.index, table, id_name, asked)
    if as_json:
        facts = {"version": live_index.version.number, "items": live_index.version.num_items}
        print_json({**facts, **vars(changes), "dropped": drop or []})
        return
    print_current(live_index)
    if table is not None:
        out.print(str(changes), soft_wrap=True, highlight=False)


@dataclass(frozen=True)
class _Changes:
    """What a change of attributes changed.

    Attributes:
        changed: the number of items of the table with another value than before.
        unchanged: the number of its other items.
        unknown: the number of skipped ids.
        values: for each attribute of the table, the number of items with another value.
    """

    changed: int
    unchanged: int
    unknown: int
    values: dict[str, int]

    @classmethod
    def of(cls, before: hr.TrieIndex, after: hr.TrieIndex, table: Any, item_id: str, asked: int) -> _Changes:
        """Compare the items of a table in two indexes.

        Args:
            before: the index before the change.
            after: the index after it.
            table: the changes, without ids that no item has.
            item_id: the column of item ids.
            asked: the number of ids in the file.
        """
        import numpy as np

        from hedgerow.index.diff import differ

        names = [name for name in _names(table) if name != item_id and name in after.attributes.column_names]
        rows = [index.rows(table[item_id]) for index in (before, after)]
        changed, values = np.zeros(len(rows[0]), bool), {}
        for name in names:
            new = after.attributes.column(name).take(rows[1])
            known = name in before.attributes.column_names
            differs = differ(before.attributes.column(name).take(rows[0]), new) if known else _present(new)
            values[name] = int(differs.sum())
            changed |= differs
        count = int(changed.sum())
        return cls(count, len(changed) - count, asked - len(changed), values)

    def __str__(self) -> str:
        values = ", ".join(f"{name} {count:,}" for name, count in self.values.items())
        skipped = f", {self.unknown:,} unknown id{'s' * (self.unknown != 1)} skipped" * bool(self.unknown)
        return f"items: {self.changed:,} changed, {self.unchanged:,} unchanged{skipped}; values changed: {values}"


def _names(table: Any) -> list[str]:
    """The names of the columns of a table or a mapping."""
    return table.column_names if hasattr(table, "column_names") else list(table)


def _present(column: pa.ChunkedArray) -> np.ndarray:
    """Bool [R]: which values are not null."""
    return column.is_valid().to_numpy()


def _known(version: hr.Version, table: Any, item_id: str) -> pa.Table:
    """The rows of a table whose ids are those of items.

    Raises:
        CatalogError: there are none.
    """
    import numpy as np
    import pyarrow as pa

    rows = table if isinstance(table, pa.Table) else pa.table(table)
    found = version.index.rows(rows.column(item_id), missing="ignore")
    known = np.flatnonzero((found >= 0) & ~np.isin(found, version.removed_rows))
    if not len(known):
        raise CatalogError(
            f"no item has one of the {rows.num_rows:,} ids of the column {item_id!r}, the first is "
            f"{rows.column(item_id)[0].as_py()!r}. Name the column of item ids with --item-id."
        )
    return rows.take(known)
