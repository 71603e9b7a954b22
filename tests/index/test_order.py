"""The order of the item ids: sorted, merged, checked, and used by lookups."""

import datetime as dt
import uuid
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from saved import OTHER, WAYS, file_of, ipc_bytes, load_error, replace_part

import hedgerow as hr
from hedgerow._compiled import native
from hedgerow.index import lookup
from hedgerow.index.arrow import as_bools, plain_ids, take_rows, take_values
from hedgerow.index.order import id_samples, lower_bounds, rows_of, sorted_order
from hedgerow.index.tensors import read_tensors, write_tensors

COLUMNS = {
    "int8": pa.array([5, -128, 127, 0, 1], pa.int8()),
    "int64": pa.array([2**63 - 1, -(2**63), 0, -1, 5], pa.int64()),
    "near int64": pa.array([2**40 + 9, 2**40, 2**40 - 1, 2**40 + 1, 2**40 + 3], pa.int64()),
    "negative": pa.array([-5, -1, -9, -2, 3], pa.int32()),
    "uint64": pa.array([2**64 - 1, 0, 2**63, 2**63 - 1, 7], pa.uint64()),
    "text": pa.array(["b", "", "ä", "a" * 100, "a"]),
    "large text": pa.array(["b", "", "ä", "aa", "a"], pa.large_string()),
    "bytes": pa.array([b"b", b"", b"\xff", b"\0", b"a"]),
    "fixed": pa.array([b"bb", b"aa", b"\xff\xff", b"\0\0", b"ab"], pa.binary(2)),
    "dates": pa.array([dt.date(2020, 1, day) for day in (4, 1, 9, 2, 3)]),
    "times": pa.array([dt.datetime(2020, 1, day) for day in (4, 1, 9, 2, 3)], pa.timestamp("ns", "UTC")),
    "durations": pa.array([4, -1, 9, 2, 3], pa.duration("s")),
    "decimals": pa.array([Decimal(n) for n in ("4.5", "-1", "9", "2", "3")]),
    "uuids": pa.array([uuid.UUID(int=number).bytes for number in (9, 1, 4, 2, 2**100)], pa.uuid()),
}


@pytest.mark.parametrize("kind", COLUMNS)
@pytest.mark.parametrize("chunks", [1, 3])
def test_lookups_of_every_type(kind, chunks, tmp_path):
    ids = COLUMNS[kind]
    column = pa.chunked_array([ids] if chunks == 1 else [ids[:2], ids[2:2], ids[2:3], ids[3:]])
    order = sorted_order(column)
    assert order.dtype == np.int32
    values: list = ids.take(pa.array(order)).to_pylist()
    assert values == sorted(values)
    wanted = ids.take(pa.array([3, 0, 0, 4]))
    storage = wanted.storage if isinstance(wanted, pa.ExtensionArray) else wanted
    assert rows_of(column, order, storage).tolist() == [3, 0, 0, 4]
    assert rows_of(column[:4], sorted_order(column[:4]), storage).tolist() == [3, 0, 0, -1]
    index = hr.build_index(hr.Catalog([[2], [0], [1], [0], [3]], item_ids=ids))
    index.save(tmp_path / "x")
    for mmap in (False, True):
        loaded = hr.load_index(tmp_path / "x", mmap=mmap)
        np.testing.assert_array_equal(loaded._id_order, index._id_order)
        assert loaded.item_ids.take(pa.array(loaded.rows(ids))).to_pylist() == ids.to_pylist()


