"""Catalog: immutability, filter, repr and the base classes of its errors."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from catalog_cases import EXPECTED, SIDS, error, same

import hedgerow as hr


def test_catalog_is_a_read_only_copy():
    sids, ids, year = np.array(SIDS, np.uint8, order="F"), np.array([5, 6, 7]), np.array([1.0, 2.0, 3.0])
    frame, series = pd.DataFrame({"year": [1, 2, 3]}), pd.Series([1, 2, 3])
    catalogs = [
        hr.Catalog(sids, item_ids=ids, attributes={"year": year}),
        hr.Catalog(sids, item_ids=ids, attributes={"year": series}),
        hr.Catalog(sids, item_ids=ids, attributes=frame),
    ]
    sids[:], ids[:], year[:], series.iloc[0], frame.iloc[0, 0] = 0, 0, 0, 0, 0
    for catalog in catalogs:
        assert catalog.sids.tolist() == SIDS
        assert catalog.item_ids.to_pylist() == [5, 6, 7]
        assert catalog.attributes["year"].to_pylist() == [1, 2, 3]
    with pytest.raises(ValueError, match="read-only"):
        catalogs[0].sids[0, 0] = 9
    with pytest.raises(AttributeError):
        catalogs[0].sids = sids  # type: ignore[misc]


def test_filter_keeps_codebook_sizes_ids_and_attributes():
    kept = EXPECTED.filter(np.array([True, False, True]))
    assert kept.sids.tolist() == [SIDS[0], SIDS[2]]
    assert kept.codebook_sizes == EXPECTED.codebook_sizes
    assert kept.item_ids.to_pylist() == ["c", "b"]
    assert kept.attributes.to_pylist() == [{"name": "x", "year": 1}, {"name": "z", "year": 3}]
    assert hr.Catalog(SIDS).filter(np.array([False, True, True])).item_ids.to_pylist() == [1, 2]
    assert len(EXPECTED.filter([False] * 3)) == 0
    assert same(EXPECTED.filter(np.ones(3, bool)), EXPECTED)


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        ([1, 0, 1], ["bool [3]", "int64"]),
        (np.array([True]), ["bool [3]", "[1]"]),
        (np.ones((3, 1), bool), ["bool [3]", "[3, 1]"]),
        (True, ["bool [3]", "[]"]),
    ],
)
def test_filter_rejects_invalid_masks(mask, words):
    message = error(lambda: EXPECTED.filter(mask))
    for word in words:
        assert word in message


def test_filter_rejects_a_masked_array():
    with pytest.raises(hr.CatalogError, match="masked entries"):
        hr.Catalog([[1], [2]]).filter(np.ma.array([True, False], mask=[True, False]))


def test_repr():
    assert repr(EXPECTED) == "Catalog(items=3, levels=3, codebook_sizes=[2, 201, 4], attributes=[name, year])"
    assert repr(hr.Catalog([[1]])) == "Catalog(items=1, levels=1, codebook_sizes=[2], attributes=[])"


def test_catalog_error_is_a_value_error(tmp_path: Path):
    with pytest.raises(ValueError, match="row 1"):
        hr.Catalog([[1, 2], [3]])
    with pytest.raises(hr.HedgerowError):
        hr.Catalog.from_parquet(tmp_path / "missing.parquet")
