"""Quantizer: encoding against brute force, decoding, and files."""

import json
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load, save, save_file

import hedgerow as hr
from hedgerow.semantic import files
from hedgerow.semantic.codebooks import METHODS


def quantizer_of(rng, method="residual", levels=3, width=4, sizes=5, coarse=False):
    """A quantizer with random codebooks; with `coarse`, of small integers, so that distances are often equal."""
    dim = width if method == "residual" else width * levels
    books = [rng.integers(-1, 2, (sizes, width)) if coarse else rng.normal(size=(sizes, width)) for _ in range(levels)]
    rotation = np.linalg.qr(rng.normal(size=(dim, dim)))[0] if method == "opq" else None
    return hr.Quantizer(method, tuple(books), (sizes,) * levels, rotation)


def brute_force(quantizer, vectors):
    """The codes by definition: one vector and one codeword at a time, the first of equally near codewords."""
    rows = []
    turned = vectors.astype(np.float64)
    if quantizer.rotation is not None:
        turned = turned @ quantizer.rotation.T.astype(np.float64)
    for vector in turned.astype(np.float32):
        residual, codes = vector.copy(), []
        for level, codebook in enumerate(quantizer.codebooks):
            part = residual[quantizer.dimensions(level)]
            distances = [((part.astype(np.float64) - codeword) ** 2).sum() for codeword in codebook]
            codes.append(int(np.argmin(distances)))
            if quantizer.method == "residual":
                residual -= codebook[codes[-1]]
        rows.append(codes)
    return np.array(rows).reshape(-1, quantizer.num_levels)


@given(
    method=st.sampled_from(METHODS),
    levels=st.integers(1, 4),
    width=st.integers(1, 9),
    sizes=st.integers(1, 9),
    rows=st.integers(0, 30),
    coarse=st.booleans(),
    scale=st.sampled_from([1e-30, 1e-3, 1.0, 1e12]),
    seed=st.integers(0, 2**32),
)
def test_encode_finds_the_nearest_codeword(method, levels, width, sizes, rows, coarse, scale, seed):
    rng = np.random.default_rng(seed)
    quantizer = quantizer_of(rng, method, levels, width, sizes, coarse)
    books = tuple(np.float32(scale) * book for book in quantizer.codebooks)
    quantizer = hr.Quantizer(method, books, quantizer.codebook_sizes, quantizer.rotation)
    shape = (rows, quantizer.dim)
    vectors = np.float32(scale) * (rng.integers(-2, 3, shape) if coarse else rng.normal(size=shape)).astype(np.float32)
    codes = quantizer.encode(vectors)
    assert codes.dtype == np.int32
    assert codes.tolist() == brute_force(quantizer, vectors).tolist()


@pytest.mark.parametrize("method", METHODS)
def test_codes_do_not_depend_on_other_rows(method):
    rng = np.random.default_rng(1)
    quantizer = quantizer_of(rng, method, levels=4, width=32, sizes=64)
    vectors = rng.normal(size=(500, quantizer.dim)).astype(np.float32)
    codes = quantizer.encode(vectors)
    rows = rng.permutation(500)[:77]
    assert quantizer.encode(vectors[rows]).tolist() == codes[rows].tolist()
    assert quantizer.encode(vectors[rows].astype(np.float64)).tolist() == codes[rows].tolist()
    assert quantizer.encode(vectors[:5].tolist()).tolist() == codes[:5].tolist()
    assert all(quantizer.encode(vectors[row : row + 1])[0].tolist() == codes[row].tolist() for row in rows)


def test_many_equal_codewords_are_compared_in_chunks(monkeypatch):
    monkeypatch.setattr("hedgerow.semantic.nearest.PAIRS", 64)
    monkeypatch.setattr("hedgerow.semantic.nearest.BLOCK", 64)
    quantizer = hr.Quantizer("residual", (np.ones((16, 8)), np.zeros((3, 8))), (16, 3))
    assert quantizer.encode(np.ones((40, 8))).tolist() == [[0, 0]] * 40


