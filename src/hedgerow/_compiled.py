"""The compiled functions of src/native, or None where there was no C compiler when the package was built."""

from __future__ import annotations

import os
import sys
from functools import cache
from pathlib import Path

try:
    from hedgerow import _native as native
except ImportError:
    native = None

# With fewer numbers to read, a second thread saves less than waking it up costs.
PARALLEL_FROM = 2**16
CGROUPS = Path("/sys/fs/cgroup")


def thread_count(size: int) -> int:
    """The number of threads for a call: that of PyTorch, or OMP_NUM_THREADS, or the cores that this process may use.

    Args:
        size: how many numbers the call reads. A small one takes one thread.
    """
    if size < PARALLEL_FROM:
        return 1
    of_torch = getattr(sys.modules.get("torch"), "get_num_threads", None)
    if of_torch is not None:
        return min(of_torch(), available_cores())
    given = os.environ.get("OMP_NUM_THREADS", "")
    return min(int(given), available_cores()) if given.isdecimal() and int(given) else available_cores()


@cache
def available_cores() -> int:
    """The cores that this process may use, and that the quota of its container allows."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota()
    return cores if quota is None else max(1, min(cores, round(quota)))


def _quota() -> float | None:
    """The quota of the control group (version 2 or 1), in cores; None without one."""
    try:
        limit, period = (CGROUPS / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            limit, period = ((CGROUPS / f"cpu/cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        except OSError:
            return None
    return None if limit == "max" or int(limit) <= 0 else int(limit) / int(period)
