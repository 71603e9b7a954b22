"""Histories from files and tables, their errors, and splits."""

import datetime as dt
import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import csv

import hedgerow as hr
from hedgerow.training import Histories, leave_one_out, read_histories, split_by_time

IDS = ["a", "b", "c", "d", "7"]


@pytest.fixture(scope="module")
def index():
    return hr.build_index(hr.Catalog([[row] for row in range(5)], item_ids=IDS))


def table_of(rows):
    """A table of (user, item, time)."""
    users, items, times = zip(*rows, strict=True)
    return pa.table({"user": users, "item_id": items, "timestamp": times})


def names(histories):
    return [[IDS[row] for row in items] for items in histories]


def test_items_are_sorted_by_user_and_time_and_equal_times_keep_their_order(index):
    rows = [(2, "c", 9), (1, "d", 5), (2, "b", 3), (1, "a", 5), (1, "7", 5), (2, "a", 9)]
    histories = Histories.from_arrow(table_of(rows), index)
    assert histories.users.to_pylist() == [1, 2]
    assert names(histories) == [["d", "a", "7"], ["b", "c", "a"]]
    assert histories.times is not None
    assert histories.times.to_pylist() == [5, 5, 5, 3, 9, 9]
    assert names([histories[-1]]) == [["b", "c", "a"]]
    assert histories.lengths.tolist() == [3, 3]
    assert repr(histories) == "Histories(users=2, interactions=6)"
    with pytest.raises(IndexError, match="2 users"):
        histories[2]


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl", "folder"])
def test_kinds_of_files_and_names_of_columns(index, tmp_path, kind):
    days = [dt.datetime(2024, 5, day) for day in (3, 1, 2)]
    table = pa.table({"who": ["u", "u", "v"], "what": ["a", "7", "b"], "when": days})
    path = tmp_path / f"clicks.{kind}"
    if kind == "parquet":
        pq.write_table(table, path)
    elif kind == "csv":
        csv.write_csv(table, path)
    elif kind == "jsonl":
        path.write_text(
            "".join(
                f'{{"who": "{r["who"]}", "what": "{r["what"]}", "when": "{r["when"]}"}}\n' for r in table.to_pylist()
            )
        )
    else:
        path.mkdir()
        for part in range(3):
            pq.write_table(table.slice(part, 1), path / f"{part}.parquet")
    columns: dict[str, Any] = {"user": "who", "item": "what"}
    assert names(read_histories(path, index, **columns, timestamp=None)) == [["a", "7"], ["b"]]
    assert names(read_histories(path, index, **columns, timestamp="when")) == [["7", "a"], ["b"]]


def test_ids_that_are_integers(tmp_path):
    index = hr.build_index(hr.Catalog([[0], [1]], item_ids=[10, 20]))
    (tmp_path / "c.csv").write_text("user,item_id,timestamp\n1,20,1\n1,10,2\n")
    assert read_histories(tmp_path / "c.csv", index)[0].tolist() == [1, 0]
    with pytest.raises(hr.ArgumentError, match=r"column 'item_id'.*text and other values are different ids"):
        Histories.from_arrow(table_of([(1, "10", 1)]), index)


def test_unknown_items(index):
    rows = [(1, "a", 1), (1, "x", 2), (2, "y", 3), (1, "x", 4)]
    with pytest.raises(hr.ArgumentError, match=r"3 of 4 rows.*2 items; the first is 'x' in row 1.*unknown='skip'"):
        Histories.from_arrow(table_of(rows), index)
    histories = Histories.from_arrow(table_of(rows), index, unknown="skip")
    assert histories.unknown == 3
    assert histories.users.to_pylist() == [1]
    assert "unknown=3" in repr(histories)
    with pytest.raises(hr.ArgumentError, match="no interactions with items of the index"):
        Histories.from_arrow(table_of(rows[1:3]), index, unknown="skip")


