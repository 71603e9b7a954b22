"""Deduplication: last codes of trained items and of new items."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import hedgerow as hr
from hedgerow.semantic.collisions import default_size, free_last_codes, prefix_numbers

EMBEDDINGS = np.random.default_rng(0).normal(size=(200, 6)).astype(np.float32)
OPTIONS: dict[str, Any] = {"levels": 2, "codebook_sizes": 4}

rows = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), max_size=30)


@given(new=rows, taken=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 12)), max_size=30))
def test_rows_get_the_smallest_free_codes_in_order(new, taken):
    used: dict[tuple, set] = {}
    for *prefix, last in taken:
        used.setdefault(tuple(prefix), set()).add(last)
    expected = []
    for prefix in new:
        codes_of_prefix = used.setdefault(prefix, set())
        expected.append(next(code for code in range(100) if code not in codes_of_prefix))
        codes_of_prefix.add(expected[-1])
    codes, others = np.array(new, np.int32).reshape(-1, 2), np.array(taken, np.int64).reshape(-1, 3)
    assert free_last_codes(codes, others).tolist() == expected
    if not taken:
        assert free_last_codes(codes).tolist() == expected


def test_the_largest_codes():
    largest = 2**31 - 1
    codes = np.array([[largest, largest], [largest, largest], [0, 0]])
    taken = np.array([[largest, largest, 0], [largest, largest, 2], [largest, largest, largest]])
    assert free_last_codes(codes, taken).tolist() == [1, 3, 0]
    assert [numbers.tolist() for numbers in prefix_numbers(codes)] == [[1, 1, 0], [1, 1, 0]]


def test_sids_are_distinct_and_keep_their_codes():
    plain, deduplicated = (hr.semantic_ids(EMBEDDINGS, **OPTIONS, deduplicate=value) for value in (False, True))
    assert deduplicated.sids[:, :2].tolist() == plain.sids.tolist()
    assert len(np.unique(deduplicated.sids, axis=0)) == 200 > len(np.unique(plain.sids, axis=0))
    assert hr.semantic_ids(EMBEDDINGS, **OPTIONS, deduplicate=True).sids.tolist() == deduplicated.sids.tolist()
    index = hr.build_index(hr.Catalog(deduplicated.sids, codebook_sizes=deduplicated.codebook_sizes))
    assert (index.collisions(), index.num_sids) == ((0, 0, 0), 200)
    assert deduplicated.codebook_sizes[:2] == (4, 4)
    assert deduplicated.quantizer.deduplication_codes == deduplicated.codebook_sizes[2]
    assert deduplicated.codebook_sizes[2] >= 2 * (deduplicated.sids[:, 2].max() + 1)


def test_default_size():
    assert [default_size(np.array([last])) for last in (0, 7, 8, 15, 16, 255)] == [16, 16, 32, 32, 64, 512]
    assert default_size(np.array([], int)) == 16


@pytest.mark.parametrize("form", ["sids", "array", "catalog", "index", "rows"])
def test_new_items_get_free_codes(form, tmp_path):
    found = hr.semantic_ids(EMBEDDINGS[:150], **OPTIONS, deduplicate=True, deduplication_codes=64)
    catalog = hr.Catalog(found.sids, codebook_sizes=found.codebook_sizes)
    taken = {
        "sids": found,
        "array": found.sids.astype(np.uint8),
        "catalog": catalog,
        "index": hr.build_index(catalog),
        "rows": found.sids.tolist(),
    }[form]
    found.quantizer.save(tmp_path / "q.safetensors")
    new = hr.Quantizer.load(tmp_path / "q.safetensors").assign(EMBEDDINGS[150:], taken=taken)
    assert new.codebook_sizes == found.codebook_sizes
    together = np.concatenate([found.sids, new.sids])
    assert len(np.unique(together, axis=0)) == 200
    # Equal to the assignment of all items at once.
    codes = found.quantizer.encode(EMBEDDINGS)
    assert together.tolist() == np.column_stack([codes, free_last_codes(codes)]).tolist()


def test_assigning_one_at_a_time_equals_all_at_once():
    found = hr.semantic_ids(EMBEDDINGS[:100], **OPTIONS, deduplication_codes=64)
    together = found.quantizer.assign(EMBEDDINGS[100:130], taken=found)
    taken = found.sids
    for row in range(100, 130):
        new = found.quantizer.assign(EMBEDDINGS[row : row + 1], taken=taken)
        taken = np.concatenate([taken, new.sids])
    assert taken[100:].tolist() == together.sids.tolist()


@pytest.mark.filterwarnings("ignore:a codebook of 256 codes for 10 items")
def test_rejects_more_items_than_codes():
    with pytest.raises(hr.ArgumentError, match="row 9: 10 items have the codes 0, 0, and only 9 deduplication codes"):
        hr.semantic_ids(np.ones((10, 2)), levels=2, deduplication_codes=9)
    found = hr.semantic_ids(np.ones((10, 2)), levels=2, deduplication_codes=10)
    with pytest.raises(hr.ArgumentError, match=r"row 0: 11 items have the codes 0, 0, and only 10 .*deduplicate=False"):
        found.quantizer.assign(np.ones((1, 2)), taken=found)


@pytest.mark.parametrize(
    ("taken", "expected"),
    [
        ([[0, 0]], "3 codes, including the deduplication code"),
        ([[0.0, 0.0, 0.0]], "integers"),
        ([[0, 0, 0], [0, 4, 0]], "row 1, level 1: code 4 is not one of the quantizer's 4"),
        ([[0, 0, -1]], "row 0, level 2: code -1"),
        ("text", "integers"),
        ([[0, 0, 0], [0]], "rows of equal length"),
    ],
)
def test_rejects_other_taken_sids(taken, expected):
    quantizer = hr.semantic_ids(EMBEDDINGS, **OPTIONS, deduplicate=True).quantizer
    with pytest.raises(hr.ArgumentError, match=expected):
        quantizer.assign(EMBEDDINGS[:2], taken=taken)


def test_taken_needs_deduplication_codes():
    found = hr.semantic_ids(EMBEDDINGS, **OPTIONS)
    with pytest.raises(hr.ArgumentError, match="taken= needs a quantizer with deduplication codes"):
        found.quantizer.assign(EMBEDDINGS[:2], taken=found)


def test_rejects_taken_sids_of_other_codebook_sizes():
    found = hr.semantic_ids(EMBEDDINGS, **OPTIONS, deduplication_codes=64)
    other = hr.Catalog(found.sids, codebook_sizes=(4, 5, 64))
    for taken in (other, hr.build_index(other)):
        with pytest.raises(
            hr.ArgumentError, match=r"codebook_sizes \[4, 5, 64\], but SIDs of this quantizer have \[4, 4, 64\]"
        ):
            found.quantizer.assign(EMBEDDINGS[:2], taken=taken)


def test_deduplication_needs_a_level():
    with pytest.raises(hr.ArgumentError, match="at most 255 codes"):
        hr.semantic_ids(EMBEDDINGS, levels=255, deduplicate=True)


def test_deduplicating_returns_a_copy():
    quantizer = hr.semantic_ids(EMBEDDINGS, **OPTIONS).quantizer
    copy = quantizer.deduplicating(128)
    assert (quantizer.deduplication_codes, copy.deduplication_codes) == (None, 128)
    assert isinstance(copy, hr.Quantizer)
    assert copy.encode(EMBEDDINGS).tolist() == quantizer.encode(EMBEDDINGS).tolist()
    assert copy.deduplicating(None).deduplication_codes is None
    for size in (0, 2.0, True, 2**31 + 1):
        with pytest.raises(hr.ArgumentError, match="deduplication_codes must be"):
            quantizer.deduplicating(size)  # pyright: ignore[reportArgumentType]
