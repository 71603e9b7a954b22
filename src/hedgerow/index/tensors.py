"""safetensors files, written and read in place, so that a trie need not fit in memory."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from hedgerow.errors import IndexFileError

# In the order in which the safetensors library lays arrays out: the widest first, so that each is aligned.
DTYPES = {"U32": "<u4", "I32": "<i4", "U16": "<u2", "U8": "<u1"}


def write_tensors(tensors: dict[str, np.ndarray], path: Path) -> None:
    """Writes the arrays to a safetensors file, the bytes that the library would write.

    Written here because the library wants all bytes in memory at once; arrays may be mapped, and larger than that.
    """
    kinds = [(kind, np.dtype(dtype)) for kind, dtype in DTYPES.items()]
    laid_out = [
        (kind, name, tensors[name]) for kind, dtype in kinds for name in sorted(tensors) if tensors[name].dtype == dtype
    ]
    header, end = {}, 0
    for kind, name, array in laid_out:
        begin, end = end, end + array.nbytes
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for kind, _, array in laid_out:
            file.write(np.ascontiguousarray(array, DTYPES[kind]).data)


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
