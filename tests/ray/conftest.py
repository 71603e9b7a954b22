"""One local cluster for all tests of a process, small enough for a laptop."""

from collections.abc import Iterator

import pytest

pytest.importorskip("ray")

# Ray's own: it looks for old settings, and leaves sockets and files to the garbage collector.
IGNORED = (
    "ignore::FutureWarning:ray",
    "ignore::DeprecationWarning:ray",
    "ignore::ResourceWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(__file__.rpartition("/")[0]):
            for warning in IGNORED:
                item.add_marker(pytest.mark.filterwarnings(warning))


@pytest.fixture(scope="session", autouse=True)
def cluster() -> Iterator[None]:
    import ray

    from hedgerow.ray.cluster import start

    start()
    yield
    ray.shutdown()
