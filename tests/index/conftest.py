from pathlib import Path

import pytest
from saved import CATALOG

import hedgerow as hr


@pytest.fixture
def index() -> hr.TrieIndex:
    return hr.build_index(CATALOG)


@pytest.fixture
def folder(index: hr.TrieIndex, tmp_path: Path) -> Path:
    index.save(tmp_path / "index")
    return tmp_path / "index"