def test_duplicates(index):
    rows = [(1, "a", 1), (1, "b", 1), (1, "a", 1), (1, "a", 2)]
    with pytest.raises(hr.ArgumentError, match=r"1 rows repeat.*the first is row 2.*duplicates='skip'"):
        Histories.from_arrow(table_of(rows), index)
    histories = Histories.from_arrow(table_of(rows), index, duplicates="skip")
    assert names(histories) == [["a", "b", "a"]]
    assert histories.duplicates == 1
    ordered = Histories.from_arrow(table_of(rows), index, timestamp=None)
    assert names(ordered) == [["a", "b", "a", "a"]]
    assert ordered.times is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"timestamp": pa.array([1, None, 3])}, "1 of 3 rows have no value in column 'timestamp', the first is row 1"),
        ({"timestamp": pa.array([1.0, 2.0, float("nan")])}, "no value in column 'timestamp', the first is row 2"),
        ({"user": pa.array([None, "u", "u"])}, "no value in column 'user', the first is row 0"),
        ({"user": pa.array([[1], [2], [3]])}, "ids that can be ordered; it holds list"),
    ],
)
def test_missing_and_wrong_values(index, change, message):
    table = pa.table({"user": [1, 1, 2], "item_id": ["a", "b", "a"], "timestamp": [1, 2, 3]} | change)
    with pytest.raises(hr.ArgumentError, match=message):
        Histories.from_arrow(table, index)


def test_columns_that_do_not_exist(index, tmp_path):
    with pytest.raises(hr.ArgumentError, match=r"no column 'item'; the columns are user, item_id, timestamp.*--item"):
        Histories.from_arrow(table_of([(1, "a", 1)]), index, item="item")
    with pytest.raises(hr.ArgumentError, match="unknown must be one of error, skip"):
        Histories.from_arrow(table_of([(1, "a", 1)]), index, unknown="drop")  # pyright: ignore[reportArgumentType]
    (tmp_path / "c.csv").write_text("user,item_id\n1,a\n")
    with pytest.raises(hr.ArgumentError, match=r"c\.csv: there is no column 'timestamp'"):
        read_histories(tmp_path / "c.csv", index)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from(IDS), st.integers(0, 4)), min_size=1, max_size=25),
)
def test_histories_and_splits_equal_naive_ones(rows):
    index = hr.build_index(hr.Catalog([[row] for row in range(5)], item_ids=IDS))
    histories = Histories.from_arrow(table_of(rows), index, duplicates="skip")
    naive = {user: [] for user in sorted({user for user, _, _ in rows})}
    for user, item, time in sorted(dict.fromkeys(rows), key=lambda row: (row[0], row[2])):
        naive[user].append((item, time))
    assert names(histories) == [[item for item, _ in items] for items in naive.values()]
    lists = names(histories)
    if max(map(len, lists)) >= 2:
        split = leave_one_out(histories)
        asked = [items for items in lists if len(items) >= 3]
        validation, test = split.questions("validation"), split.questions("test")
        assert names(validation.histories) == [items[:-2] for items in asked]
        assert [IDS[row] for row in validation.targets] == [items[-2] for items in asked]
        assert names(test.histories) == [items[:-1] for items in lists if len(items) >= 2]
        assert names(split.training) == [items[:-2] if len(items) >= 3 else items[:1] for items in lists]
    try:
        split = split_by_time(histories, validation=2, test=3)
    except hr.ArgumentError:
        return
    assert names(split.training) == [[item for item, time in items if time < 2] for items in naive.values()]
    expected = []
    for items in naive.values():
        before, later = ([row for row in items if (row[1] < 3) == early] for early in (True, False))
        if before and later:
            expected.append(([item for item, _ in before], later[0][0]))
    test = split.questions("test")
    assert list(zip(names(test.histories), [IDS[row] for row in test.targets], strict=True)) == expected


def test_split_as_a_table_and_samples(index):
    rows = [(user, item, time) for user in "uv" for time, item in enumerate("abc")] + [("w", "a", 1)]
    split = leave_one_out(Histories.from_arrow(table_of(rows), index))
    assert split.to_arrow().to_pylist() == [
        {"user": "u", "interactions": 3, "train": 1, "validation": 1, "test": 2},
        {"user": "v", "interactions": 3, "train": 1, "validation": 1, "test": 2},
        {"user": "w", "interactions": 1, "train": 1, "validation": None, "test": None},
    ]
    assert repr(split) == "Split(users=3, train=3, validation=2, test=2)"
    sample = split.questions("test").sample(1, seed=3)
    assert len(sample) == 1
    assert sample.users.tolist() == split.questions("test").sample(1, seed=3).users.tolist()
    with pytest.raises(hr.ArgumentError, match="part must be one of validation, test"):
        split.questions("train")  # pyright: ignore[reportArgumentType]


