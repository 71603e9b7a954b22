"""Rows spilled to files in parts, and operations on such parts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa


class Spill:
    """Tables divided among parts on disk. Use it as a context manager while adding rows.

    Args:
        folder: the folder for the files of the parts.
        parts: the number of parts.

    Attributes:
        rows: [P] int64, the number of rows of each part.
    """

    def __init__(self, folder: Path, parts: int) -> None:
        self.paths = [folder / f"part-{part}" for part in range(parts)]
        self.rows = np.zeros(parts, np.int64)
        self.stack = ExitStack()
        self.writers: dict[int, Any] = {}

    def __enter__(self) -> Spill:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stack.close()

    def add(self, table: pa.Table, part_of: np.ndarray) -> None:
        """Add the rows of `table`, row i to part `part_of[i]`."""
        import pyarrow as pa

        # NumPy sorts numbers of 16 bits by radix.
        dtype = np.min_scalar_type(len(self.paths))
        part_of = part_of.astype(dtype)
        order = np.argsort(part_of, kind="stable")
        ordered = table.take(order)
        start = np.searchsorted(part_of[order], np.arange(len(self.paths) + 1, dtype=dtype))
        self.rows += np.diff(start)
        for part in np.flatnonzero(np.diff(start)).tolist():
            if part not in self.writers:
                self.writers[part] = self.stack.enter_context(pa.ipc.new_file(self.paths[part], table.schema))
            self.writers[part].write_table(ordered.slice(start[part], start[part + 1] - start[part]))

    def parts(self) -> Iterator[pa.Table]:
        """Iterate over the parts that have rows, in order. Each file is removed after its part has been consumed."""
        for part in sorted(self.writers):
            yield read_part([self.paths[part]])
            self.paths[part].unlink()


def read_part(paths: Sequence[Path]) -> pa.Table:
    """Read the rows of a part from the files of one or more spills."""
    import pyarrow as pa

    tables = []
    for path in paths:
        with pa.ipc.open_file(path) as file:
            tables.append(file.read_all())
    return pa.concat_tables(tables)


def sample_evenly(ordered: np.ndarray, parts: int) -> np.ndarray:
    """The parts - 1 values of `ordered` that divide it into `parts` of equal length."""
    return ordered[np.arange(1, parts) * len(ordered) // parts]
