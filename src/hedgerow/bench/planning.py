"""`hedgerow plan`: what an index of N uniformly random SIDs will take, from balls in bins, without building it.

Random SIDs are the worst that a codebook's sizes allow: learned ones share more prefixes, so they take less.
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

from hedgerow.bench.building import LABELS, PAPER_BYTES_AN_ITEM
from hedgerow.catalog.sids import MAX_CODEBOOK_SIZE, MAX_ITEMS
from hedgerow.errors import ArgumentError
from hedgerow.index.build import DENSE_FILL
from hedgerow.index.describe import KINDS
from hedgerow.index.fanout import FORKED_SHARE
from hedgerow.index.level import words_of
from hedgerow.index.trie import bytes_as_text

POINTER_BYTES = 4
# Prefixes beyond this many are never met twice; it keeps products of many codebooks within a float.
MANY = 10**40
# Nanoseconds an item and level.
RATE_NS = 13.0
RATE_SOURCE = "benchmarks/results/build.json, two cores of an Intel Xeon; --rate takes your own"


@dataclass(frozen=True)
class LevelPlan:
    """One level: nodes and largest branch as expected, the bound on nodes, bytes expected and at most."""

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
    """What an index will take.

    Attributes:
        items: N.
        levels: per level.
        nbytes: expected bytes of the trie.
        bound_nbytes: bytes that no set of N SIDs of these codebooks passes.
        paper_nbytes: the paper's rule, 90 bytes an item.
        build_seconds: by a measured rate.
        rate_source: where that rate comes from.
    """

    items: int
    levels: tuple[LevelPlan, ...]
    nbytes: float
    bound_nbytes: int
    paper_nbytes: int
    build_seconds: float
    rate_source: str

    def to_dict(self) -> dict[str, Any]:
        """Returns the plan as JSON's types."""
        return asdict(self) | {"bytes_per_item": self.nbytes / self.items}


def plan(items: int, levels: int, codebook: int | Sequence[int], *, rate_file: Path | None = None) -> Plan:
    """Plans an index of uniformly random SIDs.

    Args:
        items: N.
        levels: L.
        codebook: codes a level, one number or L.
        rate_file: JSON of `hedgerow bench build`, for the build time.

    Raises:
        ArgumentError: sizes that no index has, or a rate file without a rate.
    """
    sizes = [codebook] * levels if isinstance(codebook, int) else list(codebook)
    if not 1 <= items <= MAX_ITEMS:
        raise ArgumentError(f"an index holds 1 to {MAX_ITEMS:,} items; got {items:,}. Plan several, each of a part.")
    if len(sizes) != levels or not all(1 <= size <= MAX_CODEBOOK_SIZE for size in sizes):
        raise ArgumentError(f"expected {levels} codebook sizes from 1 to {MAX_CODEBOOK_SIZE:,}; got {codebook}.")
    planned, parents, bound_parents, prefixes = [], 1.0, 1, 1
    for level, size in enumerate(sizes):
        nodes = expected_nodes(items, prefixes * size)
        branch = expected_max_branch(items, prefixes, size)
        representation, nbytes = _level_bytes(parents, nodes, branch, size)
        bound = min(min(prefixes * size, MANY), items)
        most = 2 * (bound * _code_bytes(size) + POINTER_BYTES * (bound_parents + 1))
        planned.append(LevelPlan(level, size, nodes, bound, branch, representation, nbytes, most))
        parents, bound_parents, prefixes = nodes, bound, min(prefixes * size, MANY)
    rate, source = (RATE_NS, RATE_SOURCE) if rate_file is None else _measured_rate(rate_file)
    return Plan(
        items=items,
        levels=tuple(planned),
        nbytes=sum(level.nbytes for level in planned) + _fan_out(parents, items)[1],
        bound_nbytes=sum(level.bound_nbytes for level in planned) + POINTER_BYTES * (items + 1),
        paper_nbytes=PAPER_BYTES_AN_ITEM * items,
        build_seconds=items * levels * rate * 1e-9,
        rate_source=source,
    )


