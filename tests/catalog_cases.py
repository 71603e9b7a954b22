"""Catalogs and helpers that the tests of catalogs share."""

import uuid
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

import hedgerow as hr

SIDS = [[1, 200, 3], [0, 7, 3], [1, 200, 2]]

ORDER = [1, 2, 0]  # The rows of SIDS in sorted order.


def error(make: Callable[[], Any]) -> str:
    with pytest.raises(hr.CatalogError) as caught:
        make()
    return str(caught.value)


def same(left: hr.Catalog, right: hr.Catalog) -> bool:
    return (
        left.sids.tolist() == right.sids.tolist()
        and left.codebook_sizes == right.codebook_sizes
        and left.item_ids.to_pylist() == right.item_ids.to_pylist()
        and left.attributes.to_pylist() == right.attributes.to_pylist()
    )


def uuids(numbers: list[int]) -> list[uuid.UUID]:
    return [uuid.UUID(int=number) for number in numbers]


def table_of(sids: Any = SIDS) -> pa.Table:
    return pa.table({"name": ["x", "y", "z"], "sid": sids, "id": ["c", "a", "b"], "year": [1, None, 3]})


EXPECTED = hr.Catalog(SIDS, item_ids=["c", "a", "b"], attributes={"name": ["x", "y", "z"], "year": [1, None, 3]})
