"""The threads of Numba's kernels: how many a step takes, and what it leaves to others."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from numba import get_num_threads, set_num_threads

# A kernel has all cores, and one of Numba's threading layers ends the process if two run at once.
ONE_AT_A_TIME = threading.Lock()
# With fewer logits than this a second thread gains 0.03 ms at most; where its core is busy, waiting for it takes 30 ms.
PARALLEL_FROM = 2**16


@contextmanager
def at_work(logits_to_read: int) -> Iterator[None]:
    """Lets one step run at a time, a small one on the caller's thread alone; PyTorch keeps the threads that it had.

    Numba and PyTorch share OpenMP, and each call of a parallel kernel tells it Numba's number for both.
    """
    with ONE_AT_A_TIME:
        torch = sys.modules.get("torch")
        of_torch = None if torch is None else torch.get_num_threads()
        before = get_num_threads()
        if logits_to_read < PARALLEL_FROM and before > 1:
            set_num_threads(1)
        try:
            yield
        finally:
            set_num_threads(before)
            if torch is not None and torch.get_num_threads() != of_torch:
                torch.set_num_threads(of_torch)