def expected_nodes(items: int, prefixes: int) -> float:
    """Returns how many of `prefixes` bins hold one of `items` balls or more."""
    if prefixes == 1:
        return 1.0
    if prefixes >= MANY:
        return float(items)
    return -prefixes * math.expm1(items * math.log1p(-1 / prefixes))


def expected_max_branch(items: int, parents: int, size: int) -> int:
    """Returns the median of the largest number of children, over all possible `parents`.

    Each of a parent's codes is there with the same chance, nearly independently, so its children are binomial; the
    largest of many is where the tail times their number falls to log 2.
    """
    there = -math.expm1(-items / (parents * size))
    mean = size * there
    last = min(size, math.ceil(mean + 40 * math.sqrt(mean + 1) + 100))
    counts = np.arange(max(1, math.floor(mean)), last + 1)
    if there >= 1 or not len(counts):
        return size
    log_pmf = np.asarray([_log_choose(size, int(count)) for count in counts])
    log_pmf += counts * math.log(there) + (size - counts) * math.log1p(-there)
    tail = np.cumsum(np.exp(log_pmf[::-1] + math.log(parents)))[::-1]
    likely = counts[tail >= math.log(2)]
    return int(likely[-1]) if len(likely) else int(counts[0])


def show(planned: Plan, console: Console) -> None:
    """Prints the levels, then the sums."""
    table = Table(
        title=f"{planned.items:,} items, uniformly random SIDs, expected", box=SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )
    table.title_justify, table.title_style = "left", "bold"
    for heading in ("level", "codebook", "nodes", "at most", "max branch", "kind", "bytes", "at most"):
        table.add_column(heading, justify="left" if heading == "kind" else "right", overflow="fold")
    for level in planned.levels:
        numbers = (level.level, level.codebook_size, round(level.nodes), level.bound_nodes, level.max_branch)
        sizes = map(bytes_as_text, (level.nbytes, level.bound_nbytes))
        table.add_row(*(f"{number:,}" for number in numbers), level.representation, *sizes)
    console.print(table)
    console.print(f"[dim]{KINDS}[/]", highlight=False)
    for what, nbytes in (
        ("expected", planned.nbytes),
        ("at most, whatever the SIDs", planned.bound_nbytes),
        ("the paper's rule, 90 bytes an item", planned.paper_nbytes),
    ):
        console.print(f"{nbytes / 1e6:>12,.1f} MB  {nbytes / planned.items:6.1f} bytes an item  {what}")
    console.print(f"{planned.build_seconds:>12,.1f} s   to build, at the rate of")
    console.print(f"[dim]{planned.rate_source}[/]", highlight=False)


def _level_bytes(parents: float, nodes: float, branch: int, size: int) -> tuple[str, float]:
    representation, pointers = _fan_out(parents, nodes)
    nbytes = nodes * _code_bytes(size) + pointers
    bitmap = parents * words_of(size) * 4
    if branch * DENSE_FILL >= size and bitmap <= nbytes:
        return "dense", nbytes + bitmap
    return representation, nbytes


def _fan_out(parents: float, children: float) -> tuple[str, float]:
    """Returns how the children of each parent are told, and the bytes of it; of leaves and their items alike."""
    further = children - parents
    if further > parents / FORKED_SHARE:
        return "sparse", POINTER_BYTES * (parents + 1)
    # Half a fork is none more often than one.
    return ("forked", POINTER_BYTES * further) if further >= 0.5 else ("unary", 0.0)


def _code_bytes(size: int) -> int:
    return np.min_scalar_type(size - 1).itemsize


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _measured_rate(path: Path) -> tuple[float, str]:
    """Returns nanoseconds an item and level, and where they were measured."""
    try:
        report = json.loads(path.read_text())
        row = next(row for row in report["rows"] if row.get("method") == LABELS["hedgerow"] and row["scope"] == "build")
        rate = row["total_seconds"] / (row["items"] * row["levels"]) * 1e9
        conditions = report["conditions"]
        return rate, f"{row['items']:,} items measured on {conditions['cores']} cores of {conditions['cpu']}"
    except (OSError, ValueError, KeyError, StopIteration, TypeError, AttributeError, ZeroDivisionError) as error:
        raise ArgumentError(f"{path} is not a JSON of hedgerow bench build: {error!r}.") from None
