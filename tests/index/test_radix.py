"""The sort of 64-bit keys, with and without the C module."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow import _compiled
from hedgerow._compiled import native
from hedgerow.index import radix
from hedgerow.index.radix import order_of_integers, sorted_keys


@pytest.fixture(params=["numpy", "native"])
def sort(request, monkeypatch):
    if request.param == "numpy":
        monkeypatch.setattr(radix, "native", None)
    elif native is None:
        pytest.skip("hedgerow was built without a C compiler")
    monkeypatch.setattr(_compiled, "PARALLEL_FROM", 100)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setattr(_compiled, "usable_cores", lambda: 3)


@pytest.mark.parametrize("bits", [1, 8, 11, 12, 23, 40, 64])
@pytest.mark.parametrize("length", [0, 1, 2, 99, 1001])
@pytest.mark.usefixtures("sort")
def test_whole_keys(bits, length):
    keys = np.random.default_rng(bits).integers(0, 2**bits - 1, length, dtype=np.uint64, endpoint=True)
    assert sorted_keys(keys.copy(), stop_bit=bits).tolist() == sorted(keys.tolist())


@pytest.mark.parametrize("share", [0.0, 0.01, 1.0])
@pytest.mark.usefixtures("sort")
def test_keys_above_ascending_bits(share):
    rng, rows = np.random.default_rng(0), np.arange(5000, dtype=np.uint64)
    high = rng.integers(0, 2**40, 5000, dtype=np.uint64) * (rng.random(5000) < share).astype(np.uint64)
    keys = high << np.uint64(13) | rows
    assert sorted_keys(keys.copy(), 13, 53).tolist() == sorted(keys.tolist())
    # Nothing to sort by.
    assert sorted_keys(rows.copy(), 13, 13).tolist() == rows.tolist()


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.int64, np.uint64])
@pytest.mark.usefixtures("sort")
def test_the_order_of_integers_of_any_type(dtype):
    rng = np.random.default_rng(1)
    limits = np.iinfo(dtype)
    for low, high in ((limits.min, limits.max), (max(limits.min, -5), 5), (limits.max - 3, limits.max)):
        values = rng.integers(low, high, 3000, dtype=dtype, endpoint=True)
        order = order_of_integers(values)
        assert order.dtype == np.int32
        assert order.tolist() == np.argsort(values, kind="stable").tolist()


@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=50))
def test_the_order_of_far_values(values):
    array = np.asarray(values, np.int64)
    assert order_of_integers(array).tolist() == np.argsort(array, kind="stable").tolist()


@pytest.mark.skipif(native is None, reason="hedgerow was built without a C compiler")
def test_rejects_bits_outside_of_a_key():
    for low, stop in ((-1, 5), (0, 65)):
        with pytest.raises(ValueError, match="expected bits of 0 to 64; got "):
            native.sort_keys(np.zeros(3, np.uint64), np.zeros(3, np.uint64), low, stop, 1)
