"""Parquet files of several row groups: read by threads, with lists of codes in a smaller type, and the same values."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import hedgerow as hr
from hedgerow.catalog.row_groups import read_row_groups
from hedgerow.catalog.sources import files_of


def written(tmp_path, groups, type_=None, **columns):
    """A file whose row groups hold these lists."""
    path = tmp_path / "items.parquet"
    rows = [row for group in groups for row in group]
    table = pa.table({"sid": pa.array(rows, type_ or pa.list_(pa.int64())), "item_id": range(len(rows)), **columns})
    with pq.ParquetWriter(path, table.schema) as writer:
        start = 0
        for group in groups:
            writer.write_table(table.slice(start, len(group)))
            start += len(group)
    return path, rows


def read(path, lists: str | None = "sid"):
    return read_row_groups(files_of(path, "parquet")[0], lists)


@pytest.mark.parametrize(
    ("groups", "type_"),
    [
        ([[[1, 2], [3, 4]], [[5, 255]]], "uint8"),
        ([[[1, 2]], [[300, 4]], [[2, 70_000]]], "uint32"),
        ([[[1, 2], [3, 4]]], "uint8"),
    ],
    ids=["one type", "types differ", "one group"],
)
def test_lists_take_the_smallest_type(tmp_path, groups, type_):
    path, rows = written(tmp_path, groups)
    table = read(path)
    assert str(table.column("sid").type.value_type) == type_
    assert table.column("sid").to_pylist() == rows
    assert table.column("item_id").to_pylist() == list(range(len(rows)))


@pytest.mark.parametrize(
    "groups",
    [
        [[[1, 2], [3]], [[4, 5]]],
        [[[1, 2]], [[3]]],
        [[[1, 2]], [[3, -1]]],
        [[[1, 2]], [None]],
        [[[1, 2]], [[3, None]]],
        [[[]], [[]]],
    ],
    ids=["lengths", "lengths of groups", "negative", "null", "null code", "empty"],
)
def test_other_lists_stay_as_they_are(tmp_path, groups):
    path, rows = written(tmp_path, groups)
    table = read(path)
    assert table.column("sid").type == pa.list_(pa.int64())
    assert table.column("sid").to_pylist() == rows


def test_text_and_other_columns_stay_as_they_are(tmp_path):
    path, rows = written(tmp_path, [["1-2"], ["3-4"]], pa.string(), tags=[[1, 2], [3, 4]])
    table = read(path)
    assert table.column("sid").to_pylist() == rows
    assert table.column("tags").type == pa.list_(pa.int64())
    assert read(path, None).equals(pq.read_table(path))


def test_stored_codebook_sizes_are_kept(tmp_path):
    path, _ = written(tmp_path, [[[1, 2]], [[3, 4]]])
    table = pq.read_table(path)
    field = table.schema.field("sid").with_metadata({b"hedgerow.codebook_sizes": b"[16, 32]"})
    pq.write_table(table.set_column(0, field, table.column("sid")), path, row_group_size=1)
    assert hr.Catalog.from_parquet(path).codebook_sizes == (16, 32)


def test_a_catalog_equals_that_of_the_table(tmp_path):
    sids = np.random.default_rng(0).integers(0, 300, (1000, 4))
    path, _ = written(tmp_path, [sids[begin : begin + 300].tolist() for begin in range(0, 1000, 300)])
    catalog, expected = hr.Catalog.from_parquet(path), hr.Catalog.from_arrow(pq.read_table(path))
    assert catalog.sids.dtype == expected.sids.dtype
    assert catalog.sids.tolist() == expected.sids.tolist()
    assert catalog.codebook_sizes == expected.codebook_sizes
    with pytest.raises(ValueError, match="read-only"):
        catalog.sids[0, 0] = 1


def test_errors_name_the_row_of_the_file(tmp_path):
    path, _ = written(tmp_path, [[[1, 2]], [[3, 40]]])
    with pytest.raises(hr.CatalogError, match=r"items.parquet: row 1, level 1: code 40 is out of range"):
        hr.Catalog.from_parquet(path, codebook_sizes=16)
    path, _ = written(tmp_path, [[[1, 2]], [[3, -1]]])
    with pytest.raises(hr.CatalogError, match=r"row 1, level 1: code -1 is out of range"):
        hr.Catalog.from_parquet(path)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int64, np.uint64])
def test_distinct_and_repeated_ids_of_any_type(dtype):
    limits = np.iinfo(dtype)
    for values in ([limits.min, limits.max, 3, 5], [limits.max - 1, limits.max], list(range(100))):
        ids = np.asarray(values, dtype)
        assert len(hr.Catalog(np.zeros((len(ids), 1), int), item_ids=ids)) == len(ids)
        with pytest.raises(hr.CatalogError, match="appears in rows"):
            hr.Catalog(np.zeros((len(ids) + 1, 1), int), item_ids=np.append(ids, ids[:1]))
