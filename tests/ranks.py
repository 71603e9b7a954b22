"""Ranks of a divided head in one process: a thread each, with an exchange of arrays between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any


class Ranks:
    """Threads that exchange arrays as the processes of a group do.

    Attributes:
        num_bytes: the size of the arrays that the ranks have given so far.
    """

    def __init__(self, count: int, stack: Callable[[Sequence[Any]], Any]) -> None:
        self.count, self.stack = count, stack
        self.barrier, self.num_bytes = Barrier(count, timeout=60), 0
        self.slots: list[Any] = [None] * count

    def gather(self, rank: int) -> Callable[[Any], Any]:
        def gather(x: Any) -> Any:
            self.slots[rank] = x
            self.barrier.wait()
            arrays = list(self.slots)
            if rank == 0:
                self.num_bytes += sum(array.nbytes for array in arrays)
            # No rank puts its next array before all have read this one.
            self.barrier.wait()
            return self.stack(arrays)

        return gather

    def run(self, function: Callable[[int, Callable[[Any], Any]], Any]) -> list[Any]:
        """The results of function(rank, gather) on all ranks."""

        def of_rank(rank: int) -> Any:
            try:
                return function(rank, self.gather(rank))
            except BaseException:
                self.barrier.abort()
                raise

        with ThreadPoolExecutor(self.count) as pool:
            futures = [pool.submit(of_rank, rank) for rank in range(self.count)]
            errors = [error for future in futures if (error := future.exception())]
        # The others have a broken barrier.
        for error in sorted(errors, key=lambda error: type(error).__name__ == "BrokenBarrierError"):
            raise error
        return [future.result() for future in futures]
