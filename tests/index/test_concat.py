"""concat gives exactly the index that build_index makes of all items."""

import datetime as dt
import uuid
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ragged import ragged
from saved import contents, same_index
from support import catalogs

import hedgerow as hr
from hedgerow.catalog.ragged import without_ends

NAMES = pa.array(["x", None, "a longer name", ""])


def with_columns(catalog: hr.Catalog, rng: np.random.Generator) -> hr.Catalog:
    """The catalog with ids in random order and attributes of several types."""
    n = len(catalog)
    counts = rng.integers(0, 4, n).tolist()
    columns = {
        "name": NAMES.take(pa.array(counts)),
        "lists": pa.array([[count] * count if count else None for count in counts], pa.list_(pa.int16())),
        "even": rng.integers(0, 2, n) == 0,
    }
    sizes = zip(catalog.codebook_sizes, catalog.end_codes, strict=True)
    return hr.Catalog(
        without_ends(catalog.sids.astype(np.int64), catalog.end_codes) if catalog.ragged else catalog.sids,
        codebook_sizes=[size - (end is not None) for size, end in sizes],
        item_ids=rng.permutation(10 * n)[:n],
        attributes=columns,
        ragged=catalog.ragged,
    )


def cut(catalog: hr.Catalog, cuts: list[int]) -> list[hr.TrieIndex]:
    """Indexes of ranges of SIDs. `cuts` are positions among the distinct SIDs."""
    sids = catalog.sids.tolist()
    rank = {sid: position for position, sid in enumerate(sorted(set(map(tuple, sids))))}
    part_of = np.searchsorted(cuts, [rank[tuple(sid)] for sid in sids], side="right")
    return [hr.build_index(catalog.filter(part_of == part)) for part in range(len(cuts) + 1)]


@given(catalog=catalogs(), data=st.data())
def test_equals_build(catalog, data):
    check(catalog, data)


@given(of_lengths=ragged(), data=st.data())
def test_equals_build_of_ragged_sids(of_lengths, data):
    check(of_lengths.catalog, data)


