"""Catalogs of ragged SIDs: every input form gives the same catalog, and errors name the row and the level."""

import json
import pickle
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import hedgerow as hr

SIDS = [[1, 200, 3], [0], [1, 200], [0]]
PADDED = [[1, 200, 3], [0, -1, -1], [1, 200, -1], [0, -1, -1]]
CODES = [[1, 200, 3], [0, 201, 4], [1, 200, 4], [0, 201, 4]]


def error(*arguments: Any, **options: Any) -> str:
    with pytest.raises(hr.CatalogError) as caught:
        hr.Catalog(*arguments, **options)
    return str(caught.value)


def assert_is_expected(catalog: hr.Catalog) -> None:
    assert catalog.sids.tolist() == CODES
    assert catalog.sids.dtype == np.uint8
    assert (catalog.codebook_sizes, catalog.end_codes) == ((2, 202, 5), (None, 201, 4))
    assert (catalog.ragged, catalog.num_items, catalog.num_levels) == (True, 4, 3)


@pytest.mark.parametrize(
    "sids",
    [
        SIDS,
        tuple(map(tuple, SIDS)),
        [np.array(sid) for sid in SIDS],
        PADDED,
        [*PADDED[:1], *SIDS[1:]],
        np.array(PADDED),
        np.array(PADDED, np.int16, order="F"),
        np.array([[*row, -1, -1] for row in PADDED]),
        pd.Series(SIDS),
        pd.Series(SIDS).to_numpy(),
        pl.Series(SIDS),
        pa.array(SIDS),
        pa.array(SIDS, pa.large_list(pa.uint64())),
        pa.array(PADDED, pa.list_(pa.int16(), 3)),
        pa.array([[9], *SIDS, [8]])[1:5],
        pa.chunked_array([SIDS[:1], SIDS[1:]]),
    ],
    ids=lambda sids: f"{type(sids).__module__}.{type(sids).__name__}",
)
def test_accepts_every_form_of_sids(sids):
    assert_is_expected(hr.Catalog(sids, ragged=True))


def test_tables_and_files(tmp_path):
    columns: dict[str, Any] = {
        f"l{level}": [row[level] if row[level] >= 0 else None for row in PADDED] for level in range(3)
    }
    columns["l1"] = pa.array(columns["l1"], pa.uint64())
    table = pa.table({"sid": SIDS, **columns, "name": list("dbca")})
    pq.write_table(table, tmp_path / "items.parquet")
    (tmp_path / "items.json").write_text(json.dumps(dict(zip("dbca", SIDS, strict=True))))
    assert_is_expected(hr.Catalog.from_arrow(table, ragged=True))
    levels = {"sid": ["l0", "l1", "l2"], "attributes": [], "ragged": True}
    assert_is_expected(hr.Catalog.from_arrow(pl.DataFrame(table), **levels))
    assert_is_expected(hr.Catalog.from_parquet(tmp_path / "items.parquet", ragged=True))
    by_level = hr.Catalog.from_parquet(tmp_path / "items.parquet", item_id="name", **levels)
    assert_is_expected(by_level)
    assert_is_expected(hr.Catalog.from_json(tmp_path / "items.json", ragged=True))


def test_codebook_sizes_argument_excludes_the_end_code():
    catalog = hr.Catalog(SIDS, codebook_sizes=256, ragged=True)
    assert (catalog.codebook_sizes, catalog.end_codes) == ((256, 257, 257), (None, 256, 256))
    assert catalog.sids.dtype == np.uint16
    assert hr.Catalog([[3], [1, 2]], codebook_sizes=[4, 2**31 - 1], ragged=True).codebook_sizes == (4, 2**31)
    # A longer codebook_sizes adds levels that no SID of the catalog uses.
    deep = hr.Catalog(SIDS, codebook_sizes=[2, 201, 4, 7, 7], ragged=True)
    assert deep.sids[0].tolist() == [1, 200, 3, 7, 7]


def test_one_length_one_level_and_no_items():
    same = hr.Catalog([[1, 2], [0, 1]], ragged=True)
    assert (same.codebook_sizes, same.sids.tolist()) == ((2, 4), [[1, 2], [0, 1]])
    flat = hr.Catalog([[1], [0]], ragged=True)
    assert (flat.ragged, flat.codebook_sizes, flat.end_codes) == (False, (2,), (None,))
    empty = hr.Catalog(np.zeros((0, 2), int), codebook_sizes=3, ragged=True)
    assert (empty.ragged, empty.codebook_sizes, len(empty)) == (True, (3, 4), 0)


