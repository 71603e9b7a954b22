"""The columns that can hold item ids."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa


def id_columns(table: pa.Table | None, others: set[str]) -> Iterator[str]:
    """The columns of distinct texts or integers."""
    import pyarrow as pa

    from hedgerow.catalog.types import is_text

    for name in table.column_names if table is not None else ():
        column = table.column(name) if table is not None and table.column_names.count(name) == 1 else None
        if column is None or name in others or column.null_count:
            continue
        if (is_text(column.type) or pa.types.is_integer(column.type)) and len(column.unique()) == len(column):
            yield name
