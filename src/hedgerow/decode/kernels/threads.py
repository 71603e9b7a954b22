"""The threads of the Numba kernel: the number that a step uses, and the settings of PyTorch that it restores."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from numba import get_num_threads, set_num_threads

from hedgerow._cores import usable_cores

# A kernel uses all cores, and one of Numba's threading layers ends the process if two kernels run at once.
ONE_AT_A_TIME = threading.Lock()
# About 1.3 ms of one thread. Threads wait for each other twice per step. If their cores are busy, that takes several
# milliseconds: 2 threads on 2 busy cores are up to 40 times slower than one thread at 2^18 logits, and equal at 2^25.
LOGITS_PER_THREAD = 2**21


def step_threads(num_logits: int) -> int:
    """The number of threads of a step: the smallest of these limits.

    - one thread per 2^21 logits
    - the threads of Numba: `numba.set_num_threads` or `NUMBA_NUM_THREADS`
    - the threads of PyTorch, if it is loaded: `torch.set_num_threads`; otherwise `OMP_NUM_THREADS`
    - the cores that the process may use, by its affinity and the CPU quota of its container

    Args:
        num_logits: the number of logits that the step reads.
    """
    wanted = num_logits // LOGITS_PER_THREAD
    if wanted <= 1:
        return 1
    torch = sys.modules.get("torch")
    others = _openmp_threads() if torch is None else torch.get_num_threads()
    return max(1, min(wanted, get_num_threads(), others, usable_cores()))


def _openmp_threads() -> int:
    """`OMP_NUM_THREADS`, whose first number counts; without it, no limit."""
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(first) if first.isdecimal() and int(first) > 0 else sys.maxsize


@contextmanager
def kernel_threads(num_logits: int) -> Iterator[None]:
    """Run one step at a time, on `step_threads(num_logits)` threads. Restores the threads of PyTorch.

    Numba and PyTorch can share OpenMP. Each call of a parallel kernel then sets Numba's number of threads for both.

    Args:
        num_logits: the number of logits that the step reads.
    """
    with ONE_AT_A_TIME:
        torch = sys.modules.get("torch")
        torch_threads = None if torch is None else torch.get_num_threads()
        numba_threads = get_num_threads()
        set_num_threads(step_threads(num_logits))
        try:
            yield
        finally:
            set_num_threads(numba_threads)
            if torch is not None and torch.get_num_threads() != torch_threads:
                torch.set_num_threads(torch_threads)