def test_splits_that_are_impossible(index):
    single = Histories.from_arrow(table_of([(1, "a", 1), (2, "b", 2)]), index)
    with pytest.raises(hr.ArgumentError, match=r"no user has an item to predict.*2 users, with 1"):
        leave_one_out(single)
    days = [dt.date(2024, 5, day) for day in (1, 2, 3)]
    histories = Histories.from_arrow(table_of([(1, item, day) for item, day in zip("abc", days, strict=True)]), index)
    split = split_by_time(histories, validation="2024-05-02", test="2024-05-03")
    assert (split.train.tolist(), split.validation.tolist(), split.test.tolist()) == ([1], [1], [2])
    for options, message in [
        ({"validation": "2024-05-03", "test": "2024-05-02"}, "test must be later"),
        ({"validation": 5, "test": 6}, "must have the type of the times, date32"),
        ({"validation": "2024-05-01", "test": "2024-05-02"}, "nothing to train on"),
        ({"validation": "2024-06-01", "test": "2024-06-02"}, "no user has an item to predict"),
    ]:
        with pytest.raises(hr.ArgumentError, match=message):
            split_by_time(histories, **options)
    in_order = Histories.from_arrow(table_of([(1, "a", 1), (1, "b", 1)]), index, timestamp=None)
    with pytest.raises(hr.ArgumentError, match="needs histories with times"):
        split_by_time(in_order, validation=1, test=2)


def test_a_version_of_a_live_index(index, tmp_path):
    live = hr.LiveIndex.create(tmp_path / "shop.live", index)
    histories = Histories.from_arrow(table_of([(1, "b", 1), (1, "a", 2)]), live)
    assert np.array_equal(histories.items, index.rows(["b", "a"]))


class TestTimesAsText:
    @pytest.mark.parametrize(
        ("times", "type_"),
        [
            (["2024-05-31", "2024-05-01"], pa.timestamp("us")),
            (["2024-05-31T12:00:00", "2024-05-31 11:00:00.5"], pa.timestamp("us")),
            (["2024-05-31T12:00:00Z", "2024-05-31T12:00:00+09:00"], pa.timestamp("us", "UTC")),
        ],
    )
    def test_of_json_lines(self, times, type_, tmp_path):
        lines = [{"user": 1, "item_id": item, "timestamp": time} for item, time in zip("ab", times, strict=True)]
        (tmp_path / "h.jsonl").write_text("\n".join(map(json.dumps, lines)))
        index = hr.build_index(hr.Catalog([[0], [1]], item_ids=["a", "b"]))
        read = read_histories(tmp_path / "h.jsonl", index)
        assert read.times is not None
        assert read.times.type == type_
        assert index.item_ids.take(read[0]).to_pylist() == ["b", "a"]

    def test_that_are_no_times(self):
        index = hr.build_index(hr.Catalog([[0], [1]], item_ids=["a", "b"]))
        table = pa.table({"user": [1], "item_id": ["a"], "timestamp": ["31/05/2024"]})
        with pytest.raises(hr.ArgumentError, match="must hold times"):
            Histories.from_arrow(table, index)


def test_a_file_without_rows(tmp_path):
    (tmp_path / "h.csv").write_text("user,item_id,timestamp\n")
    with pytest.raises(hr.ArgumentError, match="there are no interactions: the file has a header, but no rows"):
        read_histories(tmp_path / "h.csv", hr.build_index(hr.Catalog([[0]], item_ids=["a"])))


ZONE = dt.timezone(dt.timedelta(hours=9))
DAYS = [dt.datetime(2024, 5, day) for day in (1, 2, 3)]
ZONED = [day.replace(tzinfo=ZONE) for day in DAYS]


@pytest.mark.parametrize(
    ("times", "validation", "message"),
    [
        (DAYS, ZONED[1], "have no time zone"),
        (ZONED, DAYS[1], "have a time zone"),
        ([day.date() for day in DAYS], dt.datetime(2024, 5, 2, 23), "must have the type"),
        (DAYS, 1714608000, "must have the type"),
        ([1, 2, 3], DAYS[1], "must have the type"),
    ],
)
def test_a_split_at_a_time_of_another_type(times, validation, message):
    index = hr.build_index(hr.Catalog([[0], [1], [2]], item_ids=["a", "b", "c"]))
    table = pa.table({"user": [1] * 3, "item_id": ["a", "b", "c"], "timestamp": times})
    with pytest.raises(hr.ArgumentError, match=message):
        split_by_time(Histories.from_arrow(table, index), validation=validation, test=validation)
