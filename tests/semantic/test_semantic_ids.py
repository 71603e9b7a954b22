"""semantic_ids(): training, determinism, edge cases and invalid input."""

import sys

import numpy as np
import pyarrow as pa
import pytest

import hedgerow as hr
from hedgerow.semantic.codebooks import METHODS
from hedgerow.semantic.training import RUNS

RNG = np.random.default_rng(0)
EMBEDDINGS = RNG.normal(size=(300, 12)).astype(np.float32)


def bytes_of(quantizer):
    arrays = [*quantizer.codebooks, *([] if quantizer.rotation is None else [quantizer.rotation])]
    return [array.tobytes() for array in arrays]


@pytest.mark.parametrize("method", METHODS)
def test_sids_form_a_catalog_and_new_items_need_no_training(method, monkeypatch):
    found = hr.semantic_ids(EMBEDDINGS, levels=3, codebook_sizes=[8, 7, 6], method=method)
    assert found.sids.dtype == np.int32
    assert found.sids.shape == (300, 3)
    assert found.codebook_sizes == (8, 7, 6)
    index = hr.build_index(hr.Catalog(found.sids, codebook_sizes=found.codebook_sizes))
    assert index.num_items == 300
    monkeypatch.setitem(sys.modules, "faiss", None)
    assert found.quantizer.encode(EMBEDDINGS).tolist() == found.sids.tolist()
    new = found.quantizer.assign(EMBEDDINGS[40:60])
    assert new.sids.tolist() == found.sids[40:60].tolist()
    assert new.codebook_sizes == (8, 7, 6)


@pytest.mark.parametrize("method", METHODS)
def test_equal_seeds_give_equal_codebooks_on_any_number_of_threads(method):
    faiss = pytest.importorskip("faiss")
    results, threads = [], faiss.omp_get_max_threads()
    try:
        for count in (1, 2, 3):
            faiss.omp_set_num_threads(count)
            results.append(hr.semantic_ids(EMBEDDINGS, levels=2, codebook_sizes=16, method=method, seed=5))
            assert faiss.omp_get_max_threads() == count
    finally:
        faiss.omp_set_num_threads(threads)
    assert bytes_of(results[0].quantizer) == bytes_of(results[1].quantizer) == bytes_of(results[2].quantizer)
    other = hr.semantic_ids(EMBEDDINGS, levels=2, codebook_sizes=16, method=method, seed=6)
    assert bytes_of(other.quantizer) != bytes_of(results[0].quantizer)


def test_residual_levels_do_not_depend_on_later_levels():
    short, long = (hr.semantic_ids(EMBEDDINGS, levels=levels, codebook_sizes=9) for levels in (2, 4))
    assert long.sids[:, :2].tolist() == short.sids.tolist()
    errors = [level.error or 0 for level in long.report().levels]
    assert errors == sorted(errors, reverse=True)


def test_clusters_are_found():
    centers = RNG.normal(size=(7, 20)) * 10
    clusters = RNG.integers(0, 7, 400)
    found = hr.semantic_ids(centers[clusters] + RNG.normal(size=(400, 20)) * 0.1, levels=1, codebook_sizes=7)
    pairs = set(zip(clusters.tolist(), found.sids[:, 0].tolist(), strict=True))
    assert len(pairs) == 7
    assert found.report().error < 0.001


def test_codes_are_used_evenly_in_many_dimensions():
    """k-means from random codewords assigns most residuals to one codeword."""
    found = hr.semantic_ids(RNG.normal(size=(1500, 192)), levels=3, codebook_sizes=64)
    assert min(level.perplexity for level in found.report().levels) > 50


@pytest.mark.filterwarnings("ignore:a codebook of 256 codes for")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("rows", [1, 3, 5])
def test_fewer_items_than_codes(method, rows):
    found = hr.semantic_ids(EMBEDDINGS[:rows], levels=2, codebook_sizes=256, method=method)
    assert found.codebook_sizes == (256, 256)
    assert [len(codebook) <= rows for codebook in found.quantizer.codebooks] == [True, True]
    assert np.allclose(found.quantizer.decode(found.sids), EMBEDDINGS[:rows], atol=1e-5)
    assert found.report().sids == rows


