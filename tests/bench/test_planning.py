"""`hedgerow plan` agrees with indexes that are built."""

from __future__ import annotations

import json

import numpy as np
import pytest

import hedgerow as hr
from hedgerow.bench.cases import PAPER, sids_of
from hedgerow.bench.planning import expected_max_branch, expected_nodes, plan

# From levels that use all codes to unary levels, with and without collisions.
SHAPES = [
    (100_000, 8, 2048),
    (100_000, 8, 256),
    (100_000, 4, 64),
    (100_000, 4, 70_000),
    (50_000, 3, 20),
    (1000, 8, 2),
    (100_000, 8, 16),
    (100_000, 3, 8192),
]


@pytest.mark.parametrize("layout", ["plain", "compact"])
@pytest.mark.parametrize(("items", "levels", "codebook_size"), SHAPES)
def test_plan_agrees_with_a_built_index(items, levels, codebook_size, layout):
    case = PAPER.of(items=items, levels=levels, codebook_size=codebook_size)
    index = hr.build_index(hr.Catalog(sids_of(case), codebook_sizes=codebook_size), layout=layout)
    planned = plan(items, levels, codebook_size, layout=layout)
    assert planned.nbytes == pytest.approx(index.nbytes, rel=0.02)
    assert planned.bound_nbytes >= index.nbytes
    for level, nodes, branch in zip(planned.levels, index.nodes_per_level, index.max_branch_factors, strict=True):
        assert level.nodes == pytest.approx(nodes, rel=0.02, abs=3)
        assert level.bound_nodes >= nodes
        assert level.max_branch == pytest.approx(branch, rel=0.1, abs=1)


@pytest.mark.parametrize("layout", ["plain", "compact"])
def test_a_codebook_size_per_level(layout):
    sizes = [300, 20, 5000, 2]
    sids = np.random.default_rng(0).integers(0, sizes, (50_000, 4))
    index = hr.build_index(hr.Catalog(sids, codebook_sizes=sizes), layout=layout)
    planned = plan(50_000, 4, sizes, layout=layout)
    assert [level.codebook_size for level in planned.levels] == sizes
    assert planned.nbytes == pytest.approx(index.nbytes, rel=0.02)
    assert planned.bound_nbytes >= index.nbytes


def test_expected_nodes_is_balls_in_bins():
    assert expected_nodes(5, 1) == 1
    assert expected_nodes(1, 10**9) == pytest.approx(1)
    assert expected_nodes(2, 4) == pytest.approx(1.75)
    assert expected_nodes(20_000_000, 2048**200) == 20_000_000


def test_largest_branch_factor_at_extreme_sizes():
    assert expected_max_branch(10**9, 1, 2048) == 2048
    assert expected_max_branch(10, 2048**7, 2048) == 1
    assert expected_max_branch(1, 1, 1) == 1


def test_wide_and_deep_plans_stay_finite():
    planned = plan(2_000_000_000, 255, 2**31)
    assert planned.nbytes <= planned.bound_nbytes
    assert planned.paper_nbytes == 180_000_000_000
    compact = plan(2_000_000_000, 255, 2**31, layout="compact")
    assert compact.nbytes <= compact.bound_nbytes


def test_rate_file(tmp_path):
    path = tmp_path / "build.json"
    row = {"method": "hedgerow", "scope": "build", "total_seconds": 2.0, "items": 1000, "levels": 4}
    path.write_text(json.dumps({"rows": [row], "conditions": {"cpu": "X", "cores": 3}}))
    planned = plan(500, 8, 16, rate_file=path)
    assert planned.build_seconds == pytest.approx(2.0)
    assert "3 cores of X" in planned.rate_source
    path.write_text("{}")
    with pytest.raises(hr.ArgumentError, match="is not a JSON file of `hedgerow bench build`"):
        plan(500, 8, 16, rate_file=path)


@pytest.mark.parametrize(
    ("items", "levels", "codebook_sizes"), [(0, 8, 16), (2**31, 8, 16), (10, 2, [4]), (10, 1, 0), (10, 1, 2**31 + 1)]
)
def test_rejects_impossible_sizes(items, levels, codebook_sizes):
    with pytest.raises(hr.ArgumentError, match=r"an index holds 1 to|codebook sizes from 1 to"):
        plan(items, levels, codebook_sizes)
