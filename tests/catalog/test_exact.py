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
    ("column", "type_"),
    [
        (pa.array([1.5]), pa.int64()),
        (pa.array([True]), pa.int64()),
        (pa.array([timedelta(days=1)]), pa.int64()),
        (pa.array([LATE]), pa.date32()),
        (pa.array([1.25]), pa.decimal128(5, 1)),
    ],
)
def test_exact_cast_refuses_values_that_change(column, type_):
    with pytest.raises(pa.ArrowException):
        exact_cast(column, type_)


def test_exact_cast():
    assert exact_cast(pa.array([1.0, 2.0]), pa.int8()).to_pylist() == [1, 2]
    assert exact_cast(pa.array(["1"]), pa.int8()).to_pylist() == [1]
    assert exact_cast(pa.array([datetime(2020, 1, 1)]), pa.date32()).to_pylist() == [date(2020, 1, 1)]
    assert exact_cast(pa.nulls(0), pa.int8()).to_pylist() == []
