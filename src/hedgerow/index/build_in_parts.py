"""Build an index from Parquet files in steps that several processes can run, each within a memory limit.

Every step reads and writes files of one temporary folder, which all processes see:

1. `survey`: some SIDs and ids of the rows of some files, from which the plan is made.
2. `spill`: divide the rows of some files among the parts, which are ranges of SIDs.
3. `build`: build one part, and divide its item ids among ranges of ids.
4. `sort`: sort the ids of one range.
5. `join`: join the parts and the ranges, and save the index.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from hedgerow.errors import IndexFileError
from hedgerow.index.batched import BatchReader, Plan, Survey
from hedgerow.index.build_on_disk import save_finished
from hedgerow.index.compact import Layout
from hedgerow.index.items import write_items
from hedgerow.index.items_on_disk import join_items
from hedgerow.index.joining import Joined, Nodes
from hedgerow.index.order_on_disk import id_bounds, sorted_rows, spill_ids
from hedgerow.index.spill import Spill, read_part


@dataclass(frozen=True)
class PartsBuild:
    """A build in parts. It is pickled for each process.

    Attributes:
        reader: reads the files.
        folder: the temporary folder.
        plan: how rows are divided.
        id_bounds: how ids are divided: see `order_on_disk.id_bounds`.
        max_rows: the maximum number of rows of a part.
        layout: as for `hedgerow.build_index`.
    """

    reader: BatchReader
    folder: Path
    plan: Plan
    id_bounds: pa.ChunkedArray
    max_rows: int
    layout: Layout

    @classmethod
    def of(
        cls,
        reader: BatchReader,
        folder: Path,
        surveys: Sequence[Survey],
        parts: int,
        max_rows: int,
        *,
        layout: Layout = "plain",
    ) -> PartsBuild:
        """Make the plan.

        Args:
            reader: reads the files.
            folder: the temporary folder.
            surveys: those of all files.
            parts: about the number of parts.
            max_rows: the maximum number of rows of a part.
            layout: as for `hedgerow.build_index`.
        """
        survey = Survey.of(surveys)
        return cls(reader, folder, survey.plan(parts), id_bounds(survey.ids, parts), max_rows, layout)

    def spill(self, number: int, files: slice) -> np.ndarray:
        """Divide the rows of files among the parts.

        Args:
            number: the number of the step.
            files: the files.

        Returns:
            The number of rows of each part.
        """
        with Spill(self._new_folder(f"rows-{number}"), self.plan.num_parts) as spill:
            self.reader.spill(self.plan, spill, files)
        return spill.rows

    def build(self, part: int, start: int) -> None:
        """Build a part.

        Args:
            part: its number.
            start: the row of its first item in the index.
        """
        rows = read_part(sorted(self.folder.glob(f"rows-*/part-{part}")))
        trie = self.plan.build(rows, self.max_rows)
        del rows
        folder = self._new_folder(f"built-{part}")
        Nodes.of(trie).save(folder)
        write_items(trie.items_table, folder / "items")
        with Spill(folder, len(self.id_bounds) + 1) as spill:
            for chunk in trie.item_ids.chunks:
                spill_ids(spill, self.id_bounds, chunk, start)
                start += len(chunk)

    def sort(self, part: int) -> None:
        """Sort the ids of a range.

        Raises:
            CatalogError: an id appears twice.
        """
        paths = sorted(self.folder.glob(f"built-*/part-{part}"))
        rows = sorted_rows(read_part(paths)) if paths else np.zeros(0, np.int32)
        rows.tofile(self.folder / f"order-{part}")

    def join(self, parts: Sequence[int], output: Path) -> None:
        """Join the parts that have rows, and save the index. This is the last step.

        Args:
            parts: their numbers.
            output: the folder of the index.
        """
        folders = [self.folder / f"built-{part}" for part in parts]
        for rows in self.folder.glob("rows-*"):
            shutil.rmtree(rows)
        sizes = self.plan.codebook_sizes
        joined = Joined(sizes, (None,) * len(sizes), self.folder)
        for folder in folders:
            joined.add(Nodes.load(folder))
        items = self.folder / "items"
        sha256 = join_items([folder / "items" for folder in folders], items, self.folder)
        save_finished(joined.finish(layout=self.layout), output, items, sha256, self._order())

    def _order(self) -> np.ndarray:
        path = self.folder / "order"
        with path.open("wb") as file:
            for part in range(len(self.id_bounds) + 1):
                file.write((self.folder / f"order-{part}").read_bytes())
        return np.memmap(path, np.int32, "r")

    def _new_folder(self, name: str) -> Path:
        """Make a folder for the results of a step.

        Raises:
            IndexFileError: the temporary folder does not exist on this machine.
        """
        if not self.folder.is_dir():
            raise IndexFileError(
                f"{self.folder} does not exist on this machine. The folder of the output must be on a file system that "
                "all machines share."
            )
        folder = self.folder / name
        # A step is run again if its process ended.
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder
