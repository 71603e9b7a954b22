"""Catalog: immutability, filter, repr and the base classes of its errors."""

from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
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


def test_rejects_a_path_and_names_the_readers(tmp_path):
    for path in ("items.parquet", tmp_path / "items.csv"):
        with pytest.raises(hr.CatalogError, match=r"To read a file, use Catalog\.from_parquet"):
            hr.Catalog(path)


def pandas_frame(ids):
    return pd.DataFrame({"sid": [[0], [1]], "item_id": ids, "x": ids}, copy=False)


@pytest.mark.parametrize(
    "make",
    [
        lambda ids: hr.Catalog.from_arrow(pa.table({"sid": [[0], [1]], "item_id": ids, "x": ids})),
        lambda ids: hr.Catalog.from_arrow(pa.record_batch({"sid": pa.array([[0], [1]]), "item_id": ids, "x": ids})),
        lambda ids: hr.Catalog([[0], [1]], item_ids=pa.array(ids), attributes={"x": pa.array(ids)}),
        lambda ids: hr.Catalog([[0], [1]], item_ids=pa.chunked_array([pa.array(ids)]), attributes=pa.table({"x": ids})),
        lambda ids: hr.Catalog([[0], [1]], item_ids=ids, attributes={"x": ids}),
        lambda ids: hr.Catalog([[0], [1]], item_ids=pl.Series(ids), attributes=pl.DataFrame({"x": ids})),
        lambda ids: hr.Catalog([[0], [1]], item_ids=pd.Series(ids, copy=False), attributes={"x": ids}),
        lambda ids: hr.Catalog.from_pandas(pandas_frame(ids)),
        lambda ids: hr.Catalog.from_polars(pl.DataFrame({"sid": [[0], [1]], "item_id": ids, "x": ids})),
    ],
)
def test_a_catalog_and_its_indexes_share_no_memory_with_the_inputs(make):
    ids = np.array([5, 6])
    catalog = make(ids)
    index = hr.build_index(catalog)
    merged = hr.merge(
        hr.build_index(hr.Catalog([[2]], item_ids=[9], attributes={"x": [9]})),
        hr.Catalog([[0], [1]], codebook_sizes=3, item_ids=catalog.item_ids, attributes=catalog.attributes),
    )
    ids[:] = [6, 5]
    assert catalog.item_ids.to_pylist() == catalog.attributes["x"].to_pylist() == [5, 6]
    assert index.item_ids.to_pylist() == index.attributes["x"].to_pylist() == [5, 6]
    assert merged.item_ids.to_pylist() == merged.attributes["x"].to_pylist() == [5, 6, 9]


def buffers(column):
    storage = column.storage if isinstance(column, pa.ExtensionArray) else column
    return {buffer.address for buffer in storage.buffers() if buffer is not None and buffer.size}


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1, None]),
        pa.array([True, False]),
        pa.array(["a", None]),
        pa.array(["a", "b"], pa.large_string()),
        pa.array([b"ab", b"cd"], pa.binary(2)),
        pa.array([[1], [2, 3]]),
        pa.array([[1, 2], None], pa.list_(pa.int8(), 2)),
        pa.array([{"a": 1, "b": "x"}, None]),
        pa.array([bytes(16), bytes(range(16))], pa.uuid()),
    ],
    ids=lambda column: str(column.type),
)
def test_every_type_is_copied(column):
    catalog = hr.Catalog([[0], [1]], attributes={"x": column})
    assert not buffers(column) & buffers(catalog.attributes["x"].chunk(0))


def test_rows_of_a_file_are_not_copied_again(tmp_path, monkeypatch):
    pq.write_table(pa.table({"sid": [[0], [1]], "item_id": [5, 6]}), tmp_path / "items.parquet")
    monkeypatch.setattr(pa, "concat_arrays", None)
    assert hr.Catalog.from_parquet(tmp_path / "items.parquet").item_ids.to_pylist() == [5, 6]
