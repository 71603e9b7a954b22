"""removed.npy: the rows of an index whose items a version does not contain, as a NumPy file (version 1.0)."""

from __future__ import annotations

import ast
import io

import numpy as np

MAGIC = b"\x93NUMPY\x01\x00"


def removed_content(rows: np.ndarray) -> bytes:
    """The content of the file for removed rows, int64, ascending."""
    data = io.BytesIO()
    np.save(data, rows.astype("<i8"))
    return data.getvalue()


def removed_rows(content: bytes) -> np.ndarray | None:
    """The rows in the content of a file: int64, ascending; None if it contains something else.

    `numpy.load` would allocate as much memory as the header asks for, and raise errors of any kind.
    """
    begin = len(MAGIC) + 2
    stop = begin + int.from_bytes(content[len(MAGIC) : begin], "little")
    try:
        header = ast.literal_eval(content[begin:stop].decode("latin-1").strip())
        rows = np.frombuffer(content, "<i8", offset=stop)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None
    expected = ({"descr": "<i8", "fortran_order": order, "shape": rows.shape} for order in (False, True))
    if not content.startswith(MAGIC) or header not in expected:
        return None
    ascending = len(rows) == 0 or (rows[0] >= 0 and bool((rows[:-1] < rows[1:]).all()))
    return rows.astype(np.int64) if ascending else None
