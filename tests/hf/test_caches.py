"""The folders of compiled code: which are used, what was written to them, and whether they can be written."""

import os
from pathlib import Path

import pytest

import hedgerow as hr

pytest.importorskip("torch")
pytest.importorskip("transformers")

from tiny import TOKENS, index, model_of

from hedgerow.hf import Retriever, compiled
from hedgerow.hf.caches import INDUCTOR, TRITON, CacheFolder, cache_folders


@pytest.fixture
def no_folder(tmp_path) -> Path:
    """A path at which no folder can be made, also by an administrator."""
    (tmp_path / "file").touch()
    return tmp_path / "file" / "cache"


def test_folders_of_devices(monkeypatch, tmp_path):
    monkeypatch.setenv(INDUCTOR, str(tmp_path / "inductor"))
    monkeypatch.delenv(TRITON, raising=False)
    assert cache_folders("cpu", compiled=False) == []
    inductor, triton = cache_folders("cuda", compiled=True)
    assert inductor == CacheFolder(INDUCTOR, tmp_path / "inductor")
    assert triton == CacheFolder(TRITON, Path.home() / ".triton" / "cache")
    monkeypatch.setenv(TRITON, str(tmp_path / "triton"))
    assert cache_folders("cuda", compiled=False) == [CacheFolder(TRITON, tmp_path / "triton")]


def test_what_was_written(tmp_path):
    folder = CacheFolder("NAME", tmp_path / "cache")
    folder.check()
    (folder.path / "inner").mkdir()
    for name, written in (("old", 1_000), ("new", 2_000), ("inner/newer", 3_000)):
        (folder.path / name).write_bytes(b"12345")
        os.utime(folder.path / name, (written, written))
    assert folder.filled(2_000).to_dict() == {
        "variable": "NAME",
        "path": str(folder.path),
        "new_files": 2,
        "files": 3,
        "nbytes": 15,
    }


def test_a_folder_that_cannot_be_written(no_folder):
    with pytest.raises(hr.ArgumentError, match=r"cannot be written: Not a directory\. Set NAME to one that can"):
        CacheFolder("NAME", no_folder).check()


def test_compiled_layers_need_a_folder(no_folder, monkeypatch):
    """PyTorch would say that it cannot compile the model."""
    monkeypatch.setattr(compiled, "BACKEND", "inductor")
    monkeypatch.setenv(INDUCTOR, str(no_folder))
    with pytest.raises(hr.ArgumentError, match=r"cannot be written.* Set TORCHINDUCTOR_CACHE_DIR"):
        Retriever(model_of("llama"), index(), TOKENS, compile=True)
