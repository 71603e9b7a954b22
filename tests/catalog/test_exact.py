"""Conversion to an Arrow type without a change of value."""

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from hedgerow.catalog.exact import exact_array, exact_cast

REFUSED = (pa.ArrowException, TypeError, ValueError, OverflowError)
LATE = datetime(2020, 1, 1, 23)


@pytest.mark.parametrize(
    ("values", "type_", "expected"),
    [
        ([1, 2], pa.int64(), [1, 2]),
        ([1, 2.0, np.float32(3), Decimal(4), np.int8(5), None], pa.int64(), [1, 2, 3, 4, 5, None]),
        ([2**63, 1], pa.uint64(), [2**63, 1]),
        ([], pa.int64(), []),
        ([date(2020, 1, 1), datetime(2020, 1, 2)], pa.date32(), [date(2020, 1, 1), date(2020, 1, 2)]),
        ([LATE], pa.timestamp("s"), [LATE]),
        ([datetime(2020, 1, 1, tzinfo=UTC)], pa.timestamp("s", "UTC"), [pd.Timestamp("2020-01-01", tz="UTC")]),
        ([pd.Timestamp(5)], pa.timestamp("ns"), [pd.Timestamp(5)]),
        (["a"], pa.string(), ["a"]),
    ],
)
def test_exact_array(values, type_, expected):
    converted = exact_array(values, type_)
    assert (converted.type, converted.to_pylist()) == (type_, expected)


@pytest.mark.parametrize(
    ("values", "type_"),
    [
        *(([value], pa.int64()) for value in (1.5, Decimal("1.5"), Fraction(3, 2), np.float32(1.5), np.True_, "1")),
        ([1, 1.5], pa.int64()),
        ([1, None, 1.5], pa.int16()),
        ([70_000], pa.int16()),
        ([LATE], pa.date32()),
        ([LATE], pa.date64()),
        ([LATE.replace(tzinfo=UTC)], pa.date32()),
        ([date(2020, 1, 1), LATE], pa.date32()),
        ([LATE.replace(microsecond=5)], pa.timestamp("s")),
        ([pd.Timestamp(1)], pa.timestamp("us")),
        ([time(1, 1, 1, 5)], pa.time32("s")),
        ([timedelta(seconds=1.5)], pa.duration("s")),
        ([1.5], pa.timestamp("s")),
    ],
)
def test_exact_array_refuses_values_that_change(values, type_):
    with pytest.raises(REFUSED):
        exact_array(values, type_)


@pytest.mark.parametrize(
    ("values", "type_", "message"),
    [
        (pa.array([1, 1.5]), pa.int64(), "row 1: .*1.5"),
        (pa.array([5, None, 300]), pa.int8(), "row 2: .*300"),
        (pa.array(["1", "x"]), pa.int8(), "row 1: .*x"),
        (pa.array(["1", "01"]), pa.int8(), "row 1: 01 would lose data and become 1"),
        (pa.array([True]), pa.int64(), "bool holds other values than int64"),
        (pa.array([1, 0]), pa.bool_(), "int64 holds other values than bool"),
        (pa.array([float("nan")]), pa.bool_(), "double holds other values than bool"),
        (pa.array([1_700_000_000]), pa.timestamp("us"), r"int64 holds other values than timestamp\[us\]"),
        (pa.array([1], pa.int32()), pa.date32(), "int32 holds other values than date32"),
        (pa.array([LATE]), pa.int64(), r"timestamp\[us\] holds other values than int64"),
        (pa.array([timedelta(days=1)]), pa.int64(), "duration.* holds other values than int64"),
        (pa.array([time(1)]), pa.timestamp("us"), "time64.* holds other values than timestamp"),
        (pa.array([datetime(2020, 1, 1), LATE]), pa.date32(), "row 1: 2020-01-01 23:00:00 would lose data"),
        (pa.array([LATE]), pa.date64(), "row 0: 2020-01-01 23:00:00 would lose data"),
        (pa.array([1.0, 1.25]), pa.decimal128(5, 1), "row 1: 1.25 would lose data and become 1.2"),
        (pa.array([1.5, 1e300]), pa.float32(), r"row 1: 1e\+300 would lose data and become inf"),
        (pa.array([0.5, None, 0.1]), pa.float32(), "row 2: 0.1 would lose data"),
        (pa.array([2.0**53, float("nan"), 0.1]), pa.float32(), "row 2: 0.1 would lose data"),
        (pa.array([2**53, 2**53 + 1]), pa.float64(), "row 1: .*9007199254740993"),
        (pa.array([[0.5], [float("nan"), 0.1]]), pa.list_(pa.float32()), "row 1: .* would lose data"),
        (pa.array([[1]]), pa.list_(pa.timestamp("s")), "list.* holds other values than list"),
        (pa.array([{"a": 1, "b": 2}]), pa.struct([("a", pa.int64())]), "row 0: .* would lose data"),
        (pa.array([{"a": True}]), pa.struct([("a", pa.int64())]), "struct.* holds other values than struct"),
        (pa.array([b"\xff"]), pa.string(), "row 0: .*UTF"),
        (pa.array([1_000_000_001], pa.timestamp("ns")), pa.timestamp("s"), "row 0: "),
    ],
    ids=lambda each: None if isinstance(each, str) else str(getattr(each, "type", each)),
)
def test_exact_cast_refuses_values_that_change(values, type_, message):
    with pytest.raises(pa.ArrowException, match=f"^{message}"):
        exact_cast(values, type_)


@pytest.mark.parametrize(
    ("values", "type_", "expected"),
    [
        (pa.array([0.5, float("inf"), None]), pa.float32(), [0.5, float("inf"), None]),
        (pa.array([1, 2]), pa.float32(), [1.0, 2.0]),
        (pa.array([[0.5, float("nan")]]), pa.list_(pa.float32()), None),
        (pa.array([float("nan")]), pa.float32(), None),
        (pa.array([1, 15]), pa.string(), ["1", "15"]),
        (pa.array([4], pa.decimal128(3, 1)), pa.int64(), [4]),
        (pa.array([[None], None]), pa.list_(pa.int8()), [[None], None]),
        (pa.nulls(2, pa.int64()), pa.timestamp("s"), [None, None]),
        (pa.array([{"a": 1}]), pa.struct([("b", pa.int8()), ("a", pa.int8())]), [{"b": None, "a": 1}]),
        (pa.array([LATE], pa.timestamp("s")), pa.timestamp("us"), [LATE]),
    ],
    ids=str,
)
def test_exact_cast_of_values_that_stay(values, type_, expected):
    converted = exact_cast(values, type_)
    assert converted.type == type_
    assert expected is None or converted.to_pylist() == expected


def test_exact_cast():
    assert exact_cast(pa.array([1.0, 2.0]), pa.int8()).to_pylist() == [1, 2]
    assert exact_cast(pa.array(["1"]), pa.int8()).to_pylist() == [1]
    assert exact_cast(pa.array([datetime(2020, 1, 1)]), pa.date32()).to_pylist() == [date(2020, 1, 1)]
    assert exact_cast(pa.nulls(0), pa.int8()).to_pylist() == []
