"""The number of threads of compiled functions, and the checks of their arrays."""

import os
import sys

import numpy as np
import pytest

from hedgerow import _compiled
from hedgerow._compiled import PARALLEL_FROM, available_cores, native, thread_count


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    available_cores.cache_clear()
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8), raising=False)
    yield
    available_cores.cache_clear()


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 8),
        ({"cpu.max": "max 100000"}, 8),
        ({"cpu.max": "200000 100000"}, 2),
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu.max": "9900000 100000"}, 8),
        ({"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
        ({"cpu.max": "what"}, 8),
    ],
)
def test_the_quota_of_a_container(files, cores, tmp_path, monkeypatch):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    monkeypatch.setattr(_compiled, "CGROUPS", tmp_path)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert thread_count(PARALLEL_FROM) == cores
    assert thread_count(PARALLEL_FROM - 1) == 1


@pytest.mark.parametrize(("given", "count"), [("3", 3), ("100", 8), ("0", 8), ("x", 8), ("2,1", 8)])
def test_the_environment(given, count, tmp_path, monkeypatch):
    monkeypatch.setattr(_compiled, "CGROUPS", tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", given)
    assert thread_count(PARALLEL_FROM) == count


def test_the_threads_of_pytorch(tmp_path, monkeypatch):
    class Torch:
        get_num_threads = staticmethod(lambda: 5)

    monkeypatch.setattr(_compiled, "CGROUPS", tmp_path)
    monkeypatch.setitem(sys.modules, "torch", Torch)
    assert thread_count(PARALLEL_FROM) == 5


@pytest.mark.skipif(native is None, reason="hedgerow was built without a C compiler")
class TestChecks:
    """Arrays that are too short, of another type or not in one piece are refused before they are read."""

    def test_short(self):
        with pytest.raises(ValueError, match="expected an array of 2 entries of 4 bytes"):
            native.any_of_spans(np.zeros(1, np.uint32), np.zeros(40, np.int32), np.zeros(1, np.uint32), 1)

    def test_another_type(self):
        with pytest.raises(ValueError, match="of 4 bytes; got 32 bytes in entries of 8"):
            native.over_codes(np.zeros(4, np.int64), np.zeros(1, np.uint32), np.zeros(1, np.uint32))

    def test_not_in_one_piece(self):
        with pytest.raises((ValueError, BufferError)):
            native.over_codes(np.zeros(8, np.uint32)[::2], np.zeros(1, np.uint32), np.zeros(1, np.uint32))

    def test_read_only(self):
        out = np.zeros(1, np.uint32)
        out.setflags(write=False)
        with pytest.raises((ValueError, BufferError)):
            native.over_codes(np.zeros(8, np.uint32), np.zeros(1, np.uint32), out)

    def test_arguments(self):
        with pytest.raises(TypeError, match="expected 3 arguments; got 0"):
            native.over_codes()  # pyright: ignore[reportCallIssue]
        with pytest.raises(TypeError):
            native.step(*[None] * 25)
