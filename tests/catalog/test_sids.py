"""SIDs of a catalog: every input form, codebook sizes, and errors that name the row and the level."""

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from catalog_cases import SIDS, error

import hedgerow as hr

INTEGERS = [np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64, ">i4", ">u8"]


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("order", ["C", "F"])
def test_accepts_every_numpy_integer_type(dtype, order):
    sids = np.array([[1, 100, 3], [0, 7, 3]], dtype, order=order)
    catalog = hr.Catalog(sids)
    assert catalog.sids.tolist() == [[1, 100, 3], [0, 7, 3]]
    assert catalog.sids.dtype == np.uint8
    assert catalog.codebook_sizes == (2, 101, 4)
    assert (len(catalog), catalog.num_items, catalog.num_levels) == (2, 2, 3)


@pytest.mark.parametrize(
    "sids",
    [
        SIDS,
        tuple(tuple(row) for row in SIDS),
        np.array(SIDS)[::1, ::1],
        np.array(SIDS, np.int16)[::-1][::-1],
        list(np.array(SIDS)),
        np.ma.array(SIDS),
        pa.array(SIDS),
        pa.array(SIDS, pa.list_(pa.uint8())),
        pa.array(SIDS, pa.large_list(pa.int32())),
        pa.array(SIDS, pa.list_(pa.uint64(), 3)),
        pa.array([[9, 9, 9], *SIDS, [8, 8, 8]])[1:4],
        pa.array([[9, 9, 9], *SIDS, [8, 8, 8]], pa.list_(pa.int64(), 3))[1:4],
        pa.chunked_array([SIDS[:1], SIDS[1:]]),
        pa.chunked_array([pa.array(SIDS[:2], pa.list_(pa.int64(), 3)), pa.array(SIDS[2:], pa.list_(pa.int64(), 3))]),
        pd.Series(SIDS),
        pd.Series(SIDS).to_numpy(),
        pd.DataFrame(SIDS).to_numpy(),
        pl.Series(SIDS),
        pl.Series(SIDS, dtype=pl.Array(pl.UInt16, 3)),
    ],
    ids=lambda sids: f"{type(sids).__module__}.{type(sids).__name__}",
)
def test_accepts_every_form_of_sids(sids):
    catalog = hr.Catalog(sids)
    assert catalog.sids.tolist() == SIDS
    assert catalog.codebook_sizes == (2, 201, 4)
    assert catalog.item_ids.to_pylist() == [0, 1, 2]
    assert catalog.attributes.shape == (3, 0)


def test_accepts_torch_tensors():
    torch = pytest.importorskip("torch")
    assert hr.Catalog(torch.tensor(SIDS)).sids.tolist() == SIDS


@pytest.mark.parametrize(
    ("sizes", "dtype"),
    [(256, np.uint8), ([1, 257, 2], np.uint16), (2**16, np.uint16), (2**16 + 1, np.uint32), (2**31, np.uint32)],
)
def test_dtype_is_the_smallest_that_holds_all_codes(sizes, dtype):
    catalog = hr.Catalog([[0, 255, 1]] if sizes != 256 else [[255, 255, 255]], codebook_sizes=sizes)
    assert catalog.sids.dtype == dtype
    assert catalog.codebook_sizes == ((sizes,) * 3 if isinstance(sizes, int) else tuple(sizes))
    assert all(type(size) is int for size in catalog.codebook_sizes)


@pytest.mark.parametrize("sizes", [np.int16(300), np.array([300, 201, 300]), (300, 201, 300), range(300, 303)])
def test_accepts_every_form_of_codebook_sizes(sizes):
    catalog = hr.Catalog(SIDS, codebook_sizes=sizes)
    assert list(catalog.codebook_sizes) == np.broadcast_to(np.asarray(sizes), 3).tolist()


def test_limits_of_levels_and_codes():
    assert hr.Catalog(np.zeros((2, 255), int)).num_levels == 255
    assert hr.Catalog([[3], [1]]).num_levels == 1
    highest = hr.Catalog(np.array([[2**31 - 1]], np.uint64))
    assert highest.codebook_sizes == (2**31,)
    assert highest.sids.tolist() == [[2**31 - 1]]


def test_accepts_a_matrix_of_numpy():
    matrix = np.array(SIDS).view(np.matrix)
    assert hr.Catalog(matrix).sids.tolist() == SIDS
    assert hr.Catalog(matrix, ragged=True).sids[:, 0].tolist() == [1, 0, 1]


@pytest.mark.parametrize("sids", [np.zeros((0, 2), int), pa.array([], pa.list_(pa.int64(), 2))])
def test_an_empty_catalog_needs_codebook_sizes(sids):
    catalog = hr.Catalog(sids, codebook_sizes=[3, 300], item_ids=[], attributes={"name": []})
    assert (len(catalog), catalog.num_levels, catalog.codebook_sizes) == (0, 2, (3, 300))
    assert "codebook_sizes" in error(lambda: hr.Catalog(sids))
    assert "level 1 has 0" in error(lambda: hr.Catalog(sids, codebook_sizes=[3, 0]))


