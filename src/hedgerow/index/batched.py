"""Catalogs read from Parquet files one batch of rows at a time, and the plan by which their rows are divided."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np

from hedgerow.catalog.catalog import Catalog
from hedgerow.catalog.constructors import ITEM_ID
from hedgerow.catalog.sids import MAX_ITEMS
from hedgerow.errors import CatalogError
from hedgerow.index.build import Progress, build_trie, ignore_progress
from hedgerow.index.order import distinct_order
from hedgerow.index.sort import leading_bits
from hedgerow.index.spill import Spill, sample_evenly
from hedgerow.index.trie import Trie

if TYPE_CHECKING:
    import pyarrow as pa

    from hedgerow.catalog.sources import Source

# Working memory in bytes per row of a part (keys, order, flags), in addition to three copies of the row itself.
WORK_BYTES = 96
BATCH = 2**16
MAX_PARTS = 512
SAMPLE = 2**18
# No attribute can have this name: the SID column is removed from the attributes when the catalog is read.
SID = "\0sid"
ADVICE = "Raise the memory limit."


class BatchReader:
    """Reads Parquet files as one catalog per batch.

    Args:
        source: the files, as for `Catalog.from_parquet`.
        sid: as for `Catalog.from_arrow`, as all following arguments.
        item_id: see `sid`.
        codebook_sizes: see `sid`.
        attributes: see `sid`.

    Raises:
        CatalogError: a file cannot be read, or there are no rows, or too many for an index.
    """

    def __init__(
        self, source: Source, sid: str | Sequence[str], item_id: str | None, codebook_sizes: Any, attributes: Any
    ) -> None:
        from hedgerow.catalog.readers import parquet_files

        self.files = parquet_files(source)
        self.sid, self.item_id, self.codebook_sizes, self.attributes = sid, item_id, codebook_sizes, attributes
        self.rows = self.files.num_rows
        if item_id is None and ITEM_ID in self.files.schema.names:
            self.item_id = ITEM_ID
        self.row_bytes = self.files.nbytes / max(1, self.rows)
        if self.rows == 0:
            name = self.files.files[0].name
            raise CatalogError(f"{name} has no rows. Build an empty index with hr.Catalog and hr.build_index.")
        if self.rows > MAX_ITEMS:
            raise CatalogError(
                f"an index can contain up to {MAX_ITEMS:,} items; these files have {self.rows:,} rows. Divide them by "
                "ranges of SIDs, and build an index of each."
            )

    def catalogs(
        self, sizes: Any, attributes: Any, files: slice = slice(None)
    ) -> Iterator[tuple[int, Catalog, pa.Array]]:
        """Iterate over the batches: the row at which each starts, and its items with their ids.

        The ids are row numbers if no column holds ids.

        Args:
            sizes: the codebook sizes, as for `Catalog`.
            attributes: the attributes to read; None: all.
            files: the files to read.
        """
        import pyarrow as pa

        required = [*([self.sid] if isinstance(self.sid, str) else self.sid), *([self.item_id] if self.item_id else [])]
        options = {"sid": self.sid, "item_id": self.item_id, "codebook_sizes": sizes, "attributes": attributes}
        columns = None if attributes is None else {*required, *attributes}
        start = [0, *accumulate(self.files.rows_of_files)][files.start or 0]
        for name, batch in self.files.batches(BATCH, columns, files):
            try:
                catalog = Catalog.from_arrow(batch, **options)
            except CatalogError as error:
                raise CatalogError(f"{name}, in the batch that starts at row {start:,}: {error}") from None
            stop = start + len(catalog)
            yield start, catalog, catalog.item_ids if self.item_id else pa.array(np.arange(start, stop))
            start = stop

    def part_rows(self, memory: int) -> int:
        """The number of rows per part that fits the memory limit."""
        return max(1, int(memory / (WORK_BYTES + 3 * self.row_bytes)))

    def num_parts(self, memory: int) -> int:
        """The number of parts that fit the memory limit.

        Raises:
            CatalogError: there are too many.
        """
        parts = -(-self.rows // self.part_rows(memory))
        if parts > MAX_PARTS:
            needed = self.rows * (WORK_BYTES + 3 * self.row_bytes) / MAX_PARTS
            raise CatalogError(f"{self.rows:,} items need at least {needed / 1e6:,.0f} MB of memory. {ADVICE}")
        return parts

    def survey(self, files: slice = slice(None), progress: Progress = ignore_progress) -> Survey:
        """Read the SIDs of files.

        Args:
            files: the files to read.
            progress: called as ``progress("read", row, rows)``.
        """
        found, step = [], -(-self.rows // SAMPLE)
        for start, catalog, ids in self.catalogs(self.codebook_sizes, [], files):
            progress("read", start, self.rows)
            found.append(Survey(catalog.codebook_sizes, catalog.sids[::step].astype(np.uint32), ids[::step]))
        return Survey.of(found)

    def spill(self, plan: Plan, spill: Spill, files: slice = slice(None), progress: Progress = ignore_progress) -> None:
        """Divide the rows of files among the parts of a plan.

        Args:
            plan: the plan.
            spill: takes the rows.
            files: the files to read.
            progress: called as ``progress("spill", row, rows)``.
        """
        for start, catalog, ids in self.catalogs(plan.codebook_sizes, self.attributes, files):
            progress("spill", start, self.rows)
            spill.add(_as_table(catalog, ids), plan.part_of(catalog.sids))


@dataclass(frozen=True)
class Survey:
    """What a plan needs to know of the rows of files.

    Attributes:
        codebook_sizes: the largest of each level.
        sids: some of the SIDs, uint32.
        ids: the item ids of the same rows.
    """

    codebook_sizes: Sequence[int]
    sids: np.ndarray
    ids: pa.Array

    @classmethod
    def of(cls, surveys: Sequence[Survey]) -> Survey:
        """Several surveys as one.

        Raises:
            CatalogError: the SIDs have different lengths.
        """
        import pyarrow as pa

        lengths = {len(survey.codebook_sizes) for survey in surveys}
        if len(lengths) > 1:
            raise CatalogError(
                f"the SIDs of the files have {min(lengths)} to {max(lengths)} codes; expected one length."
            )
        sizes = np.max([survey.codebook_sizes for survey in surveys], axis=0)
        sids, ids = (np.concatenate([survey.sids for survey in surveys]), [survey.ids for survey in surveys])
        return cls(sizes.tolist(), sids, pa.concat_arrays(ids))

    def plan(self, parts: int) -> Plan:
        """The plan that divides the rows into about this number of parts of equal size."""
        keys = leading_bits(self.sids, self.codebook_sizes)
        return Plan(tuple(self.codebook_sizes), np.unique(sample_evenly(np.sort(keys), parts)))


@dataclass(frozen=True)
class Plan:
    """How rows are divided into parts of ascending ranges of SIDs.

    Attributes:
        codebook_sizes: L ints.
        bounds: the leading bits of the SIDs at which each part but the first starts.
    """

    codebook_sizes: tuple[int, ...]
    bounds: np.ndarray

    @property
    def num_parts(self) -> int:
        """The number of parts."""
        return len(self.bounds) + 1

    def part_of(self, sids: np.ndarray) -> np.ndarray:
        """The part of each SID [N]."""
        return np.searchsorted(self.bounds, leading_bits(sids, self.codebook_sizes), side="right")

    def build(self, rows: pa.Table, max_rows: int) -> Trie:
        """Build the trie of the rows of a part, as they were spilled.

        Raises:
            CatalogError: they are more than `max_rows`, or an item id appears twice.
        """
        if len(rows) > max_rows:
            raise CatalogError(f"{len(rows):,} items have the same leading 64 bits in their SIDs. {ADVICE}")
        try:
            catalog = Catalog.from_arrow(rows, sid=SID, item_id=ITEM_ID, codebook_sizes=self.codebook_sizes)
        except CatalogError:
            # All rows have been in a catalog before. The error names rows of the part, which nobody knows.
            distinct_order(rows.column(ITEM_ID))
            raise
        return build_trie(catalog, dense_levels=())


def _as_table(catalog: Catalog, ids: pa.Array) -> pa.Table:
    import pyarrow as pa

    sids = pa.FixedSizeListArray.from_arrays(catalog.sids.reshape(-1), catalog.num_levels)
    table = pa.table({ITEM_ID: ids, SID: sids})
    for name in catalog.attributes.column_names:
        table = table.append_column(name, catalog.attributes.column(name))
    return table
