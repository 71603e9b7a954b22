"""HashedFile: the checksum of what is written, and Lazy values."""

import hashlib
import pickle

import numpy as np
import pytest

from hedgerow.index.hashed import MIN_THREADED, HashedFile
from hedgerow.index.lazy import Lazy, made


def test_the_checksum_is_that_of_the_file(tmp_path):
    parts = [b"", b"abc", np.arange(MIN_THREADED, dtype=np.uint32), memoryview(b"x" * MIN_THREADED), b"end"]
    with HashedFile(tmp_path / "x") as file:
        for part in parts:
            assert file.write(part) == memoryview(part).nbytes
    content = b"".join(bytes(part) for part in parts)
    assert (tmp_path / "x").read_bytes() == content
    assert file.sha256 == hashlib.sha256(content).hexdigest()
    assert file.closed


def test_a_disk_that_is_full(tmp_path, monkeypatch):
    with HashedFile(tmp_path / "x") as file:

        class Full:
            closed = False

            def write(self, data):  # noqa: ARG002
                raise OSError(28, "No space left on device")

            def close(self):
                pass

        file._file.close()
        monkeypatch.setattr(file, "_file", Full())
        with pytest.raises(OSError, match="No space left"):
            file.write(b"x" * MIN_THREADED)


def test_a_lazy_value_is_made_once_and_pickled_as_its_value():
    calls = []
    lazy = Lazy(lambda: calls.append(1) or [7])
    again = pickle.loads(pickle.dumps(lazy))
    assert lazy() is lazy()
    assert again() == made([7])() == [7]
    assert calls == [1]
