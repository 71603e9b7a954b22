"""Reports on Semantic IDs: use of codes, collisions, reconstruction error, and purity of prefixes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hedgerow.errors import ArgumentError
from hedgerow.semantic.codebooks import Codebooks, rotated
from hedgerow.semantic.collisions import prefix_numbers

if TYPE_CHECKING:
    from rich.table import Table

BLOCK = 1 << 16


@dataclass(frozen=True)
class LevelReport:
    """The report on one level of the SIDs.

    Attributes:
        codebook_size: the codebook size.
        codes_used: the number of codes that at least one item has.
        perplexity: the exponential of the entropy of the codes: the number of evenly used codes of equal entropy.
        prefixes: the number of distinct prefixes that end at this level.
        error: the reconstruction error of the prefix: the sum of squared differences to the embeddings, relative to the
            sum of squares of the embeddings. None for the deduplication level.
        purity: the share of items whose category is the most common one of their prefix; None without categories. It
            grows with the number of prefixes, so compare it with `chance_purity`.
        chance_purity: the purity of the same categories in random order.
    """

    codebook_size: int
    codes_used: int
    perplexity: float
    prefixes: int
    error: float | None
    purity: float | None
    chance_purity: float | None


@dataclass(frozen=True)
class SidReport:
    """The report on the SIDs of N items.

    Attributes:
        items: N.
        sids: the number of distinct SIDs.
        colliding_items: the number of items that share their L codes with another item; a deduplication code is not
            counted.
        shared_sids: the number of distinct sequences of L codes that several items share.
        largest_collision: the largest number of items with the same L codes.
        deduplicated: whether the SIDs have a deduplication code.
        error: the reconstruction error of all levels; see `LevelReport`.
        categories: the number of categories; None without categories.
        items_with_category: the number of items with a category; None without categories.
        levels: one `LevelReport` per level, including the deduplication level.
    """

    items: int
    sids: int
    colliding_items: int
    shared_sids: int
    largest_collision: int
    deduplicated: bool
    error: float
    categories: int | None
    items_with_category: int | None
    levels: tuple[LevelReport, ...]

    def to_dict(self) -> dict[str, Any]:
        """Convert the report to numbers, lists, dicts and None."""
        return asdict(self)

    def table(self) -> Table:
        """The levels as a rich table, at most 80 columns wide."""
        from rich.table import Table

        with_purity = self.categories is not None
        headings = [
            "level",
            "codes used",
            "perplexity",
            "prefixes",
            "error",
            *(["purity", "by chance"] if with_purity else []),
        ]
        table = Table(*headings)
        for column in table.columns:
            column.justify = "right"
        for number, level in enumerate(self.levels):
            row = [str(number), f"{level.codes_used:,} of {level.codebook_size:,}", f"{level.perplexity:,.1f}"]
            row += [f"{level.prefixes:,}", _share(level.error)]
            table.add_row(*row, *([_share(level.purity), _share(level.chance_purity)] if with_purity else []))
        return table

    def __str__(self) -> str:
        from rich.console import Console

        console = Console(width=80, no_color=True, force_terminal=False)
        with console.capture() as captured:
            console.print(self.table())
        return f"{captured.get()}{self.collisions()}"

    def collisions(self) -> str:
        """One line of text about collisions."""
        if not self.colliding_items:
            return "collisions: none, every item has codes of its own"
        after = "; the last code separates them" if self.deduplicated else ""
        shared = "1 SID" if self.shared_sids == 1 else f"{self.shared_sids:,} SIDs"
        return (
            f"collisions: {self.colliding_items:,} of {self.items:,} items share {shared}, at most "
            f"{self.largest_collision:,} one SID{after}"
        )


def report_of(
    quantizer: Codebooks, sids: np.ndarray, codebook_sizes: Sequence[int], embeddings: np.ndarray, categories: Any
) -> SidReport:
    """The report on Semantic IDs: see `SemanticIds.report`."""
    numbers = None if categories is None else _category_numbers(categories, len(sids))
    errors = relative_errors(quantizer, embeddings, sids)
    levels, counts = [], np.zeros(0, np.int64)
    for level, prefixes in enumerate(prefix_numbers(sids)):
        in_prefix = np.bincount(prefixes)
        counts = in_prefix if level < len(errors) else counts
        used = np.unique(sids[:, level], return_counts=True)[1]
        purity, chance = (None, None) if numbers is None else _purities(prefixes, numbers)
        error = errors[level] if level < len(errors) else None
        size = codebook_sizes[level]
        levels.append(LevelReport(size, len(used), _perplexity(used), len(in_prefix), error, purity, chance))
    shared = counts[counts > 1]
    return SidReport(
        items=len(sids),
        sids=levels[-1].prefixes,
        colliding_items=int(shared.sum()),
        shared_sids=len(shared),
        largest_collision=int(counts.max(initial=0)),
        deduplicated=quantizer.deduplication_codes is not None,
        error=errors[-1],
        categories=None if numbers is None else len(np.unique(numbers[numbers >= 0])),
        items_with_category=None if numbers is None else int((numbers >= 0).sum()),
        levels=tuple(levels),
    )


def relative_errors(quantizer: Codebooks, vectors: np.ndarray, codes: np.ndarray) -> list[float]:
    """The reconstruction error per level: the squares of the residuals, relative to those of the embeddings.

    Args:
        quantizer: the codebooks.
        vectors: float32 [N, D]. If all are 0, the error of a level is 0 or infinity.
        codes: [N, L]; more columns are ignored.
    """
    total, errors = 0.0, np.zeros(quantizer.num_levels)
    for start in range(0, len(vectors), BLOCK):
        block = vectors[start : start + BLOCK]
        residuals = block.copy() if quantizer.rotation is None else rotated(block, quantizer.rotation)
        total += float(np.square(residuals, dtype=np.float64).sum())
        for level, codebook in enumerate(quantizer.codebooks):
            residuals[:, quantizer.dimensions(level)] -= codebook[codes[start : start + BLOCK, level]]
            errors[level] += float(np.square(residuals, dtype=np.float64).sum())
    if total:
        return (errors / total).tolist()
    return [float("inf") if error else 0.0 for error in errors]


def _purities(prefixes: np.ndarray, categories: np.ndarray) -> tuple[float | None, float | None]:
    known = categories >= 0
    if not known.any():
        return None, None
    shuffled = np.random.default_rng(0).permutation(categories[known])
    return _purity(prefixes[known], categories[known]), _purity(prefixes[known], shuffled)


def _purity(prefixes: np.ndarray, categories: np.ndarray) -> float:
    pairs, counts = np.unique((prefixes << 31) | categories, return_counts=True)
    starts = np.flatnonzero(np.diff(pairs >> 31, prepend=-1))
    return float(np.maximum.reduceat(counts, starts).sum() / len(prefixes))


def _perplexity(counts: np.ndarray) -> float:
    if not len(counts):
        return 0.0
    shares = counts / counts.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def _category_numbers(categories: Any, items: int) -> np.ndarray:
    """A number int64 [N] for each category; -1 for null and NaN."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from hedgerow.catalog.columns import as_column, sortable

    column = sortable(as_column(categories, "categories"))
    if len(column) != items:
        raise ArgumentError(f"categories must be {items:,} values, one per item; got {len(column):,}.")
    if pa.types.is_nested(column.type):
        raise ArgumentError(f"categories must be one value per item; got {column.type}. Take the first of each list.")
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), None, column)  # type: ignore[attr-defined]
    encoded = column.dictionary_encode()
    return encoded.indices.cast(pa.int64()).fill_null(-1).to_numpy(zero_copy_only=False)


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
