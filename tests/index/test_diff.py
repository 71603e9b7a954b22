"""diff, compared with brute force over the items."""

import datetime as dt

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import catalogs

import hedgerow as hr


def items_of(catalog):
    rows = catalog.attributes.to_pylist()
    return dict(zip(catalog.item_ids.to_pylist(), zip(catalog.sids.tolist(), rows, strict=True), strict=True))


@given(catalog=catalogs(), seed=st.integers(0, 2**32))
def test_diff_equals_brute_force(catalog, seed):
    rng = np.random.default_rng(seed)

    def part():
        rows = rng.permutation(len(catalog))[: rng.integers(len(catalog) + 1)]
        sids = catalog.sids[rows].copy()
        sids[rng.random(len(rows)) < 0.3] = catalog.sids[0]
        prices = [None if price == 3 else price for price in rng.integers(0, 4, len(rows)).tolist()]
        values = [float("nan") if value == 0 else value for value in rng.integers(0, 2, len(rows)).tolist()]
        tags = [[["x"], [], None][tag] for tag in rng.integers(0, 3, len(rows)).tolist()]
        columns = {
            "price": pa.array(prices, pa.int32()),
            "value": pa.array(values, pa.float64()),
            "tags": pa.array(tags, pa.list_(pa.string())),
        }
        ids = pa.array(rows.tolist(), pa.int64())
        return hr.Catalog(sids, codebook_sizes=catalog.codebook_sizes, item_ids=ids, attributes=columns)

    old, new = part(), part()
    changes = hr.diff(hr.build_index(old), hr.build_index(new))
    before, after = items_of(old), items_of(new)
    common = before.keys() & after.keys()
    assert sorted(changes.added.to_pylist()) == sorted(after.keys() - before.keys())
    assert sorted(changes.removed.to_pylist()) == sorted(before.keys() - after.keys())
    assert sorted(changes.moved.to_pylist()) == sorted(item for item in common if before[item][0] != after[item][0])
    # Compared as text, where a NaN equals itself.
    changed = [item for item in common if str(before[item][1]) != str(after[item][1])]
    assert sorted(changes.changed.to_pylist()) == sorted(changed)
    sids = [{tuple(sid) for sid, _ in items.values()} for items in (before, after)]
    assert [tuple(sid) for sid in changes.sids_added.tolist()] == sorted(sids[1] - sids[0])
    assert [tuple(sid) for sid in changes.sids_removed.tolist()] == sorted(sids[0] - sids[1])


def index_of(sids, ids, **columns):
    return hr.build_index(hr.Catalog(sids, codebook_sizes=9, item_ids=ids, attributes=columns))


def test_columns_and_levels_that_only_one_index_has():
    old = index_of([[0, 1], [2, 3]], ["a", "b"], price=[1, 2], year=[2001, 2002])
    new = index_of([[0, 1, 5], [2, 3, 5]], ["a", "c"], price=["1", "x"], day=[dt.date(2020, 1, 1)] * 2)
    changes = hr.diff(old, new)
    assert (changes.columns_added, changes.columns_removed) == (("day",), ("year",))
    assert changes.moved.to_pylist() == ["a"]
    # The new prices are text: they are compared as numbers if they can be converted.
    assert changes.changed.to_pylist() == []
    before, after = changes.levels[2]
    assert before is None
    assert after is not None
    assert after["nodes"] == 2
    assert changes.counts == {"added": 1, "removed": 1, "moved": 1, "changed": 0, "sids_added": 2, "sids_removed": 2}
    assert changes.to_dict(limit=1)["examples"]["added"] == ["c"]


def test_diff_of_an_index_with_itself_is_empty():
    index = index_of([[0, 1], [2, 3]], ["a", "b"], price=[1, 2])
    assert set(hr.diff(index, index).counts.values()) == {0}


def test_rejects_other_types():
    with pytest.raises(hr.CatalogError, match=r"new index must be .* of type int64; got a column of type string"):
        hr.diff(index_of([[0, 1]], [1]), index_of([[0, 1]], ["x"]))
    with pytest.raises(hr.ArgumentError, match="two indexes; got str"):
        hr.diff("old", "new")  # type: ignore[arg-type]


@pytest.mark.parametrize("swap", [False, True])
def test_columns_of_two_types_are_compared_value_by_value(swap):
    narrow = pa.array([0.5, 0.1, None, float("nan")], pa.float32())
    wide = pa.array([0.5, 0.1, None, float("nan")], pa.float64())
    indexes = [hr.build_index(hr.Catalog([[0], [1], [2], [3]], attributes={"x": column})) for column in (narrow, wide)]
    found = hr.diff(*(reversed(indexes) if swap else indexes)).to_dict(10)
    # 0.1 is another number in float32.
    assert found["examples"]["changed"] == [1]
