"""The number of threads of compiled functions, and the checks of their arrays."""

import sys

import numpy as np
import pytest

from hedgerow import _compiled
from hedgerow._compiled import PARALLEL_FROM, native, thread_count


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch):
    monkeypatch.setattr(_compiled, "usable_cores", lambda: 8)
    monkeypatch.delitem(sys.modules, "torch", raising=False)


@pytest.mark.parametrize(
    ("given", "count"), [(None, 8), ("3", 3), ("100", 8), ("0", 8), ("x", 8), ("2,1", 2), (" 4 ", 4)]
)
def test_the_environment(given, count, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if given is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    assert thread_count(PARALLEL_FROM) == count
    assert thread_count(PARALLEL_FROM - 1) == 1


def test_the_threads_of_pytorch(monkeypatch):
    class Torch:
        get_num_threads = staticmethod(lambda: 5)

    monkeypatch.setitem(sys.modules, "torch", Torch)
    assert thread_count(PARALLEL_FROM) == 5


@pytest.mark.skipif(native is None, reason="hedgerow was built without a C compiler")
class TestChecks:
    """Arrays that are too short, of another type or not in one piece are refused before they are read."""

    def test_short(self):
        with pytest.raises(ValueError, match="expected an array of 2 entries of 4 bytes"):
            native.over_codes(np.zeros(1, np.uint32), np.zeros(2, np.uint32), np.zeros(1, np.uint32), True)

    def test_another_type(self):
        with pytest.raises(ValueError, match="of 4 bytes; got 32 bytes in entries of 8"):
            native.over_codes(np.zeros(4, np.int64), np.zeros(1, np.uint32), np.zeros(1, np.uint32), True)

    def test_not_in_one_piece(self):
        with pytest.raises((ValueError, BufferError)):
            native.over_codes(np.zeros(8, np.uint32)[::2], np.zeros(1, np.uint32), np.zeros(1, np.uint32), True)

    def test_read_only(self):
        out = np.zeros(1, np.uint32)
        out.setflags(write=False)
        with pytest.raises((ValueError, BufferError)):
            native.over_codes(np.zeros(8, np.uint32), np.zeros(1, np.uint32), out, True)

    def test_arguments(self):
        with pytest.raises(TypeError, match="expected 4 arguments; got 0"):
            native.over_codes()  # pyright: ignore[reportCallIssue]
        with pytest.raises(TypeError):
            native.step(*[None] * 25)
