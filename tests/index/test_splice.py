"""Changes of sorted arrays: the compiled functions and the NumPy code give the same results."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow._compiled import native
from hedgerow.index import splice as splicing

WAYS = ["numpy", *(["native"] if native else [])]


@pytest.fixture(params=WAYS)
def way(request):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(splicing, "native", native if request.param == "native" else None)
        yield request.param


def positions(data, stop, *, repeat=False):
    numbers = data.draw(st.lists(st.integers(0, stop), max_size=8, unique=not repeat)) if stop >= 0 else []
    return np.array(sorted(numbers), np.int64)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "int64"])
@given(data=st.data(), length=st.integers(0, 40))
def test_splice(dtype, data, length):
    old = np.arange(100, 100 + length, dtype=dtype)
    inserted, removed = positions(data, length, repeat=True), positions(data, length - 1)
    new = np.arange(len(inserted)).astype(dtype)
    expected = []
    for place in range(length + 1):
        expected += new[inserted == place].tolist()
        expected += [old[place]] if place < length and place not in removed else []
    found = splicing.splice(old, inserted, new, removed)
    assert found.dtype == old.dtype
    assert found.tolist() == expected


@pytest.mark.usefixtures("way")
@given(data=st.data(), counts=st.lists(st.integers(1, 5), max_size=30))
def test_splice_start(data, counts):
    start = np.concatenate(([0], np.cumsum(counts))).astype(np.int32)
    inserted, removed = positions(data, len(counts), repeat=True), positions(data, len(counts) - 1)
    changed = np.setdiff1d(positions(data, len(counts) - 1), removed)
    deltas, new = np.arange(len(changed)) - 1, np.arange(len(inserted)) + 1
    children = np.array(counts, np.int64)
    children[changed] = np.maximum(children[changed] + deltas, 0)
    deltas = children[changed] - np.array(counts, np.int64)[changed]
    expected = []
    for place in range(len(counts) + 1):
        expected += new[inserted == place].tolist()
        expected += [int(children[place])] if place < len(counts) and place not in removed else []
    found, largest = splicing.splice_start(start, inserted, new, removed, changed, deltas)
    assert found.dtype == np.int32
    assert found.tolist() == [0, *np.cumsum(expected).tolist()]
    assert largest == max(expected, default=0)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32"])
@given(data=st.data())
def test_lower_bounds(dtype, data):
    spans = data.draw(st.lists(st.lists(st.integers(0, 200), max_size=6), min_size=1, max_size=6))
    codes = np.array([code for span in spans for code in sorted(span)], dtype)
    ends = np.cumsum([len(span) for span in spans])
    start = ends - [len(span) for span in spans]
    wanted = np.array(data.draw(st.lists(st.integers(0, 201), min_size=len(spans), max_size=len(spans))))
    expected = [
        first + np.searchsorted(sorted(span), code) for first, span, code in zip(start, spans, wanted, strict=True)
    ]
    assert splicing.lower_bounds(codes, start, ends, wanted).tolist() == expected


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("dtype", ["int8", "uint16", "int32", "int64", "uint64"])
@given(data=st.data())
def test_find_integers(dtype, data):
    limits = np.iinfo(dtype)
    numbers = st.integers(int(limits.min), int(limits.max))
    values = np.array(data.draw(st.lists(numbers, max_size=40, unique=True)), dtype)
    others = data.draw(st.lists(numbers, max_size=10, unique=True))
    wanted = np.array(list(dict.fromkeys([*values[::3].tolist(), *others])), dtype)
    rows = {value: row for row, value in enumerate(values.tolist())}
    assert splicing.find_integers(values, wanted).tolist() == [rows.get(value, -1) for value in wanted.tolist()]
