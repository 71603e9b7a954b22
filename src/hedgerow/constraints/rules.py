"""Constraint sets of the newest items: a window of time or of numbers."""

from __future__ import annotations

import logging
import re
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from hedgerow.constraints.sets import ConstraintSet
from hedgerow.errors import ConstraintError
from hedgerow.index.bits import packed
from hedgerow.index.lookup import attribute_column
from hedgerow.index.trie import Trie

if TYPE_CHECKING:
    import pyarrow as pa

LOGGER = logging.getLogger(__name__)
Nulls = Literal["in", "out"] | None
MICROSECONDS_PER_DAY = 86_400 * 10**6
# Microseconds of the units of Arrow's timestamps. Nanoseconds are divided instead.
UNITS = {"s": 10**6, "ms": 10**3}
# `now` is less far from 1970 than this, so that `now` minus the duration does not overflow.
MAX_MOMENT = 2**62 - 2 * MICROSECONDS_PER_DAY


def newest(index: Trie, attribute: str, days: float, now: Any, nulls: Nulls, name: str | None) -> ConstraintSet:
    """Make the set of the items of the latest days: see `TrieIndex.newest`."""
    import pyarrow as pa

    column = attribute_column(index, attribute, "newest")
    if not _is_number(days) or not days >= 0:
        raise ConstraintError(f"days must be a number, 0 or more; got {days!r}.")
    days = _as_python(days)
    if nulls not in ("in", "out", None):
        raise ConstraintError(f"nulls must be 'in', 'out' or None; got {nulls!r}.")
    values, is_null = _comparable(column, attribute)
    if is_null.any() and nulls is None:
        raise ConstraintError(
            f"newest: {int(is_null.sum()):,} of {len(values):,} items have no {attribute!r}. Choose whether they are "
            "in the set: nulls='in' or nulls='out'."
        )
    if now is None and pa.types.is_date(column.type):
        # A day is in the window whatever the time of day is.
        now = datetime.now(UTC).date()
    last: Any = _moment(now, attribute) if values.dtype.kind == "M" else _number(now, attribute, column.type)
    since = last - (_duration(days) if values.dtype.kind == "M" else days)
    in_window = (values >= since) & (values <= last)
    mask = np.where(is_null, nulls == "in", in_window)
    window = f"{attribute} {_as_text(since)} to {_as_text(last)}"
    present = values[~is_null]
    if len(values) and not len(present):
        window += f" (none of the {len(values):,} items has a value)"
        LOGGER.warning("newest: none of the %d items has a value of %r; nulls=%r", len(values), attribute, nulls)
    elif not mask.any() and len(present):
        window += f" (no item; values range from {_as_text(present.min())} to {_as_text(present.max())})"
    return ConstraintSet(index, packed(mask), name or window)


def _is_number(value: Any) -> bool:
    """Whether a value is a number that a float can hold, approximately."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        return False
    return not isinstance(value, int) or abs(value) < 2**1023


def _as_python(number: Any) -> Any:
    """The int or float of a number. NumPy scalars overflow: 3 - 7 of a uint16 is 65532."""
    return number.item() if isinstance(number, np.generic) else number


def _duration(days: float) -> np.timedelta64:
    microseconds = float(days) * MICROSECONDS_PER_DAY
    # Far enough from the smallest date that `now` minus the duration does not overflow.
    if not microseconds < 2**62:
        raise ConstraintError(
            f"days is too large for dates; got {days!r}. The maximum is about {2**62 // MICROSECONDS_PER_DAY:,}."
        )
    return np.timedelta64(round(microseconds), "us")


def _as_text(value: Any) -> str:
    """A number or a moment as text, without a zero fraction and without midnight."""
    return str(value).removesuffix(".000000").removesuffix("T00:00:00")


def _comparable(column: pa.ChunkedArray, attribute: str) -> tuple[np.ndarray, np.ndarray]:
    """Values [N] as numbers or moments (UTC, microseconds), and bool [N], which of them are null or NaN."""
    import pyarrow as pa

    kind = column.type
    is_null = np.asarray(column.is_null(nan_is_null=True))
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        return _microseconds(column), is_null
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        values = column.fill_null(0).to_numpy()
        return values.astype(np.float64) if values.dtype.kind == "f" else values, is_null
    raise ConstraintError(
        f"newest: attribute {attribute!r} holds {kind}, but must hold dates, timestamps or numbers."
        f"{_hint_on_text(column)}"
    )


def _hint_on_text(column: pa.ChunkedArray) -> str:
    """How text that holds dates becomes dates."""
    from hedgerow.catalog.dates import sampled_dates, way_out

    if (date := sampled_dates(column)) is None:
        return " For other types use index.where(...)."
    return f" It has dates as text, for example {date!r}. {way_out(date)}, or convert the column to dates."


def _microseconds(column: pa.ChunkedArray) -> np.ndarray:
    """Moments [N] of dates or timestamps. Moments beyond the range of microseconds become its first or last moment."""
    import pyarrow as pa

    days = pa.types.is_date32(column.type)
    unit = MICROSECONDS_PER_DAY if days else UNITS.get(getattr(column.type, "unit", "ms"), 1)
    numbers = (column.cast(pa.int32()) if days else column).cast(pa.int64()).fill_null(0).to_numpy()
    if getattr(column.type, "unit", None) == "ns":
        numbers = numbers // 1000
    limit = (2**63 - 1) // unit
    return (np.clip(numbers, -limit, limit) * unit).astype("datetime64[us]")


def _moment(now: Any, attribute: str) -> np.datetime64:
    """Convert a date (its midnight) or a datetime to a moment in UTC."""
    given = now
    if now is None:
        now = datetime.now(UTC)
    if isinstance(now, str):
        now = _with_offset(now)
    offset = (now.utcoffset() if isinstance(now, datetime) and now == now else None) or timedelta(0)
    if offset or getattr(now, "tzinfo", None) is not None:
        now = now.replace(tzinfo=None)
    try:
        if not isinstance(now, date | np.datetime64 | str):
            raise ValueError
        # The seconds show whether the microseconds overflowed.
        moment, seconds = (np.datetime64(now, unit) for unit in ("us", "s"))  # pyright: ignore
        if np.isnat(moment) or moment.astype("datetime64[s]") != seconds or abs(moment.astype(int)) > MAX_MOMENT:
            raise ValueError
    except (ValueError, TypeError, OverflowError):
        raise ConstraintError(
            f"newest: {attribute!r} holds dates or timestamps, so now must be a date or a datetime; got {given!r}."
        ) from None
    # Subtracted here, because a datetime in UTC can be beyond datetime.max.
    return moment - np.timedelta64(offset)


def _with_offset(text: str) -> datetime | str:
    """The datetime of a text that ends in Z or an offset, which NumPy ignores; the text if it has none."""
    if not re.search(r"[T ].*(Z|[+-]\d\d(:?\d\d)*)$", text):
        return text
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        # Refused like other texts that are no moment.
        return ""


def _number(now: Any, attribute: str, kind: pa.DataType) -> Any:
    if not _is_number(now) or not abs(now) < float("inf"):
        raise ConstraintError(
            f"newest: {attribute!r} holds {kind}, so now must be a number, and days counts in the same unit; got "
            f"{now!r}."
        )
    return _as_python(now)