def check(catalog: hr.Catalog, data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    catalog = with_columns(catalog, rng)
    cuts = sorted(data.draw(st.lists(st.integers(0, 30), max_size=5)))
    dense: Any = data.draw(st.sampled_from(["auto", [], [catalog.num_levels - 1]]))
    parts = cut(catalog, cuts)
    built = hr.build_index(catalog, dense_levels=dense)
    joined = hr.concat([parts[part] for part in rng.permutation(len(parts))], dense_levels=dense)
    assert same_index(joined, built)
    assert joined.end_codes == built.end_codes
    assert joined._id_order.dtype == built._id_order.dtype
    assert joined._id_order.tolist() == built._id_order.tolist()


@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize("items", [300, 40_000])
def test_saved_bytes_equal_those_of_a_build(items, mmap, tmp_path):
    rng = np.random.default_rng(items)
    sizes = (16, 64, 300, 70_000)
    sids = np.stack([rng.integers(0, size, items) for size in sizes], axis=1)
    sids[: items // 10] = sids[items // 2 : items // 2 + items // 10]
    values = rng.integers(0, 9, items)
    columns = {
        "flag": pa.array(values > 4, mask=values == 2),
        "when": pa.array([dt.datetime(2020, 1, 1 + value) for value in values.tolist()]),
        "price": [Decimal(value) / 4 for value in values.tolist()],
        "tags": pa.array([None if value == 3 else [str(value)] * value for value in values.tolist()]),
        "box": [{"wide": value, "label": None if value == 1 else "b" * value} for value in values.tolist()],
        "nothing": pa.nulls(items),
    }
    ids = [uuid.UUID(bytes=rng.bytes(16)) for _ in range(items)]
    catalog = hr.Catalog(sids, codebook_sizes=sizes, item_ids=ids, attributes=columns)
    parts = cut(catalog, [1, 2, items // 7, items // 3])
    for number, part in enumerate(parts):
        part.save(tmp_path / f"part-{number}")
        parts[number] = hr.load_index(tmp_path / f"part-{number}", mmap=mmap)
    hr.concat(parts[::-1]).save(tmp_path / "joined")
    hr.build_index(catalog).save(tmp_path / "built")
    assert contents(tmp_path / "joined") == contents(tmp_path / "built")


def test_items_of_mapped_indexes_are_joined_on_first_use(tmp_path):
    low, high = parts_of([[0, 1]], [[2, 0]])
    high.save(tmp_path / "high")
    joined = hr.concat([hr.load_index(tmp_path / "high", mmap=True), low])
    assert "items_table" not in vars(joined)
    assert joined.item_ids.to_pylist() == [0, 1]
    assert joined.rows([1, 0]).tolist() == [1, 0]


def parts_of(*sids, sizes=4, **columns):
    """An index for each list of SIDs, with distinct ids."""
    start, indexes = 0, []
    for rows in sids:
        ids = np.arange(start, start + len(rows))
        attributes = {name: values[: len(rows)] for name, values in columns.items()}
        indexes.append(hr.build_index(hr.Catalog(rows, codebook_sizes=sizes, item_ids=ids, attributes=attributes)))
        start += len(rows)
    return indexes


def test_indexes_without_items_add_nothing():
    none = hr.build_index(hr.Catalog(np.zeros((0, 2), int), codebook_sizes=4, attributes={"price": []}))
    low, high = parts_of([[0, 1]], [[2, 0]])
    assert same_index(hr.concat([none, high, none, low]), hr.concat([low, high]))
    assert hr.concat([none, none]).num_items == 0
    assert hr.concat([none, none]).attributes.column_names == ["price"]


def test_one_index():
    (index,) = parts_of([[0, 1], [0, 1], [2, 0]])
    assert same_index(hr.concat([index]), index)


def error(kind: type[Exception], indexes) -> str:
    with pytest.raises(kind) as caught:
        hr.concat(indexes)
    return str(caught.value)


@pytest.mark.parametrize(
    ("sids", "message"),
    [
        ([[[0, 1], [2, 0]], [[1, 0]]], "last SID of index 0 is [2, 0], and the first of index 1 is [1, 0]"),
        ([[[1, 0]], [[0, 1], [2, 0]]], "last SID of index 1 is [2, 0], and the first of index 0 is [1, 0]"),
        ([[[1, 0]], [[3, 0]], [[1, 0]]], "last SID of index 0 is [1, 0], and the first of index 2 is [1, 0]"),
        ([[[0, 0], [3, 3]], [[1, 0]], [[2, 0]]], "last SID of index 0 is [3, 3], and the first of index 1 is [1, 0]"),
    ],
)
def test_refuses_ranges_that_overlap(sids, message):
    assert message in error(hr.CatalogError, parts_of(*sids))


def test_refuses_other_codebook_sizes_and_lengths():
    (low,), (high,), (long,) = parts_of([[0, 1]]), parts_of([[2, 0]], sizes=5), parts_of([[2, 0, 1]])
    message = "index 0 has [4, 4], but index 1 has"
    assert f"{message} [5, 5]" in error(hr.CatalogError, [low, high])
    assert f"{message} [4, 4, 4]" in error(hr.CatalogError, [low, long])
    ends = hr.build_index(hr.Catalog([[2], [2, 0]], codebook_sizes=[4, 3], ragged=True))
    assert f"{message} [4, 4], ragged SIDs" in error(hr.CatalogError, [low, ends])


def test_refuses_other_attributes():
    (low,) = parts_of([[0, 1]], price=[1])
    others: list[dict[str, Any]] = [{}, {"price": [1.5]}, {"cost": [1]}, {"price": [1], "more": [1]}]
    for columns in others:
        _, high = parts_of([[0, 1]], [[2, 0]], **columns)
        message = error(hr.CatalogError, [low, high])
        assert "index 0 has item_id (int64), price (int64), but index 1 has item_id (int64)" in message
    texts = hr.build_index(hr.Catalog([[2, 0]], codebook_sizes=4, item_ids=["a"], attributes={"price": [1]}))
    assert "index 1 has item_id (string)" in error(hr.CatalogError, [low, texts])


def test_refuses_an_id_in_two_indexes():
    low, high = (hr.build_index(hr.Catalog(sids, codebook_sizes=4)) for sids in ([[0, 1]], [[2, 0], [2, 1]]))
    assert "item id 0 is in index 1 and in index 0" in error(hr.CatalogError, [high, low])


def test_refuses_what_is_no_list_of_indexes():
    (low,) = parts_of([[0, 1]])
    assert "got an empty list" in error(hr.ArgumentError, [])
    assert "For one index, pass [index]" in error(hr.ArgumentError, low)
    assert "number 1 is a Catalog" in error(hr.ArgumentError, [low, hr.Catalog([[0, 1]])])
    with pytest.raises(hr.ArgumentError, match="level 7 does not exist"):
        hr.concat([low], dense_levels=[7])