def test_filter_pickle_and_repr():
    catalog = hr.Catalog(SIDS, item_ids=list("dbca"), attributes={"year": [1, 2, 3, 4]}, ragged=True)
    kept = catalog.filter(np.array([False, True, False, True]))
    assert (kept.sids.tolist(), kept.codebook_sizes, kept.end_codes) == ([CODES[1]] * 2, (2, 202, 5), (None, 201, 4))
    assert (kept.item_ids.to_pylist(), kept.attributes["year"].to_pylist()) == (["b", "a"], [2, 4])
    assert kept.sids.flags.writeable is False
    assert hr.build_index(kept).sids().tolist() == [[0, -1, -1]]
    assert_is_expected(pickle.loads(pickle.dumps(catalog)))
    assert repr(catalog) == ("Catalog(items=4, levels=3, ragged=True, codebook_sizes=[2, 202, 5], attributes=[year])")


@pytest.mark.parametrize(
    ("sids", "words"),
    [
        ([[1, 2], []], ["row 1", "empty", "at least one code"]),
        ([[], []], ["row 0", "empty"]),
        (np.array([[1, 2], [-1, -1]]), ["row 1", "empty"]),
        (pa.array([[1, 2], []]), ["row 1", "empty"]),
        ([[1, 2], [1, -1, 3], [2]], ["row 1, level 1", "level 2 has code 3", "[1, -1, 3]"]),
        (np.array([[1, 2, 3], [1, -1, 3]]), ["row 1, level 1", "level 2 has code 3"]),
        ([[1, 2], [-2]], ["row 1, level 0", "code -2"]),
        ([[1, 2], [3, 1, 2**31]], ["row 1, level 2", "2147483648"]),
        ([[1, 2], [3, 1.5, 1]], ["row 1, level 1", "1.5"]),
        ([[1, 2], [3, None, 1]], ["row 1, level 1", "None"]),
        ([[1, 2], ["x"]], ["row 1, level 0", "'x'"]),
        ([[1, 2], 5], ["row 1", "5"]),
        ([[1], [0] * 256], ["1 to 255 levels", "256"]),
        (np.array([[1.0, -1.0]]), ["float64"]),
        (np.array([[1, 2**64 - 1]], np.uint64), ["row 0, level 1", str(2**64 - 1)]),
        (pa.array([[1, 2], [2**64 - 1]], pa.list_(pa.uint64())), ["row 1, level 0", "out of range"]),
        (pa.array([[1, 2, 3], [4, None], [5]]), ["row 1, level 1", "null"]),
        (pa.array([[1], [], [2, None]]), ["row 2, level 1", "null"]),
        (pa.array([[1, 2], None]), ["row 1", "null"]),
        (np.ma.array([[1, 2], [3, 4]], mask=[[False, False], [False, True]]), ["row 1, level 1", "masked"]),
    ],
)
def test_error_names_row_and_level(sids, words):
    message = error(sids, ragged=True)
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ([2, 200, 4], ["row 0, level 1", "code 200", "0 to 199"]),
        ([2, 201], ["2 entries", "3 levels"]),
        (2**31, ["level 1 has 2,147,483,648", "2,147,483,647"]),
        ([2, 0, 4], ["level 1 has 0"]),
        ("256", ["'256'"]),
    ],
)
def test_rejects_invalid_codebook_sizes(sizes, words):
    message = error(SIDS, codebook_sizes=sizes, ragged=True)
    for word in words:
        assert word in message


@pytest.mark.parametrize("sids", [SIDS, PADDED, np.array(PADDED), pa.array(SIDS)])
def test_error_without_ragged_suggests_ragged(sids):
    message = error(sids)
    assert "row 1" in message
    assert "ragged=True" in message
    assert "--ragged" in message


def test_error_for_null_in_a_column_suggests_ragged():
    with pytest.raises(hr.CatalogError, match=r"row 1, level 1: column 'b' is null.*ragged=True"):
        hr.Catalog.from_arrow(pa.table({"a": [1, 2], "b": [1, None]}), sid=["a", "b"])
    with pytest.raises(hr.CatalogError, match="row 1 of sids is empty"):
        hr.Catalog.from_arrow(pa.table({"a": [1, None], "b": [1, None]}), sid=["a", "b"], ragged=True)
