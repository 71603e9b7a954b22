"""Rows spilled to files, part by part, and what is done to parts of rows."""

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
    """Tables divided among parts on disk; used as a context while rows are added."""

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
        """Adds the rows of `table`, row i to part `part_of[i]`."""
        import pyarrow as pa

        order = np.argsort(part_of, kind="stable")
        ordered = table.take(order)
        ends = np.searchsorted(part_of[order], np.arange(len(self.paths) + 1))
        for part in np.flatnonzero(np.diff(ends)).tolist():
            if part not in self.writers:
                self.writers[part] = self.stack.enter_context(pa.ipc.new_file(self.paths[part], table.schema))
            self.writers[part].write_table(ordered.slice(ends[part], ends[part + 1] - ends[part]))

    def parts(self) -> Iterator[pa.Table]:
        """The parts that have rows, in order; each is removed once the next is asked for."""
        import pyarrow as pa

        for part in sorted(self.writers):
            with pa.ipc.open_file(self.paths[part]) as file:
                yield file.read_all()
            self.paths[part].unlink()


def sample_evenly(ordered: np.ndarray, parts: int) -> np.ndarray:
    """Returns the values of `ordered` that divide it into `parts` of one length: parts - 1 of them."""
    return ordered[np.arange(1, parts) * len(ordered) // parts]


def check_distinct(path: Path, column: str, scratch: Path, part_rows: int) -> None:
    """Makes sure that no two values of a column of a Parquet file are equal, a part of them in memory at a time.

    Raises:
        CatalogError: naming a value that is there twice.
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
            raise CatalogError(f"item id {values[repeated[0]].as_py()!r} names two items; item ids must be distinct.")


def _scattered(values: pa.Array, parts: int) -> np.ndarray:
    """Returns a part for each value, the same for equal ones."""
    import pyarrow as pa

    if pa.types.is_integer(values.type):
        return (values.to_numpy(zero_copy_only=False) % parts).astype(np.int64)
    return np.fromiter((hash(value) % parts for value in values.to_pylist()), np.int64, len(values))
