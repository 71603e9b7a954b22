"""The folders in which PyTorch and Triton keep what they compile."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hedgerow.errors import ArgumentError

INDUCTOR, TRITON = "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"


@dataclass(frozen=True)
class CacheFolder:
    """A folder of compiled code.

    Attributes:
        variable: the environment variable that names it.
        path: the folder.
    """

    variable: str
    path: Path

    def check(self) -> None:
        """Check that files can be written.

        Raises:
            ArgumentError: they cannot.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path):
                pass
        except OSError as error:
            raise ArgumentError(
                f"the folder of compiled code {self.path} cannot be written: {error.strerror}. Set {self.variable} to "
                "one that can be written; in a container with a read-only file system, to a mounted one."
            ) from None

    def filled(self, since: float) -> Filled:
        """What the folder has, and what was written to it since a time of `time.time()`."""
        sizes = dict(_sizes(self.path))
        new = [path for path in sizes if os.stat(path).st_mtime >= since]
        return Filled(self.variable, str(self.path), len(new), len(sizes), sum(sizes.values()))


@dataclass(frozen=True)
class Filled:
    """The files of a cache folder.

    Attributes:
        variable: as for `CacheFolder`.
        path: as for `CacheFolder`.
        new_files: the number of files that were written.
        files: the number of files.
        nbytes: their size in bytes.
    """

    variable: str
    path: str
    new_files: int
    files: int
    nbytes: int

    def to_dict(self) -> dict[str, Any]:
        """The attributes."""
        return asdict(self)


def cache_folders(device: str, *, compiled: bool) -> list[CacheFolder]:
    """The folders that a retriever fills: that of compiled layers, and that of Triton kernels on a GPU.

    Args:
        device: the type of the device, for example "cuda".
        compiled: whether the layers of the model are compiled.
    """
    folders = []
    if compiled:
        from torch._inductor.runtime.cache_dir_utils import default_cache_dir

        folders.append(CacheFolder(INDUCTOR, Path(os.environ.get(INDUCTOR) or default_cache_dir())))
    if device == "cuda":
        # Where torch.compile is used, it sets the variable to a folder in its own.
        folders.append(CacheFolder(TRITON, Path(os.environ.get(TRITON) or Path.home() / ".triton" / "cache")))
    return folders


def _sizes(folder: Path) -> Iterator[tuple[str, int]]:
    """The files under a folder, and their sizes."""
    for path, _, names in os.walk(folder):
        for name in names:
            yield (file := os.path.join(path, name)), os.stat(file).st_size
