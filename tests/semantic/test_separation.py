"""A last code keeps items apart, and goes on doing so as new ones come."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import hedgerow as hr
from hedgerow.semantic.collisions import free_last_codes, prefix_numbers, room_for

EMBEDDINGS = np.random.default_rng(0).normal(size=(200, 6)).astype(np.float32)
OPTIONS: dict[str, Any] = {"levels": 2, "codebook_sizes": 4}

rows = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), max_size=30)


@given(new=rows, taken=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 12)), max_size=30))
def test_the_smallest_free_codes_in_the_order_of_rows(new, taken):
    used: dict[tuple, set] = {}
    for *prefix, last in taken:
        used.setdefault(tuple(prefix), set()).add(last)
    expected = []
    for prefix in new:
        mine = used.setdefault(prefix, set())
        expected.append(next(code for code in range(100) if code not in mine))
        mine.add(expected[-1])
    codes, others = np.array(new, np.int32).reshape(-1, 2), np.array(taken, np.int64).reshape(-1, 3)
    assert free_last_codes(codes, others).tolist() == expected
    if not taken:
        assert free_last_codes(codes).tolist() == expected


def test_codes_up_to_the_largest():
    largest = 2**31 - 1
    codes = np.array([[largest, largest], [largest, largest], [0, 0]])
    taken = np.array([[largest, largest, 0], [largest, largest, 2], [largest, largest, largest]])
    assert free_last_codes(codes, taken).tolist() == [1, 3, 0]
    assert [numbers.tolist() for numbers in prefix_numbers(codes)] == [[1, 1, 0], [1, 1, 0]]


def test_no_two_items_have_one_sid_and_the_first_codes_are_kept():
    plain, apart = (hr.semantic_ids(EMBEDDINGS, **OPTIONS, deduplicate=separate) for separate in (False, True))
    assert apart.sids[:, :2].tolist() == plain.sids.tolist()
    assert len(np.unique(apart.sids, axis=0)) == 200 > len(np.unique(plain.sids, axis=0))
    assert hr.semantic_ids(EMBEDDINGS, **OPTIONS, deduplicate=True).sids.tolist() == apart.sids.tolist()
    index = hr.build_index(hr.Catalog(apart.sids, codebook_sizes=apart.codebook_sizes))
    assert index.collisions() == (0, 0, 0) or index.num_sids == 200
    assert apart.codebook_sizes[:2] == (4, 4)
    assert apart.codebook_sizes[2] == apart.quantizer.deduplication_codes >= 2 * (apart.sids[:, 2].max() + 1)


def test_room():
    assert [room_for(np.array([last])) for last in (0, 7, 8, 15, 16, 255)] == [16, 16, 32, 32, 64, 512]
    assert room_for(np.array([], int)) == 16


@pytest.mark.parametrize("form", ["sids", "array", "catalog", "index", "rows"])
def test_new_items_take_what_is_free(form, tmp_path):
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
    # As if all had been there at once.
    codes = found.quantizer.encode(EMBEDDINGS)
    assert together.tolist() == np.column_stack([codes, free_last_codes(codes)]).tolist()


def test_one_at_a_time_is_the_same_as_together():
    found = hr.semantic_ids(EMBEDDINGS[:100], **OPTIONS, deduplication_codes=64)
    together = found.quantizer.assign(EMBEDDINGS[100:130], taken=found)
    taken = found.sids
    for row in range(100, 130):
        one = found.quantizer.assign(EMBEDDINGS[row : row + 1], taken=taken)
        taken = np.concatenate([taken, one.sids])
    assert taken[100:].tolist() == together.sids.tolist()


def test_no_room_left():
    with pytest.raises(hr.ArgumentError, match="row 9: 10 items have the codes 0, 0, and only 9 codes separate them"):
        hr.semantic_ids(np.ones((10, 2)), levels=2, deduplication_codes=9)
    found = hr.semantic_ids(np.ones((10, 2)), levels=2, deduplication_codes=10)
    with pytest.raises(hr.ArgumentError, match="row 0: 11 items have the codes 0, 0, and only 10"):
        found.quantizer.assign(np.ones((1, 2)), taken=found)


@pytest.mark.parametrize(
    ("taken", "expected"),
    [
        ([[0, 0]], "3 codes, the last one separating"),
        ([[0.0, 0.0, 0.0]], "integers"),
        ([[0, 0, 0], [0, 4, 0]], "row 1, level 1: code 4 is not one of the quantizer's 4"),
        ([[0, 0, -1]], "row 0, level 2: code -1"),
        ("text", "integers"),
        ([[0, 0, 0], [0]], "one length"),
    ],
)
def test_taken_that_does_not_fit(taken, expected):
    quantizer = hr.semantic_ids(EMBEDDINGS, **OPTIONS, deduplicate=True).quantizer
    with pytest.raises(hr.ArgumentError, match=expected):
        quantizer.assign(EMBEDDINGS[:2], taken=taken)


def test_taken_needs_a_quantizer_that_separates():
    found = hr.semantic_ids(EMBEDDINGS, **OPTIONS)
    with pytest.raises(hr.ArgumentError, match="goes with a quantizer that separates"):
        found.quantizer.assign(EMBEDDINGS[:2], taken=found)


def test_taken_of_other_sizes():
    found = hr.semantic_ids(EMBEDDINGS, **OPTIONS, deduplication_codes=64)
    other = hr.Catalog(found.sids, codebook_sizes=(4, 5, 64))
    for taken in (other, hr.build_index(other)):
        with pytest.raises(hr.ArgumentError, match="codebook_sizes \\[4, 5, 64\\], and SIDs of this quantizer"):
            found.quantizer.assign(EMBEDDINGS[:2], taken=taken)


def test_no_level_is_left_to_separate():
    with pytest.raises(hr.ArgumentError, match="at most 255 codes"):
        hr.semantic_ids(EMBEDDINGS, levels=255, deduplicate=True)
