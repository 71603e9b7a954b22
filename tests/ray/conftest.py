"""One local cluster for all tests of a process, small enough for a laptop."""

from collections.abc import Iterator

import pytest

pytest.importorskip("ray")

@pytest.fixture(scope="session", autouse=True)
def cluster() -> Iterator[None]:
    import ray

    from hedgerow.ray.cluster import start

    start()
    yield
    ray.shutdown()