@pytest.mark.parametrize(
    ("sids", "words"),
    [
        ([[1, 2], [3]], ["row 1", "has 1 codes", "row 0 has 2"]),
        ([[1, 2], [3, 4], 5], ["row 2 of sids is 5"]),
        ([[1, 2], [3, -4]], ["row 1, level 1", "code -4", "[3, -4]"]),
        (np.array([[1, 2], [-3, 4]], np.int8), ["row 1, level 0", "code -3"]),
        ([[1, 2], [3, 2**31]], ["row 1, level 1", "2147483648", "2147483647"]),
        (np.array([[1, 2**64 - 1]], np.uint64), ["row 0, level 1", str(2**64 - 1), "2147483647"]),
        ([[1, 2], [3, 2**63]], ["row 1, level 1", str(2**63)]),
        ([[1, 2], [3, 2**64]], ["row 1, level 1", str(2**64)]),
        ([[1, 2], [3, float("nan")]], ["row 1, level 1", "nan"]),
        ([[1, 2], [3, 4.5]], ["row 1, level 1", "4.5"]),
        ([[1, 2], [3.0, 4]], ["row 1, level 0", "3.0"]),
        ([[1, 2], [3, "4"]], ["row 1, level 1", "'4'"]),
        ([[1, 2], [3, None]], ["row 1, level 1", "None"]),
        ([[True, False]], ["row 0, level 0", "True"]),
        ([[True, 2], [3, 4]], ["row 0, level 0", "True"]),
        ([[1, 2], (3, False)], ["row 1, level 1", "False"]),
        ([[1, 2], [3, np.True_]], ["row 1, level 1", "True"]),
        ([[1, 2], np.array([True, False])], ["row 1, level 0", "True"]),
        (pd.Series([[1, 2], [True, 4]]).to_numpy(), ["row 1, level 0", "True"]),
        (np.array([[1, 2], [3, np.inf]]), ["row 1, level 1", "inf"]),
        (np.array([[1, 2], [3, 4.25]]), ["row 1, level 1", "4.25"]),
        (np.array([[1.0, 2.0]]), ["float64", "astype(int)"]),
        (np.array([[False, True]]), ["row 0, level 0", "False"]),
        (np.array([[1, 2], [3, "x"]], object), ["row 1, level 1", "'x'"]),
        (np.array([[1, 2]], object), ["integer array", "object"]),
        (np.ma.array([[1, 2], [3, 4]], mask=[[False, False], [False, True]]), ["row 1, level 1", "masked"]),
        (np.array([1, 2, 3]), ["shape (3,)", "reshape(-1, 1)"]),
        ([], ["shape (0,)"]),
        ([[]], ["1 to 255 levels", "got 0"]),
        (np.zeros((2, 256), int), ["1 to 255 levels", "got 256"]),
        (np.zeros((2, 2, 2), int), ["shape (2, 2, 2)"]),
        (None, ["shape ()"]),
        (pa.array([[1, 2], None]), ["row 1", "null"]),
        (pa.array([[1, 2], None], pa.list_(pa.int64(), 2)), ["row 1", "null"]),
        (pa.array([[1, 2], [3, None]]), ["row 1, level 1", "null"]),
        (pa.array([[1, 2], [3, None]], pa.list_(pa.int64(), 2)), ["row 1, level 1", "null"]),
        (pa.array([[1, 2], [3], [4, 5]]), ["row 1", "has 1 codes", "row 0 has 2"]),
        (pa.array([[1, 2], [3, -4]]), ["row 1, level 1", "code -4"]),
        (pa.array([[1.0]]), ["integers", "double"]),
        (pa.array([1, 2]), ["lists of codes", "int64"]),
        (pl.Series([[1, 2], [3]]), ["row 1", "has 1 codes"]),
    ],
)
def test_error_names_row_and_level(sids, words):
    message = error(lambda: hr.Catalog(sids))
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        (200, ["row 0, level 1", "code 200", "0 to 199"]),
        ([2, 201, 3], ["row 0, level 2", "code 3", "0 to 2"]),
        ([2, 201], ["2 entries", "3 levels"]),
        (0, ["level 0 has 0"]),
        ([2, 201, -1], ["level 2 has -1"]),
        (2**31 + 1, ["level 0 has 2147483649", "2,147,483,648"]),
        (2**64, ["codebook_sizes", "integer"]),
        (256.0, ["codebook_sizes", "integer", "256.0"]),
        (True, ["codebook_sizes", "integer", "True"]),
        ("256", ["codebook_sizes", "integer", "'256'"]),
        ([[1], [1, 2]], ["codebook_sizes", "integer"]),
        ([[256, 256, 256]], ["codebook_sizes", "integer"]),
    ],
)
def test_rejects_invalid_codebook_sizes(sizes, words):
    message = error(lambda: hr.Catalog(SIDS, codebook_sizes=sizes))
    for word in words:
        assert word in message