def test_decode_of_codes_and_prefixes():
    books = (np.array([[0, 0], [10, 10]]), np.array([[1, 0], [0, 1], [0, 0]]))
    quantizer = hr.Quantizer("residual", books, (2, 4), deduplication_codes=9)
    assert quantizer.encode([[11, 10], [0, 1.2]]).tolist() == [[1, 0], [0, 1]]
    assert quantizer.decode([[1, 0], [0, 1]]).tolist() == [[11, 10], [0, 1]]
    assert quantizer.decode([[1], [0]]).tolist() == [[10, 10], [0, 0]]
    assert quantizer.decode([[1, 0, 7]]).tolist() == [[11, 10]]
    product = hr.Quantizer("product", books, (2, 3))
    assert product.dim == 4
    assert product.decode([[1, 1]]).tolist() == [[10, 10, 0, 1]]
    turned = hr.Quantizer("opq", books, (2, 3), np.eye(4)[[1, 0, 2, 3]])
    assert turned.encode([[10, 9, 0, 1]]).tolist() == [[1, 1]]
    assert turned.decode([[1, 1]]).tolist() == [[10, 10, 0, 1]]


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ([[2, 0]], "row 0, level 0: code 2 is not one of the 2 trained codes"),
        ([[0, 0], [0, 3]], "row 1, level 1: code 3"),
        ([[-1, 0]], "row 0, level 0: code -1"),
        ([0, 1], "got int64 of shape"),
        ([[0.0, 1.0]], "must be integers"),
        ([[0, 0, 0]], "1 to 2"),
        (np.zeros((1, 0), int), "1 to 2"),
    ],
)
def test_decode_rejects_other_codes(codes, expected):
    quantizer = hr.Quantizer("residual", (np.eye(2), np.ones((3, 2))), (2, 4))
    with pytest.raises(hr.ArgumentError, match=expected):
        quantizer.decode(codes)


@pytest.mark.parametrize(
    "parts",
    [
        ("other", (np.eye(2),), (2,)),
        ("residual", (), ()),
        ("residual", (np.eye(2),), (2, 2)),
        ("residual", (np.eye(2),), (1,)),
        ("residual", (np.eye(2), np.eye(3)), (3, 3)),
        ("residual", (np.full((2, 2), np.nan),), (2,)),
        ("residual", (np.eye(2),), (2,), np.eye(2)),
        ("opq", (np.eye(2),), (2,)),
        ("opq", (np.eye(2),), (2,), np.eye(3)),
        ("residual", (np.eye(2),), (2,), None, 0),
    ],
)
def test_rejects_arguments_that_do_not_fit(parts):
    with pytest.raises(hr.ArgumentError):
        hr.Quantizer(*parts)


def test_arrays_are_read_only():
    quantizer = quantizer_of(np.random.default_rng(0), "opq")
    with pytest.raises(ValueError, match="read-only"):
        quantizer.codebooks[0][0, 0] = 1
    assert repr(quantizer) == "Quantizer(method='opq', dim=12, codebook_sizes=[5, 5, 5])"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("deduplication_codes", [None, 17])
def test_save_and_load(tmp_path, method, deduplication_codes):
    quantizer = quantizer_of(np.random.default_rng(0), method).deduplicating(deduplication_codes)
    quantizer.save(tmp_path / "a.safetensors")
    loaded = hr.Quantizer.load(tmp_path / "a.safetensors")
    loaded.save(str(tmp_path / "b.safetensors"))
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert repr(loaded) == repr(quantizer)
    vectors = np.random.default_rng(1).normal(size=(50, quantizer.dim))
    assert loaded.encode(vectors).tolist() == quantizer.encode(vectors).tolist()
    quantizer.save(tmp_path / "a.safetensors")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.safetensors", "b.safetensors"]


