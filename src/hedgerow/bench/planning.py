"""`hedgerow plan`: estimate the size of an index of N uniformly random SIDs without building it, as balls in bins.

Random SIDs are the worst case for given codebook sizes: learned SIDs share more prefixes, so their index is smaller.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from hedgerow.bench.building import LABELS, PAPER_BYTES_PER_ITEM
from hedgerow.catalog.sids import MAX_CODEBOOK_SIZE, MAX_ITEMS
from hedgerow.errors import ArgumentError
from hedgerow.index.build import DENSE_FILL
from hedgerow.index.compact import Layout, code_bits, coding_of, nbytes_of
from hedgerow.index.describe import COMPACT_KINDS, KINDS
from hedgerow.index.fanout import FORKED_SHARE
from hedgerow.index.level import words_of
from hedgerow.index.packed import packed_words
from hedgerow.index.trie import bytes_as_text

POINTER_BYTES = 4
WORD_BYTES = 4
# With more possible prefixes than this, no prefix occurs twice. The cap keeps products of codebook sizes in a float.
MANY = 10**40
# Nanoseconds per item and level.
RATE_NS = 13.0
RATE_SOURCE = "benchmarks/results/build.json, two cores of an Intel Xeon; use --rate for a rate of your machine"


@dataclass(frozen=True)
class LevelPlan:
    """One level: the expected nodes, largest branch factor and bytes, and upper bounds of nodes and bytes."""

    level: int
    codebook_size: int
    nodes: float
    bound_nodes: int
    max_branch: int
    representation: str
    nbytes: float
    bound_nbytes: int


@dataclass(frozen=True)
class Plan:
    """The estimated size of an index.

    Attributes:
        items: N.
        levels: the estimate for each level.
        nbytes: expected bytes of the trie.
        bound_nbytes: upper bound of the bytes for any N SIDs of these codebook sizes.
        paper_nbytes: the paper's estimate, 90 bytes per item.
        build_seconds: build time at a measured rate.
        rate_source: the origin of that rate.
        layout: "plain" or "compact".
    """

    items: int
    levels: tuple[LevelPlan, ...]
    nbytes: float
    bound_nbytes: int
    paper_nbytes: int
    build_seconds: float
    rate_source: str
    layout: Layout = "plain"

    def to_dict(self) -> dict[str, Any]:
        """The plan as values that JSON can represent."""
        return asdict(self) | {"bytes_per_item": self.nbytes / self.items}


def plan(
    items: int,
    levels: int,
    codebook_sizes: int | Sequence[int],
    *,
    rate_file: Path | None = None,
    layout: Layout = "plain",
) -> Plan:
    """Estimate the size of an index of uniformly random SIDs.

    Args:
        items: N.
        levels: L.
        codebook_sizes: one size for all levels, or L sizes.
        rate_file: JSON file of `hedgerow bench build`, for the build time.
        layout: that of the index.

    Raises:
        ArgumentError: no index has these sizes, or the rate file has no rate.
    """
    sizes = [codebook_sizes] * levels if isinstance(codebook_sizes, int) else list(codebook_sizes)
    if not 1 <= items <= MAX_ITEMS:
        raise ArgumentError(
            f"an index holds 1 to {MAX_ITEMS:,} items; got {items:,}. Split the items into several indexes."
        )
    if len(sizes) != levels or not all(1 <= size <= MAX_CODEBOOK_SIZE for size in sizes):
        raise ArgumentError(f"expected {levels} codebook sizes from 1 to {MAX_CODEBOOK_SIZE:,}; got {codebook_sizes}.")
    planned, parents, bound_parents, prefixes = [], 1.0, 1, 1
    for level, size in enumerate(sizes):
        nodes = expected_nodes(items, prefixes * size)
        branch = expected_max_branch(items, prefixes, size)
        level_bytes = _compact_bytes if layout == "compact" else _level_bytes
        representation, nbytes = level_bytes(parents, nodes, branch, size)
        bound = min(min(prefixes * size, MANY), items)
        codes = bound * _code_bytes(size)
        if layout == "compact":
            codes = WORD_BYTES * packed_words(bound, code_bits(size))
        bound_nbytes = 2 * (codes + POINTER_BYTES * (bound_parents + 1))
        planned.append(LevelPlan(level, size, nodes, bound, branch, representation, nbytes, bound_nbytes))
        parents, bound_parents, prefixes = nodes, bound, min(prefixes * size, MANY)
    rate, source = (RATE_NS, RATE_SOURCE) if rate_file is None else _measured_rate(rate_file)
    return Plan(
        items=items,
        levels=tuple(planned),
        nbytes=sum(level.nbytes for level in planned) + _fan_out(parents, items)[1],
        bound_nbytes=sum(level.bound_nbytes for level in planned) + POINTER_BYTES * (items + 1),
        paper_nbytes=PAPER_BYTES_PER_ITEM * items,
        build_seconds=items * levels * rate * 1e-9,
        rate_source=source,
        layout=layout,
    )


def expected_nodes(items: int, prefixes: int) -> float:
    """Expected number of nodes: how many of `prefixes` bins hold at least one of `items` balls."""
    if prefixes == 1:
        return 1.0
    if prefixes >= MANY:
        return float(items)
    return -prefixes * math.expm1(items * math.log1p(-1 / prefixes))


def expected_max_branch(items: int, parents: int, size: int) -> int:
    """Median of the largest number of children, over all possible `parents`.

    Each code of a parent occurs with the same probability, almost independently, so the number of children is
    binomial. The median of the maximum is where the tail probability times the number of parents falls to log 2.
    """
    share = -math.expm1(-items / (parents * size))
    mean = size * share
    last = min(size, math.ceil(mean + 40 * math.sqrt(mean + 1) + 100))
    counts = np.arange(max(1, math.floor(mean)), last + 1)
    if share >= 1 or not len(counts):
        return size
    log_pmf = np.asarray([_log_choose(size, int(count)) for count in counts])
    log_pmf += counts * math.log(share) + (size - counts) * math.log1p(-share)
    tail = np.cumsum(np.exp(log_pmf[::-1] + math.log(parents)))[::-1]
    likely = counts[tail >= math.log(2)]
    return int(likely[-1]) if len(likely) else int(counts[0])


def show(planned: Plan, console: Console) -> None:
    """Print the levels, then the totals."""
    layout = ", compact layout" * (planned.layout == "compact")
    title = f"{planned.items:,} items, uniformly random SIDs{layout}, expected"
    table = Table(title=title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.title_justify, table.title_style = "left", "bold"
    for heading in ("level", "codebook\nsize", "nodes", "at most", "max branch", "kind", "bytes", "at most"):
        table.add_column(heading, justify="left" if heading == "kind" else "right", overflow="fold")
    for level in planned.levels:
        numbers = (level.level, level.codebook_size, round(level.nodes), level.bound_nodes, level.max_branch)
        sizes = map(bytes_as_text, (level.nbytes, level.bound_nbytes))
        table.add_row(*(f"{number:,}" for number in numbers), level.representation, *sizes)
    console.print(table)
    console.print(f"[dim]{COMPACT_KINDS if planned.layout == 'compact' else KINDS}[/]", highlight=False)
    for what, nbytes in (
        ("expected", planned.nbytes),
        ("at most, for any SIDs", planned.bound_nbytes),
        ("the paper's rule, 90 bytes per item", planned.paper_nbytes),
    ):
        console.print(f"{nbytes / 1e6:>12,.1f} MB  {nbytes / planned.items:6.1f} bytes per item  {what}")
    console.print(f"{planned.build_seconds:>12,.1f} s   to build, at the rate of")
    console.print(f"[dim]{planned.rate_source}[/]", highlight=False)


def _level_bytes(parents: float, nodes: float, branch: int, size: int) -> tuple[str, float]:
    representation, pointers = _fan_out(parents, nodes)
    nbytes = nodes * _code_bytes(size) + pointers
    bitmap = parents * words_of(size) * 4
    if branch * DENSE_FILL >= size and bitmap <= nbytes:
        return "dense", nbytes + bitmap
    return representation, nbytes


def _compact_bytes(parents: float, nodes: float, branch: int, size: int) -> tuple[str, float]:
    num_parents, num_nodes = round(parents), round(nodes)
    coding = coding_of(num_parents, num_nodes, size)
    nbytes = nbytes_of(num_parents, num_nodes, size, coding)
    bitmap = num_parents * words_of(size) * WORD_BYTES
    if branch * DENSE_FILL >= size and bitmap <= nbytes:
        return "dense", nbytes + bitmap
    return coding.fan, nbytes


def _fan_out(parents: float, children: float) -> tuple[str, float]:
    """How the children of each parent are stored, and the bytes; the same rule holds for the items of leaves."""
    forks = children - parents
    if forks > parents / FORKED_SHARE:
        return "sparse", POINTER_BYTES * (parents + 1)
    # Below an expected value of 0.5, no fork is more likely than one.
    return ("forked", POINTER_BYTES * forks) if forks >= 0.5 else ("unary", 0.0)


def _code_bytes(size: int) -> int:
    return np.min_scalar_type(size - 1).itemsize


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _measured_rate(path: Path) -> tuple[float, str]:
    """Nanoseconds per item and level, and the machine on which they were measured."""
    try:
        report = json.loads(path.read_text())
        row = next(row for row in report["rows"] if row.get("method") == LABELS["hedgerow"] and row["scope"] == "build")
        rate = row["total_seconds"] / (row["items"] * row["levels"]) * 1e9
        conditions = report["conditions"]
        return rate, f"{row['items']:,} items measured on {conditions['cores']} cores of {conditions['cpu']}"
    except (OSError, ValueError, KeyError, StopIteration, TypeError, AttributeError, ZeroDivisionError) as error:
        raise ArgumentError(
            f"{path} is not a JSON file of `hedgerow bench build`: {error!r}. Pass the file that this command writes."
        ) from None