def converted(numbers, type_):
    """Numbers from 0 as ids of a type, in the same order. Texts have several lengths, and are not all ASCII."""
    if pa.types.is_integer(type_):
        info = np.iinfo(type_.to_pandas_dtype())
        return pa.array([max(int(info.min) + number, int(info.max) + number - 1000) for number in numbers], type_)
    texts = ["é" * (number // 100) + f"{number:03d}" + "x" * (number % 3) for number in numbers]
    return pa.array(texts, pa.string()).cast(type_)


@pytest.mark.skipif(native is None, reason="hedgerow was built without a C compiler")
@given(
    st.lists(st.integers(0, 999), min_size=1, max_size=300, unique=True),
    st.lists(st.integers(0, 999), max_size=100),
    st.sampled_from(["int16", "uint16", "int32", "uint32", "int64", "uint64"]).map(pa.type_for_alias)
    | st.sampled_from([pa.string(), pa.large_string(), pa.binary(), pa.large_binary()]),
)
def test_the_compiled_search(ids, wanted, type_):
    """It finds what a binary search by Arrow finds, with samples and without, in a slice of a column too."""
    column = pa.chunked_array([converted([0, *ids, 0], type_)[1:-1]])
    order, wanted = sorted_order(column), converted([0, *wanted], type_)[1:]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("hedgerow.index.order.native", None)
        expected = lower_bounds(column, order, wanted), rows_of(column, order, wanted)
    for samples in (None, id_samples(column, order)):
        assert lower_bounds(column, order, wanted, samples).tolist() == expected[0].tolist()
        assert rows_of(column, order, wanted, samples).tolist() == expected[1].tolist()


@pytest.mark.skipif(native is None, reason="hedgerow was built without a C compiler")
class TestDamagedMemory:
    """The compiled search reads nothing outside its arrays."""

    @pytest.mark.parametrize("row", [-1, 3])
    def test_an_order_of_other_rows(self, row):
        ids = pa.chunked_array([[5, 6, 7]])
        with pytest.raises(hr.IndexFileError, match="a row that does not exist"):
            rows_of(ids, np.full(3, row, np.int32), pa.array([6]))

    def test_offsets_outside_the_text(self):
        offsets = np.array([0, 10**9, 1, 3], np.int32)
        ids = pa.Array.from_buffers(pa.string(), 3, [None, pa.py_buffer(offsets), pa.py_buffer(b"abc")])
        assert rows_of(pa.chunked_array([ids]), np.arange(3, dtype=np.int32), pa.array(["bc", "b"])).tolist() == [2, -1]

    def test_other_types(self):
        ids, none = (np.arange(3), None, True), (np.arange(0), None, True)
        order, out = np.arange(3, dtype=np.int32), np.zeros(1, np.int64)
        for wanted in ((np.zeros(1, np.int32), None, True), (b"a", np.array([0, 1]), False)):
            with pytest.raises(ValueError, match="of one type"):
                native.search_ids(*ids, order, *none, 32, *wanted, True, out)


@pytest.mark.parametrize(("mmap", "verify"), WAYS)
def test_a_loaded_order_is_not_sorted_again(folder, mmap, verify, monkeypatch):
    loaded = hr.load_index(folder, mmap=mmap, verify=verify)
    monkeypatch.setattr("hedgerow.index.trie.sorted_order", lambda _: pytest.fail("sorted"))
    assert loaded.rows(["b", "a"]).tolist() == [3, 0]
    loaded.save(folder.parent / "again")
    merged = hr.merge(loaded.with_attributes(drop=["year", "tags"]), removed=["d"])
    assert merged.rows(["b", "c", "a"]).tolist() == [2, 1, 0]


@settings(max_examples=60, deadline=None)
@given(
    old=st.lists(st.integers(-50, 50), unique=True, min_size=1),
    data=st.data(),
    text=st.booleans(),
)
def test_a_merged_order_is_that_of_sorting(old, data, text):
    def ids_of(numbers):
        return [f"{number:+03d}" for number in numbers] if text else numbers

    added = data.draw(st.lists(st.integers(-50, 50), unique=True))
    removed = data.draw(st.lists(st.sampled_from(old), unique=True, max_size=len(old) - 1))

    def catalog(numbers):
        sids = np.asarray([[abs(number) % 7, abs(number) % 3] for number in numbers], int).reshape(-1, 2)
        ids = pa.array(ids_of(numbers), pa.string() if text else pa.int64())
        return hr.Catalog(sids, codebook_sizes=7, item_ids=ids)

    index = hr.build_index(catalog(old))
    assert len(index._id_order) == len(old)
    for merged in (hr.merge(index, catalog(added), ids_of(removed)), hr.merge(index, removed=ids_of(removed))):
        assert merged._load_order is not None
        np.testing.assert_array_equal(merged._id_order, sorted_order(merged.item_ids))


def with_order(folder, order):
    """Replace the stored order of an index, with correct checksums."""
    path = file_of(folder, "trie")
    tensors = read_tensors(np.fromfile(path, np.uint8), path)
    write_tensors(tensors | {"id_order": np.asarray(order, np.int32)}, folder.parent / "trie")
    replace_part(folder, "trie", (folder.parent / "trie").read_bytes())


@pytest.mark.parametrize(
    ("order", "fault"),
    [
        ([0, 3, 1, 2], "the order of the item ids is not ascending"),
        ([0, 0, 2, 1], "the order of the item ids is not ascending"),
        ([0, 3, 2, 4], "names a row that does not exist"),
        ([0, 3, 2, -1], "names a row that does not exist"),
        ([0, 3, 2], "does not contain the arrays"),
    ],
)
@pytest.mark.parametrize("verify", ["full", "structure"])
def test_a_wrong_order_is_rejected(folder, order, fault, verify):
    with_order(folder, order)
    for mmap in (False, True):
        assert fault in load_error(folder, mmap=mmap, verify=verify)


def test_a_wrong_order_never_reads_outside(folder):
    with_order(folder, [2**30, -(2**31), 9, 1])
    loaded = hr.load_index(folder, verify="none")
    with pytest.raises((hr.IndexFileError, pa.ArrowException), match=r"does not exist|out of bounds"):
        loaded.rows(["a"])


def test_a_missing_order_is_rejected(folder):
    path = file_of(folder, "trie")
    tensors = read_tensors(np.fromfile(path, np.uint8), path)
    del tensors["id_order"]
    write_tensors(tensors, folder.parent / "trie")
    replace_part(folder, "trie", (folder.parent / "trie").read_bytes())
    assert "does not contain the arrays" in load_error(folder, verify="none")


IDS = ["a", "d", "c", "b"]


@pytest.mark.parametrize(
    ("ids", "fault"),
    [
        (pa.array(["a", "d", "c", "c"]), "item id 'c' appears in rows 2 and 3|not ascending"),
        (pa.array(["a", None, "c", "b"]), "an item id is null"),
        (pa.array([1, 0, 2, 3]), "not ascending"),
        (pa.array([[1], [3], [2], [4]]), "the item ids cannot be compared"),
        (pa.array(IDS).dictionary_encode(), "has the type dictionary.*cannot hold"),
        (pa.array(IDS, pa.string_view()), "has the type string_view.*cannot hold"),
        (pa.RunEndEncodedArray.from_arrays([4], ["a"]), "has the type run_end_encoded.*cannot hold"),
    ],
    ids=["repeated", "null", "other", "lists", "dictionary", "view", "run-end"],
)
def test_other_ids_are_rejected(folder, ids, fault):
    replace_part(folder, "items", ipc_bytes(pa.table({"item_id": ids})))
    with pytest.raises(hr.IndexFileError, match=fault):
        hr.load_index(folder)


OFFSETS = [0, 3, 6, 9, 12]
TEXTS = pa.array(["abc", "def", "ghi", "jkl"])
LISTS = pa.array([[1, 2, 3], [4, 5, 6], [7, 8, 9], [0, 0, 0]], pa.list_(pa.int8()))


@pytest.mark.parametrize(
    ("values", "old", "new"),
    [
        (TEXTS, OFFSETS, [0, 3, 6, 9, 2**30]),
        (TEXTS, OFFSETS, [0, -100, 6, 9, 12]),
        (TEXTS, OFFSETS, [0, 9, 6, 9, 12]),
        (TEXTS, OFFSETS, [-(2**20), 3, 6, 9, 12]),
        (LISTS, OFFSETS, [0, 3, 6, 9, 2**30]),
        (LISTS, OFFSETS, [0, 2**30, 6, 9, 12]),
        (TEXTS, b"abcdef", b"abc\xff\xfe\xfd"),
    ],
)
@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize("name", ["item_id", "x"])
def test_crafted_columns_are_rejected(folder, values, old, new, mmap, name):
    columns = {"item_id": pa.array(IDS), "x": pa.array([1, 2, 3, 4])} | {name: values}
    old, new = (given if isinstance(given, bytes) else np.asarray(given, np.int32).tobytes() for given in (old, new))
    content = ipc_bytes(pa.table(columns))
    assert content.count(old) == 1
    replace_part(folder, "items", content.replace(old, new))
    assert str(file_of(folder, "items")) in load_error(folder, mmap=mmap)


@pytest.mark.parametrize("content", [b"ARROW1", b"ARROW1\0\0" * 9, b"PAR1" + b"\0" * 90, b"\0" * 500])
def test_other_files_are_rejected(folder, content):
    replace_part(folder, "items", content)
    assert "cannot be read" in load_error(folder)


def test_rows_of_a_table_of_several_batches():
    table = pa.table({"x": pa.chunked_array([[1, 2], [], [3], [4, 5]]), "y": pa.chunked_array([list("abcde")])})
    for rows in ([4, 0, 0, 2], [], [1]):
        given = np.asarray(rows, np.int64)
        assert take_rows(table, given).equals(table.take(pa.array(rows, pa.int64())))
        assert take_values(table.column("x"), given).to_pylist() == [1 + row for row in rows]


def test_bools_of_a_slice():
    array = pa.array([True, False, True, True] * 5)
    for begin in (0, 3, 9):
        assert as_bools(array[begin:]).tolist() == array[begin:].to_pylist()


@pytest.mark.parametrize(
    ("values", "type_", "plain"),
    [
        (["a", "ä"], pa.string(), True),
        (["a", b"a"], pa.string(), False),
        (["a"], pa.large_string(), True),
        ([1, 2], pa.string(), False),
        ([1, 127], pa.int8(), True),
        ([1, 128], pa.int8(), False),
        ([True], pa.int8(), False),
        ([2**63], pa.uint64(), True),
        ([2**63, -1], pa.uint64(), False),
        ([2**70], pa.int64(), False),
        (np.asarray([3, 4], np.uint8), pa.int64(), True),
        (np.asarray([-3, 4]), pa.uint8(), False),
        (np.asarray([3.0]), pa.int64(), False),
        (np.asarray([[3]]), pa.int64(), False),
        (np.ma.masked_array([3, 4], [True, False]), pa.int64(), False),
        ([], pa.int64(), False),
    ],
)
def test_plain_ids(values, type_, plain):
    converted = plain_ids(values, type_)
    assert (converted is not None) == plain
    if converted is not None:
        converted.validate(full=True)
        assert converted.type == type_
        assert converted.to_pylist() == list(values)


@pytest.mark.parametrize("kind", ["integers", "text"])
def test_many_ids_are_found_in_one_pass(kind, monkeypatch):
    ids = np.random.default_rng(0).permutation(500)
    ids = ids if kind == "integers" else [f"item {number}" for number in ids]
    index = hr.build_index(hr.Catalog([[number % 20] for number in range(500)], item_ids=ids))
    wanted = [*list(ids)[::-1], *list(ids)[:100], 10_000 if kind == "integers" else "none"]
    expected = index.rows(wanted, missing="ignore")
    monkeypatch.setattr(lookup, "MIN_SCAN", 10)
    np.testing.assert_array_equal(index.rows(wanted, missing="ignore"), expected)
    assert expected[-1] == -1


def test_an_index_without_item_ids(tmp_path):
    index = hr.build_index(OTHER)
    index.save(tmp_path / "x")
    assert hr.load_index(tmp_path / "x").rows([3, 0]).tolist() == index.rows([3, 0]).tolist()


def test_a_long_list_of_ids(monkeypatch):
    ids = np.random.default_rng(0).permutation(5000)[:2000] * 7
    index = hr.build_index(hr.Catalog(np.arange(2000)[:, None] % 512, item_ids=ids))
    wanted = np.concatenate([ids[:400], [-1, 10**6, 1]])
    rows = index.rows(wanted, missing="ignore")
    monkeypatch.setattr(lookup, "MIN_SAMPLED", 10**9)
    assert rows.tolist() == index.rows(wanted, missing="ignore").tolist()
    assert rows[-3:].tolist() == [-1] * 3
    assert index.item_ids.take(pa.array(rows[:-3])).to_pylist() == ids[:400].tolist()
