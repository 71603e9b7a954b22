"""SIDs as rows of codes, from Arrow columns and text."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

from hedgerow.catalog.codes import parsed
from hedgerow.errors import CatalogError


def as_rows(sids: Any, *, ragged: bool) -> Any:
    """Convert an Arrow column, or rows of text, to codes; return other objects unchanged."""
    if isinstance(sids, (str, PurePath)):
        raise CatalogError(
            f"sids must be SIDs; got {sids!r:.60}. To read a file, use Catalog.from_parquet, from_csv or from_json."
        )
    if not hasattr(sids, "__arrow_c_array__") and not hasattr(sids, "__arrow_c_stream__"):
        return parsed(sids, ragged=ragged)
    from hedgerow.catalog import columns

    return columns.sids_of_lists(columns.as_column(sids, "sids"), "sids", ragged=ragged)
