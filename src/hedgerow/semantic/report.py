"""How good Semantic IDs are: codes used, collisions, what is kept of the embeddings, how pure prefixes are."""

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
    """One level of the SIDs.

    Attributes:
        codebook_size: the codes it may have.
        codes_used: those that some item has.
        perplexity: the exponential of the codes' entropy: as many codes, used evenly, would say as much.
        prefixes: how many distinct prefixes there are up to here.
        error: what is lost when embeddings are decoded from the prefix: the sum of squares of the difference, as a
            share of that of the embeddings. None at the level that separates.
        purity: the share of items whose category is the commonest one of their prefix; None without categories. It
            grows as prefixes get rarer, so it is to be compared with:
        chance_purity: the same, of the same categories dealt to the items at random.
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
    """What became of N embeddings.

    Attributes:
        items: N.
        sids: how many distinct SIDs they have.
        colliding_items: the items whose L codes another item has too, before a last code separates them.
        shared_sids: how many times L codes belong to several items.
        largest_collision: the most items with the same L codes.
        separated: whether a last code separates them.
        error: that of all levels: see `LevelReport`.
        categories: how many there are; None where none were given.
        items_with_category: those that purity is taken of.
        levels: one `LevelReport` a level, the separating one included.
    """

    items: int
    sids: int
    colliding_items: int
    shared_sids: int
    largest_collision: int
    separated: bool
    error: float
    categories: int | None
    items_with_category: int | None
    levels: tuple[LevelReport, ...]

    def to_dict(self) -> dict[str, Any]:
        """Returns all of it as plain lists, numbers and Nones."""
        return asdict(self)

    def table(self) -> Table:
        """Returns the levels as a rich table, at most 80 wide."""
        from rich.table import Table

        pure = self.categories is not None
        headings = [
            "level",
            "codes used",
            "perplexity",
            "prefixes",
            "error",
            *(["purity", "by chance"] if pure else []),
        ]
        table = Table(*headings)
        for column in table.columns:
            column.justify = "right"
        for number, level in enumerate(self.levels):
            row = [str(number), f"{level.codes_used:,} of {level.codebook_size:,}", f"{level.perplexity:,.1f}"]
            row += [f"{level.prefixes:,}", _share(level.error)]
            table.add_row(*row, *([_share(level.purity), _share(level.chance_purity)] if pure else []))
        return table

    def __str__(self) -> str:
        from rich.console import Console

        console = Console(width=80, no_color=True, force_terminal=False)
        with console.capture() as captured:
            console.print(self.table())
        return f"{captured.get()}{self.collisions()}"

    def collisions(self) -> str:
        """Returns a line about them."""
        if not self.colliding_items:
            return "collisions: none, every item has codes of its own"
        after = "; the last code separates them" if self.separated else ""
        return (
            f"collisions: {self.colliding_items:,} of {self.items:,} items share {self.shared_sids:,} SIDs, at most "
            f"{self.largest_collision:,} one SID{after}"
        )


def report_of(
    quantizer: Codebooks, sids: np.ndarray, codebook_sizes: Sequence[int], embeddings: np.ndarray, categories: Any
) -> SidReport:
    """The report of Semantic IDs: see `SemanticIds.report`."""
    numbers = None if categories is None else _numbered(categories, len(sids))
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
        separated=quantizer.deduplication_codes is not None,
        error=errors[-1],
        categories=None if numbers is None else len(np.unique(numbers[numbers >= 0])),
        items_with_category=None if numbers is None else int((numbers >= 0).sum()),
        levels=tuple(levels),
    )


def relative_errors(quantizer: Codebooks, vectors: np.ndarray, codes: np.ndarray) -> list[float]:
    """Returns what is lost at each of L levels: the squares of what its prefix leaves, as a share of those of all.

    Args:
        quantizer: what made the codes.
        vectors: float32 [N, D]; all zeros, there is nothing to lose, and the answer is 0 or, if it errs, infinity.
        codes: [N, L] or more.
    """
    whole, lost = 0.0, np.zeros(quantizer.num_levels)
    for begin in range(0, len(vectors), BLOCK):
        block = vectors[begin : begin + BLOCK]
        left = block.copy() if quantizer.rotation is None else rotated(block, quantizer.rotation)
        whole += float(np.square(left, dtype=np.float64).sum())
        for level, codebook in enumerate(quantizer.codebooks):
            left[:, quantizer.dimensions(level)] -= codebook[codes[begin : begin + BLOCK, level]]
            lost[level] += float(np.square(left, dtype=np.float64).sum())
    if whole:
        return (lost / whole).tolist()
    return [float("inf") if some else 0.0 for some in lost]


def _purities(prefixes: np.ndarray, categories: np.ndarray) -> tuple[float | None, float | None]:
    known = categories >= 0
    if not known.any():
        return None, None
    dealt = np.random.default_rng(0).permutation(categories[known])
    return _purity(prefixes[known], categories[known]), _purity(prefixes[known], dealt)


def _purity(prefixes: np.ndarray, categories: np.ndarray) -> float:
    pairs, counts = np.unique((prefixes << 31) | categories, return_counts=True)
    starts = np.flatnonzero(np.diff(pairs >> 31, prepend=-1))
    return float(np.maximum.reduceat(counts, starts).sum() / len(prefixes))


def _perplexity(counts: np.ndarray) -> float:
    if not len(counts):
        return 0.0
    shares = counts / counts.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def _numbered(categories: Any, items: int) -> np.ndarray:
    """Returns a number int64 [N] for each category, -1 for none: null or NaN."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from hedgerow.catalog.columns import as_column, sortable

    column = sortable(as_column(categories, "categories"))
    if len(column) != items:
        raise ArgumentError(f"categories must be {items:,} values, one an item; got {len(column):,}.")
    if pa.types.is_nested(column.type):
        raise ArgumentError(f"categories must be one value an item; got {column.type}. Take the first of each list.")
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), None, column)  # type: ignore[attr-defined]
    encoded = column.dictionary_encode()
    return encoded.indices.cast(pa.int64()).fill_null(-1).to_numpy(zero_copy_only=False)


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
