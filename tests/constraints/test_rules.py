"""Constraint sets of the newest items."""

from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import hedgerow as hr

RELEASED = [date(2024, 1, 1), date(2024, 1, 5), date(2024, 1, 8), date(2024, 1, 9), date(2023, 12, 31)]


@pytest.fixture
def index():
    attributes = {
        "year": [2011, 1999, 2010, 2012, None],
        "genres": [["western"]] * 5,
        "released": RELEASED,
        "seen": [1.0, float("nan"), 3.0, None, 5.0],
        "stamp": pa.array([datetime(2024, 1, day) for day in (1, 5, 8, 9, 3)], pa.timestamp("ns", tz="UTC")),
    }
    return hr.build_index(hr.Catalog([[5], [4], [3], [2], [1]], item_ids=list("abcde"), attributes=attributes))


def ids_of(items: hr.ConstraintSet) -> str:
    return "".join(sorted(items.index.item_ids.filter(items.mask).to_pylist()))


class TestNewest:
    @pytest.mark.parametrize(
        "now", [date(2024, 1, 8), "2024-01-08", datetime(2024, 1, 8, 23), np.datetime64("2024-01-08")]
    )
    def test_dates(self, index, now):
        assert ids_of(index.newest("released", days=3, now=now)) == ("bc" if now != datetime(2024, 1, 8, 23) else "c")
        assert ids_of(index.newest("released", days=7, now=now)) == ("abc" if now != datetime(2024, 1, 8, 23) else "bc")

    def test_default_of_dates_is_the_whole_current_day(self):
        days = [datetime.now(UTC).date() - timedelta(days=count) for count in range(4)]
        index = hr.build_index(hr.Catalog([[0], [1], [2], [3]], item_ids=list("abcd"), attributes={"day": days}))
        assert ids_of(index.newest("day", days=2)) == "abc"
        assert ids_of(index.newest("day", days=0)) == "a"

    def test_name_of_an_empty_window_states_the_range_of_values(self, index):
        none = index.newest("released", days=3, now=date(2030, 1, 1))
        assert none.num_items == 0
        assert none.name == "released 2029-12-29 to 2030-01-01 (no item; values range from 2023-12-31 to 2024-01-09)"

    def test_values_after_now_are_not_in_the_window(self, index):
        assert "d" not in ids_of(index.newest("released", days=1000, now=date(2024, 1, 8)))

    def test_timestamps_and_time_zones(self, index):
        eastern = timezone(timedelta(hours=-5))
        now = datetime(2024, 1, 7, 19, tzinfo=eastern)
        assert ids_of(index.newest("stamp", days=3, now=now)) == "bc"
        assert ids_of(index.newest("stamp", days=2.5, now=now)) == "c"

    @pytest.mark.parametrize(
        "now", ["2024-01-08T00:00:00Z", "2024-01-07T19:00-05:00", "2024-01-08 05:30:00.5+0530", "2024-01-08T02+02"]
    )
    def test_texts_with_an_offset(self, index, now):
        assert ids_of(index.newest("stamp", days=3, now=now)) == ("c" if ".5" in now else "bc")

    def test_now_is_the_current_time_by_default(self):
        moments = pa.array([datetime.now(UTC) - timedelta(days=days) for days in (1, 10)])
        index = hr.build_index(hr.Catalog([[0], [1]], attributes={"released": moments}))
        assert ids_of_rows(index.newest("released", days=7)) == [0]

    def test_numbers_in_their_own_unit(self, index):
        assert ids_of(index.newest("year", days=2, now=2012, nulls="out")) == "acd"
        assert ids_of(index.newest("year", days=0, now=2012, nulls="in")) == "de"
        assert ids_of(index.newest("seen", days=2, now=5, nulls="out")) == "ce"

    def test_nulls_is_required_if_there_are_nulls(self, index):
        with pytest.raises(hr.ConstraintError, match=r"1 of 5 items have no 'year'.*nulls='in' or nulls='out'"):
            index.newest("year", days=2, now=2012)
        with pytest.raises(hr.ConstraintError, match="2 of 5 items have no 'seen'"):
            index.newest("seen", days=2, now=2012)

    @pytest.mark.parametrize(("nulls", "num_items"), [("in", 2), ("out", 0)])
    def test_no_item_has_a_value(self, caplog, nulls, num_items):
        days = pa.array([None, None], pa.date32())
        index = hr.build_index(hr.Catalog([[0], [1]], attributes={"day": days}))
        with pytest.raises(hr.ConstraintError, match="2 of 2 items have no 'day'"):
            index.newest("day", days=2)
        window = index.newest("day", days=2, nulls=nulls)
        assert len(window) == num_items
        assert "none of the 2 items has a value" in window.name
        assert caplog.messages == [f"newest: none of the 2 items has a value of 'day'; nulls={nulls!r}"]

    @pytest.mark.parametrize(
        ("attribute", "options", "message"),
        [
            ("age", {"days": 1}, "no attribute 'age'; the attributes are year, genres, released, seen, stamp"),
            ("genres", {"days": 1}, r"'genres' holds list.*index.where"),
            ("released", {"days": -1}, "days must be"),
            ("released", {"days": "7"}, "days must be"),
            ("released", {"days": 1e12}, "too large for dates"),
            ("released", {"days": 2e8}, "too large for dates"),
            ("released", {"days": float("inf")}, "too large for dates"),
            ("released", {"days": float("nan")}, "days must be"),
            ("released", {"days": 7, "now": 2024}, "now must be a date"),
            ("released", {"days": 7, "now": "soon"}, "now must be a date"),
            ("year", {"days": 7, "nulls": "out"}, "now must be a number"),
            ("year", {"days": 7, "now": 2012, "nulls": "drop"}, "nulls must be"),
        ],
    )
    def test_rejects(self, index, attribute, options, message):
        with pytest.raises(hr.ConstraintError, match=message):
            index.newest(attribute, **options)

    @pytest.mark.parametrize(
        "now",
        [
            "",
            "NaT",
            np.datetime64("NaT", "us"),
            float("nan"),
            pd.NaT,
            np.datetime64(2**62, "s"),
            "200000-01-01",
            "300000000-01",
            "2024-01-01T00:00:00+25:00",
            "2024-13-01T00:00:00Z",
        ],
        ids=repr,
    )
    def test_rejects_moments_that_are_none(self, index, now):
        with pytest.raises(hr.ConstraintError, match="now must be a date or a datetime"):
            index.newest("released", days=7, now=now)

    @pytest.mark.parametrize("now", [float("nan"), float("inf"), np.float32("nan"), 10**400])
    def test_rejects_numbers_that_are_not_finite(self, index, now):
        with pytest.raises(hr.ConstraintError, match="now must be a number"):
            index.newest("year", days=7, now=now, nulls="out")

    def test_the_first_and_last_datetime_of_python(self, index):
        for now in (datetime.max.replace(tzinfo=timezone(timedelta(hours=-5))), datetime.min.replace(tzinfo=UTC)):
            assert index.newest("stamp", days=7, now=now).num_items == 0
        assert (
            index.newest("stamp", days=7, now=datetime.min.replace(tzinfo=timezone(timedelta(hours=5)))).num_items == 0
        )

    def test_numpy_numbers_do_not_overflow(self):
        index = hr.build_index(hr.Catalog([[0], [1], [2]], attributes={"y": pa.array([1, 3, 9], pa.uint16())}))
        pairs: list[Any] = [(np.uint16(3), 7), (3, np.uint16(7)), (np.int8(3), np.int8(100))]
        for now, days in pairs:
            assert ids_of_rows(index.newest("y", days=days, now=now)) == [0, 1]

    def test_narrow_floats_are_compared_exactly(self):
        index = hr.build_index(hr.Catalog([[0], [1]], attributes={"y": pa.array([2048, 2050], pa.float16())}))
        assert ids_of_rows(index.newest("y", days=0, now=2049)) == []

    @pytest.mark.parametrize(
        ("kind", "values"),
        [
            (pa.timestamp("s"), [86_400, 2**62, -(2**62)]),
            (pa.timestamp("ms", "UTC"), [86_400_000, 2**62, -(2**62)]),
            (pa.timestamp("us"), [86_400 * 10**6, 2**62, -(2**62)]),
            (pa.timestamp("ns"), [86_400 * 10**9, 2**62, -(2**62)]),
            (pa.date32(), [1, 213_503_983, -213_503_983]),
            (pa.date64(), [86_400_000, 2**55, -(2**55)]),
        ],
        ids=str,
    )
    def test_moments_beyond_the_range_of_microseconds(self, kind, values):
        integers = pa.array(values, pa.int32() if kind == pa.date32() else pa.int64())
        index = hr.build_index(hr.Catalog([[0], [1], [2]], attributes={"y": integers.cast(kind)}))
        assert ids_of_rows(index.newest("y", days=7, now=date(1970, 1, 3))) == [0]
        assert ids_of_rows(index.newest("y", days=1, now=date(1970, 1, 2))) == [0]
        assert ids_of_rows(index.newest("y", days=7)) == []

    def test_widest_window_of_dates(self, index):
        assert ids_of(index.newest("released", days=5e7, now=date(2024, 1, 9))) == "abcde"

    def test_windows_of_one_index(self, index):
        for day, expected in ((1, 2), (5, 2), (9, 3)):
            window = index.newest("released", days=4, now=date(2024, 1, day))
            assert (window.num_items, window.num_sids) == (expected, expected)


def ids_of_rows(items: hr.ConstraintSet) -> list[int]:
    return items.index.item_ids.filter(items.mask).to_pylist()
