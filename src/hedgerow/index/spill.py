"""Rows spilled to files in parts, and operations on such parts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from hedgerow.errors import CatalogError

if TYPE_CHECKING:
    import pyarrow as pa


class Spill:
    """Tables divided among parts on disk. Use it as a context manager while adding rows.

    Args:
        folder: the folder for the files of the parts.
        parts: the number of parts.
    """

    def __init__(self, folder: Path, parts: int) -> None:
        self.paths = [folder / f"part-{part}" for part in range(parts)]
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

        order = np.argsort(part_of, kind="stable")
        ordered = table.take(order)
        start = np.searchsorted(part_of[order], np.arange(len(self.paths) + 1))
        for part in np.flatnonzero(np.diff(start)).tolist():
            if part not in self.writers:
                self.writers[part] = self.stack.enter_context(pa.ipc.new_file(self.paths[part], table.schema))
            self.writers[part].write_table(ordered.slice(start[part], start[part + 1] - start[part]))

    def parts(self) -> Iterator[pa.Table]:
        """Iterate over the parts that have rows, in order. Each file is removed after its part has been consumed."""
        import pyarrow as pa

        for part in sorted(self.writers):
            with pa.ipc.open_file(self.paths[part]) as file:
                yield file.read_all()
            self.paths[part].unlink()


def sample_evenly(ordered: np.ndarray, parts: int) -> np.ndarray:
    """The parts - 1 values of `ordered` that divide it into `parts` of equal length."""
    return ordered[np.arange(1, parts) * len(ordered) // parts]


def check_distinct(path: Path, column: str, scratch: Path, part_rows: int) -> None:
    """Check that the values of a column of a Parquet file are distinct, with one part of them in memory at a time.

    Args:
        path: the Parquet file.
        column: the column.
        scratch: a folder for temporary files.
        part_rows: the number of rows per part, on average.

    Raises:
        CatalogError: a value appears twice. The message names it.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from hedgerow.catalog.columns import as_column, repeated_rows

    with pq.ParquetFile(path) as file:
        parts = -(-file.metadata.num_rows // part_rows)
        with Spill(scratch, parts) as spill:
            for batch in file.iter_batches(columns=[column]):
                spill.add(pa.table({column: batch.column(0)}), _scattered(batch.column(0), parts))
    for part in spill.parts():
        values = as_column(part.column(0), column)
        if (repeated := repeated_rows(values)) is not None:
            raise CatalogError(f"item id {values[repeated[0]].as_py()!r} appears twice; item ids must be distinct.")


def _scattered(values: pa.Array, parts: int) -> np.ndarray:
    """Assign a part to each value; equal values get the same part."""
    import pyarrow as pa

    if pa.types.is_integer(values.type):
        return (values.to_numpy(zero_copy_only=False) % parts).astype(np.int64)
    return np.fromiter((hash(value) % parts for value in values.to_pylist()), np.int64, len(values))
