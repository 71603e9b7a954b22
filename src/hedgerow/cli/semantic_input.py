"""The input of `hedgerow semantic-ids`: the rows, the published SIDs and the quantizer, checked before any work."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hedgerow as hr
from hedgerow.catalog.constructors import ITEM_ID
from hedgerow.cli.common import is_live
from hedgerow.cli.embeddings import column_named, read_table
from hedgerow.cli.id_columns import id_columns
from hedgerow.errors import ArgumentError

if TYPE_CHECKING:
    import pyarrow as pa

    from hedgerow.catalog.sources import DateOrder

# Names of columns that hold ids, and the largest share of ids that appear twice by mistake.
IDS = r"^(id|sku|asin|isbn|ean|gtin|.*_id|item|product)$"
MAX_REPEATED = 0.1


@dataclass(frozen=True)
class Given:
    """What the files contain.

    Attributes:
        table: the rows of INPUT; None for .npy.
        output_table: those of its columns that are written to the output.
        categories: the column of --category.
        id_column: the column of item ids, or the first one that can be it; None if there is none.
        trained: the quantizer of --with-quantizer.
        published: the arguments `ids`, `keep` and `taken` of `Quantizer.assign`.
    """

    table: pa.Table | None
    output_table: pa.Table | None
    categories: pa.Array | None
    id_column: str | None
    trained: hr.Quantizer | None
    published: dict[str, Any]

    @classmethod
    def read(
        cls,
        source: Path,
        taken: Path | None,
        with_quantizer: Path | None,
        *,
        text: list[str] | None,
        category: str | None,
        item_id: str | None,
        sid: str,
        drop: list[str] | None,
        dates: DateOrder | None,
    ) -> Given:
        """Read INPUT, --taken and --with-quantizer, and check that the columns exist.

        Raises:
            HedgerowError: a file cannot be read, a column does not exist, or the files do not fit each other.
        """
        table = read_table(source, text or (), dates, (item_id or ITEM_ID, sid))
        output_table = _output_table(table, drop, sid)
        categories = None if category is None else column_named(table, category)
        if item_id is not None:
            column_named(table, item_id)
        _check_ids(table, item_id)
        id_name = ITEM_ID if item_id is None and table is not None and ITEM_ID in table.column_names else item_id
        existing = None if taken is None else _existing(taken, sid)
        others = {sid, *(text or ())}
        if existing is not None and id_name is None:
            _check_new(output_table, existing, others)
        trained = None if with_quantizer is None else hr.Quantizer.load(with_quantizer)
        if trained is not None and text and trained.text_columns not in (None, tuple(text)):
            raise ArgumentError(
                f"{with_quantizer} was trained on the texts of {', '.join(trained.text_columns or ())}; got --text "
                f"{', '.join(text)}. Pass the same columns in the same order, so that similar items get similar SIDs."
            )
        published = {}
        if trained is not None and existing is not None:
            item_ids = None if id_name is None else column_named(table, id_name)
            published = _published(existing, sid, trained, id_name, item_ids)
        return cls(table, output_table, categories, id_name or _likely_ids(output_table, others), trained, published)


def _check_new(table: pa.Table | None, existing: hr.TrieIndex | pa.Table, others: set[str]) -> None:
    """Check that INPUT has no items of --taken, if --item-id does not tell them apart.

    Raises:
        ArgumentError: a column of INPUT has ids of items that exist, which would get other SIDs.
    """
    import pyarrow.compute as pc

    for name in id_columns(table, others):
        if isinstance(existing, hr.TrieIndex):
            ids = existing.item_ids
        else:
            ids = existing.column(name) if existing.column_names.count(name) == 1 else None
        column = column_named(table, name)
        if ids is not None and ids.type == column.type:
            known = pc.sum(pc.is_in(column, value_set=ids.combine_chunks())).as_py()  # pyright: ignore[reportAttributeAccessIssue]
            if known:
                raise ArgumentError(
                    f"--taken contains {known:,} of the {len(column):,} values of the column {name!r}, and without "
                    f"--item-id all items would get new SIDs. Pass --item-id {name}: items that exist keep their SIDs. "
                    "If the ids are in another column, name that one."
                )


def _output_table(table: pa.Table | None, drop: list[str] | None, sid: str) -> pa.Table | None:
    """The columns of INPUT that are written to the output.

    Raises:
        ArgumentError: a column of INPUT has the name of the SID column.
        CatalogError: a column of `drop` does not exist.
    """
    for name in drop or ():
        column_named(table, name)
    output_table = None if table is None else table.drop_columns(drop or [])
    if output_table is not None and sid in output_table.column_names:
        raise ArgumentError(f"INPUT has a column {sid!r}. Choose another name with --sid, or remove it: --drop {sid}.")
    return output_table


def _existing(path: Path, sid: str) -> hr.TrieIndex | pa.Table:
    """A saved index, the current index of a live one, or the rows of a Parquet file with a SID column."""
    if is_live(path):
        return hr.LiveIndex.open(path).version.index
    if path.suffix != ".parquet":
        return hr.load_index(path, mmap=True)
    rows = read_table(path)
    assert rows is not None
    column_named(rows, sid)
    return rows


def _published(
    existing: hr.TrieIndex | pa.Table, sid: str, quantizer: hr.Quantizer, id_name: str | None, ids: pa.Array | None
) -> dict[str, Any]:
    """The arguments `ids` and `keep` of `Quantizer.assign`; `taken` if one side has no ids."""
    if isinstance(existing, hr.TrieIndex):
        return {"taken": existing} if ids is None else {"keep": existing, "ids": ids}
    if ids is None or id_name not in existing.column_names:
        from hedgerow.catalog.columns import sids_of_lists

        return {"taken": sids_of_lists(column_named(existing, sid), sid)}
    last = () if quantizer.deduplication_codes is None else (quantizer.deduplication_codes,)
    sizes = (*quantizer.codebook_sizes, *last)
    keep = hr.Catalog.from_arrow(existing, sid=sid, item_id=id_name, attributes=[], codebook_sizes=sizes)
    return {"keep": keep, "ids": ids}


def _check_ids(table: pa.Table | None, item_id: str | None) -> None:
    """Check that ids are distinct: those of --item-id, or of the columns that look like ids, of which one is enough.

    Raises:
        ArgumentError: an id appears twice.
    """
    if table is None:
        return
    names = [item_id] if item_id else [name for name in table.column_names if re.search(IDS, name, re.IGNORECASE)]
    found = {name: _repeated(table.column(name)) for name in names if table.column_names.count(name) == 1}
    repeated = {name: facts for name, facts in found.items() if facts is not None}
    if len(repeated) < len(found):
        return
    for name, (surplus, value, rows) in repeated.items():
        # A column of which many values repeat has ids of something else.
        if item_id is not None or surplus <= MAX_REPEATED * len(table):
            raise ArgumentError(
                f"the column {name!r} has {surplus:,} ids of earlier rows again, the first, {value!r}, in rows "
                f"{rows[0]} and {rows[1]}. Item ids must be distinct: remove rows. If the ids are in another column, "
                "name it with --item-id."
            )


def _repeated(column: pa.ChunkedArray) -> tuple[int, Any, list[int]] | None:
    """The number of values that earlier rows have, the first of them, and its rows; None if there are none."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from hedgerow.catalog.columns import rows_equal
    from hedgerow.catalog.types import is_text

    if not (is_text(column.type) or pa.types.is_integer(column.type)):
        return None
    counts = column.drop_null().combine_chunks().value_counts()
    many = counts.filter(pc.greater(counts.field("counts"), 1))  # pyright: ignore[reportAttributeAccessIssue]
    if not len(many):
        return None
    value = many[0]["values"].as_py()
    return pc.sum(many.field("counts")).as_py() - len(many), value, rows_equal(column, value)  # pyright: ignore[reportAttributeAccessIssue]


def _likely_ids(table: pa.Table | None, others: set[str]) -> str | None:
    """The first column of `id_columns`, which `hedgerow build` needs as --item-id."""
    return next(id_columns(table, others), None)
