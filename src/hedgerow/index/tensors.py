"""safetensors files, written and read without a copy, so that a trie may be larger than memory."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from hedgerow.errors import IndexFileError
from hedgerow.index.hashed import HashedFile

# In the order of the safetensors library: the widest dtype first, so that each array is aligned.
DTYPES = {"U32": "<u4", "I32": "<i4", "U16": "<u2", "U8": "<u1"}

Written = Callable[[str, np.ndarray], None]


def write_tensors(tensors: dict[str, np.ndarray], path: Path, written: Written = lambda *_: None) -> str:
    """Write arrays to a safetensors file, with the same bytes as the safetensors library, and return its SHA-256.

    The library needs all bytes in memory at once. Here, the arrays may be memory-mapped and larger than memory.

    Args:
        tensors: the arrays, by name.
        path: the new file.
        written: called with the name of each array, and the array, after it has been written.
    """
    kinds = [(kind, np.dtype(dtype)) for kind, dtype in DTYPES.items()]
    ordered = [
        (kind, name, tensors[name]) for kind, dtype in kinds for name in sorted(tensors) if tensors[name].dtype == dtype
    ]
    header, stop = {}, 0
    for kind, name, array in ordered:
        start, stop = stop, stop + array.nbytes
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [start, stop]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with HashedFile(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for kind, name, array in ordered:
            file.write(np.ascontiguousarray(array, DTYPES[kind]).data)
            written(name, array)
    return file.sha256


def read_tensors(data: np.ndarray, path: Path) -> dict[str, np.ndarray]:
    """The arrays in the content of a safetensors file, as read-only views. Arrays that are not aligned are copied.

    Args:
        data: the content, read or memory-mapped, uint8.
        path: the file, for the message.

    Raises:
        IndexFileError: the header is not that of a safetensors file with hedgerow's dtypes.
    """
    try:
        begin = 8 + int.from_bytes(data[:8].tobytes(), "little")
        header = json.loads(data[8:begin].tobytes())
        header.pop("__metadata__", None)
        return {name: _view(data[begin:], entry) for name, entry in header.items()}
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError):
        raise IndexFileError(f"{path} is not a safetensors file written by hedgerow, or it is damaged.") from None


def _view(data: np.ndarray, entry: dict[str, Any]) -> np.ndarray:
    start, stop = entry["data_offsets"]
    dtype = np.dtype(DTYPES[entry["dtype"]])
    if not 0 <= start <= stop <= len(data) or stop - start != math.prod(entry["shape"]) * dtype.itemsize:
        raise ValueError("offsets")
    array = data[start:stop].view(dtype).reshape(entry["shape"])
    return array if array.flags.aligned else array.copy()