@pytest.mark.filterwarnings("ignore:50 items have only 1 sequence of codes")
def test_constant_embeddings_collide():
    found = hr.semantic_ids(np.ones((50, 4)), codebook_sizes=8)
    assert found.sids.tolist() == [[0, 0, 0, 0]] * 50
    assert found.report().largest_collision == 50
    assert found.report().error == 0
    assert hr.semantic_ids(np.zeros((50, 4)), codebook_sizes=8, deduplicate=True).sids[:, -1].tolist() == list(
        range(50)
    )


@pytest.mark.filterwarnings("ignore:300 items have only 1 sequence of codes")
@pytest.mark.parametrize("method", METHODS)
def test_one_level_of_one_code(method):
    found = hr.semantic_ids(EMBEDDINGS, levels=1, codebook_sizes=1, method=method)
    assert found.sids.tolist() == [[0]] * 300
    assert np.allclose(found.quantizer.decode([[0]]), EMBEDDINGS.mean(0), atol=1e-5)


def test_many_items_are_sampled_for_training(monkeypatch):
    monkeypatch.setattr("hedgerow.semantic.training.SAMPLE", 40)
    monkeypatch.setattr("hedgerow.semantic.training.SAMPLE_PER_CODE", 10)
    found = hr.semantic_ids(EMBEDDINGS, levels=2, codebook_sizes=4)
    assert found.sids.shape == (300, 2)
    assert hr.semantic_ids(EMBEDDINGS, levels=2, codebook_sizes=4).sids.tolist() == found.sids.tolist()


@pytest.mark.parametrize("kind", [np.float16, np.float64, np.int16, list, "list", "fixed", "frame"])
def test_embeddings_of_every_type(kind):
    whole = np.round(EMBEDDINGS * 8)
    lists = pa.array(list(whole), pa.list_(pa.float32()))
    convert = {
        list: lambda: whole.tolist(),
        "list": lambda: pa.chunked_array([lists[:100], lists[100:]]),
        "fixed": lambda: lists.cast(pa.list_(pa.float32(), 12)),
        "frame": lambda: pytest.importorskip("polars").Series(whole.tolist()),
    }
    embeddings = convert[kind]() if kind in convert else whole.astype(kind)
    expected = hr.semantic_ids(whole, levels=2, codebook_sizes=5)
    assert hr.semantic_ids(embeddings, levels=2, codebook_sizes=5).sids.tolist() == expected.sids.tolist()


def test_embeddings_are_not_modified():
    embeddings = EMBEDDINGS.copy()
    embeddings.setflags(write=False)
    hr.semantic_ids(embeddings, levels=2, codebook_sizes=4)
    assert embeddings.tobytes() == EMBEDDINGS.tobytes()


def with_value(row, column, value):
    changed = EMBEDDINGS.astype(np.float64)
    changed[row, column] = value
    return changed


@pytest.mark.parametrize(
    ("embeddings", "expected"),
    [
        (with_value(7, 2, np.nan), "row 7, dimension 2: nan is not a number"),
        (with_value(8, 3, -np.inf), "row 8, dimension 3: -inf"),
        (with_value(8, 3, 1e300), "row 8, dimension 3: 1e[+]300"),
        (EMBEDDINGS[0], "must be .items, dimensions.; got an array of shape .12,.. For one item"),
        (EMBEDDINGS[None], "got an array of shape .1, 300, 12."),
        (np.zeros((3, 0)), "at least one dimension"),
        (np.zeros((0, 3)), "no embeddings to train on"),
        ([["a", "b"]], "must be numbers"),
        ([[1, 2], [3]], "must be a matrix of numbers"),
        (np.ma.masked_equal(EMBEDDINGS.round(), 0), "masked"),
        (pa.array([[1.0, 2.0], None]), "row 1: the embedding is null"),
        (pa.array([[1.0, 2.0], [1.0, None]]), "row 1: a dimension of the embedding is null"),
        (pa.array([[1.0, 2.0], [1.0]]), "row 1: the embedding has 1 dimensions, but that of row 0 has 2"),
        (pa.array([1.0, 2.0]), "must be a column of lists of numbers; it holds double"),
        (pa.array([["a"], ["b"]]), "must be numbers"),
    ],
)
def test_rejects_invalid_embeddings(embeddings, expected):
    with pytest.raises(hr.ArgumentError, match=expected):
        hr.semantic_ids(embeddings)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"levels": 0}, "levels must be a positive integer up to 255; got 0"),
        ({"levels": 2.0}, "levels must be"),
        ({"codebook_sizes": 0}, "codebook_sizes must be"),
        ({"codebook_sizes": [4, 4], "levels": 3}, "one per level, 3 sizes; got 2"),
        ({"codebook_sizes": []}, "got 0"),
        ({"codebook_sizes": 2.5}, "must be one size, or one per level; got 2.5"),
        ({"method": "rvq"}, "method must be one of residual, product, opq; got 'rvq'"),
        ({"method": "product", "levels": 5}, "5 levels do not divide 12 dimensions. Use 1, 2, 3, 4, 6, 12 levels"),
        ({"method": "opq", "levels": 5}, "method 'opq' gives each level"),
        ({"seed": -1}, "seed must be"),
        ({"iterations": 0}, "iterations must be"),
        ({"deduplication_codes": 0}, "deduplication_codes must be"),
    ],
)
def test_rejects_invalid_options(options, expected):
    with pytest.raises(hr.ArgumentError, match=expected):
        hr.semantic_ids(EMBEDDINGS, **options)


