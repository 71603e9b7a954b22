"""Tables as arguments of a catalog: the columns of SIDs, item ids and attributes."""

# pyarrow.compute creates its functions at import time, so pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hedgerow.catalog.codes import TextParser
from hedgerow.catalog.columns import (
    as_column,
    as_table,
    checked_item_ids,
    chosen_codebook_sizes,
    column_of,
    from_frame,
    other_columns,
    sids_of_lists,
)
from hedgerow.catalog.ragged import ENDED
from hedgerow.catalog.sids import MAX_CODEBOOK_SIZE, RAGGED_HINT
from hedgerow.catalog.types import is_text
from hedgerow.errors import CatalogError, MissingDependencyError


def arguments_of(
    table: Any,
    default_id: str,
    sid: str | Sequence[str] = "sid",
    item_id: str | None = None,
    codebook_sizes: int | Sequence[int] | None = None,
    attributes: Sequence[str] | None = None,
    *,
    ragged: bool = False,
) -> dict[str, Any]:
    """The arguments of `Catalog` for the columns of a table, which `Catalog.from_arrow` documents.

    The ids and attributes can share the memory of the table.

    Args:
        table: the table.
        default_id: the column of item ids if `item_id` is None and the column exists.
        sid: as for `Catalog.from_arrow`, as all following arguments.
        item_id: see `sid`.
        codebook_sizes: see `sid`.
        attributes: see `sid`.
        ragged: see `sid`.

    Raises:
        CatalogError: a column is missing or does not hold SIDs.
    """
    rows = from_frame(table)
    if item_id is None and default_id in rows.column_names:
        item_id = default_id
    if isinstance(sid, str):
        names, sids = [sid], sids_of_lists(column_of(rows, sid, "SID"), sid, ragged=ragged)
    else:
        names, sids = list(sid), sids_of_columns(rows, list(sid), ragged=ragged)
    if isinstance(sid, str):
        codebook_sizes = chosen_codebook_sizes(rows.schema, sid, codebook_sizes)
    ids = None if item_id is None else column_of(rows, item_id, "item id")
    kept = other_columns(rows, {*names, item_id}) if attributes is None else list(attributes)
    return {
        "sids": sids,
        "codebook_sizes": codebook_sizes,
        "item_ids": ids,
        "attributes": {name: column_of(rows, name, "attribute") for name in kept},
        "ragged": ragged,
    }


def duckdb_table(query: Any, connection: Any) -> pa.Table:
    """The result of a DuckDB query, or of a relation: see `Catalog.from_duckdb`."""
    try:
        import duckdb
    except ImportError as error:
        raise MissingDependencyError.of("Catalog.from_duckdb", "duckdb", "sql") from error
    if isinstance(query, duckdb.DuckDBPyRelation):
        if connection is not None:
            raise CatalogError("a relation has its own connection. Omit connection.")
    elif not isinstance(query, str):
        raise CatalogError(f"expected SQL or a relation of DuckDB; got {type(query).__name__}.")
    try:
        relation = query if not isinstance(query, str) else (connection or duckdb.default_connection()).sql(query)
        if relation is None:
            raise CatalogError("the statement has no result. Pass a query, for example SELECT ... or FROM items.")
        return relation.to_arrow_table()
    except duckdb.Error as error:
        raise CatalogError(f"DuckDB: {error}") from None


def changes_of(table: Any, item_id: str, reserved: Sequence[str]) -> tuple[pa.Array, pa.Table]:
    """The item ids and the attributes of a table of changes, which `TrieIndex.with_attributes` documents.

    Args:
        table: a mapping of names to columns, an Arrow table, or a data frame.
        item_id: the column of item ids.
        reserved: the names that no attribute may have.

    Raises:
        CatalogError: there is no such column or no other one, an id is null or repeated, or a column is not valid.
    """
    if isinstance(table, Mapping):
        columns = {str(name): as_column(values, f"column {name!r}") for name, values in table.items()}
        num_rows = len(next(iter(columns.values()), ()))
        table = as_table(columns, num_rows, reserved=(), copy=False)
    rows = from_frame(table)
    ids = checked_item_ids(column_of(rows, item_id, "item id"), rows.num_rows)
    names = other_columns(rows, {item_id})
    if not names:
        raise CatalogError(f"there are no attributes to change beside the column of item ids, {item_id!r}.")
    if "sid" in names:
        raise CatalogError(
            "the column 'sid' is no attribute, and SIDs cannot be changed in this way. Leave it out, or use "
            "update(...) or hedgerow live update."
        )
    columns = {name: column_of(rows, name, "attribute") for name in names}
    return ids, as_table(columns, rows.num_rows, reserved=reserved, copy=False)


def sids_of_columns(table: pa.Table, names: Sequence[str], *, ragged: bool = False) -> np.ndarray:
    """SIDs [N, L] from L columns of integers or tokens, one per level. If `ragged`, null becomes -1.

    Raises:
        CatalogError: a column is missing or not of integers, or a code is null (unless `ragged`) or out of range.
    """
    levels, parser = [], TextParser()
    for level, name in enumerate(names):
        column = column_of(table, name, "SID")
        if is_text(column.type):
            column = _parsed_codes(column, parser, level, name)
        if not pa.types.is_integer(column.type):
            raise CatalogError(f"level {level}: column {name!r} must hold integer codes; it holds {column.type}.")
        if column.null_count and not ragged:
            row = pc.index(pc.is_null(column), True).as_py()
            raise CatalogError(
                f"row {row}, level {level}: column {name!r} is null. Remove the rows without a SID. If null marks "
                f"the end of a SID: {RAGGED_HINT}."
            )
        codes = _codes_of(pc.fill_null(column, 0), level, name)
        levels.append(np.where(column.is_null(), ENDED, codes) if column.null_count else codes)
    if not levels:
        raise CatalogError("no SID column was named; pass one list column, or one column per level.")
    return np.column_stack(levels)


def _parsed_codes(column: pa.Array, parser: TextParser, level: int, name: str) -> pa.Array:
    """Parse a column with the tokens or numbers of one level."""
    encoded = column.dictionary_encode()
    codes = []
    for position, piece in enumerate(encoded.dictionary.to_pylist()):
        row = pc.index(encoded.indices, position).as_py()
        codes.append(parser.code(piece, level, f"row {row} of column {name!r}"))
    return pa.array(codes, pa.int64()).take(encoded.indices)


def _codes_of(column: pa.Array, level: int, name: str) -> np.ndarray:
    """Convert a column of codes to NumPy, and uint64 to int64: NumPy turns uint64 and int64 columns into floats."""
    codes = column.to_numpy(zero_copy_only=False)
    if codes.dtype != np.uint64:
        return codes
    if (codes > MAX_CODEBOOK_SIZE).any():
        row = int(np.argmax(codes > MAX_CODEBOOK_SIZE))
        raise CatalogError(
            f"row {row}, level {level}: code {codes[row]} of column {name!r} is out of range; "
            f"codes are 0 to at most {MAX_CODEBOOK_SIZE - 1}."
        )
    return codes.astype(np.int64)
