"""The threads of the Numba kernel: the number that a step uses, and the settings of PyTorch that it restores."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from numba import get_num_threads, set_num_threads

# A kernel uses all cores, and one of Numba's threading layers ends the process if two kernels run at once.
ONE_AT_A_TIME = threading.Lock()
# With fewer logits a second thread saves at most 0.03 ms; if its core is busy, waiting for it takes 30 ms.
PARALLEL_FROM = 2**16


@contextmanager
def kernel_threads(num_logits: int) -> Iterator[None]:
    """Run one step at a time, and a small step on the caller's thread alone. Restores the threads of PyTorch.

    Numba and PyTorch can share OpenMP. Each call of a parallel kernel then sets Numba's number of threads for both.

    Args:
        num_logits: the number of logits that the step reads.
    """
    with ONE_AT_A_TIME:
        torch = sys.modules.get("torch")
        torch_threads = None if torch is None else torch.get_num_threads()
        numba_threads = get_num_threads()
        if num_logits < PARALLEL_FROM and numba_threads > 1:
            set_num_threads(1)
        try:
            yield
        finally:
            set_num_threads(numba_threads)
            if torch is not None and torch.get_num_threads() != torch_threads:
                torch.set_num_threads(torch_threads)
