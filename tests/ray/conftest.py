"""One local cluster for all tests of a process, small enough for a laptop."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray")
with warnings.catch_warnings():
    # Ray Serve uses old names of Pydantic.
    warnings.simplefilter("ignore")
    pytest.importorskip("ray.serve")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Ignore the warnings of Ray about its own settings."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"))


@pytest.fixture(scope="session", autouse=True)
def cluster() -> Iterator[None]:
    import ray

    from hedgerow.ray.cluster import start

    start()
    yield
    ray.shutdown()


@dataclass(frozen=True)
class Shop:
    """A model and an index in folders, and a retriever with the same."""

    model: Path
    index: Path
    retriever: Any


@pytest.fixture(scope="session")
def shop(tmp_path_factory) -> Shop:
    from serve.support import index, retriever_of, tokenizer
    from tiny import new_model

    folder = tmp_path_factory.mktemp("shop")
    new_model("llama").save_pretrained(folder / "model")
    tokenizer().save_pretrained(folder / "model")
    index().save(folder / "things.hedgerow")
    return Shop(folder / "model", folder / "things.hedgerow", retriever_of(index()))
