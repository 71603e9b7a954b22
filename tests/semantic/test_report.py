"""Reports on Semantic IDs, against values computed by hand."""

import json
import math

import numpy as np
import pyarrow as pa
import pytest

import hedgerow as hr

# Two levels of one dimension: 0 or 10, then -1, 0 or 1.
QUANTIZER = hr.Quantizer("residual", (np.array([[0], [10]]), np.array([[-1], [0], [1]])), (2, 4))
EMBEDDINGS = np.array([[0], [0], [1], [10], [11], [9.5]])
# SIDs: 0 1, 0 1, 0 2, 1 1, 1 2, 1 0. The residual -0.5 of 9.5 is equally near to -1 and 0: code 0.
CATEGORIES = ["a", "a", "b", "b", "b", None]


def test_report_by_hand():
    found = QUANTIZER.assign(EMBEDDINGS)
    assert found.sids.tolist() == [[0, 1], [0, 1], [0, 2], [1, 1], [1, 2], [1, 0]]
    report = found.report(CATEGORIES)
    first, second = report.levels
    total = 1 + 100 + 121 + 9.5**2
    assert (first.codebook_size, first.codes_used, first.prefixes) == (2, 2, 2)
    assert first.perplexity == pytest.approx(2)
    assert first.error == pytest.approx((1 + 1 + 0.25) / total)
    assert first.purity == pytest.approx((2 + 2) / 5)
    assert (second.codebook_size, second.codes_used, second.prefixes) == (4, 3, 5)
    shares = (1 / 6, 3 / 6, 2 / 6)
    assert second.perplexity == pytest.approx(math.exp(-sum(share * math.log(share) for share in shares)))
    assert second.error == pytest.approx(0.25 / total) == report.error
    assert second.purity == 1
    assert (report.items, report.sids) == (6, 5)
    assert (report.colliding_items, report.shared_sids, report.largest_collision) == (2, 1, 2)
    assert (report.categories, report.items_with_category, report.deduplicated) == (2, 5, False)


def test_report_with_deduplication():
    report = QUANTIZER.deduplicating(16).assign(EMBEDDINGS).report()
    assert (report.sids, report.colliding_items, report.shared_sids, report.largest_collision) == (6, 2, 1, 2)
    last = report.levels[2]
    assert (last.codebook_size, last.codes_used, last.prefixes, last.error, last.purity) == (16, 2, 6, None, None)
    assert report.deduplicated
    assert "2 of 6 items share 1 SID, at most 2 one SID; the last code separates them" in str(report)


@pytest.mark.parametrize("method", ["product", "opq"])
def test_error_equals_that_of_decoded_prefixes(method):
    embeddings = np.random.default_rng(0).normal(size=(100, 8)).astype(np.float32)
    found = hr.semantic_ids(embeddings, levels=4, codebook_sizes=4, method=method)
    for level, facts in enumerate(found.report().levels):
        squares = np.square(embeddings - found.quantizer.decode(found.sids[:, : level + 1])).sum()
        assert facts.error == pytest.approx(squares / np.square(embeddings).sum(), rel=1e-4)


def test_chance_purity():
    rng = np.random.default_rng(0)
    kinds = rng.integers(0, 4, 2000)
    embeddings = np.eye(4)[kinds] * 5 + rng.normal(size=(2000, 4)) * 0.1
    first = hr.semantic_ids(embeddings, levels=2, codebook_sizes=4).report(kinds).levels[0]
    assert first.purity == 1
    assert first.chance_purity == pytest.approx(0.27, abs=0.03)


def test_no_items_no_categories_and_no_error():
    report = QUANTIZER.assign(np.zeros((0, 1))).report([])
    assert (report.items, report.sids, report.largest_collision, report.error) == (0, 0, 0, 0)
    assert [level.perplexity for level in report.levels] == [0, 0]
    unknown = QUANTIZER.assign(EMBEDDINGS).report([None] * 6)
    assert [level.purity for level in unknown.levels] == [None, None]
    assert (unknown.categories, unknown.items_with_category) == (0, 0)
    zeros = hr.Quantizer("residual", (np.ones((1, 1)),), (1,)).assign([[0]]).report()
    assert zeros.error == math.inf


def test_json_and_table():
    report = QUANTIZER.assign(EMBEDDINGS).report(pa.array(CATEGORIES).dictionary_encode())
    facts = json.loads(json.dumps(report.to_dict()))
    assert facts["levels"][0]["prefixes"] == 2
    assert facts["shared_sids"] == 1
    lines = str(report).splitlines()
    assert max(map(len, lines[:-1])) <= 80
    assert any("3 of 4" in line and "1.000" in line for line in lines)
    many = hr.Quantizer("residual", (np.zeros((1, 1)),), (2**31,)).assign(np.zeros((3, 1))).report([1, 2, 2])
    assert max(map(len, str(many).splitlines()[:-1])) <= 80
    assert "collisions: none" in str(QUANTIZER.assign([[0], [1]]).report())


def test_rejects_other_categories():
    found = QUANTIZER.assign(EMBEDDINGS)
    with pytest.raises(hr.ArgumentError, match="categories must be 6 values, one per item; got 2"):
        found.report(["a", "b"])
    with pytest.raises(hr.ArgumentError, match="Take the first of each list"):
        found.report([["a"]] * 6)


def test_nan_is_not_a_category():
    found = hr.semantic_ids(np.eye(4), levels=1, codebook_sizes=2)
    for categories in ([1.0, np.nan, 2.0, None], np.array([1.0, np.nan, 2.0, np.nan])):
        report = found.report(categories)
        assert (report.categories, report.items_with_category) == (2, 2)