def test_rejects_embeddings_of_other_dimensions():
    found = hr.semantic_ids(EMBEDDINGS, levels=2, codebook_sizes=4)
    with pytest.raises(hr.ArgumentError, match="must have 12 dimensions, as the quantizer; got 11"):
        found.quantizer.encode(EMBEDDINGS[:, :11])
    assert found.quantizer.encode(np.zeros((0, 12))).shape == (0, 2)
    assert len(found.quantizer.assign(np.zeros((0, 12)))) == 0


def test_missing_faiss(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(hr.MissingDependencyError, match=r"pip install 'hedgerow\[semantic\]'"):
        hr.semantic_ids(EMBEDDINGS)


def test_progress():
    calls = []
    hr.semantic_ids(EMBEDDINGS, levels=2, codebook_sizes=4, progress=lambda *arguments: calls.append(arguments))
    levels, done, totals = zip(*calls, strict=True)
    assert list(dict.fromkeys(levels)) == ["level 0", "level 1", "encode"]
    assert calls[0] == ("level 0", 0, 2 * RUNS)
    assert ("level 1", RUNS, 2 * RUNS) in calls
    assert sorted(done[:-1]) == list(done[:-1])
    assert max(done) < set(totals[:-1]).pop() == 2 * RUNS
    assert calls[-1][1] == calls[-1][2]
    assert len(calls) > RUNS


@pytest.mark.parametrize("method", ["residual", "product", "opq"])
def test_very_small_embeddings(method):
    """Scaling by a power of two is exact, so it does not change the codes."""
    embeddings = np.random.default_rng(5).normal(size=(200, 4)).astype(np.float32)
    embeddings /= 2 * np.abs(embeddings).max()
    options = {"levels": 2, "codebook_sizes": 8, "method": method}
    found = hr.semantic_ids(np.ldexp(embeddings, 2), **options)
    small = hr.semantic_ids(np.ldexp(embeddings, -80), **options)
    assert len(np.unique(small.sids, axis=0)) > 20
    assert small.report().error == pytest.approx(found.report().error, rel=1e-3)


class TestWarnings:
    """Settings that cannot give useful SIDs."""

    @pytest.mark.parametrize(
        ("items", "sizes", "advice"), [(100, 256, 16), (300, [16, 256], 32), (12, [8], 4), (400, 201, 32)]
    )
    def test_more_codes_than_half_of_the_items(self, items, sizes, advice):
        embeddings = RNG.normal(size=(items, 4))
        with pytest.warns(UserWarning, match=rf"codes for {items} items: .*codebook_sizes={advice}, "):
            hr.semantic_ids(embeddings, codebook_sizes=sizes, deduplicate=True)
        hr.semantic_ids(embeddings, levels=2, codebook_sizes=advice, deduplicate=True)

    def test_few_sequences_of_codes(self):
        same = np.repeat(RNG.normal(size=(2, 4)), 300, axis=0)
        with pytest.warns(UserWarning, match="600 items have only 2 sequences of codes.*embed other texts"):
            hr.semantic_ids(same, levels=2, codebook_sizes=8)
        with pytest.warns(UserWarning, match="50 items have only 1 sequence of codes"):
            hr.semantic_ids(np.ones((50, 4)), levels=2, codebook_sizes=8)

    def test_the_last_level_of_nearest_may_be_large(self):
        found = hr.semantic_ids(EMBEDDINGS, codebook_sizes=[8, 256], on_collision="nearest")
        assert len(np.unique(found.sids, axis=0)) == len(EMBEDDINGS)