def test_every_changed_byte_is_detected(tmp_path):
    path = tmp_path / "q.safetensors"
    quantizer_of(np.random.default_rng(0), "opq", levels=2, width=2).save(path)
    whole = path.read_bytes()
    for position in range(len(whole)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        with pytest.raises(hr.QuantizerFileError):
            hr.Quantizer.load(path)
    for length in (0, 5, 100, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(hr.QuantizerFileError):
            hr.Quantizer.load(path)


def test_rejects_other_files(tmp_path):
    path = tmp_path / "q.safetensors"
    with pytest.raises(hr.QuantizerFileError, match="does not exist"):
        hr.Quantizer.load(path)
    with pytest.raises(hr.QuantizerFileError, match="is a folder; a quantizer is a file"):
        hr.Quantizer.load(tmp_path)
    save_file({"weight": np.ones(3)}, path)
    with pytest.raises(hr.QuantizerFileError, match="not a quantizer of hedgerow, or it is damaged"):
        hr.Quantizer.load(path)
    with pytest.raises(hr.QuantizerFileError, match="exists and is not a quantizer, so it is not replaced"):
        quantizer_of(np.random.default_rng(0)).save(path)
    assert list(load(path.read_bytes())) == ["weight"]
    with pytest.raises(hr.ArgumentError, match="path of a file"):
        hr.Quantizer.load(3)  # type: ignore[arg-type]


def test_rejects_newer_formats_and_invalid_content(tmp_path):
    path = tmp_path / "q.safetensors"
    facts = {"format": files.FORMAT, "version": 2}
    path.write_bytes(save({"x": np.ones(1)}, {files.KEY: json.dumps(facts)}))
    with pytest.raises(hr.QuantizerFileError, match="format version 2; this hedgerow reads up to 1"):
        hr.Quantizer.load(path)
    facts = {"format": files.FORMAT, "version": 1, "method": "residual", "codebook_sizes": [1], "separate_codes": None}
    tensors = {"codebook.000": np.ones((2, 2), np.float32)}
    facts["sha256"] = files._digest(facts, tensors)
    path.write_bytes(save(tensors, {files.KEY: json.dumps(facts)}))
    with pytest.raises(hr.QuantizerFileError, match="does not contain a valid quantizer: level 0"):
        hr.Quantizer.load(path)


def test_failed_save_changes_nothing(tmp_path, monkeypatch):
    first, second = (quantizer_of(np.random.default_rng(seed)) for seed in (0, 1))
    first.save(tmp_path / "q.safetensors")
    before = (tmp_path / "q.safetensors").read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(hr.QuantizerFileError, match="No space left"):
        second.save(tmp_path / "q.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["q.safetensors"]
    assert (tmp_path / "q.safetensors").read_bytes() == before
    with pytest.raises(hr.QuantizerFileError, match="cannot be saved"):
        second.save(tmp_path / "none" / "q.safetensors")


def test_threads_can_save_to_one_path(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    quantizers = [hr.Quantizer("residual", (np.full((64, 64), number),), (64,)) for number in range(8)]
    path = tmp_path / "q"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda quantizer: quantizer.save(path), quantizers))
    assert hr.Quantizer.load(path).codebooks[0][0, 0] in range(8)
    assert os.listdir(tmp_path) == ["q"]


def test_stale_temporary_files_are_removed(tmp_path):
    old, new = (tmp_path / f".{name}{files.NEW}" for name in ("old", "new"))
    for path in (old, new):
        path.write_bytes(b"some")
    os.utime(old, (0, 0))
    hr.Quantizer("residual", (np.ones((1, 1)),), (1,)).save(tmp_path / ("q" * 255))
    assert (old.exists(), new.exists()) == (False, True)


def test_arguments_are_copied():
    book, rotation = np.ones((2, 2), np.float32), np.eye(2, dtype=np.float32)
    quantizer = hr.Quantizer("opq", [book], [np.int64(4)], rotation, np.int64(5))  # type: ignore[arg-type]
    book[:], rotation[:] = 7, 7
    assert quantizer.codebooks[0].tolist() == [[1, 1]] * 2
    assert quantizer.rotation.tolist() == [[1, 0], [0, 1]]  # pyright: ignore[reportOptionalMemberAccess]
    assert (quantizer.codebook_sizes, quantizer.deduplication_codes) == ((4,), 5)
    assert [type(size) for size in (*quantizer.codebook_sizes, quantizer.deduplication_codes)] == [int, int]


def test_numpy_sizes_are_saved(tmp_path):
    hr.Quantizer("residual", (np.ones((2, 2)),), (np.int64(4),), None, np.int32(5)).save(tmp_path / "q")  # pyright: ignore[reportArgumentType]
    assert hr.Quantizer.load(tmp_path / "q").codebook_sizes == (4,)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("residual", (np.ones((1, 1)),), (1.5,)), "level 0: the codebook size must be a positive integer"),
        (("residual", (np.ones((1, 1)),), 1), "must be sequences"),
        (("residual", (np.ones((1, 1)),), ("1",)), "positive integer up to .*; got '1'"),
        (("residual", (np.ones((1, 1)),), (1,), None, 2.0), "deduplication_codes must be a positive integer"),
        (("residual", (np.ones((1, 1)),), (1,), None, True), "deduplication_codes must be a positive integer"),
        (("residual", ([[1], [1, 2]],), (2,)), "rows of equal length"),
        (("residual", ([["a"]],), (2,)), "must be numbers"),
        (("residual", ([[1e17]],), (2,)), "level 0, code 0: the codeword is 1.0e[+]17 long"),
        (("residual", ([[1e300]],), (2,)), "finite"),
        (("opq", ([[1.0]],), (2,), [[2.0]]), "orthonormal"),
        (("residual", [np.ones((1, 1))] * 255, [1] * 255, None, 2), "at most 255 codes"),
    ],
)
def test_rejects_invalid_arguments(arguments, expected):
    with pytest.raises(hr.ArgumentError, match=expected):
        hr.Quantizer(*arguments)


def test_decode_checks_deduplication_codes():
    quantizer = hr.Quantizer("residual", (np.ones((2, 2)),), (2,), None, 3)
    assert quantizer.decode([[1, 2]]).tolist() == [[1, 1]]
    for codes, expected in (
        ([[1, 3]], "row 0, level 1: code 3 is not one of the 3 deduplication codes"),
        ([[0, -1]], "code -1"),
        ([[0], [0, 1]], "equal length"),
    ):
        with pytest.raises(hr.ArgumentError, match=expected):
            quantizer.decode(codes)
