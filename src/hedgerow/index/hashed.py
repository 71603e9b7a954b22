"""HashedFile: a file whose checksum is computed from the bytes to write, while they are written."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

# Waking a thread takes longer than hashing fewer bytes.
MIN_THREADED = 2**17


class HashedFile:
    """A new binary file. Use it as a context manager.

    The checksum is that of the bytes that were to be written, so that it differs from that of the file if the disk
    changes them.
    """

    def __init__(self, path: Path) -> None:
        self._file = open(path, "wb")  # noqa: SIM115
        self._hash = hashlib.sha256()
        self._thread = ThreadPoolExecutor(1, "hedgerow-hash")

    def write(self, data: Any) -> int:
        """Write bytes, and return their number."""
        view = memoryview(data)
        if view.nbytes < MIN_THREADED:
            self._hash.update(view)
            return self._file.write(view)
        # Both release the GIL.
        hashed = self._thread.submit(self._hash.update, view)
        try:
            return self._file.write(view)
        finally:
            hashed.result()

    def flush(self) -> None:
        """Pass the bytes written so far to the operating system."""
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._thread.shutdown()
        self._file.close()

    @property
    def closed(self) -> bool:
        """Whether the file is closed."""
        return self._file.closed

    @property
    def sha256(self) -> str:
        """The SHA-256 of the bytes written so far, as 64 hexadecimal digits."""
        return self._hash.hexdigest()

    def __enter__(self) -> HashedFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
