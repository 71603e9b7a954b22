"""safetensors files, written by the library and read in place, so that a large trie can be mapped."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from hedgerow.errors import IndexFileError

DTYPES = {"U32": "<u4", "I32": "<i4", "U16": "<u2", "U8": "<u1"}


def write_tensors(tensors: dict[str, np.ndarray], path: Path) -> None:
    """Writes the arrays to a safetensors file; the same arrays make the same bytes."""
    from safetensors.numpy import save

    # Not save_file, which goes through temporary files of its own: a crash would leave them in the folder.
    path.write_bytes(save({name: np.ascontiguousarray(array) for name, array in tensors.items()}))


def read_tensors(path: Path, *, mmap: bool) -> dict[str, np.ndarray]:
    """Returns the arrays of a safetensors file, read-only: views of one buffer, or of the mapped file.

    Raises:
        IndexFileError: the header is not that of a safetensors file of the types hedgerow writes.
    """
    data = np.memmap(path, np.uint8, "r") if mmap else np.fromfile(path, np.uint8)
    data.setflags(write=False)
    try:
        begin = 8 + int.from_bytes(data[:8].tobytes(), "little")
        header = json.loads(data[8:begin].tobytes())
        header.pop("__metadata__", None)
        return {name: _view(data[begin:], entry) for name, entry in header.items()}
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        raise IndexFileError(f"{path} is not a safetensors file that hedgerow wrote, or it is damaged.") from None


def _view(data: np.ndarray, entry: dict[str, Any]) -> np.ndarray:
    first, last = entry["data_offsets"]
    dtype = np.dtype(DTYPES[entry["dtype"]])
    if not 0 <= first <= last <= len(data) or last - first != math.prod(entry["shape"]) * dtype.itemsize:
        raise ValueError("offsets")
    # A plain ndarray: np.memmap runs Python code at every slice.
    return np.asarray(data[first:last]).view(dtype).reshape(entry["shape"]).view(np.ndarray)
