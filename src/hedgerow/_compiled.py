"""The compiled functions of src/native, or None where there was no C compiler when the package was built."""

from __future__ import annotations

import os
import sys
from functools import cache
from importlib import import_module
from typing import Any

from hedgerow._cores import usable_cores


def _loaded() -> Any:
    try:
        return import_module("hedgerow._native")
    except ImportError:
        return None


native = _loaded()

# With fewer numbers to read, a second thread saves less than waking it up costs.
PARALLEL_FROM = 2**16


@cache
def _join_openmp() -> bool:
    """Let the compiled functions use the threads of PyTorch, where these are of an OpenMP runtime."""
    return native is not None and native.join_openmp()


def thread_count(size: int) -> int:
    """The number of threads for a call: that of PyTorch, or OMP_NUM_THREADS, or the cores that this process may use.

    Args:
        size: how many numbers the call reads. A small one takes one thread.
    """
    if size < PARALLEL_FROM:
        return 1
    of_torch = getattr(sys.modules.get("torch"), "get_num_threads", None)
    if of_torch is not None:
        _join_openmp()
        return min(of_torch(), usable_cores())
    # Its first number is that of the outermost level.
    given = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return min(int(given), usable_cores()) if given.isdecimal() and int(given) else usable_cores()
