"""The Ray cluster: connect to it, or start one on this machine; and run tasks on it."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from hedgerow._cores import usable_cores
from hedgerow.errors import BackendError, HedgerowError

# Only plans and numbers of rows travel through the object store of a build.
OBJECT_STORE_BYTES = 200 * 2**20
CANCEL_SECONDS = 10.0


def start() -> None:
    """Connect to the cluster that RAY_ADDRESS names; without it, start Ray on this machine. Does nothing if connected.

    A cluster on this machine has all cores, an object store of 200 MiB, and no dashboard. `build` and ``hedgerow
    retrieve --ray`` call this function. For other settings, call `ray.init` before.

    Raises:
        BackendError: RAY_ADDRESS names a cluster that does not answer.

    Examples:
        ```python
        import hedgerow.ray
        import ray

        hedgerow.ray.start()
        assert ray.is_initialized()
        ```
    """
    if ray.is_initialized():
        return
    if address := os.environ.get("RAY_ADDRESS"):
        try:
            ray.init(log_to_driver=False)
        except (ConnectionError, ValueError) as error:
            raise BackendError(f"no Ray cluster answers at RAY_ADDRESS={address}: {error}") from error
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(
        address="local",
        num_cpus=usable_cores(),
        include_dashboard=False,
        object_store_memory=OBJECT_STORE_BYTES,
        log_to_driver=False,
        logging_level=logging.ERROR,
        _node_ip_address="127.0.0.1",
    )


def num_cpus() -> int:
    """The number of CPUs of the cluster."""
    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def run_tasks(
    function: Callable[..., Any], tasks: Sequence[tuple[Any, ...]], *, workers: int, done: Callable[[int], None]
) -> list[Any]:
    """Call a function in processes of the cluster, and return its results in the order of the tasks.

    Args:
        function: a function of a module.
        tasks: the arguments of each call.
        workers: the maximum number of calls at a time.
        done: called with the number of each task that is done.

    Raises:
        RayError: the first error of a call; see `own_errors`. The other calls are cancelled.
    """
    remote = ray.remote(num_cpus=1)(function)
    waiting, running, results = list(enumerate(tasks))[::-1], {}, {}
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                number, arguments = waiting.pop()
                running[remote.remote(*arguments)] = number
            (ready,), _ = ray.wait(list(running))
            number = running.pop(ready)
            results[number] = ray.get(ready)
            done(number)
    finally:
        _cancel(list(running))
    return [results[number] for number in range(len(tasks))]


@contextmanager
def own_errors() -> Iterator[None]:
    """Raise the errors of processes as they were raised there.

    Raises:
        HedgerowError: the error of a process.
        OSError: that of a process, for example a full disk.
        BackendError: a process ended, or was ended because the machine had no memory left.
    """
    try:
        yield
    except RayTaskError as error:
        if isinstance(error.cause, HedgerowError | OSError):
            raise error.cause from None
        raise
    except RayError as error:
        raise BackendError(
            f"a process of Ray ended: {error} If the machine has no memory left, use fewer workers."
        ) from error


def _cancel(running: list[Any]) -> None:
    """Cancel calls, and wait for them: they may write to files that are removed next."""
    for ref in running:
        ray.cancel(ref)
    if running:
        ray.wait(running, num_returns=len(running), timeout=CANCEL_SECONDS)
